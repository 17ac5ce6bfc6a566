"""The MIG scenes of walk.py: layouts that follow a label, and the guide's own shell commands."""

import pathlib
import subprocess
import time

from node_under_test import Failure, NodeUnderTest, config_map_data, eventually, same

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
GPU = "nvidia.com/gpu"
SMALL, MEDIUM, LARGE = "nvidia.com/mig-1g.5gb", "nvidia.com/mig-2g.10gb", "nvidia.com/mig-4g.20gb"
# Beside the guide's two labels: one that wants GPU 0's instances away, and MIG off.
MORE_LABELS = """\
  gpu-0-1g.5gb:
    - devices: [0]
      mig-enabled: true
      mig-devices: {"1g.5gb": 7}
  all-disabled:
    - devices: all
      mig-enabled: false
"""
PACKED = "flags:\n  plugin:\n    sharedDevicesAllocationPolicy: packed\n"


def labels_of(example):
    """The text below `mig-configs:` of one of the guide's ConfigMaps."""
    return config_map_data((EXAMPLES / example).read_text())["config.yaml"].split("mig-configs:\n", 1)[1]


def mig_config():
    """The guide's two MIG ConfigMaps as one, so that a label alone chooses."""
    return "version: v1\nmig-configs:\n" + labels_of("mig-config.yaml") + labels_of("mixed-mig-config.yaml") + MORE_LABELS


