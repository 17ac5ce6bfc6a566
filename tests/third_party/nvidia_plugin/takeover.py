#!/usr/bin/env python3
"""A node changes hands between NVIDIA's device plugin and the agent while pods run: takeover.py --plugin FILE --bin DIR

run.sh calls it, in a mount namespace of its own: NVIDIA's plugin always serves below /var/lib/kubelet. Whole GPUs, replicas
of them, and MIG devices: the ids are the same, a pod keeps its device through all of it, and nothing that a pod holds is
given to another one, whoever gave it.
"""

import argparse
import json
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "integration"))
sys.dont_write_bytecode = True
from node_under_test import Failure, NodeUnderTest, eventually, same  # noqa: E402

GPU = "nvidia.com/gpu"
SMALL = "nvidia.com/mig-1g.5gb"
LARGE = "nvidia.com/mig-3g.20gb"
SHARED = f"version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - name: {GPU}\n      replicas: 4\n"
WHOLE = "version: v1\n"
MIXED = "version: v1\nflags:\n  migStrategy: mixed\n"
LAYOUT = """version: v1
mig-configs:
  some:
  - devices: [0]
    mig-enabled: true
    mig-devices: {1g.5gb: 4, 3g.20gb: 1}
  - devices: [1, 2, 3]
    mig-enabled: false
"""


class Node:
    """The simulated node, the kubelet stand-in, and whoever has the node's GPUs."""

    def __init__(self, node, plugin, config):
        self.node, self.plugin = node, plugin
        node.kubelet_dir = pathlib.Path("/var/lib/kubelet")
        node.configure(config)
        self.theirs = None
        self.number = 0

    def start_theirs(self):
        # With the node's files in the system's own places: it reads MIG's minors at an absolute path.
        self.theirs = self.node._start("nvidia", self.node.sim_program, "exec", "--root", self.node.root, "--private-mounts", "--", self.plugin,
                                       "--config-file", self.node.map / self.node.key)

    def end_theirs(self, number=signal.SIGTERM):
        self.theirs.send_signal(number)
        self.theirs.wait(10)

    def end_ours(self, number=signal.SIGTERM):
        self.node.agent.send_signal(number)
        self.node.agent.wait(10)

    def offered(self, expected, seconds=20):
        try:
            eventually("", lambda: self.node.all_allocatable() == expected, seconds)
        except Failure:
            raise Failure(f"expected {expected} allocatable, seen {self.node.all_allocatable()}; the agent's last words: "
                          f"{self.node.log('agent').splitlines()[-3:]}; NVIDIA's plugin's: {self.node.log('nvidia').splitlines()[-3:]}") from None

    def run(self, resource, count=1):
        """A pod of that many devices; its name."""
        self.number += 1
        name = f"pod-{self.number}"
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "run", name, "--request", f"{resource}={count}", "--work", "--memory 100Mi")
        return name

    def remove(self, *names):
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "rm", *names)

    def holders(self):
        """{pod: (pid, devices, what its environment says)} of those that run."""
        return {name: (pod["pid"], sorted(pod["deviceIds"]), pod["env"].get("NVIDIA_VISIBLE_DEVICES"))
                for name, pod in self.node.pods().items() if pod["phase"] == "Running"}

    def all_ids(self, offered):
        """The ids that are offered: what pods hold, and what pods get that ask for all the rest."""
        held = [(resource, id) for pod in self.node.pods().values() for resource in pod["resources"] for id in pod["deviceIds"]]
        count = {resource: sum(r == resource for r, _ in held) for resource in offered}
        rest = [self.run(resource, offered[resource] - count[resource]) for resource in offered if offered[resource] > count[resource]]
        ids = {resource: [] for resource in offered}
        for pod in self.node.pods().values():
            for resource in pod["resources"]:
                ids[resource] += pod["deviceIds"]
        self.remove(*rest)
        for resource, found in ids.items():
            same(f"devices of {resource}, each held once", (len(found), len(set(found))), (offered[resource], offered[resource]))
        return {resource: sorted(found) for resource, found in ids.items()}

    def ledger(self):
        """What the agent knows to be held: [(resource, id), …]."""
        done = subprocess.run([self.node.agent_program, "list", "devices", "--root", self.node.root, "--config", self.node.map / self.node.key,
                               "--run-dir", self.node.dir / "run", "-o", "json"], capture_output=True, text=True, check=True)
        return sorted((device["resource"], device["id"]) for device in json.loads(done.stdout) if device["held"])


