#!/usr/bin/env python3
"""`gpuslice apply` and `agent status` beside the agent that serves the same node: beside_the_agent.py --bin DIR

What apply takes away is given to nobody from before the GPU is touched until the agent has looked at it again; an apply
that is killed leaves nothing behind; an agent that does not answer is not gone over.
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from node_under_test import Failure, eventually, judge, same  # noqa: E402

SMALL, HALF = "nvidia.com/mig-1g.5gb", "nvidia.com/mig-3g.20gb"
MIXED = "version: v1\nflags: {migStrategy: mixed}\n"
LAYOUTS = """version: v1
mig-configs:
  small: [{devices: [0], mig-enabled: true, mig-devices: {1g.5gb: 7}}]
  halves: [{devices: [0], mig-enabled: true, mig-devices: {3g.20gb: 2}}]
  five: [{devices: [0], mig-enabled: true, mig-devices: {1g.5gb: 5}}]
"""
OK, IN_USE, FAILED = 0, 5, 7


class Run:
    def __init__(self, node):
        self.node = node
        self.layouts = node.dir / "layouts.yaml"
        self.layouts.write_text(LAYOUTS)
        self.socket = str(node.dir / "run" / "agent.sock")

    def places(self):
        return ["--root", self.node.root, "--run-dir", self.node.dir / "run"]

    def command(self, label, *more):
        return list(map(str, [self.node.agent_program, "apply", *self.places(), "--kubelet-dir", self.node.kubelet_dir, "--state-dir",
                              self.node.dir / "state", "-f", self.layouts, "-c", label, *more]))

    def apply(self, code, label, *more):
        done = subprocess.run(self.command(label, *more), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=90)
        same(f"apply {label} {more}: {done.stdout}{done.stderr}", done.returncode, code)
        return done

    def begin(self, label, *more):
        return subprocess.Popen(self.command(label, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)

    def status(self):
        done = subprocess.run(list(map(str, [self.node.agent_program, "agent", "status", *self.places(), "-o", "json"])), capture_output=True, text=True)
        same(done.stderr, done.returncode, OK)
        return json.loads(done.stdout)

    def becomes(self, what, **counts):
        def as_wanted():
            seen = self.node.all_allocatable()
            return all(seen.get({"small": SMALL, "half": HALF, "gpu": "nvidia.com/gpu"}[name], 0) == count for name, count in counts.items())
        try:
            eventually(what, as_wanted, 15)
        except Failure as late:
            raise Failure(f"{late}; seen: {self.node.all_allocatable()}") from None

    def layout(self):
        return sorted(gi["profile"] for gi in self.node.show()["gpus"][0]["gpuInstances"])

    def journals(self):
        return list((self.node.dir / "state" / "mig").glob("*.journal"))

    def slow(self, call, seconds):
        self.node.sim("inject", "--root", self.node.root, "latency", "--call", call, "--gpu", 0, "--for", f"{seconds}s", "--times", 1)

    # -----------------------------------------------------------------------------------------------------------------

    def a_change_is_followed(self):
        self.becomes("two GPUs", gpu=2)
        self.apply(OK, "small")
        self.becomes("seven instances beside the other GPU", small=7, gpu=1)

    def what_goes_is_given_to_nobody(self):
        """… and what comes neither, before the end; the other GPU and what stays are served all the while."""
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "run", "stays", "--request", f"{SMALL}=1", "--work", "--memory 1Mi")
        self.slow("nvmlGpuInstanceDestroy", 2)
        change = self.begin("five")
        eventually("two of the six free ones are withdrawn", lambda: self.node.allocatable(SMALL) == 5, 10)
        same("nothing has gone yet", len(self.layout()), 7)
        held = self.status()["mig"]
        same("the agent says what it withholds, and for whom", (len(held["withheld"]), [one["by"] for one in held["withdrawals"]]), (2, [f"PID {change.pid}"]))
        same("served meanwhile", self.node.allocatable("nvidia.com/gpu"), 1)
        out, err = change.communicate(timeout=60)
        same(f"apply five: {out}{err}", change.returncode, OK)
        self.becomes("five", small=5)
        same("the pod runs on", self.node.pods()["stays"]["phase"], "Running")
        same("nothing is withheld any more", self.status()["mig"]["withheld"], [])

    def who_holds_it_is_named_and_nothing_is_withdrawn(self):
        done = self.apply(IN_USE, "halves")
        if "pod default/stays" not in done.stderr:
            raise Failure(f"it does not name the pod: {done.stderr}")
        same("all is offered as before", self.node.allocatable(SMALL), 5)

    def a_pod_that_has_just_ended_holds_nothing(self):
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "rm", "stays")
        eventually("its process has ended", lambda: not any(ci["clients"] for gi in self.node.show()["gpus"][0]["gpuInstances"] for ci in gi["computeInstances"]))
        begun = time.monotonic()
        self.apply(OK, "halves")
        if time.monotonic() - begun > 5:
            raise Failure("it took as long as the agent's next look at the pods")
        self.becomes("halves", small=0, half=2)

    def what_comes_waits_for_the_end(self):
        """The change is seen from outside step by step; nothing of its middle is offered."""
        self.slow("nvmlDeviceCreateGpuInstance*", 7)  # the agent looks every five seconds
        change = self.begin("small")
        eventually("the halves go", lambda: self.node.allocatable(HALF) == 0, 10)
        looks = most = 0
        while change.poll() is None:
            # Its journal is there afterwards: what was seen before was seen in the middle.
            seen = self.node.allocatable(SMALL)
            if self.journals():
                looks, most = looks + 1, max(most, seen)
            time.sleep(0.05)
        same(change.stderr.read(), change.returncode, OK)
        same("offered in the middle", (most, looks > 20), (0, True))
        self.becomes("seven", small=7, half=0)

    def killed_in_the_middle(self):
        """kill -9: the agent finishes or reverts it from the journal, offers nothing of the GPU before, and then what is there."""
        left = 0
        for n, (label, call) in enumerate([("halves", "nvmlGpuInstanceDestroy"), ("halves", "nvmlDeviceCreateGpuInstance*"), ("small", "nvmlGpuInstanceDestroy"),
                                           ("halves", "nvmlGpuInstanceCreateComputeInstance*")]):
            self.node.sim("inject", "--root", self.node.root, "hang", "--call", call, "--gpu", 0, "--after", n % 2, "--times", 1)
            change = self.begin(label)
            eventually("it is in the middle", lambda: change.poll() is not None or (self.journals() and self.node.all_allocatable().get(SMALL, 0) + self.node.all_allocatable().get(HALF, 0) == 0), 15)
            time.sleep(0.3)
            left += len(self.journals())
            change.kill()
            change.wait()
            self.node.sim("inject", "--root", self.node.root, "clear")
            eventually("its journal is gone on from", lambda: not self.journals(), 20)
            layout = self.layout()
            if layout not in (["1g.5gb"] * 7, ["3g.20gb"] * 2):
                raise Failure(f"neither old nor new: {layout}")
            self.becomes(f"what is there after {label} was killed", small=layout.count("1g.5gb"), half=layout.count("3g.20gb"))
            same("nothing is withheld any more", self.status()["mig"]["withheld"], [])
        if left == 0:
            raise Failure("no change was killed in its middle")

    def a_withdrawn_id_is_refused(self):
        """By hand: the kubelet admits what it still believed to be there."""
        uuids = [gpu["uuid"] for gpu in self.status()["gpus"]]
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.socket)
            s.settimeout(10)
            s.sendall(json.dumps({"ask": "withdraw", "gpus": {uuids[1]: [uuids[1]]}}).encode() + b"\n")
            same("the answer", json.loads(s.recv(1000)), {"withdrawn": True})
            self.becomes("withdrawn", gpu=0)
            time.sleep(1)
            same("as long as the connection lives", self.node.allocatable("nvidia.com/gpu"), 0)
        self.becomes("offered again", gpu=1)

    def an_agent_that_does_not_answer(self):
        before = self.layout()
        label = "halves" if before[0] == "1g.5gb" else "small"
        os.kill(self.node.agent.pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            done = self.apply(FAILED, label)
            if time.monotonic() - begun > 10:
                raise Failure("it waited for more than ten seconds")
            wanted = (rf"^{re.escape(self.socket)}: the agent has not answered for 5 s; nothing is changed while it may give out what goes: see "
                      r"gpuslice agent status and its log, or say --without-agent\n$")
            if not re.search(wanted, done.stderr):
                raise Failure(done.stderr)
            same("nothing is changed", (self.layout(), self.journals()), (before, []))
            status = subprocess.run(list(map(str, [self.node.agent_program, "agent", "status", *self.places()])), capture_output=True, text=True)
            same("agent status", (status.returncode, status.stderr), (FAILED, f"{self.socket}: the agent has not answered for 5 s\n"))
            self.apply(OK, label, "--without-agent")
        finally:
            os.kill(self.node.agent.pid, signal.SIGCONT)
        self.becomes("the agent sees it", small=self.layout().count("1g.5gb"), half=self.layout().count("3g.20gb"))

    def status_says_what_there_is(self):
        seen = self.status()
        same("ready", (seen["ready"], seen["whyNotReady"], seen["pid"]), (True, "", self.node.agent.pid))
        same("driver", seen["driver"]["version"], self.node.show()["driver"])
        config = seen["configuration"]
        same("configuration", (config["file"], config["generation"], config["problem"]), (str(self.node.map / self.node.key), 1, ""))
        same("fingerprint", bool(re.fullmatch("[0-9a-f]{16}", config["fingerprint"])), True)
        same("devices", sorted(d["id"] for r in seen["resources"] for d in r["devices"]), sorted(self.offered()))
        same("queues", {"event_loop", "driver", "kubelet_calls", "ledger", "withdrawals", "local_connections"} <= {q["name"] for q in seen["queues"]}, True)
        text = subprocess.run(list(map(str, [self.node.agent_program, "agent", "status", *self.places()])), capture_output=True, text=True)
        same("text", (text.returncode, text.stdout.splitlines()[1]), (OK, "state           ready"))
        same("its socket is its user's", os.stat(self.socket).st_mode & 0o777, 0o600)

    def offered(self):
        """By the agent's word, which is what one with this configuration would offer."""
        command = list(map(str, [self.node.agent_program, "list", "devices", *self.places(), "-o", "json"]))
        said, computed = (json.loads(subprocess.run([*command, *more], capture_output=True, text=True).stdout)
                          for more in ([], ["--config", str(self.node.map / self.node.key)]))
        same("list devices", said, computed)
        return [one["id"] for one in said]

    def without_an_agent(self):
        self.node.agent.terminate()
        same("it ends", self.node.agent.wait(10), 0)
        same("its socket goes with it", os.path.exists(self.socket), False)
        done = subprocess.run(list(map(str, [self.node.agent_program, "agent", "status", *self.places()])), capture_output=True, text=True)
        same("agent status", (done.returncode, done.stderr), (FAILED, f"{self.socket}: no agent runs on this node (nobody listens there); start one with "
                                                              "gpuslice agent, or name its --run-dir\n"))
        self.apply(OK, "five")

    def run(self):
        self.node.configure(MIXED)
        self.node.start_kubelet()
        self.node.start_agent()
        for step in (self.a_change_is_followed, self.what_goes_is_given_to_nobody, self.who_holds_it_is_named_and_nothing_is_withdrawn,
                     self.a_pod_that_has_just_ended_holds_nothing, self.what_comes_waits_for_the_end, self.killed_in_the_middle, self.a_withdrawn_id_is_refused,
                     self.status_says_what_there_is, self.an_agent_that_does_not_answer, self.without_an_agent):
            begun = time.monotonic()
            step()
            print(f"ok   {step.__name__.replace('_', ' ')} ({time.monotonic() - begun:.1f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(judge(__doc__, "2xA100-SXM4-40GB", lambda node: Run(node).run()))
