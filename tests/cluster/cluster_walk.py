#!/usr/bin/env python3
"""The agent on a simulated GPU node, against a real kubelet and API server: a line for each thing that is checked.

usage: cluster_walk.py --programs DIR --bin build/release/bin [--only walk|faults|client] [--keep-logs DIR] [--stay]

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
from cluster import NODE, SERVER, WORK_IMAGE, Cluster  # noqa: E402
from node_under_test import Failure, config_map_data, eventually  # noqa: E402
from walk_faults import Faults  # noqa: E402

EXAMPLES = HERE.parents[1] / "examples"
GPU = "nvidia.com/gpu"
SMALL = "nvidia.com/mig-1g.5gb"
KEY = "nvidia.com/device-plugin.config"
LAYOUT = "nvidia.com/mig.config"
PAUSED = "nvidia.com/gpu.deploy.dcgm"
PAGE = "127.0.0.1:9400"


def same(what, seen, expected):
    if seen != expected:
        raise Failure(f"{what}: expected {expected}, seen {seen}")


def layouts_of(*examples):
    """The guide's MIG configurations as one file: their labels beside each other."""
    head, text = "version: v1\nmig-configs:\n", ""
    for example in examples:
        text += config_map_data(example.read_text())["config.yaml"].removeprefix(head)
    return head + text


