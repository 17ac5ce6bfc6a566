#!/usr/bin/env python3
"""Clients that mean no good, on every socket of the agent at once: hostile.py --bin DIR

The page's port, the agent's own socket and the kubelet's: connections by the hundred that say nothing, slowly, garbage,
or without end, and such as never read an answer. All the while an edit reaches the kubelet within a second and pods are
admitted; the agent's memory and descriptors stay bounded, and are given back.
"""

import contextlib
import os
import pathlib
import random
import resource
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from node_under_test import Failure, eventually, judge, same  # noqa: E402

SLICE = "nvidia.com/slice"  # of GPU 0; GPU 1 is nvidia.com/gpu, with a socket of its own
SHARED = "version: v1\nsharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, rename: slice, devices: [0], replicas: %d}]}}\n"
# 64 MiB for the buffers of gRPC, whatever the sockets, and what the agent has at rest.
MOST_MEMORY_KIB = 100 * 1024
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def literal(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def call(method):
    return b"".join(literal(name, value) for name, value in (
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/v1beta1.DevicePlugin/" + method), (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"), (b"te", b"trailers")))


class Run:
    def __init__(self, node):
        self.node = node
        self.replicas = 4
        self.pods = 0

    def tcp(self):
        host, port = self.node.listen.split(":")
        s = socket.create_connection((host, int(port)), timeout=5)
        return s

    def unix(self, path):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(5)
        s.connect(str(path))
        return s

    def doors(self):
        return (("the page's port", self.tcp), ("the agent's socket", lambda: self.unix(self.node.dir / "run" / "agent.sock")),
                ("a plugin's socket", lambda: self.unix(self.node.kubelet_dir / "device-plugins" / "nvidia-slice.sock")),
                ("the other one's", lambda: self.unix(self.node.kubelet_dir / "device-plugins" / "nvidia-gpu.sock")))

    def memory(self):
        return int(next(line for line in pathlib.Path(f"/proc/{self.node.agent.pid}/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.node.agent.pid}/fd"))

    def served(self, what):
        """An edit reaches the kubelet, and a pod is admitted and runs."""
        self.replicas = 4 if self.replicas == 5 else 5
        self.node.configure(SHARED % self.replicas)
        try:
            eventually("", lambda: self.node.allocatable(SLICE) == self.replicas, 2)
        except Failure:
            raise Failure(f"{what}: an edit did not reach the kubelet within 2 s") from None
        self.pods += 1
        name = f"pod-{self.pods}"
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "run", name, "--request", f"{SLICE}=1")
        same(f"{what}: a pod", self.node.pods()[name]["phase"], "Running")
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "rm", name)
        if self.memory() > MOST_MEMORY_KIB:
            raise Failure(f"{what}: the agent has {self.memory()} KiB")

    def under(self, what, attack):
        """While `attack(connect)` goes on at each socket."""
        with contextlib.ExitStack() as held:
            for _, connect in self.doors():
                attack(connect, held)
            self.served(what)

    @staticmethod
    def connected(connect, held):
        """One more connection, or nothing: refused, or closed at once."""
        with contextlib.suppress(OSError):
            return held.enter_context(contextlib.closing(connect()))

    def many(self, connect, held):
        for _ in range(300):
            self.connected(connect, held)

    def slow(self, connect, held):
        """Each says a little from time to time, and never an end."""
        clients = [one for one in (self.connected(connect, held) for _ in range(100)) if one]
        stop = threading.Event()
        held.callback(stop.set)

        def drip():
            text = b"GET / HTTP/1.1\r\nHost: x\r\nX: "
            for i in range(10_000):
                for one in clients:
                    with contextlib.suppress(OSError):
                        one.send(text[i:i + 1] or b"a")
                if stop.wait(0.2):
                    return

        threading.Thread(target=drip, daemon=True).start()

    def garbage(self, connect, held):
        chance = random.Random(7)
        for _ in range(200):
            one = self.connected(connect, held)
            if one:
                with contextlib.suppress(OSError):
                    one.sendall(chance.randbytes(chance.randrange(1, 3000)))

    def endless(self, connect, held):
        """As much as is taken within a second: no line's end, a header without end, an HTTP/2 frame after the other."""
        for first in (b"", b"GET / HTTP/1.1\r\nX: ", b"{\"ask\": \"", PREFACE + frame(4, 0, 0)):
            one = self.connected(connect, held)
            if not one:
                continue
            one.settimeout(0.2)
            until = time.monotonic() + 1
            with contextlib.suppress(OSError):
                one.sendall(first)
                while time.monotonic() < until:
                    one.send(b"x" * 65536)

    def huge(self, connect, held):
        """A message said to be of four gigabytes, and one that is of sixteen megabytes, by every method."""
        for method in (b"Allocate", b"GetPreferredAllocation", b"ListAndWatch", b"GetDevicePluginOptions"):
            for length, sent in ((0xFFFFFFFF, 1 << 20), (16 << 20, 16 << 20)):
                one = self.connected(connect, held)
                if not one:
                    continue
                one.settimeout(0.2)
                with contextlib.suppress(OSError):
                    one.sendall(PREFACE + frame(4, 0, 0) + frame(1, 4, 1, call(method)))
                    one.sendall(frame(0, 0, 1, struct.pack("!BI", 0, length)))
                    # More than the window that was granted: the server may close, and need not take it.
                    for _ in range(sent // 16384):
                        one.sendall(frame(0, 0, 1, b"\xff" * 16384))

    def never_reads(self, connect, held):
        """Asks for all there is, on one connection after the other, and takes nothing."""
        for question in (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50, b"{\"ask\": \"status\"}\n", PREFACE + frame(4, 0, 0, struct.pack("!HI", 4, 0)) + b"".join(
                frame(1, 4, 2 * i + 1, call(b"ListAndWatch")) + frame(0, 1, 2 * i + 1, bytes(5)) for i in range(90))):
            for _ in range(15):
                one = self.connected(connect, held)
                if one:
                    with contextlib.suppress(OSError):
                        one.sendall(question)

    def leases(self, connect, held):
        """Withdrawals of what is not there, of too much, and more of them than there may be; none of a device that is served."""
        for text in (b'{"ask": "withdraw", "gpus": {"GPU-none": ["GPU-none"]}}', b'{"ask": "withdraw"}', b'{"ask": "withdraw", "gpus": 3}',
                     b'{"ask": "withdraw", "gpus": {"a": {"b": 1}}}', b'{"ask": 1}', b"[" * 60000, b'{"a":' * 10000, b"\xff\xfe", b"{}"):
            for _ in range(20):
                one = self.connected(connect, held)
                if one:
                    with contextlib.suppress(OSError):
                        one.sendall(text + b"\n")

    def flood(self):
        """Thousands of connections to the plugins' sockets that stay, and more without end: the kubelet's stream lives, a new kubelet gets in."""
        node, doors, stop = self.node, [connect for _, connect in self.doors()[2:]], threading.Event()
        descriptors, memory = self.descriptors(), self.memory()
        most, registrations = [0, 0], node.metric("gpuslice_registrations_total", resource=SLICE)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))

        def come(connect, held):
            for i in range(1_000_000):
                if i < 2000:
                    self.connected(connect, held)
                else:
                    with contextlib.suppress(OSError):
                        connect().close()
                if stop.is_set():
                    return

        def watch():
            while not stop.wait(0.01):
                most[:] = max(most[0], self.descriptors()), max(most[1], self.memory())

        with contextlib.ExitStack() as held:
            threads = [threading.Thread(target=come, args=(connect, held), daemon=True) for connect in doors] + [threading.Thread(target=watch, daemon=True)]
            for thread in threads:
                thread.start()
            for name in (SLICE, "nvidia.com/gpu"):
                eventually(f"connections beyond the limit of {name} are counted",
                           lambda name=name: float(node.metric("gpuslice_queue_refused_total", queue=f"connections {name}")[0]) > 3000, 20)
                same("connections up to the limit", [float(n) for n in node.metric("gpuslice_queue_length", queue=f"connections {name}")], [64.0])
            self.served("a flood of connections")
            same("the kubelet's stream lives", node.metric("gpuslice_registrations_total", resource=SLICE), registrations)
            node.kubelet.terminate()
            node.kubelet.wait(10)
            node.start_kubelet()
            eventually("a new kubelet is served", lambda: node.allocatable(SLICE) == self.replicas, 10)
            self.served("a new kubelet in a flood of connections")
            stop.set()
            for thread in threads:
                thread.join()
        # Two of ours for each of 64 connections to two sockets, and as many that gRPC has yet to close; some for what the agent does meanwhile.
        if most[0] > descriptors + 3 * 2 * 64 + 20 or most[1] > memory + 16 * 1024:
            raise Failure(f"a flood of connections: the agent had {most[0]} descriptors after {descriptors}, and {most[1]} KiB after {memory}")
        eventually("descriptors are given back", lambda: self.descriptors() <= descriptors + 4, 20)
        print(f"ok   a flood of connections ({most[0]} descriptors of {descriptors}, {most[1] // 1024} MiB of {memory // 1024} at most)", flush=True)

    def without_descriptors(self):
        """As many connections as the agent may open: an edit of that time is not lost, and a kubelet that starts afterwards is served."""
        node, replicas = self.node, 7
        limits = resource.prlimit(node.agent.pid, resource.RLIMIT_NOFILE)
        same("descriptors are asked for", limits[0], min(limits[1], 65536))
        few = self.descriptors() + 30
        resource.prlimit(node.agent.pid, resource.RLIMIT_NOFILE, (few, limits[1]))
        with contextlib.ExitStack() as held:
            for door in (2, 3, 0):  # the last takes them one by one
                for _ in range(100):
                    self.connected(self.doors()[door][1], held)
            eventually("none or one is left", lambda: self.descriptors() >= few - 1)
            resource.prlimit(node.agent.pid, resource.RLIMIT_NOFILE, (8, limits[1]))  # connections take two: not that one either
            node.configure(SHARED % replicas)
            eventually("the edit cannot be read", lambda: "Too many open files" in node.log("agent"), 5)
            same("served as before", node.allocatable(SLICE), self.replicas)
            resource.prlimit(node.agent.pid, resource.RLIMIT_NOFILE, (few, limits[1]))
        eventually("the edit is read", lambda: node.allocatable(SLICE) == replicas, 5)
        resource.prlimit(node.agent.pid, resource.RLIMIT_NOFILE, limits)
        self.replicas = 4
        node.configure(SHARED % self.replicas)
        node.kubelet.terminate()
        node.kubelet.wait(10)
        node.start_kubelet()
        eventually("a new kubelet is served", lambda: node.allocatable(SLICE) == self.replicas, 10)
        print("ok   without descriptors", flush=True)

    def run(self):
        node = self.node
        node.configure(SHARED % self.replicas)
        node.start_kubelet()
        node.start_agent()
        eventually("four slices", lambda: node.allocatable(SLICE) == 4, 15)
        self.served("at rest")
        descriptors, memory = self.descriptors(), self.memory()
        for what, attack in (("300 connections that say nothing", self.many), ("slow ones", self.slow), ("garbage", self.garbage), ("endless questions", self.endless),
                             ("huge messages", self.huge), ("answers that nobody reads", self.never_reads), ("odd withdrawals", self.leases)):
            begun = time.monotonic()
            self.under(what, attack)
            print(f"ok   {what} ({time.monotonic() - begun:.1f} s, {self.memory() // 1024} MiB)", flush=True)
        eventually("descriptors are given back", lambda: self.descriptors() <= descriptors + 4, 20)
        for name in ("http_connections", "local_connections"):
            refused = [float(count) for count in node.metric("gpuslice_queue_refused_total", queue=name)]
            if not refused or not refused[0]:
                raise Failure(f"what was refused by {name} is not counted: {refused}")
        same("the limit is told", [float(limit) for limit in node.metric("gpuslice_queue_limit", queue="local_connections")], [16.0])
        eventually("health", lambda: node.get("/healthz") == "ok\n")
        self.served("afterwards")
        self.flood()
        self.without_descriptors()
        self.served("with descriptors again")
        print(f"ok   given back: {self.descriptors()} descriptors of {descriptors}, {self.memory() // 1024} MiB of {memory // 1024}")


if __name__ == "__main__":
    sys.exit(judge(__doc__, "2xA100-SXM4-40GB", lambda node: Run(node).run()))
