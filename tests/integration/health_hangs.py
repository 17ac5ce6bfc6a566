"""What hangs, and a driver that is replaced, end to end: health_hangs.py --bin DIR

Eight simulated H100s as in health.py. A GPU that hangs, a change of MIG that hangs, a driver that is replaced under the agent: the other GPUs are
looked at on, and all comes back without a restart of the agent.
"""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from health import GPU, LOOK, Run, story  # noqa: E402
from node_under_test import Failure, eventually, judge, same  # noqa: E402

LAYOUTS = """version: v1
mig-configs:
  small:
  - devices: [3]
    mig-enabled: true
    mig-devices: {1g.10gb: 7}
"""


class Hangs(Run):
    def __init__(self, node):
        super().__init__(node)
        node.configure_mig(LAYOUTS)

    def parts(self):
        return self.hangs, self.driver_replaced, self.change_that_hangs

    def hangs(self):
        """Every call about GPU 2 hangs: it is told within 5 + 5 seconds, the others' XIDs and states are seen on. Then three more hang with it,
        and are told as soon as one; each holds one thread."""
        self.inject("hang", "--call", "nvmlDevice*", gpu=2)
        before = time.monotonic()
        eventually("GPU 2 is listed unhealthy", lambda: self.node.allocatable(GPU) == 7, 15)
        print(f"a GPU that hangs is told after {time.monotonic() - before:.1f} s")
        self.sick(2, "does not return")
        self.watching([gpu for gpu in range(8) if gpu != 2])
        self.inject("remap", gpu=1)
        self.becomes(6, LOOK)
        self.inject("xid", "--code", 94, gpu=7)
        self.becomes(5, 3)
        self.becomes(6, 3 + 2 * LOOK)  # the clean probe of GPU 7 goes on as well
        same("threads that read GPUs", self.readers(), 2)
        self.node.sim("reset", "--root", self.node.root, "--gpu", 1)
        self.becomes(7)
        for gpu in (0, 3, 4):
            self.inject("hang", "--call", "nvmlDevice*", gpu=gpu)
        before = time.monotonic()
        self.becomes(4, 15)
        print(f"three more are told after {time.monotonic() - before:.1f} s")
        time.sleep(11)  # two looks more
        same("threads that read GPUs", self.readers(), 5)
        self.inject("clear")
        self.becomes(8)
        self.watching()

    def readers(self):
        tasks = pathlib.Path(f"/proc/{self.node.agent.pid}/task")
        return sum((task / "comm").read_text().startswith("nvml-gpus") for task in tasks.iterdir())

    def change_that_hangs(self):
        """A change of GPU 3's MIG hangs in a call: its devices are unhealthy, the others are looked at on, and it ends well."""
        self.inject("hang", "--call", "nvmlGpuInstanceCreateComputeInstance*", gpu=3)
        self.node.set_mig_label("small")
        self.becomes(7)
        self.inject("remap", gpu=1)
        self.becomes(6, 60)
        eventually("what hangs is told", lambda: "a change of its MIG layout hangs: nvmlGpuInstanceCreateComputeInstance" in
                   self.node.log("agent"), LOOK)
        # The driver was let go for the change, which switches a mode: a change that hangs keeps no XID from being heard.
        self.watching([gpu for gpu in range(8) if gpu != 3])
        self.inject("xid", "--code", 94, gpu=7)
        self.becomes(5, 3)
        self.becomes(6, 3 + 2 * LOOK)
        self.node.sim("reset", "--root", self.node.root, "--gpu", 1)
        self.becomes(7)
        self.inject("clear")
        eventually("seven instances", lambda: self.node.allocatable("nvidia.com/mig-1g.10gb") == 7, 30)
        eventually("the label is done", lambda: self.node.mig_status().get("state") == "success", 30)
        same("whole GPUs", self.node.allocatable(GPU), 7)

    def driver_replaced(self):
        """As after an upgrade: everybody must let go of the old library before the new one can be loaded."""
        for call in ("nvmlInit*", "nvmlDevice*", "nvmlSystem*", "nvmlEventSetWait*"):
            self.inject("fail", "--call", call, "--return", "LIB_RM_VERSION_MISMATCH")
        self.becomes(0)
        for where, text in (("the page", self.node.get("/")), ("the log", self.node.log("agent"))):
            if "Driver/library version mismatch (18)" not in text:
                raise Failure(f"{where} does not say why nothing is healthy")
        eventually("nothing of the agent holds the driver", lambda: not any(
            c["pid"] == self.node.agent.pid for gpu in self.node.show()["gpus"] for c in gpu["attached"]), 5)
        self.inject("clear")
        self.becomes(8)
        self.watching()


if __name__ == "__main__":
    sys.exit(judge(__doc__, "8xH100-80GB-SXM", story(Hangs)))
