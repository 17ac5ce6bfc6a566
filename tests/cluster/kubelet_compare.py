#!/usr/bin/env python3
"""The same story told by a device plugin to the real kubelet and to the stand-in: every difference is printed.

usage: kubelet_compare.py --programs DIR --bin build/release/bin --python PYTHON

PYTHON has grpcio (tests/third_party/python_grpcio/environment.sh). `./dev cluster` calls this. A device plugin
(spy_plugin.py) serves four devices, pods come and go, the plugin fails, goes and comes back, the kubelet restarts; what
the kubelet asks of the plugin, what it says of pods, devices and quantities is written down for both and compared.
"""

import argparse
import json
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
from cluster import NODE, WORK_IMAGE, Cluster  # noqa: E402
from node_under_test import Failure, eventually  # noqa: E402

RESOURCE = "test.example/dev"
DEVICES = "devices d0@0 d1@0 d2@1 d3"


class Spy:
    def __init__(self, command):
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.done, self.calls = queue.Queue(), []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            said = json.loads(line)
            (self.calls.append if "call" in said else self.done.put)(said)

    def do(self, command):
        self.process.stdin.write(command + "\n")
        try:
            return self.done.get(timeout=20)["said"]
        except queue.Empty:
            raise Failure(f"the plugin did not answer '{command}'") from None

    def since(self):
        """What the kubelet called since the last time, without when it looks at the options."""
        calls, self.calls[:] = list(self.calls), []
        return calls

    def close(self):
        self.process.kill()
        self.process.wait()


class Real:
    """The real kubelet."""
    name = "kubelet"

    def __init__(self, cluster, python):
        self.cluster = cluster
        self.spy = Spy(cluster.enter(python, HERE / "spy_plugin.py", "/var/lib/kubelet"))

    def quantities(self):
        status = self.cluster.get("node", NODE)["status"]
        return [int(status[which].get(RESOURCE, 0)) for which in ("capacity", "allocatable")]

    def run_pod(self, name, count, init=0):
        def container(which, amount):
            return {"name": which, "image": WORK_IMAGE, "imagePullPolicy": "Never", "args": ["-c", "sleep 100000" if which == "main" else "true"],
                    "resources": {"limits": {RESOURCE: str(amount)}} if amount else {}}
        spec = {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [container("main", count)]}
        if init:
            spec["initContainers"] = [container("init", init)]
        self.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    def pod(self, name):
        pod = self.cluster.get("pod", name)
        if pod is None:
            return None
        status = pod["status"]
        return {"phase": status["phase"], "reason": status.get("reason", ""), "message": status.get("message", "")}

    def remove_pod(self, name):
        self.cluster.kubectl("delete", "pod", name, "--wait=true")

    def restart(self):
        self.down()
        self.up()

    def restart_twice(self):
        self.restart()
        self.restart()

    def down(self):
        self.cluster.kill("kubelet", signal.SIGKILL)

    def up(self):
        self.cluster.start_kubelet()


class StandIn:
    """gpuslice-sim kubelet."""
    name = "stand-in"

    def __init__(self, folder, bin_dir, python):
        self.sim, self.root, self.dir = pathlib.Path(bin_dir).resolve() / "gpuslice-sim", folder / "node", folder / "kubelet"
        self._sim("create", "--root", self.root, "--gpus", "1xA100-SXM4-40GB")
        self.up()
        self.spy = Spy([python, HERE / "spy_plugin.py", self.dir])

    def _sim(self, *words, check=True):
        done = subprocess.run([self.sim, *map(str, words)], capture_output=True, text=True, timeout=60)
        if check and done.returncode != 0:
            raise Failure(f"gpuslice-sim {words[0]}: {done.stderr.strip()}")
        return done.stdout

    def quantities(self):
        said = json.loads(self._sim("node", "--dir", self.dir, "-o", "json"))
        return [int(said[which].get(RESOURCE, 0)) for which in ("capacity", "allocatable")]

    def run_pod(self, name, count, init=0):
        # Not through `pod run`, which waits until the pod runs.
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(self.dir / "gpuslice-sim.sock"))
            s.sendall((json.dumps({"verb": "run", "name": name, "request": {RESOURCE: count}, "init": {RESOURCE: init} if init else {},
                                   "command": ["/bin/sleep", "100000"]}) + "\n").encode())
            s.recv(65536)

    def pod(self, name):
        for pod in json.loads(self._sim("pod", "--dir", self.dir, "ls", "-o", "json")):
            if pod["name"] == name:
                return {key: pod.get(key, "") for key in ("phase", "reason", "message")}
        return None

    def remove_pod(self, name):
        self._sim("pod", "--dir", self.dir, "rm", name)

    def restart(self):
        self._sim("kubelet-restart", "--dir", self.dir)

    def restart_twice(self):
        self._sim("kubelet-restart", "--dir", self.dir, "--times", "2")

    def down(self):
        self.process.kill()
        self.process.wait()

    def up(self):
        (self.dir / "gpuslice-sim.sock").unlink(missing_ok=True)
        self.process = subprocess.Popen([self.sim, "kubelet", "--root", self.root, "--dir", self.dir])
        eventually("the stand-in serves", (self.dir / "gpuslice-sim.sock").exists)

    def close(self):
        self.process.terminate()
        self.process.wait()