class MigScenes:
    """The steps. Each uses what the ones before it left; they begin and end with 16 shares of four whole GPUs and no pod."""

    def __init__(self, walk, guide):
        self.walk = walk
        self.node = walk.node
        self.fetch = guide.fetch
        self.shared = guide.shared
        self.replicas = guide.replicas
        self.pods_run = bool(guide.pods_before)
        self.gpus = self.node.show()["gpus"]
        self.pods_before = {}

    def follow(self):
        self.all_small()
        self.inference()
        self.mixed()
        self.busy()
        self.back()
        self.by_hand()

    # --- what the checks are made of -----------------------------------------------------------------------------

    def becomes(self, wanted, since=None, seconds=10.0):
        """Allocatable becomes `wanted`, {resource: count}."""
        try:
            eventually("", lambda: self.node.all_allocatable() == wanted, seconds)
        except Failure:
            raise Failure(f"expected {wanted} allocatable, seen {self.node.all_allocatable()}; the agent says {self.node.mig_status()}") from None
        return None if since is None else f"{1000 * (time.monotonic() - since):.0f} ms"

    def ends(self, label, state, seconds=10.0):
        """What the agent says when it has finished with the label."""
        try:
            eventually("", lambda: (self.node.mig_status().get("config"), self.node.mig_status().get("state")) == (label, state), seconds)
        except Failure:
            raise Failure(f"expected label {label} to end as {state}; the agent says {self.node.mig_status()}") from None
        return self.node.mig_status()

    def run_pods(self, name, count, resource):
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "run", name, "--count", count, "--request", f"{resource}=1", "--work",
                      "--memory 1Gi --activity 0.3")
        pods = self.node.pods()
        for pod in pods.values():
            same(f"phase of {pod['name']}", pod["phase"], "Running")
        return pods

    def on_the_page(self):
        """The agent has heard of the pods from the kubelet: what it heard of once is free as soon as the pod has ended."""
        def missing():
            page = self.fetch("/")
            return [name for name in self.pods_before if f"default/{name}" not in page]

        try:
            eventually("", lambda: not missing())
        except Failure:
            raise Failure(f"the page does not name {missing()}") from None

    def remove_pods(self, *names):
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "rm", *(names or ["--all"]))

    def pods_feel_nothing(self):
        def what(pods):
            return {name: (pod["phase"], pod["pid"], pod["deviceIds"]) for name, pod in pods.items()}

        same("pods, their processes and devices", what(self.node.pods()), what(self.pods_before))

    def instances(self, gpu):
        """What stands on a GPU: generations never come twice, so equal is untouched."""
        return self.node.show()["gpus"][gpu]["gpuInstances"]

    def gpu_of(self, pod):
        for gpu in self.node.show()["gpus"]:
            if any(ci["uuid"] == pod["deviceIds"][0] for gi in gpu["gpuInstances"] for ci in gi["computeInstances"]):
                return gpu["index"]
        raise Failure(f"{pod['name']} was given {pod['deviceIds']}, which is no MIG device of this node")

    # --- the scenes ----------------------------------------------------------------------------------------------

    def all_small(self):
        n = len(self.gpus)
        self.walk.title("MIG by label (the guide's ConfigMap, examples/mig-config.yaml)")
        self.node.configure(self.shared.replace("sharing:", PACKED + "sharing:"))
        asked = self.node.set_mig_label("all-1g.5gb")
        self.walk.check(f"label all-1g.5gb: {7 * n} {SMALL} allocatable, and no whole GPU", lambda: self.becomes({SMALL: 7 * n}, asked))
        self.walk.check("the agent says success", lambda: (self.ends("all-1g.5gb", "success"), None)[1])

    def inference(self):
        self.walk.title("An instance a pod (the guide's Deployment, examples/inference-deployment.yaml)")
        if not self.pods_run:
            self.walk.leave_out("pods on MIG devices, for the same reason")
            return
        self.pods_before = {}

        def run():
            self.pods_before = self.run_pods("bert-inference", 14, SMALL)

        self.walk.check("14 pods run", run)
        self.walk.check("the agent's page names each of them", self.on_the_page)
        self.walk.check("seven on GPU 0 and seven on GPU 1: sharedDevicesAllocationPolicy packed fills a GPU first", self.packed)
        self.walk.check("nvidia-smi -L in a pod shows its one MIG device", self.smi_in_pods)
        gone = [name for name, pod in self.pods_before.items() if self.gpu_of(pod) != 1]
        self.remove_pods(*gone)
        self.pods_before = self.node.pods()

    def packed(self):
        by_gpu = {}
        for pod in self.pods_before.values():
            by_gpu.setdefault(self.gpu_of(pod), set()).add(pod["deviceIds"][0])
        same("MIG devices that pods hold, by GPU", {gpu: len(held) for gpu, held in sorted(by_gpu.items())}, {0: 7, 1: 7})

    def smi_in_pods(self):
        for name, pod in self.pods_before.items():
            device, gpu = pod["deviceIds"][0], self.gpus[self.gpu_of(pod)]
            same(f"nvidia-smi -L in {name}", self.node.in_pod(name, "nvidia-smi", "-L"),
                 f"GPU 0: {gpu['name']} (UUID: {gpu['uuid']})\n  MIG 1g.5gb      Device  0: (UUID: {device})\n")

    def mixed(self):
        self.walk.title("A mix, while " + ("seven pods run on GPU 1" if self.pods_run else "GPU 1 has its seven")
                        + " (the guide's ConfigMap, examples/mixed-mig-config.yaml)")
        before = self.node.show()["gpus"][1]
        asked = self.node.set_mig_label("mixed")
        layout = {MEDIUM: 3, SMALL: 7, LARGE: 1}
        self.walk.check(f"label mixed: 3 {MEDIUM}, 7 {SMALL}, 1 {LARGE}; GPU 3 is whole and shared: {self.replicas} {GPU}",
                        lambda: self.becomes(layout | {GPU: self.replicas}, asked))
        self.walk.check("GPU 1's seven instances are the same ones; nothing was asked of it", lambda: self.untouched(1, before))
        if self.pods_before:
            self.walk.check("its seven pods run on, same processes, same instances", self.pods_feel_nothing)
        edited = self.node.configure("version: v1\n")
        self.walk.check(f"without time-slicing GPU 3 is 1 {GPU}; the instances stay", lambda: self.becomes(layout | {GPU: 1}, edited))

    def untouched(self, index, before):
        self.ends("mixed", "success")
        now = self.node.show()["gpus"][index]
        for what in ("gpuInstances", "calls", "resets"):
            if what == "gpuInstances":  # clients come and go, instances do not
                same(f"instances of GPU {index}", *([(gi["id"], gi["generation"], [(ci["uuid"], ci["generation"]) for ci in gi["computeInstances"]])
                                                     for gi in gpu[what]] for gpu in (now, before)))
            else:
                same(f"{what} of GPU {index}", now[what], before[what])

    def busy(self):
        self.walk.title("A label that would destroy what a pod holds")
        if not self.pods_run:
            self.walk.leave_out("that it is refused: it takes a pod")
            return

        def run():
            self.pods_before = self.run_pods("training", 1, MEDIUM)
            same("GPU of the pod's instance", self.gpu_of(self.pods_before["training"]), 0)
            self.on_the_page()

        self.walk.check(f"a pod takes 1 {MEDIUM}, on GPU 0", run)
        before = self.node.show()["gpus"]
        self.node.set_mig_label("gpu-0-1g.5gb")

        def refused():
            reason = self.ends("gpu-0-1g.5gb", "failed")["reason"]
            if "training" not in reason:
                raise Failure(f"expected a reason that names the pod training, seen: {reason}")
            return reason

        def nothing_touched():
            for was, now in zip(before, self.node.show()["gpus"]):
                for what in ("gpuInstances", "calls", "resets", "migMode"):
                    if what == "gpuInstances":
                        same(f"instances of GPU {was['index']}", [gi["generation"] for gi in now[what]], [gi["generation"] for gi in was[what]])
                    else:
                        same(f"{what} of GPU {was['index']}", now[what], was[what])

        self.walk.check("the agent says failed, and who is in the way", refused)
        self.walk.check("nothing was touched, and the pods run on", lambda: (nothing_touched(), self.pods_feel_nothing(), None)[2])

    def back(self):
        n = len(self.gpus)
        self.walk.title("Back to time-slicing" + (": the pods go, MIG off" if self.pods_run else ": MIG off"))
        if self.pods_run:
            self.remove_pods()
        asked = self.node.set_mig_label("all-disabled")
        self.walk.check(f"label all-disabled: {n} {GPU} allocatable", lambda: self.becomes({GPU: n}, asked))
        edited = self.node.configure(self.shared)
        self.walk.check(f"the time-slicing ConfigMap again: {n * self.replicas} {GPU} allocatable",
                        lambda: self.becomes({GPU: n * self.replicas}, edited))

    def by_hand(self):
        """The guide's commands on a node of their own, whose administrator types them."""
        self.walk.title("The guide's shell commands, on a second node (nvidia-smi)")
        with NodeUnderTest(pathlib.Path(self.node.sim_program).parent) as other:
            def smi(code, *words):
                done = subprocess.run([other.sim_program, "exec", "--root", other.root, "--", "nvidia-smi", *words], capture_output=True,
                                      text=True, stdin=subprocess.DEVNULL, timeout=60)
                same(f"exit code of nvidia-smi {' '.join(words)} ({done.stderr.strip()})", done.returncode, code)
                return done.stdout

            def profiles(gpu):
                return [gi["profile"] for gi in other.show()["gpus"][gpu]["gpuInstances"]]

            def mode():
                same("GPUs that it enabled", smi(0, "-mig", "1").count("Enabled MIG Mode for GPU"), len(self.gpus))

            def mistake():
                said = smi(23, "mig", "-cgi", "9,9,9,9,9,9,9", "-C", "-i", "0")
                same("instances of GPU 0", profiles(0), ["3g.20gb"] * 2)
                return said.strip().splitlines()[-1]

            def meant():
                smi(0, "mig", "-dci", "-i", "0")
                smi(0, "mig", "-dgi", "-i", "0")
                smi(0, "mig", "-cgi", "19,19,19,19,19,19,19", "-C", "-i", "0")
                same("instances of GPU 0", profiles(0), ["1g.5gb"] * 7)

            self.walk.check("-mig 1: on, all four", mode)
            self.walk.check("mig -cgi 9,9,9,9,9,9,9 -C, for seven 1g.5gb, makes two 3g.20gb: 9 is that profile", mistake)
            self.walk.check("mig -dci, -dgi, then -cgi 19,19,19,19,19,19,19 -C: seven 1g.5gb", meant)
            self.walk.check("mig -lgi lists the seven", lambda: same("rows", smi(0, "mig", "-lgi").count("MIG 1g.5gb"), 7))