class Agent:
    """The agent and its simulated GPUs, on the cluster's node."""
    page = PAGE

    def __init__(self, cluster, bin_dir, gpus):
        self.cluster = cluster
        self.bin = pathlib.Path(bin_dir).resolve()
        self.root = cluster.gpus
        self.configs = cluster.dir / "agent" / "configs"
        self.configs.mkdir()
        self.layouts = cluster.dir / "agent" / "mig.yaml"
        self.layouts.write_text(layouts_of(EXAMPLES / "mig-config.yaml", EXAMPLES / "mixed-mig-config.yaml"))
        self.sim("create", "--root", self.root, "--gpus", gpus)

    def sim(self, *words):
        done = subprocess.run([self.bin / "gpuslice-sim", *map(str, words)], capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise Failure(f"gpuslice-sim {words[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def configure(self, text, key="default"):
        new = self.configs / f".{key}"
        new.write_text(text)
        os.rename(new, self.configs / key)

    def layout(self, name, body):
        """One more layout in the MIG configuration."""
        new = self.layouts.with_suffix(".new")
        new.write_text(self.layouts.read_text() + f"  {name}:\n{body}")
        os.rename(new, self.layouts)

    def whole_gpus(self):
        """None is lost, and none has MIG; without an agent."""
        for gpu in range(4):
            self.sim("inject", "--root", self.root, "restore", "--gpu", gpu)
        own = self.cluster.dir / "agent" / "apply"
        done = subprocess.run([self.bin / "gpuslice", "apply", "--root", self.root, "-f", "-", "--state-dir", own, "--run-dir", own, "--kubelet-dir", own],
                              input="version: v1\nmig-configs:\n  off:\n  - devices: all\n    mig-enabled: false\n", capture_output=True,
                              text=True, timeout=60)
        if done.returncode != 0:
            raise Failure(f"gpuslice apply: {done.stderr.strip()}")

    def start(self, cdi=True, server=None, more=()):
        # As on a node without NVIDIA's toolkit: containerd brings the driver in, by our specs. The simulated library
        # finds its world below /run/gpuslice-sim.
        strategy = ("--device-list-strategy", "cdi-cri", "--cdi-extra-mount", f"{self.root}:/run/gpuslice-sim:rw") if cdi else ("--no-kube",)
        if cdi:
            self.cluster.apply(RBAC.read_text())
            account = self.cluster.write_kubeconfig("agent", self.cluster.kubectl("create", "token", "gpuslice", "-n", NAMESPACE).strip())
            if server:
                account.write_text(account.read_text().replace(SERVER, server))
            strategy += ("--labels-to", "node", "--mig-config", self.layouts, "--node-name", NODE, "--kubeconfig", account)
        self.cluster.start("agent", self.bin / "gpuslice", "agent", "--root", self.root, "--config-dir", self.configs,
                           "--state-dir", self.cluster.dir / "agent" / "state", "--run-dir", "/run/gpuslice", "--listen", PAGE, *strategy, *more)

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

    def configuration(self):
        print("\nThe configuration by the Node's label nvidia.com/device-plugin.config", flush=True)
        guides = config_map_data((EXAMPLES / "time-slicing-config.yaml").read_text())["time-slicing-config"]
        self.agent.configure(guides.replace("replicas: 4", "replicas: 8"), "wide")
        self.label(**{KEY: "wide"})
        self.check("the key wide: 32 are allocatable", lambda: self.becomes(32))
        self.label(**{KEY: "wid"})
        self.check("a key that is not there is said, with the nearest", lambda: eventually(
            "it is in the log", lambda: "names the key wid, which is not there; did you mean wide?" in self.cluster.log("agent"), 10))
        self.check("32 stay", lambda: self.becomes(32))
        self.cluster.kubectl("label", "node", NODE, f"{KEY}-")
        self.check("without the label the key default: 16", lambda: self.becomes(16))
        self.check("the eight pods felt nothing", self.the_same_pods)

    def refusal(self):
        print("\nA pod asks for two replicas where one at a time is given (failRequestsGreaterThanOne)", flush=True)
        guides = config_map_data((EXAMPLES / "time-slicing-config.yaml").read_text())["time-slicing-config"]
        self.agent.configure(guides.replace("timeSlicing:\n", "timeSlicing:\n    failRequestsGreaterThanOne: true\n"), "one-each")
        self.label(**{KEY: "one-each"})
        eventually("the configuration is in force", lambda: "from " + str(self.agent.configs / "one-each") in self.cluster.log("agent"), 20)
        self.cluster.apply(pod("greedy", {GPU: 2}))
        self.check("it is refused, and reads why: UnexpectedAdmissionError", lambda: self.is_refused("greedy"))
        self.check("16 are allocatable, the eight pods felt nothing", lambda: (self.becomes(16), self.the_same_pods()))
        self.cluster.kubectl("delete", "pod", "greedy")
        self.cluster.kubectl("label", "node", NODE, f"{KEY}-")

    def is_refused(self, name):
        eventually(f"pod {name} has failed", lambda: self.phase(name) == "Failed", 60)
        status = self.cluster.get("pod", name)["status"]
        same("reason", status.get("reason"), "UnexpectedAdmissionError")
        if "2 replicas asked for, and this node gives one at a time" not in status.get("message", ""):
            raise Failure(f"message: {status.get('message')}")

    def kubelet_restarts(self):
        print("\nThe kubelet is restarted under it", flush=True)
        before = self.registrations()
        self.cluster.kill("kubelet", signal.SIGKILL)
        self.cluster.start_kubelet()
        self.check("16 are allocatable again", lambda: self.registered_again(before))
        self.check("the eight pods felt nothing", self.the_same_pods)
        self.check("a ninth pod gets a device", lambda: self.one_more("after-kubelet"))

    def registrations(self, resource=GPU):
        return self.cluster.log("kubelet").count(f'"Got registration request from device plugin with resource" resourceName="{resource}"')

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
        self.label(**{PAUSED: "paused-for-mig-change"})
        self.check("without it nothing is allocatable", lambda: self.becomes(0))
        self.check("what there was stays in capacity", lambda: same(
            "capacity", self.cluster.get("node", NODE)["status"]["capacity"].get(GPU), "16"))
        self.cluster.apply(pod("too-early", {GPU: 1}))
        self.check("a pod waits meanwhile", lambda: same("phase", self.phase("too-early"), "Pending"))
        self.agent.start()
        self.check("16 are allocatable again", lambda: self.becomes(16))
        self.check("what a crashed MIG manager had paused is set free", lambda: self.labelled({PAUSED: "true"}, 10))
        self.check("the pod that waited runs", lambda: eventually("it runs", lambda: self.phase("too-early") == "Running", 60))
        self.check("the eight pods felt nothing", self.the_same_pods)

    def health(self):
        print("\nA GPU fails", flush=True)
        self.agent.sim("inject", "--root", self.agent.root, "lose", "--gpu", 3)
        self.check("12 are allocatable, 16 are the capacity", lambda: (self.becomes(12, 30), same(
            "capacity", self.cluster.get("node", NODE)["status"]["capacity"].get(GPU), "16"))[0])
        self.check("the pods stay", self.the_same_pods)
        # The XID is heard at once, that it is lost is seen by a look: one that came back before any is only marked.
        self.check("the agent has seen that it is lost", lambda: eventually(
            "it is in the log", lambda: "its devices are unhealthy, the other GPUs are served" in self.cluster.log("agent"), 15))
        self.check("an Event of the Node says so", lambda: eventually("GpuUnhealthy", lambda: "GpuUnhealthy" in self.events(), 15))

    def label(self, **labels):
        self.cluster.kubectl("label", "--overwrite", "node", NODE, *(f"{key}={value}" for key, value in labels.items()))

    def mig(self):
        print("\nMIG by the Node's label nvidia.com/mig.config (the guide's ConfigMaps)", flush=True)
        self.cluster.kubectl("delete", "deployment", "gpu-timeslice-test")
        self.cluster.kubectl("delete", "pod", "after-kubelet", "too-early")
        self.agent.sim("inject", "--root", self.agent.root, "restore", "--gpu", 3)
        self.check("another, that it came back", lambda: eventually("GpuHealthy", lambda: "GpuHealthy" in self.events(), 15))
        eventually("the pods are gone", lambda: not self.cluster.get("pods")["items"], 90)
        self.agent.configure("version: v1\nflags:\n  migStrategy: mixed\n")
        self.check("without pods and sharing 4 whole GPUs are allocatable", lambda: self.becomes(4, 60))
        self.label(**{LAYOUT: "all-1g.5g"})
        self.check("a label that the configuration does not have: failed, the nearest is named, the GPUs stay", self.misspelt)
        self.label(**{LAYOUT: "all-1g.5gb"})
        self.check("all-1g.5gb: 28 instances are allocatable, and no whole GPU", lambda: self.allocatables({SMALL: 28, GPU: 0}))
        self.check("the Node says success, and what was asked for", lambda: self.ends("all-1g.5gb"))
        self.check("an Event tells it", lambda: eventually("MigChanged", lambda: "MigChanged" in self.events(), 10))
        for number in range(4):
            self.cluster.apply(pod(f"small-{number}", {SMALL: 1}))
        self.check("4 pods run, an instance each", lambda: eventually("they run", lambda: all(
            self.phase(f"small-{number}") == "Running" for number in range(4)), 60))
        keeper = self.pod_of_gpu(1)
        others = [f"small-{number}" for number in range(4) if f"small-{number}" != keeper]
        self.cluster.kubectl("delete", "pod", *others)
        eventually("three pods are gone", lambda: len(self.cluster.get("pods")["items"]) == 1, 60)
        before = self.cluster.get("pod", keeper)["metadata"]["uid"], self.instances_of(keeper)
        self.label(**{LAYOUT: "mixed"})
        self.check("mixed: 3 and 7 and 1 instances, and 1 whole GPU", lambda: self.allocatables(
            {"nvidia.com/mig-2g.10gb": 3, SMALL: 7, "nvidia.com/mig-4g.20gb": 1, GPU: 1}))
        self.check("the Node says success", lambda: self.ends("mixed"))
        self.check("the pod on GPU 1 ran through: same pod, same instance", lambda: same(
            "the pod", (self.cluster.get("pod", keeper)["metadata"]["uid"], self.instances_of(keeper)), before))

    def allocatables(self, wanted):
        def seen():
            return {key: max(0, self.cluster.allocatable(key)) for key in wanted}
        try:
            eventually("", lambda: seen() == wanted, 60)
        except Failure:
            raise Failure(f"expected {wanted} allocatable, seen {seen()}; the Node says {self.told()}") from None

    def told(self):
        meta = self.cluster.get("node", NODE)["metadata"]
        return {"state": meta["labels"].get(f"{LAYOUT}.state"), **{key: meta.get("annotations", {}).get(f"gpuslice/mig.{key}", "")
                                                                   for key in ("reason", "request", "since")}}

    def misspelt(self):
        try:
            eventually("", lambda: self.told()["state"] == "failed" and "did you mean all-1g.5gb?" in self.told()["reason"], 30)
        except Failure:
            raise Failure(f"the Node says {self.told()}") from None
        self.becomes(4)

    def ends(self, layout):
        try:
            eventually("", lambda: self.told()["state"] == "success" and self.told()["request"].startswith(layout + " "), 30)
        except Failure:
            raise Failure(f"the Node says {self.told()}") from None
        same("reason", self.told()["reason"], "")

    def events(self):
        return {event["reason"] for event in self.cluster.get("events", "-A")["items"] if event["involvedObject"]["name"] == NODE}

    def instances_of(self, name):
        lines = self.cluster.kubectl("exec", name, "--", "nvidia-smi", "-L").splitlines()
        return [line.split("(UUID: ")[1].rstrip(")") for line in lines if line.startswith("  MIG")]

    def pod_of_gpu(self, index):
        gpu = json.loads(self.agent.sim("show", "--root", self.agent.root, "-o", "json"))["gpus"][index]
        there = {ci["uuid"] for gi in gpu["gpuInstances"] for ci in gi["computeInstances"]}
        for number in range(4):
            if there & set(self.instances_of(f"small-{number}")):
                return f"small-{number}"
        raise Failure(f"none of four pods is on GPU {index}")

    def run(self):
        self.time_slicing()
        self.eight_pods()
        self.eight_pods_by_cdi()
        self.labels()
        self.configuration()
        self.refusal()
        self.kubelet_restarts()
        self.agent_restarts()
        self.health()
        self.mig()


def pod(name, limits):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
        "name": "c", "image": WORK_IMAGE, "imagePullPolicy": "Never", "args": ["-c", "sleep 100000"],
        "resources": {"limits": {key: str(value) for key, value in limits.items()}}}]}}


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--programs", required=True, help="the folder that build.sh named")
    words.add_argument("--bin", required=True, help="the folder of gpuslice and gpuslice-sim")
    words.add_argument("--keep-logs", help="a folder that gets the logs of all programs at the end")
    words.add_argument("--only", choices=("walk", "faults", "client"), help="a part of it")
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
            if said.only in (None, "walk"):
                walk.run()
            if said.only in (None, "faults"):
                Faults(walk).run()
            if said.only in (None, "client"):
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