def changes_hands(it, offered, asks):
    """`offered`: {resource: how many}; `asks`: what pods ask for, some under each owner."""
    def given():
        return sorted((resource, id) for pod in it.node.pods().values() for resource in pod["resources"] for id in pod["deviceIds"])

    def unmoved(when):
        now = it.holders()
        same(f"{when}: the pods that ran before", {name: now.get(name) for name in before}, before)

    it.start_theirs()
    it.offered(offered)
    for resource in asks:
        it.run(resource)
    before = it.holders()
    theirs = it.all_ids(offered)

    # Ours comes while theirs is there: it waits, and says for whom.
    it.node.start_agent()
    eventually("the agent says who serves there", lambda: "is serving there; remove NVIDIA's device plugin" in it.node.log("agent"), 20)
    it.offered(offered)
    unmoved("beside NVIDIA's plugin")
    it.end_theirs()
    it.offered(offered, 10)
    unmoved("after NVIDIA's plugin")
    eventually("the agent's ledger has what NVIDIA's plugin gave out", lambda: it.ledger() == given(), 15)
    same("the ids", it.all_ids(offered), theirs)
    unmoved("after pods of ours came and went")

    # Now some of ours, and back.
    for resource in asks:
        it.run(resource)
    before.update(it.holders())
    it.end_ours()
    it.offered({})
    it.start_theirs()
    it.offered(offered)
    unmoved("given back")
    same("the ids, given back", it.all_ids(offered), theirs)

    # Killed on either side, no goodbye said.
    it.end_theirs(signal.SIGKILL)
    it.node.start_agent()
    it.offered(offered)
    unmoved("after NVIDIA's plugin was killed")
    eventually("the ledger has all that was given out", lambda: it.ledger() == given(), 15)
    same("the ids, after a kill", it.all_ids(offered), theirs)
    it.end_ours(signal.SIGKILL)
    it.start_theirs()
    it.offered(offered)
    unmoved("after the agent was killed")
    same("the ids, after another kill", it.all_ids(offered), theirs)
    it.end_theirs()
    print(f"  {', '.join(f'{count} {name}' for name, count in offered.items())}: {len(before)} pods, five changes of hands")


def fewer_replicas(it):
    """What NVIDIA's plugin gave out stays listed although the configuration has no room for it any more."""
    it.start_theirs()
    it.offered({GPU: 16})
    names = [it.run(GPU) for _ in range(10)]
    held = it.holders()
    it.end_theirs()
    it.node.configure(SHARED.replace("replicas: 4", "replicas: 2"))
    it.node.start_agent()
    eventually("all that is held is listed", lambda: len(it.ledger()) == 10, 20)
    # The ledger is there before the first list is: which must have all ten.
    eventually("the agent offers something", lambda: it.node.allocatable(GPU) > 0, 20)
    seen = it.node.allocatable(GPU)
    if seen < 10:
        raise Failure(f"{seen} are offered and 10 are held")
    same("the pods", it.holders(), held)
    it.remove(*names)
    it.offered({GPU: 8}, 30)
    it.end_ours()
    print("  ten pods of sixteen replicas under a configuration of eight: none lost its device, eight in the end")


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--plugin", required=True)
    words.add_argument("--bin", required=True)
    said = words.parse_args()
    plugin = pathlib.Path(said.plugin).resolve()
    stories = ((SHARED, None, lambda it: changes_hands(it, {GPU: 16}, [GPU] * 5)),
               (WHOLE, None, lambda it: changes_hands(it, {GPU: 4}, [GPU])),
               (MIXED, LAYOUT, lambda it: changes_hands(it, {GPU: 3, SMALL: 4, LARGE: 1}, [SMALL, GPU])),
               (SHARED, None, fewer_replicas))
    print("NVIDIA's device plugin and the agent take a node over from each other")
    begun = time.monotonic()
    for config, layout, story in stories:
        try:
            with NodeUnderTest(said.bin, gpus="4xA100-SXM4-40GB") as node:
                it = Node(node, plugin, config)
                if layout:
                    own = node.dir / "apply"
                    subprocess.run([node.agent_program, "apply", "--root", node.root, "-f", "-", "--state-dir", own, "--run-dir", own,
                                    "--kubelet-dir", own], input=layout, text=True, check=True, capture_output=True)
                node.start_kubelet()
                try:
                    story(it)
                finally:
                    node._end(it.theirs)
        except Failure as failure:
            print(f"takeover: {failure}", file=sys.stderr)
            return 1
    print(f"{len(stories)} stories in {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
