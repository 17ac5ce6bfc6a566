#!/usr/bin/env python3
"""Python's grpcio as the agent's kubelet: kubelet_peer.py --bin build/release/bin (with the Python of environment.sh).

Registration and the plugin's calls by another make of gRPC, and what old kubelets and careless clients do to the
socket: streams opened and dropped by the thousand, connections that end in the middle, clients that read nothing.
After all of it an event still reaches the one stream that lives.
"""

import argparse
import concurrent.futures
import os
import pathlib
import queue
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "integration"))
sys.dont_write_bytecode = True

import grpc  # noqa: E402
from deviceplugin import api_pb2 as api  # noqa: E402
from deviceplugin import api_pb2_grpc as services  # noqa: E402
from node_under_test import Failure, eventually  # noqa: E402

GPU = "nvidia.com/gpu"
SHARED = "version: v1\nsharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: %d}]}}\n"


class Registration(services.RegistrationServicer):
    def __init__(self):
        self.calls = queue.Queue()

    def Register(self, request, context):
        self.calls.put(request)
        return api.Empty()


class Watch:
    """A ListAndWatch stream that lives, read by a thread of its own."""

    def __init__(self, path):
        self.channel = grpc.insecure_channel(f"unix:{path}")
        self.lists = queue.Queue()
        self.stream = services.DevicePluginStub(self.channel).ListAndWatch(api.Empty())
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for answer in self.stream:
                self.lists.put([device.ID for device in answer.devices])
        except grpc.RpcError as ended:
            self.lists.put(ended.code())

    def next(self, seconds=5):
        try:
            return self.lists.get(timeout=seconds)
        except queue.Empty:
            raise Failure(f"no list within {seconds} s") from None


# --- HTTP/2 by hand, for what no library does any more ---------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def literal(name, value):
    """HPACK: a header as two literals, in no table and not compressed."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


HEADERS = b"".join(literal(name, value) for name, value in (
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/v1beta1.DevicePlugin/ListAndWatch"), (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"), (b"te", b"trailers")))
DATA, HEADER, RST, SETTINGS = 0, 1, 3, 4
END_STREAM, END_HEADERS = 1, 4


def by_hand(path, settings=b"", streams=1, after=b""):
    """A connection with so many ListAndWatch calls on it, and nothing ever read."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(5)
    s.connect(str(path))
    message = PREFACE + frame(SETTINGS, 0, 0, settings)
    for i in range(streams):
        message += frame(HEADER, END_HEADERS, 2 * i + 1, HEADERS) + frame(DATA, END_STREAM, 2 * i + 1, bytes(5))
    s.sendall(message + after)
    return s


