"""The health of GPUs beyond XIDs, end to end: health.py --bin DIR

Eight simulated H100s behind a real agent and the kubelet stand-in. What a GPU tells of its own state, one that is lost,
a reset by another program, a clean probe: who becomes unhealthy, why, and that it comes back without a restart of the agent. What hangs: health_hangs.py.
"""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from node_under_test import Failure, eventually, judge, same  # noqa: E402

GPU = "nvidia.com/gpu"
CONFIG = "version: v1\nflags:\n  plugin:\n    xidCleanProbe: 94=3s\n"
# Inventories come every five seconds.
LOOK = 8


class Run:
    def __init__(self, node):
        self.node = node

    def parts(self):
        return self.states, self.reset_by_hand, self.clean_probe, self.lost

    def inject(self, what, *more, gpu=None):
        self.node.sim("inject", what, "--root", self.node.root, *(() if gpu is None else ("--gpu", gpu)), *more)

    def becomes(self, count, seconds=LOOK):
        self.node.becomes(GPU, count, seconds)

    def watching(self, gpus=range(8)):
        self.node.watched(gpus)

    def sick(self, gpu, reason, count=7, seconds=LOOK):
        """GPU `gpu` alone is unhealthy, and every place that shows it says why."""
        self.becomes(count, seconds)
        uuid = self.node.show()["gpus"][gpu]["uuid"]
        listed = []

        def in_list():
            listed[:] = [(d["gpuUuid"], d["reason"]) for d in self.node.list_devices() if d["health"] != "Healthy"]
            return len(listed) == 1 and listed[0][0] == uuid and reason in listed[0][1]

        for where, seen in (("gpuslice list devices", in_list), ("the page", lambda: reason in self.node.get("/")),
                            ("the log", lambda: reason in self.node.log("agent"))):
            try:
                eventually("", seen, LOOK)
            except Failure:
                raise Failure(f"{where}: the reason {reason!r} of GPU {gpu} does not show; {listed}") from None
        if self.node.metric("gpuslice_device_unhealthy", device=uuid) != ["1"] or reason not in self.node.get("/metrics"):
            raise Failure(f"the metrics do not tell the reason {reason!r} of GPU {gpu}")
        same("gpuslice_gpus unhealthy", self.node.metric("gpuslice_gpus", state="unhealthy"), [str(8 - count)])

    def states(self):
        self.inject("remap", "--uncorrected", 1, gpu=1)
        self.sick(1, "bad memory waits for a reset of the GPU to be replaced")
        same("gpuslice_gpu_trouble", self.node.metric("gpuslice_gpu_trouble", trouble="remap-pending"), ["1"])
        self.node.sim("reset", "--root", self.node.root, "--gpu", 1)
        self.becomes(8)
        self.inject("heat", "--celsius", 99, gpu=2)
        self.sick(2, "at which it switches itself off")
        self.inject("heat", "--celsius", 0, gpu=2)
        self.becomes(8)
        self.inject("recovery", "--action", "drain-and-reset", gpu=3)
        self.sick(3, "the driver says that it is to be drained and reset")
        self.inject("recovery", "--action", "none", gpu=3)
        self.becomes(8)
        self.inject("ecc", "--uncorrected", 2, gpu=4)
        self.sick(4, "XID 48", seconds=3)
        eventually("the errors are in the reason too", lambda: any(
            "; 2 uncorrectable ECC errors since its last reset" in d.get("reason", "") for d in self.node.list_devices()), LOOK)
        self.node.sim("reset", "--root", self.node.root, "--gpu", 4)
        self.becomes(8)
        if "initialised the GPU anew: it was reset" not in self.node.log("agent"):
            raise Failure("the log does not say how the reset was recognised")
        self.inject("lose", gpu=4)
        eventually("the agent sees that it is lost", lambda: "GPU 4: nvmlDevice" in self.node.log("agent"), LOOK)
        self.inject("restore", gpu=4)
        self.becomes(8)

    def reset_by_hand(self):
        """XID 79, the driver asks for a reset, an administrator does it: healthy again, by itself."""
        self.inject("xid", "--code", 79, gpu=0)
        self.inject("recovery", "--action", "reset", gpu=0)
        self.sick(0, "XID 79", seconds=3)
        eventually("the driver's verdict is seen", lambda: "needs a reset" in self.node.log("agent"), LOOK)
        self.node.on_node("nvidia-smi", "--gpu-reset", "-i", "0")
        self.becomes(8)
        if "the GPU had asked for a reset, and asks no more: it was reset" not in self.node.log("agent"):
            raise Failure("the log does not say how the reset was recognised")

    def clean_probe(self):
        self.inject("xid", "--code", 94, gpu=5)
        self.becomes(7, 3)
        self.becomes(8, 3 + 2 * LOOK)

    def lost(self):
        self.inject("lose", gpu=6)
        self.sick(6, "GPU is lost (15)")
        self.inject("restore", gpu=6)
        self.becomes(8)
        self.watching()


def story(run_of):
    """A story of health for judge(): `run_of` makes the Run, whose parts() follow one another under one agent."""

    def tell(node):
        node.start_kubelet()
        node.configure(CONFIG)
        run = run_of(node)
        node.start_agent()
        run.becomes(8, 15)
        run.watching()
        agent = node.agent.pid
        for part in run.parts():
            part()
            print(f"{part.__name__}: seen")
        same("the agent that began is the one that ends", (node.agent.pid, node.agent.poll()), (agent, None))

    return tell


if __name__ == "__main__":
    sys.exit(judge(__doc__, "8xH100-80GB-SXM", story(Run)))
