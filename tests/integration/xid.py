"""XIDs end to end: the agent hears what the driver reports, and the kubelet gets just the right devices as unhealthy: xid.py --bin DIR

Whole GPUs with replicas, MIG devices one by one, restarts, ignored XIDs, and that a GPU's mode can still be switched
although the agent waits for events with the driver open.
"""

import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from node_under_test import Failure, eventually, judge, same  # noqa: E402

GPU = "nvidia.com/gpu"
SMALL = "nvidia.com/mig-1g.5gb"
REPLICAS = """version: v1
flags:
  migStrategy: mixed
sharing:
  timeSlicing:
    resources:
    - name: nvidia.com/gpu
      replicas: 4
"""
LAYOUTS = """version: v1
mig-configs:
  small:
  - devices: [1]
    mig-enabled: true
    mig-devices: {1g.5gb: 7}
  off:
  - devices: all
    mig-enabled: false
"""


class Run:
    def __init__(self, node):
        self.node = node
        self.label = node.dir / "mig-label"
        self.layouts = node.dir / "layouts.yaml"
        self.layouts.write_text(LAYOUTS)
        self.label.write_text("")

    def agent(self, **environment):
        os.environ.update(environment)
        try:
            self.node.start_agent(more=["--mig-config", self.layouts, "--mig-label-file", self.label])
        finally:
            for name in environment:
                del os.environ[name]
        self.node.watched(range(2))

    def kill_agent(self):
        self.node.agent.kill()
        self.node.agent.wait()

    def xid(self, gpu, code, *more):
        self.node.sim("inject", "xid", "--root", self.node.root, "--gpu", gpu, "--code", code, *more)

    def stays(self, resource, count, seconds=2.0):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            same(f"{resource} allocatable", self.node.allocatable(resource), count)
            time.sleep(0.1)

    def whole_gpus(self):
        self.node.becomes(GPU, 8)
        self.xid(0, 31)
        self.stays(GPU, 8)
        before = time.monotonic()
        self.xid(0, 79)
        self.node.becomes(GPU, 4, 2)
        print(f"XID 79 to the kubelet: {time.monotonic() - before:.2f} s")
        # The list goes out within the turn that counts it; the page is told at the end of the turn.
        eventually("gpuslice_xid_errors_total of XID 79 is 1", lambda: self.node.metric("gpuslice_xid_errors_total", xid="79") == ["1"])
        self.kill_agent()
        self.node.becomes(GPU, 0)
        self.agent()
        self.node.becomes(GPU, 4)
        self.stays(GPU, 4)
        sick = [d for d in self.node.list_devices() if d["health"] != "Healthy"]
        same("unhealthy devices in the list", len(sick), 4)
        if not all(d["reason"].startswith("XID 79 at 2") for d in sick):
            raise Failure(f"the reason: expected XID 79 and when, seen {sick[0]['reason']!r}")

    def lost_and_back(self):
        self.node.sim("inject", "lose", "--root", self.node.root, "--gpu", 0)
        eventually("the agent sees that it is lost", lambda: "GPU is lost" in self.node.log("agent"))
        self.node.sim("inject", "restore", "--root", self.node.root, "--gpu", 0)
        self.node.becomes(GPU, 8)

    def lets_go(self):
        """The driver would refuse the switch while our own events hold the GPU. The simulated one does not count handles of
        the process that asks, so it is looked at: instances take their time here, and nothing is watched while they do."""
        self.node.sim("inject", "latency", "--root", self.node.root, "--call", "nvmlDeviceCreateGpuInstance*", "--for", "400ms",
                      "--times", 3)
        self.label.write_text("small\n")
        eventually("the mode is switched", lambda: self.node.show()["gpus"][1]["calls"]["setMigMode"]["ok"], 30)
        gpu = self.node.show()["gpus"][1]
        same("GPU instances so far", len(gpu["gpuInstances"]) < 7, True)
        same("the agent's events on it", [c["pid"] for c in gpu["attached"] if c["events"]], [])

    def mig(self):
        """The mode of an A100 is switched under the agent's own open events, and they are heard again afterwards."""
        self.lets_go()
        self.node.becomes(SMALL, 7, 30)
        same("whole replicas", self.node.allocatable(GPU), 4)
        self.node.watched(range(2))
        gi = self.node.show()["gpus"][1]["gpuInstances"][2]
        ci = gi["computeInstances"][0]
        self.xid(1, 94, "--gi", gi["id"], "--ci", ci["id"])
        self.node.becomes(SMALL, 6, 3)
        sick = [d["id"] for d in self.node.list_devices() if d["health"] != "Healthy"]
        same("unhealthy devices", sick, [ci["uuid"]])
        same("whole replicas", self.node.allocatable(GPU), 4)
        self.kill_agent()
        self.agent()
        self.node.becomes(SMALL, 6)
        self.stays(SMALL, 6)
        self.label.write_text("off\n")
        self.node.becomes(GPU, 8, 30)
        self.label.write_text("small\n")
        self.node.becomes(SMALL, 7, 30)
        self.node.watched(range(2))
        self.xid(1, 79)
        self.node.becomes(SMALL, 0, 3)
        self.node.sim("reboot", "--root", self.node.root)

    def another_program(self):
        """gpuslice apply takes the GPU's lock: the agent's events let go for it."""
        done = subprocess.run([self.node.agent_program, "apply", "--root", self.node.root, "-f", self.layouts, "-c", "off",
                               "--state-dir", self.node.dir / "state", "--run-dir", self.node.dir / "run"],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"gpuslice apply beside the agent: exit {done.returncode}: {done.stdout}{done.stderr}")

    def variables(self):
        self.kill_agent()
        self.agent(DP_DISABLE_HEALTHCHECKS="all", DP_ENABLE_HEALTHCHECKS="79,x")
        self.node.becomes(GPU, 8)
        eventually("the malformed entry is told", lambda: 'DP_ENABLE_HEALTHCHECKS: "x"' in self.node.log("agent"))
        self.xid(0, 95)
        self.stays(GPU, 8, 1.5)
        self.xid(0, 79)
        self.node.becomes(GPU, 4, 3)


def story(node):
    node.start_kubelet()
    node.configure(REPLICAS)
    run = Run(node)
    run.agent()
    run.whole_gpus()
    run.lost_and_back()
    run.mig()
    node.agent.terminate()
    node.agent.wait(5)
    run.label.write_text("")
    run.agent()
    run.another_program()
    run.variables()
    print("XIDs: replicas, one MIG device of seven, restarts, and a mode switched under open events")


if __name__ == "__main__":
    sys.exit(judge(__doc__, "2xA100-SXM4-40GB", story))
