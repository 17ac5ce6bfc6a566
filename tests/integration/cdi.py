"""CDI end to end: the agent's specs, the stand-in's runtime, pods with each strategy, and MIG under it.

Needs a mount namespace and an overlay file system (root, or a kernel that gives both to users); without them it says
so and ends well.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from node_under_test import Failure, eventually, judge, same  # noqa: E402

LIBRARY = "/usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06"
GPU_SPEC = "k8s.device-plugin.nvidia.com-gpu.json"


def config(strategy, more=""):
    return f"version: v1\nflags:\n  migStrategy: mixed\n  plugin:\n    deviceListStrategy: {strategy}\n{more}"


class Run:
    def __init__(self, node):
        self.node = node
        self.cdi = pathlib.Path(node.root) / "var/run/cdi"

    def spec(self):
        try:
            return json.loads((self.cdi / GPU_SPEC).read_text())
        except FileNotFoundError:
            return None

    def names(self):
        spec = self.spec()
        return [] if spec is None else [device["name"] for device in spec["devices"]]

    def pod(self, name, resource="nvidia.com/gpu=1"):
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "run", name, "--request", resource, "--", "sleep", "1000")
        return self.node.pods()[name]

    def seen_by(self, pod):
        """What a pod sees of the driver: device nodes, the library's size, the list of its GPUs."""
        script = f"cd /dev; echo nvidia[0-9]*; stat -c %s {LIBRARY}; nvidia-smi -L"
        return self.node.in_pod(pod, "sh", "-c", script).splitlines()

    def one_gpu(self, strategy):
        self.node.configure(config(strategy))
        eventually("a spec with both GPUs", lambda: len(self.names()) == 2)
        eventually("two GPUs on offer", lambda: self.node.allocatable() == 2)
        name = "p-" + strategy.replace(",", "-")
        pod = self.pod(name)
        same("the pod's phase", pod["phase"], "Running")
        same("NVIDIA_VISIBLE_DEVICES", pod["env"].get("NVIDIA_VISIBLE_DEVICES"), "void")
        lines = self.seen_by(name)
        same("device nodes in the pod", len(lines[0].split()), 1)
        same("the library in the pod", int(lines[1]), (pathlib.Path(self.node.root) / LIBRARY[1:]).stat().st_size)
        uuid = pod["deviceIds"][0]
        if len(lines) != 3 or uuid not in lines[2]:
            raise Failure(f"nvidia-smi -L in the pod: expected {uuid} alone, seen {lines[2:]}")
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "rm", name)

    def mig(self):
        self.node.configure(config("cdi-cri"))
        self.node.on_node("nvidia-smi", "-i", "1", "-mig", "1")
        # The agent lets the driver go when it sees the mode that is pending.
        eventually("the GPU is reset", lambda: self.was_reset(1), 15)
        self.node.on_node("nvidia-smi", "mig", "-i", "1", "-cgi", "1g.5gb,1g.5gb", "-C")
        eventually("MIG devices in the spec", lambda: sum(n.startswith("MIG-") for n in self.names()) == 2, 15)
        same("whole GPUs in the spec", sum(n.startswith("GPU-") for n in self.names()), 1)
        whole = (self.cdi / GPU_SPEC).read_text()
        (self.cdi / GPU_SPEC).unlink()
        eventually("a spec that somebody removed", lambda: self.spec() is not None, 15)
        same("it", (self.cdi / GPU_SPEC).read_text(), whole)
        eventually("MIG devices on offer", lambda: self.node.allocatable("nvidia.com/mig-1g.5gb") == 2)
        pod = self.pod("m", "nvidia.com/mig-1g.5gb=1")
        same("the pod's phase", pod["phase"], "Running")
        listed = self.node.in_pod("m", "nvidia-smi", "-L")
        if pod["deviceIds"][0] not in listed or listed.count("MIG-") != 1:
            raise Failure(f"nvidia-smi -L in the pod: expected {pod['deviceIds'][0]} alone, seen {listed!r}")
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "rm", "m")
        self.node.on_node("nvidia-smi", "mig", "-i", "1", "-dci")
        self.node.on_node("nvidia-smi", "mig", "-i", "1", "-dgi")
        eventually("no MIG device in the spec", lambda: not any(n.startswith("MIG-") for n in self.names()), 15)

    def was_reset(self, index):
        try:
            self.node.on_node("nvidia-smi", "-i", str(index), "--gpu-reset")
        except Failure as failure:
            if "In use by another client" not in str(failure):
                raise
            return False
        return True

    def leave(self):
        self.node.configure(config("volume-mounts"))
        eventually("no spec of ours", lambda: not (self.cdi / GPU_SPEC).exists())
        eventually("the GPU on offer", lambda: self.node.allocatable() >= 1)
        pod = self.pod("v")
        same("NVIDIA_VISIBLE_DEVICES", pod["env"].get("NVIDIA_VISIBLE_DEVICES"), "/var/run/nvidia-container-devices")
        listed = self.node.in_pod("v", "nvidia-smi", "-L")
        if pod["deviceIds"][0] not in listed or listed.count("GPU ") != 1:
            raise Failure(f"nvidia-smi -L in the pod: expected {pod['deviceIds'][0]} alone, seen {listed!r}")

    def imex(self):
        """A channel without its device node is left out; with it, it is in the answers."""
        self.node.configure(config("envvar", "imex: {channelIDs: [0]}\n"))
        told = "imex-channels/channel0 is not there: containers do not get the channel"
        eventually("the missing channel is told", lambda: told in self.node.log("agent"))
        same("IMEX channels", self.pod("i")["env"].get("NVIDIA_IMEX_CHANNELS"), None)
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "rm", "i")
        channels = pathlib.Path(self.node.root) / "dev/nvidia-caps-imex-channels"
        channels.mkdir()
        (channels / "channel0").touch()

        def seen():
            name = f"i{len(self.node.pods())}"
            env = self.pod(name)["env"]
            self.node.sim("pod", "--dir", self.node.kubelet_dir, "rm", name)
            return env.get("NVIDIA_IMEX_CHANNELS") == "0"

        eventually("the channel in the answer", seen)


def story(node):
    there_before = pathlib.Path(LIBRARY).exists()
    run = Run(node)
    node.start_kubelet()
    node.configure(config("envvar"))
    hook = node.root / "usr/bin/gpuslice"  # the stand-in runs hooks of the node alone
    shutil.copy(node.agent_program, hook)
    node.start_agent(more=["--cdi-hook-path", hook])
    for strategy in ("cdi-cri", "cdi-annotations", "cdi-annotations,cdi-cri"):
        run.one_gpu(strategy)
    run.mig()
    run.leave()
    run.node.sim("pod", "--dir", node.kubelet_dir, "rm", "v")
    run.imex()
    same("the driver's library on this machine itself", pathlib.Path(LIBRARY).exists(), there_before)
    print("CDI: pods run with each strategy, specs follow MIG")


def main():
    tried = subprocess.run(
        ["unshare", "-Urm" if os.geteuid() else "-m", "sh", "-c",
         "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w && "
         "mount -t overlay o -o lowerdir=/usr/bin,upperdir=/mnt/u,workdir=/mnt/w /usr/bin"],
        capture_output=True, check=False)
    if tried.returncode != 0:
        print("skipped: no mount namespace with an overlay is to be had here")
        return 0
    return judge(__doc__, "2xA100-SXM4-40GB", story)


if __name__ == "__main__":
    sys.exit(main())