def story(it):
    """What is seen, step by step: [(what, seen), …]."""
    seen, spy = [], it.spy

    def note(what, value):
        seen.append((what, value))

    def settles(expected, seconds=20):
        """The quantities once they are as expected, or as they are then."""
        until = time.monotonic() + seconds
        while it.quantities() != expected and time.monotonic() < until:
            time.sleep(0.05)
        return it.quantities()

    def ends(name, *phases):
        try:
            eventually("", lambda: (it.pod(name) or {}).get("phase") in phases, 30)
        except Failure:
            pass
        return it.pod(name)

    def pod_step(what, name, count, init=0, phases=("Running", "Failed"), remove=False, chance=False):
        spy.since()
        it.run_pod(name, count, init)
        note(f"{what}: the pod", ends(name, *phases))
        calls = spy.since()
        if chance:
            # How many, of what may be taken: a later container's of the first one's.
            allowed = set(calls[0]["available"]) if calls else set()
            for call in calls[1:]:
                if set(call["ids"]) <= allowed:
                    allowed, call["ids"] = set(call["ids"]), len(call["ids"])
        note(f"{what}: calls", calls)
        if remove:
            it.remove_pod(name)

    note("registration of a plugin that does not serve", spy.do("register").split(":")[0])
    spy.since()
    for command in ("serve", DEVICES, "register"):
        spy.do(command)
    note("quantities of four devices", settles([4, 4]))
    note("calls at registration", spy.since())
    note("allocatable resources", spy.do("allocatable"))
    pod_step("one device", "a", 1)
    pod_step("two devices", "b", 2)
    note("pod-resources", spy.do("pods"))
    spy.do("prefer none")
    pod_step("the last device, no preference", "c", 1)
    spy.since()
    it.run_pod("waits", 1)
    time.sleep(1.5)
    note("a pod too many: phase", it.pod("waits")["phase"])
    note("a pod too many: calls", spy.since())
    it.remove_pod("c")
    note("its turn comes when a device is free", ends("waits", "Running"))
    for name in ("a", "b", "waits"):
        it.remove_pod(name)
    time.sleep(1)
    note("pod-resources without pods", [line for line in spy.do("pods") if line[1]])
    spy.do("prefer highest")
    # Which of its two the kubelet hands on is chance (the order of a map in Go).
    pod_step("an init container of two, then one", "i", 1, init=2, chance=True)
    note("pod-resources of an init container", [[name, len(devices)] for name, devices in spy.do("pods")])
    pod_step("what an init container had is not given away", "j", 2, remove=True)
    it.remove_pod("i")
    time.sleep(1)
    spy.do("prefer nonsense")
    # Without one that counts the kubelet takes any (the order of a map in Go); the stand-in the lowest.
    pod_step("a preference for what is not there", "n", 2, remove=True, chance=True)
    time.sleep(1)
    spy.do("prefer highest")
    spy.do("devices d0 d1:bad d2 d3:bad")
    note("two unhealthy", settles([4, 2]))
    note("allocatable resources, two unhealthy", spy.do("allocatable"))
    pod_step("healthy ones only", "h", 2, remove=True)
    spy.do("devices d0 d1")
    note("two devices are gone", settles([2, 2]))
    spy.do("devices")
    note("an empty list", settles([0, 0]))
    spy.do("devices d0 d1 d2 d3")
    note("all are back", settles([4, 4]))
    spy.do("fail out of order")
    pod_step("Allocate fails", "f", 1, phases=("Failed",), remove=True)
    spy.do("heal")
    pod_step("a pod that stays", "s", 1)
    spy.do("devices d0 d1 d2")
    note("the held device is gone", settles([3, 3]))
    note("the pod that holds it", it.pod("s"))
    note("pod-resources of a device that is gone", spy.do("pods"))
    spy.do("devices d0 d1 d2 d3")
    settles([4, 4])
    spy.do("stop")
    note("the plugin is gone", settles([4, 0]))
    it.run_pod("w", 1)
    time.sleep(1.5)
    note("a pod without a plugin: phase", it.pod("w")["phase"])
    spy.since()
    spy.do("serve")
    spy.do("register")
    note("the plugin is back", settles([4, 4]))
    note("the pod that waited", ends("w", "Running"))
    it.remove_pod("w")
    spy.since()
    spy.do("register")
    time.sleep(1)
    note("registered twice: calls", spy.since())
    note("registered twice: quantities", settles([4, 4]))
    for words in ("v1alpha test.example/dev", "v1beta1 dev", "v1beta1 test.example/-dev", "v1beta1 kubernetes.io/dev"):
        note(f"registered as {words}", spy.do(f"register {words}"))
    note("wrong registrations: quantities", settles([4, 4]))
    spy.do("prefer fail")
    pod_step("the preference fails", "pf", 1, phases=("Failed",), remove=True)
    spy.do("prefer highest")
    spy.do("unlink")
    time.sleep(1)
    note("the plugin's socket is removed under its stream: quantities", settles([4, 4]))
    pod_step("the plugin's socket is removed under its stream", "u", 1, remove=True)
    spy.do("stop")
    settles([4, 0])
    spy.do("serve")
    spy.do("register")
    note("served and registered anew", settles([4, 4]))
    # Not told: a device that leaves the list between the kubelet's choice and Allocate's answer ends kubelet 1.34.
    # Beyond the four mebibytes that a message may have.
    spy.do("flood 50000")
    note("a list that is too long", settles([4, 0]))
    spy.do("stop")
    spy.do("devices d0 d1 d2 d3")
    spy.do("serve")
    spy.do("register")
    note("a list that fits again", settles([4, 4]))
    spy.do("file somebodys")
    spy.do("directory folder")
    it.restart()
    time.sleep(3)
    note("the kubelet restarts: its folder", [name for name in spy.do("folder") if "checkpoint" not in name])
    note("the kubelet restarts: quantities", settles([0, 0], 10))
    note("the kubelet restarts: pod-resources", [line for line in spy.do("pods") if line[1]])
    spy.do("stop")
    spy.do("serve")
    spy.do("register")
    note("registered with the new kubelet", settles([4, 4]))
    note("the pod that stayed", it.pod("s"))
    spy.since()
    spy.do("prefer none")
    pod_step("what the pod that stayed holds is not given away", "t", 3)
    note("pod-resources at the end", spy.do("pods"))
    it.remove_pod("t")
    it.restart_twice()
    time.sleep(3)
    note("restarted twice at once: its folder", [name for name in spy.do("folder") if "checkpoint" not in name])
    spy.do("stop")
    spy.do("serve")
    spy.do("register")
    note("restarted twice at once: quantities", settles([4, 4]))
    note("restarted twice at once: the pod that stayed", it.pod("s"))
    it.remove_pod("s")
    it.down()
    time.sleep(1)
    note("killed: its folder", [name for name in spy.do("folder") if "checkpoint" not in name])
    note("killed: a registration", spy.do("register").split(":")[0])
    it.up()
    time.sleep(3)
    note("up again: its folder", [name for name in spy.do("folder") if "checkpoint" not in name])
    spy.do("stop")
    spy.do("serve")
    spy.do("register")
    note("up again: quantities", settles([4, 4]))
    return seen


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--programs", required=True)
    words.add_argument("--bin", required=True)
    words.add_argument("--python", required=True)
    words.add_argument("--show", action="store_true", help="also what is the same")
    said = words.parse_args()
    same = different = 0
    try:
        with tempfile.TemporaryDirectory(prefix="gpuslice-compare-") as folder:
            stand_in = StandIn(pathlib.Path(folder), said.bin, said.python)
            try:
                ours = story(stand_in)
            finally:
                stand_in.spy.close()
                stand_in.close()
        with Cluster(said.programs) as cluster:
            theirs = story(Real(cluster, said.python))
    except Failure as failure:
        print(f"kubelet_compare: {failure}\n0 passed, 1 failed")
        return 1
    for (what, real), (_, stood_in) in zip(theirs, ours, strict=True):
        if real == stood_in:
            same += 1
            if said.show:
                print(f"  = {what}: {json.dumps(real)}")
            continue
        different += 1
        print(f"  ≠ {what}\n      kubelet:  {json.dumps(real)}\n      stand-in: {json.dumps(stood_in)}")
    print(f"{same} passed, {different} failed")
    return 0 if different == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