class Peer:
    def __init__(self, bin_dir, folder):
        self.bin, self.dir = pathlib.Path(bin_dir).resolve(), pathlib.Path(folder)
        self.held = self.failed = 0
        self.plugins = self.dir / "kubelet" / "device-plugins"
        self.plugins.mkdir(parents=True)
        subprocess.run([self.bin / "gpuslice-sim", "create", "--root", self.dir / "node", "--gpus", "2xA100-SXM4-40GB"], check=True, capture_output=True)
        self.write("version: v1\n")
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        self.registration = Registration()
        services.add_RegistrationServicer_to_server(self.registration, self.server)
        self.server.add_insecure_port(f"unix:{self.plugins}/kubelet.sock")
        self.server.start()
        self.agent = subprocess.Popen([
            self.bin / "gpuslice", "agent", "--root", self.dir / "node", "--kubelet-dir", self.dir / "kubelet", "--config", self.dir / "config.yaml",
            "--listen", "", "--no-kube", "--state-dir", self.dir / "state", "--run-dir", self.dir / "run"],
            stderr=open(self.dir / "agent.log", "w"), stdin=subprocess.DEVNULL)

    def write(self, text):
        new = self.dir / "config.new"
        new.write_text(text)
        os.rename(new, self.dir / "config.yaml")

    def check(self, text, probe):
        try:
            probe()
        except (Failure, grpc.RpcError, OSError) as problem:
            self.failed += 1
            print(f"FAIL {text}: {problem}", flush=True)
            return
        self.held += 1
        print(f"ok   {text}", flush=True)

    def arrives(self, replicas):
        """An edit reaches the living stream within a second."""
        self.write(SHARED % replicas)
        begun = time.monotonic()
        seen = self.watch.next()
        if len(seen) != 2 * replicas or time.monotonic() - begun > 1:
            raise Failure(f"{seen} after {time.monotonic() - begun:.2f} s")

    def run(self):
        request = self.registration.calls.get(timeout=20)
        self.path = self.plugins / request.endpoint
        self.check("Register: v1beta1, nvidia.com/gpu, preferred allocation", lambda: self.equal(
            (request.version, request.resource_name, request.options.get_preferred_allocation_available), ("v1beta1", GPU, True)))
        self.watch = Watch(self.path)
        self.check("ListAndWatch: two GPUs", lambda: self.equal(len(self.watch.next()), 2))
        self.check("an edit arrives", lambda: self.arrives(4))
        self.check("Allocate", self.allocate)
        self.check("1,000 streams opened and dropped on one connection, then an edit: it arrives", lambda: (self.dropped(1000, 1), self.arrives(5)))
        self.check("1,000 connections with a stream each, dropped unread, then an edit: it arrives", lambda: (self.dropped_connections(1000), self.arrives(6)))
        self.check("1,000 streams reset in the frame after their call, by hand, then an edit: it arrives", lambda: (self.reset_at_once(1000), self.arrives(7)))
        self.check("100 clients whose window is zero and stays so (64 streams are the limit), then an edit: it arrives", lambda: (self.no_window(100), self.arrives(8)))
        self.check("connections that end in the middle of a frame, then an edit: it arrives", lambda: (self.torn(200), self.arrives(9)))
        self.check("a new client is served", lambda: self.equal(len(Watch(self.path).next()), 18))
        self.check("the agent's memory stays below 64 MiB", self.memory)
        self.check("the agent's descriptors are given back", lambda: eventually("fewer than 60", lambda: self.descriptors() < 60, 10))

    @staticmethod
    def equal(seen, expected):
        if seen != expected:
            raise Failure(f"expected {expected}, seen {seen}")

    def allocate(self):
        stub = services.DevicePluginStub(self.watch.channel)
        devices = [f"{self.uuid()}::1"]
        answer = stub.Allocate(api.AllocateRequest(container_requests=[api.ContainerAllocateRequest(devices_ids=devices)]), timeout=5)
        self.equal(dict(answer.container_responses[0].envs), {"NVIDIA_VISIBLE_DEVICES": self.uuid()})

    def uuid(self):
        out = subprocess.run([self.bin / "gpuslice-sim", "show", "--root", self.dir / "node", "-o", "json"], check=True, capture_output=True, text=True).stdout
        return out.split('"uuid": "')[1].split('"')[0] if '"uuid": "' in out else out.split('"uuid":"')[1].split('"')[0]

    def dropped(self, count, read):
        with grpc.insecure_channel(f"unix:{self.path}") as channel:
            stub = services.DevicePluginStub(channel)
            for i in range(count):
                stream = stub.ListAndWatch(api.Empty())
                if i % 2 == read:
                    next(stream)
                stream.cancel()

    def dropped_connections(self, count):
        for _ in range(count):
            by_hand(self.path).close()

    def reset_at_once(self, count):
        # RST_STREAM of each stream right behind its call, as a client does whose caller changed its mind.
        for at in range(0, count, 50):
            resets = b"".join(frame(RST, 0, 2 * i + 1, struct.pack("!I", 8)) for i in range(50))
            by_hand(self.path, streams=50, after=resets).close()

    def no_window(self, count):
        settings = struct.pack("!HI", 4, 0)  # SETTINGS_INITIAL_WINDOW_SIZE: nothing may be sent to us
        self.stuck = [by_hand(self.path, settings) for _ in range(count)]

    def torn(self, count):
        for i in range(count):
            s = socket.socket(socket.AF_UNIX)
            s.connect(str(self.path))
            whole = PREFACE + frame(SETTINGS, 0, 0) + frame(HEADER, END_HEADERS, 1, HEADERS) + frame(DATA, END_STREAM, 1, bytes(5))
            s.sendall(whole[:1 + i * (len(whole) - 1) // count])
            s.close()
        for s in self.stuck:
            s.close()

    def memory(self):
        kib = int(next(line for line in pathlib.Path(f"/proc/{self.agent.pid}/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])
        if kib > 64 * 1024:
            raise Failure(f"{kib} KiB")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.agent.pid}/fd"))

    def close(self):
        self.agent.terminate()
        try:
            self.agent.wait(10)
        except subprocess.TimeoutExpired:
            self.agent.kill()
            self.failed += 1
            print("FAIL the agent did not end within 10 s of SIGTERM")
        self.server.stop(None)


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--bin", required=True)
    said = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpuslice-peer-") as folder:
        peer = Peer(said.bin, folder)
        try:
            peer.run()
        except (Failure, queue.Empty) as problem:
            peer.failed += 1
            print(f"FAIL {problem}; the agent said: {pathlib.Path(folder, 'agent.log').read_text()[-500:]}")
        finally:
            peer.close()
    print(f"{peer.held} passed, {peer.failed} failed")
    return 0 if peer.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
