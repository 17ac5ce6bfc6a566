"""1,000 times the kubelet restarts in one way or another under one agent: kubelet_restarts.py --bin DIR [--rounds N] [--seed S]

The real agent and the kubelet stand-in, as processes. After each round every device is offered again, once, to the
kubelet that is there then; how long that took is told by kind. In the end the agent holds no descriptor and no watch
more than at the start, and no thread and no memory worth telling.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from node_under_test import Failure, NodeUnderTest, eventually, same  # noqa: E402

GPU = "nvidia.com/gpu"
GPUS = 4
SOON = 0.5  # registered again within this, from when it can be
LATE = 5.0  # nothing takes this long
ALLOWED_LATE = 0.01  # the share of rounds that a busy machine may make later than SOON
MORE_THREADS = 8
DOWN = 6.0  # seconds: longer than the agent's longest wait
# How many of 1,000 rounds are of each kind.
KINDS = {"restarted": 380, "restarted twice at once": 200, "its folder gone": 150, "our socket removed": 150, "killed": 60,
         "hung, another takes over": 58, "down, its socket left": 1, "down, no folder": 1}


def sharing(replicas):
    return ("version: v1\nsharing:\n  timeSlicing:\n    resources:\n"
            f"    - name: {GPU}\n      replicas: {replicas}\n")


class Rounds:
    def __init__(self, node, seed):
        self.node, self.random = node, random.Random(seed)
        self.plugins = node.kubelet_dir / "device-plugins"
        self.control = node.kubelet_dir / "gpuslice-sim.sock"
        self.ours = self.plugins / "nvidia-gpu.sock"
        self.replicas = 4
        self.took = {kind: [] for kind in KINDS}
        self.gaps = []
        self.hung = []

    # --- the stand-in --------------------------------------------------------------------------------------------

    def ask(self, **request):
        """One command, without a process for it: a round takes milliseconds."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(20)
            peer.connect(str(self.control))
            peer.sendall((json.dumps(request) + "\n").encode())
            said = b""
            while not said.endswith(b"\n"):
                more = peer.recv(65536)
                if not more:
                    raise Failure(f"the kubelet stand-in ended while it was asked {request}")
                said += more
        answer = json.loads(said)
        if "error" in answer:
            raise Failure(f"kubelet stand-in: {answer['error']}")
        return answer

    def seen(self):
        """(registrations, devices offered) as the kubelet has them."""
        said = self.ask(verb="node")
        return said["registrations"].get(GPU, 0), int(said["allocatable"].get(GPU, 0))

    def start_kubelet(self):
        """A new one; when its socket can be connected to."""
        self.control.unlink(missing_ok=True)
        self.node.kubelet = self.node._start("kubelet", self.node.sim_program, "kubelet", "--root", self.node.root, "--dir", self.node.kubelet_dir)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket(socket.AF_UNIX) as peer:
                try:
                    peer.connect(str(self.control))  # after it wiped the folder, and served
                    peer.close()
                    if self.plugins_served():
                        return time.monotonic()
                except OSError:
                    pass
            time.sleep(0.001)
        raise Failure(f"the kubelet stand-in does not start: {self.node.log('kubelet')}")

    def plugins_served(self):
        with socket.socket(socket.AF_UNIX) as peer:
            try:
                peer.connect(str(self.plugins / "kubelet.sock"))
                return True
            except OSError:
                return False

    def kill_kubelet(self, process=None):
        process = process or self.node.kubelet
        process.kill()
        process.wait()

    # --- the kinds: each returns when registering became possible ------------------------------------------------

    def restarted(self):
        self.ask(verb="restart")
        return time.monotonic()

    def restarted_twice_at_once(self):
        first, second = self.ask(verb="restart", times=2)["servedAtMs"]
        self.gaps.append(second - first)
        return time.monotonic()

    def remove_folder(self):
        while self.plugins.exists():  # the agent makes its socket again at once
            shutil.rmtree(self.plugins, ignore_errors=True)

    def its_folder_gone(self):
        self.remove_folder()
        if self.random.random() < 0.5:
            time.sleep(self.random.random() * 0.02)
        return self.restarted()

    def our_socket_removed(self):
        self.ours.unlink()
        return time.monotonic()

    def killed(self):
        self.kill_kubelet()
        return self.start_kubelet()

    def hung_another_takes_over(self):
        # Its streams stay open and are never read again.
        hung = self.node.kubelet
        hung.send_signal(signal.SIGSTOP)
        self.hung.append(hung)
        return self.start_kubelet()

    def down_its_socket_left(self):
        self.kill_kubelet()
        time.sleep(DOWN)
        return self.start_kubelet()

    def down_no_folder(self):
        self.kill_kubelet()
        self.remove_folder()
        time.sleep(DOWN)
        return self.start_kubelet()

    # --- a round -------------------------------------------------------------------------------------------------

    def round(self, kind):
        before = 0
        if kind not in ("killed", "hung, another takes over", "down, its socket left", "down, no folder"):
            before, _ = self.seen()
        edited = not kind.startswith("down") and self.random.random() < 0.05
        if edited:  # a list changes while nobody is there to hear of it
            self.replicas = 7 - self.replicas
            self.node.configure(sharing(self.replicas))
        begun = getattr(self, kind.replace(",", "").replace(" ", "_"))()
        self.offered(kind, before)
        if not edited:  # the edit's own delay is another matter
            self.took[kind].append(time.monotonic() - begun)
        while self.hung:
            self.kill_kubelet(self.hung.pop())

    def offered(self, kind, before):
        until = time.monotonic() + LATE
        while True:
            registrations, devices = self.seen()
            if registrations > before and devices == self.replicas * GPUS:
                return
            if time.monotonic() > until:
                raise Failure(f"{kind}: after {LATE:g} s {registrations - before} registrations, {devices} of {self.replicas * GPUS} devices; "
                              f"the agent's last words: {self.node.log('agent').splitlines()[-4:]}")
            time.sleep(0.001)

    # --- what must not grow --------------------------------------------------------------------------------------

    def open_things(self):
        """What the agent holds open, by kind, and how many paths it watches."""
        pid = self.node.agent.pid
        descriptors, watches = {}, 0
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                what = os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0]
                watches += pathlib.Path(f"/proc/{pid}/fdinfo/{fd}").read_text().count("inotify wd:")
            except OSError:
                continue  # closed meanwhile
            descriptors[what] = descriptors.get(what, 0) + 1
        return {**descriptors, "watches": watches}

    def threads(self):
        return len(os.listdir(f"/proc/{self.node.agent.pid}/task"))

    def resident_kib(self):
        return int(pathlib.Path(f"/proc/{self.node.agent.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    def settled(self, expected):
        """The agent's open things once they are no more than expected, or as they are after 10 s (dead streams are reaped then)."""
        until = time.monotonic() + 10
        while True:
            now = self.open_things()
            if all(now.get(what, 0) <= count for what, count in expected.items()) and set(now) <= set(expected) or time.monotonic() > until:
                return now
            time.sleep(0.05)

    def run(self, rounds):
        kinds = [kind for kind, count in KINDS.items() for _ in range(max(1, count * rounds // 1000))]
        self.random.shuffle(kinds)
        warm = kinds[:max(20, rounds // 20)]  # caches fill
        for kind in warm:
            if not kind.startswith("down"):
                self.round(kind)
        time.sleep(0.5)
        open_before, memory_before, threads_before = self.open_things(), self.resident_kib(), self.threads()
        begun = time.monotonic()
        for kind in kinds:
            self.round(kind)
        took = time.monotonic() - begun
        open_after = self.settled(open_before)
        self.tell(len(kinds), took)
        same("what the agent holds open", open_after, open_before)
        # gRPC keeps some for busy times; one that is lost each time would be hundreds.
        if self.threads() > threads_before + MORE_THREADS:
            raise Failure(f"threads: {threads_before} at the start, {self.threads()} in the end")
        grown = self.resident_kib() - memory_before
        print(f"memory: {memory_before} KiB, {grown:+} KiB")
        if grown > 4096:
            raise Failure(f"the agent grew by {grown} KiB in {len(kinds)} rounds")
        self.late(len(kinds))
        self.ends_well()

    def tell(self, count, took):
        print(f"{count} rounds in {took:.1f} s; two restarts at once: {statistics.median(self.gaps):.1f} ms apart (median)")
        print(f"{'registered again after':34}{'rounds':>7}{'median':>9}{'most':>9}")
        for kind, times in self.took.items():
            if times:
                print(f"  {kind:32}{len(times):>7}{statistics.median(times) * 1000:>6.0f} ms{max(times) * 1000:>6.0f} ms")

    def late(self, count):
        late = {kind: sum(t > SOON for t in times) for kind, times in self.took.items()}
        for kind, times in self.took.items():
            if times and statistics.median(times) > SOON:
                raise Failure(f"{kind}: usually later than {SOON * 1000:.0f} ms")
        if sum(late.values()) > count * ALLOWED_LATE:
            raise Failure(f"later than {SOON * 1000:.0f} ms: {late}")
        print(f"later than {SOON * 1000:.0f} ms: {sum(late.values())}")

    def ends_well(self):
        same("the agent runs", self.node.agent.poll(), None)
        # Each device once: all of them are given out, and there is no more.
        total = self.replicas * GPUS
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "run", "all", "--request", f"{GPU}={total}", "--", "/bin/sleep", "1000")
        ids = self.node.pods()["all"]["deviceIds"]
        same("devices of one pod that asks for all", (len(ids), len(set(ids))), (total, total))
        log = self.node.log("agent")
        same("lines of the log that say error", [line for line in log.splitlines() if " error " in line][:3], [])
        self.node.agent.terminate()
        same("the agent's exit", self.node.agent.wait(5), 0)
        eventually("nothing is offered then", lambda: self.seen()[1] == 0)


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--bin", required=True)
    words.add_argument("--rounds", type=int, default=1000)
    words.add_argument("--seed", type=int, default=1)
    said = words.parse_args()
    try:
        with NodeUnderTest(said.bin, gpus=f"{GPUS}xA100-SXM4-40GB") as node:
            rounds = Rounds(node, said.seed)
            node.configure(sharing(rounds.replicas))
            rounds.start_kubelet()
            node.start_agent()
            rounds.offered("the start", 0)
            try:
                rounds.run(said.rounds)
            finally:
                for process in rounds.hung:
                    rounds.kill_kubelet(process)
    except Failure as failure:
        print(f"kubelet_restarts: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
