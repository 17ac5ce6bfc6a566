#!/usr/bin/env python3
"""The agent on a simulated GPU node, against a real kubelet and API server: a line for each thing that is checked.

usage: cluster_walk.py --programs DIR --bin build/release/bin [--only walk|client] [--keep-logs DIR] [--stay]

`./dev cluster` calls this. Exit 0: every check held; 1: one did not, or could not be made.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections import Counter

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
from api_client import NAMESPACE, RBAC, ApiClient  # noqa: E402
from cluster import NODE, WORK_IMAGE, Cluster  # noqa: E402
from node_under_test import Failure, config_map_data, eventually  # noqa: E402

EXAMPLES = HERE.parents[1] / "examples"
GPU = "nvidia.com/gpu"
PAGE = "127.0.0.1:9400"


def same(what, seen, expected):
    if seen != expected:
        raise Failure(f"{what}: expected {expected}, seen {seen}")


class Agent:
    """The agent and its simulated GPUs, on the cluster's node."""

    def __init__(self, cluster, bin_dir, gpus):
        self.cluster = cluster
        self.bin = pathlib.Path(bin_dir).resolve()
        self.root = cluster.gpus
        self.config = cluster.dir / "agent" / "config.yaml"
        self.sim("create", "--root", self.root, "--gpus", gpus)

    def sim(self, *words):
        done = subprocess.run([self.bin / "gpuslice-sim", *map(str, words)], capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise Failure(f"gpuslice-sim {words[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def configure(self, text):
        new = self.config.with_suffix(".new")
        new.write_text(text)
        os.rename(new, self.config)

    def start(self, cdi=True):
        # As on a node without NVIDIA's toolkit: containerd brings the driver in, by our specs. The simulated library
        # finds its world below /run/gpuslice-sim.
        strategy = ("--device-list-strategy", "cdi-cri", "--cdi-extra-mount", f"{self.root}:/run/gpuslice-sim:rw") if cdi else ("--no-kube",)
        if cdi:
            self.cluster.apply(RBAC.read_text())
            account = self.cluster.write_kubeconfig("agent", self.cluster.kubectl("create", "token", "gpuslice", "-n", NAMESPACE).strip())
            strategy += ("--labels-to", "node", "--node-name", NODE, "--kubeconfig", account)
        self.cluster.start("agent", self.bin / "gpuslice", "agent", "--root", self.root, "--config", self.config,
                           "--state-dir", self.cluster.dir / "agent" / "state", "--run-dir", "/run/gpuslice", "--listen", PAGE, *strategy)

    def metric(self, name):
        """The sum of a metric's values, or None."""
        page = self.cluster.inside(f"busybox wget -qO- http://{PAGE}/metrics")
        values = [float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(values) if values else None


class Walk:
    def __init__(self, cluster, agent):
        self.cluster, self.agent = cluster, agent
        self.held = self.failed = 0
        self.selector = "app=gpu-timeslice-test"
        self.uuids = [gpu["uuid"] for gpu in json.loads(agent.sim("show", "--root", agent.root, "-o", "json"))["gpus"]]

    def check(self, text, probe):
        started = time.monotonic()
        try:
            more = probe()
        except Failure as failure:
            self.failed += 1
            print(f"  ✗ {text}\n      {failure}\n      the agent's last words: " + " | ".join(self.cluster.log("agent").splitlines()[-3:]), flush=True)
            return
        self.held += 1
        print(f"  ✓ {text} ({more if isinstance(more, str) else f'{time.monotonic() - started:.1f} s'})", flush=True)

    def becomes(self, count, seconds=20):
        try:
            eventually("", lambda: self.cluster.allocatable(GPU) == count, seconds)
        except Failure:
            raise Failure(f"{GPU} allocatable: expected {count}, seen {self.cluster.allocatable(GPU)}") from None

    def running(self, selector, count, seconds=60):
        def look():
            pods = self.cluster.pods(selector).values()
            return len(pods) == count and all(
                pod["status"]["phase"] == "Running" and pod["status"]["containerStatuses"][0]["ready"] for pod in pods)
        try:
            eventually("", look, seconds)
        except Failure:
            seen = {name: pod["status"].get("reason") or pod["status"]["phase"] for name, pod in self.cluster.pods(selector).items()}
            raise Failure(f"{count} pods Running: seen {seen}") from None

    def environment_of(self, pods):
        return {name: self.cluster.kubectl("exec", name, "--", "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES").strip() for name in pods}

    def devices_of(self, pods):
        """The one GPU that nvidia-smi shows in each pod."""
        found = {}
        for name in pods:
            lines = self.cluster.kubectl("exec", name, "--", "nvidia-smi", "-L").splitlines()
            if len(lines) != 1 or "(UUID: " not in lines[0]:
                raise Failure(f"nvidia-smi -L in {name}: {lines}")
            found[name] = lines[0].split("(UUID: ")[1].rstrip(")")
        return found

    # --- the steps -----------------------------------------------------------------------------------------------

    def time_slicing(self):
        print("\nTime-slicing on a real kubelet (the guide's ConfigMap)", flush=True)
        self.check("4 GPUs are allocatable", lambda: self.becomes(4))
        self.agent.configure(config_map_data((EXAMPLES / "time-slicing-config.yaml").read_text())["time-slicing-config"])
        self.check("16 are, after the edit", lambda: self.becomes(16))

    def eight_pods(self):
        print("\nThe guide's Deployment", flush=True)
        self.cluster.apply((EXAMPLES / "time-slicing-test.yaml").read_text())
        self.check("8 pods run", lambda: self.running(self.selector, 8))
        self.check("two on each GPU, by NVIDIA_VISIBLE_DEVICES", lambda: self.spread(self.environment_of))
        self.cluster.kubectl("delete", "deployment", "gpu-timeslice-test")
        eventually("the pods are gone", lambda: not self.cluster.pods(self.selector), 90)

    def eight_pods_by_cdi(self):
        print("\nThe same by CDI, without NVIDIA's toolkit (--device-list-strategy cdi-cri)", flush=True)
        self.cluster.kill("agent")
        self.check("the agent leaves: nothing is allocatable", lambda: self.becomes(0))
        self.agent.start()
        self.check("16 are allocatable", lambda: self.becomes(16))
        self.cluster.apply((EXAMPLES / "time-slicing-test.yaml").read_text())
        self.check("8 pods run", lambda: self.running(self.selector, 8))
        self.check("nvidia-smi in each shows one GPU; two pods on each", lambda: self.spread(self.devices_of))
        self.check("the guide's own loop runs nvidia-smi", lambda: eventually("it says so in its log", self.smi_in_log, 40))
        self.uids = {name: pod["metadata"]["uid"] for name, pod in self.cluster.pods(self.selector).items()}

    def spread(self, devices_of):
        self.devices = devices_of(self.cluster.pods(self.selector))
        same("pods of each GPU", Counter(self.devices.values()), Counter({uuid: 2 for uuid in self.uuids}))

    def smi_in_log(self):
        return all("A100-SXM4-40GB" in said and "Running GPU workload" in said
                   for said in (self.cluster.kubectl("logs", name) for name in self.devices))

    def the_same_pods(self):
        self.running(self.selector, 8)
        now = self.cluster.pods(self.selector)
        same("pods", {name: pod["metadata"]["uid"] for name, pod in now.items()}, self.uids)
        same("restarts", sum(pod["status"]["containerStatuses"][0]["restartCount"] for pod in now.values()), 0)

    def labels(self):
        print("\nLabels on the Node (--labels-to node)", flush=True)
        expected = {"nvidia.com/gpu.count": "4", "nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-SHARED",
                    "nvidia.com/gpu.sharing-strategy": "time-slicing"}
        self.check("four GPUs, four replicas, shared", lambda: self.labelled(expected, 10))
        self.cluster.kubectl("label", "--overwrite", "node", NODE, "nvidia.com/gpu.count=7", "nvidia.com/gpu.replicas-")
        self.check("what somebody took away or changed is put right", lambda: self.labelled(expected, 60))

    def labelled(self, expected, seconds):
        def seen():
            labels = self.cluster.get("node", NODE)["metadata"]["labels"]
            return {key: labels.get(key) for key in expected}
        try:
            eventually("", lambda: seen() == expected, seconds)
        except Failure:
            raise Failure(f"labels: expected {expected}, seen {seen()}") from None

    def kubelet_restarts(self):
        print("\nThe kubelet is restarted under it", flush=True)
        before = self.registrations()
        self.cluster.kill("kubelet", signal.SIGKILL)
        self.cluster.start_kubelet()
        self.check("16 are allocatable again", lambda: self.registered_again(before))
        self.check("the eight pods felt nothing", self.the_same_pods)
        self.check("a ninth pod gets a device", lambda: self.one_more("after-kubelet"))

    def registrations(self):
        return self.cluster.log("kubelet").count(f'"Got registration request from device plugin with resource" resourceName="{GPU}"')

    def registered_again(self, before):
        # What the Node says while the kubelet is away is the old kubelet's word: look at the new one's log first.
        eventually("the new kubelet takes a registration", lambda: self.registrations() > before, 60)
        self.becomes(16, 40)

    def one_more(self, name):
        self.cluster.apply(pod(name, {GPU: 1}))
        eventually(f"pod {name} runs", lambda: self.phase(name) == "Running", 60)
        seen = self.devices_of([name])[name]
        if seen not in self.uuids:
            raise Failure(f"nvidia-smi shows {seen}: none of this node's GPUs")

    def phase(self, name):
        return self.cluster.get("pod", name)["status"]["phase"]

    def agent_restarts(self):
        print("\nThe agent is killed and started again", flush=True)
        self.cluster.kill("agent", signal.SIGKILL)
        self.check("without it nothing is allocatable", lambda: self.becomes(0))
        self.check("what there was stays in capacity", lambda: same(
            "capacity", self.cluster.get("node", NODE)["status"]["capacity"].get(GPU), "16"))
        self.cluster.apply(pod("too-early", {GPU: 1}))
        self.check("a pod waits meanwhile", lambda: same("phase", self.phase("too-early"), "Pending"))
        self.agent.start()
        self.check("16 are allocatable again", lambda: self.becomes(16))
        self.check("the pod that waited runs", lambda: eventually("it runs", lambda: self.phase("too-early") == "Running", 60))
        self.check("the eight pods felt nothing", self.the_same_pods)

    def health(self):
        print("\nA GPU fails", flush=True)
        self.agent.sim("inject", "--root", self.agent.root, "lose", "--gpu", 3)
        self.check("12 are allocatable, 16 are the capacity", lambda: (self.becomes(12, 30), same(
            "capacity", self.cluster.get("node", NODE)["status"]["capacity"].get(GPU), "16"))[0])
        self.check("the pods stay", self.the_same_pods)

    def run(self):
        self.time_slicing()
        self.eight_pods()
        self.eight_pods_by_cdi()
        self.labels()
        self.kubelet_restarts()
        self.agent_restarts()
        self.health()


def pod(name, limits):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
        "name": "c", "image": WORK_IMAGE, "imagePullPolicy": "Never", "args": ["-c", "sleep 100000"],
        "resources": {"limits": {key: str(value) for key, value in limits.items()}}}]}}


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--programs", required=True, help="the folder that build.sh named")
    words.add_argument("--bin", required=True, help="the folder of gpuslice and gpuslice-sim")
    words.add_argument("--keep-logs", help="a folder that gets the logs of all programs at the end")
    words.add_argument("--only", choices=("walk", "client"), help="a part of it")
    words.add_argument("--stay", action="store_true", help="stay up until Ctrl-C, saying how to look around")
    said = words.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        started = time.monotonic()
        with Cluster(said.programs, keep_logs=said.keep_logs) as cluster:
            print(f"A node of Kubernetes is Ready after {time.monotonic() - started:.0f} s", flush=True)
            agent = Agent(cluster, said.bin, "4xA100-SXM4-40GB")
            agent.configure("version: v1\n")
            agent.start(cdi=False)
            walk = Walk(cluster, agent)
            if said.only != "client":
                walk.run()
            if said.only != "walk":
                ApiClient(cluster, agent.bin / "kube_probe", walk.check).run()
            if said.stay:
                print("\nLook around with:\n  " + " ".join(cluster.enter(cluster.programs / "kubectl", f"--kubeconfig={cluster.dir}/pki/admin.kubeconfig", "get", "pods")))
                signal.pause()
    except KeyboardInterrupt:
        return 130
    except Failure as failure:
        print(f"cluster: {failure}", file=sys.stderr)
        print("\n0 passed, 1 failed")
        return 1
    print(f"\n{walk.held} passed, {walk.failed} failed")
    return 0 if walk.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
