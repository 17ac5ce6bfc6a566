#!/usr/bin/env python3
"""Makes three nodes, lets each judge loose on each, and prints a line for each pair; then a node that gpuslice lays out anew again and again.

A judge is a program of other people's making (or a few lines around their library) that exits 0 when every value it
was told agrees with the truth of python/truth.py. run.sh calls this inside the judges' virtual environment.
"""

import argparse
import ctypes
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "python"))
sys.dont_write_bytecode = True
from truth import truth_of  # noqa: E402

_libc = ctypes.CDLL(None)


def _die_with_parent():
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


class Node:
    """A simulated node and the work on it."""

    def __init__(self, name, sim, root, gpus):
        self.name, self.sim, self.root = name, sim, root
        self.workers = []
        subprocess.run([sim, "create", "--root", root, "--gpus", gpus, "--seed", "11"], check=True, stdout=subprocess.DEVNULL)

    def run(self, *command, environment=None, timeout=300):
        return subprocess.run([self.sim, "exec", "--root", self.root, "--", *map(str, command)], env=dict(os.environ, **(environment or {})),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, stdin=subprocess.DEVNULL)

    def work(self, device, memory, activity):
        worker = subprocess.Popen([self.sim, "work", "--root", self.root, "--device", device, "--memory", memory, "--activity", str(activity)],
                                  stdout=subprocess.PIPE, text=True, preexec_fn=_die_with_parent)
        if not worker.stdout.readline().startswith("working on"):
            raise SystemExit(f"{self.name}: no work on {device}")
        self.workers.append(worker)

    def show(self):
        return json.loads(subprocess.run([self.sim, "show", "--root", self.root, "-o", "json"], check=True, capture_output=True, text=True).stdout)

    def settle(self):
        """Utilisation is that of the last second: waits until it is all work of today's."""
        if self.workers:
            time.sleep(1.2)

    def end(self):
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait()


def whole_node(sim, root):
    return Node("whole GPUs", sim, root, "2xA100-SXM4-40GB,1xL40S,1xT4")


def busy_node(sim, root):
    """Three processes that fit on GPU 0, three that ask for more than all of GPU 1, two on GPU 2, none on GPU 3."""
    node = Node("a busy time-sliced node", sim, root, "4xA100-SXM4-40GB")
    work = {0: [("1Gi", 0.2), ("2Gi", 0.3), ("512Mi", 0.1)], 1: [("4Gi", 0.6), ("4Gi", 0.6), ("4Gi", 0.6)], 2: [("8Gi", 0.25), ("1Gi", 0.5)]}
    for gpu, all_of_it in work.items():
        for memory, activity in all_of_it:
            node.work(str(gpu), memory, activity)
    node.settle()
    wanted = {gpu: sorted((float(m[:-2]) * {"Gi": 1024, "Mi": 1}[m[-2:]], a) for m, a in of) for gpu, of in work.items()}
    seen = {g["index"]: sorted((c["memoryMiB"], c["activity"]) for c in g["clients"]) for g in node.show()["gpus"] if g["clients"]}
    if seen != wanted:
        raise SystemExit(f"show tells other work than was started: {seen}, started {wanted}")
    return node


def mixed_node(sim, root):
    """GPU 0 whole with work; 1: 3g with one compute instance, 2g cut in two, 1g, 1g+me; 2: an A30 in four; 3: an H100; 4: MIG, empty."""
    node = Node("a mixed MIG node", sim, root, "2xA100-SXM4-40GB,1xA30,1xH100 80GB HBM3,1xA100-SXM4-40GB")
    layout = {"1": [[9, 4, 4, [[2, 1]]], [14, 0, 2, [[0, 2]]], [19, 2, 1, [[0, 1]]], [20, 3, 1, [[0, 1]]]],
              "2": [[14, start, 1, [[0, 1]]] for start in range(4)],
              "3": [[5, 0, 4, [[3, 1]]], [15, 6, 2, [[0, 1]]]],
              "4": []}
    done = node.run(sys.executable, HERE / "python/partition.py", json.dumps(layout))
    if done.returncode != 0:
        raise SystemExit(f"{node.name}: nvidia-ml-py could not lay it out: {done.stdout}")
    seen = {str(g["index"]): sorted([gi["profileId"], gi["placement"]["start"], gi["placement"]["size"], len(gi["computeInstances"])]
                                    for gi in g["gpuInstances"]) for g in node.show()["gpus"] if g["migMode"]["current"]}
    wanted = {gpu: sorted([p, start, size, sum(k for _, k in cis)] for p, start, size, cis in gis) for gpu, gis in layout.items()}
    if seen != wanted:
        raise SystemExit(f"show tells another layout than was made: {seen}, made {wanted}")
    gpus = node.show()["gpus"]
    node.work(gpus[0]["uuid"], "3Gi", 0.4)
    for gpu, memory in ((1, "256Mi"), (3, "1Gi")):
        for gi in gpus[gpu]["gpuInstances"]:
            for ci in gi["computeInstances"]:
                node.work(ci["uuid"], memory, 0.5)
    node.settle()
    return node


# One label after the other on one node, so that each layout comes out of the one before by the smallest change.
LAYOUTS = """
version: v1
mig-configs:
  first:
  - {devices: [0, 1], mig-enabled: true, mig-devices: {1g.5gb: 7}}
  - {devices: [2], mig-enabled: true, mig-devices: {1g.6gb: 4}}
  - {devices: [3], mig-enabled: true, mig-devices: {1g.10gb+me: 1, 1g.20gb: 2, 2g.20gb: 1}}
  larger ones beside small ones:
  - {devices: [0], mig-enabled: true, mig-devices: {3g.20gb: 1, 2g.10gb: 1, 1g.5gb: 2}}
  - {devices: [1], mig-enabled: true, mig-devices: {1g.5gb: 5, 2g.10gb: 1}}
  - {devices: [2], mig-enabled: true, mig-devices: {2g.12gb+me: 1, 1g.6gb: 2}}
  - {devices: [3], mig-enabled: true, mig-devices: {4g.40gb: 1, 3g.40gb: 1}}
  compute instances that share a GPU instance:
  - {devices: [0], mig-enabled: true, mig-devices: {1c.3g.20gb: 3, 2c.4g.20gb: 2}}
  - {devices: [1], mig-enabled: true, mig-devices: {1c.7g.40gb: 2, 3c.7g.40gb: 1}}
  - {devices: [2], mig-enabled: true, mig-devices: {1c.2g.12gb: 2, 2g.12gb: 1}}
  - {devices: [3], mig-enabled: true, mig-devices: {1c.4g.40gb: 1, 1g.10gb: 3}}
  one whole and some empty:
  - {devices: [0], mig-enabled: false}
  - {devices: [1], mig-enabled: true, mig-devices: {7g.40gb: 1}}
  - {devices: [2, 3], mig-enabled: true, mig-devices: {}}
"""


def applied_layouts(sim, root, gpuslice):
    """Yields a node for each layout that `gpuslice apply` makes of it."""
    node = Node("", sim, root, "2xA100-SXM4-40GB,1xA30,1xH100 80GB HBM3")
    file = pathlib.Path(root).with_suffix(".yaml")
    file.write_text(LAYOUTS)
    for label in re.findall(r"^  (\w.*):$", LAYOUTS, re.M):
        node.name = f"gpuslice apply's layout \"{label}\""
        done = subprocess.run([gpuslice, "apply", "--root", root, "-f", file, "-c", label], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{node.name}: {done.stderr}")
        yield node


def judge(node, name, command, scratch, directory=None):
    """Runs one judge on one node; True when it agrees. Prints its line, and what differs."""
    truth = scratch / "truth.json"
    truth.write_text(json.dumps(truth_of(node.sim, node.root)))
    environment = {"JUDGE_TRUTH": str(truth), "JUDGE_SIM": node.sim, "PYTHONDONTWRITEBYTECODE": "1"}
    if directory:
        command = ["env", "-C", directory, *command]
    try:
        done = node.run(*command, environment=environment)
        code, said = done.returncode, done.stdout.rstrip().splitlines()
    except subprocess.TimeoutExpired:
        code, said = -1, ["no end within 300 s"]
    if code == 0 and said:
        print(f"ok    {name} on {node.name}: {said[-1]}", flush=True)
        return True
    print(f"FAIL  {name} on {node.name} (exit {code})", flush=True)
    for line in said[-30:]:
        print(f"      {line}", flush=True)
    return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True, help="build folder with bin/gpuslice-sim")
    parser.add_argument("--rust", help="the Rust judge's program")
    parser.add_argument("--go", help="folder with values.test, own.test, dl.test")
    parser.add_argument("--cc", help="the crowd's C++ program")
    parser.add_argument("--only", help="judges whose name has this in it")
    options = parser.parse_args()
    sim = str(pathlib.Path(options.build).resolve() / "bin/gpuslice-sim")
    python = [("nvidia-ml-py 13.615.71", "judge_nvidia_ml_py.py"), ("nvidia-ml-py's struct sizes", "judge_struct_sizes.py"),
              ("nvitop 1.7.2", "judge_nvitop.py"), ("gpustat 1.1.1", "judge_gpustat.py"), ("py3nvml 0.2.7", "judge_py3nvml.py")]
    judges = [(name, [sys.executable, HERE / "python" / file], None) for name, file in python]
    if options.rust:
        judges.append(("nvml-wrapper 0.13.0", [options.rust], None))
    if options.go:
        judges.append(("go-nvml 0.13.4-1", [pathlib.Path(options.go) / "values.test", "-test.v"], None))
        judges.append(("go-nvml 0.13.4-1's own tests", [sys.executable, HERE / "go_nvml/own_tests.py", options.go], None))
    judges = [j for j in judges if not options.only or options.only in j[0]]
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="gpuslice-judges-") as folder:
        scratch = pathlib.Path(folder)
        for number, make in enumerate((whole_node, busy_node, mixed_node)):
            node = make(sim, scratch / f"node{number}")
            try:
                for name, command, directory in judges:
                    if judge(node, name, command, scratch, directory):
                        passed += 1
                    else:
                        failed += 1
            finally:
                node.end()
        # The judges that look at instances one by one.
        for node in applied_layouts(sim, scratch / "applied", pathlib.Path(options.build).resolve() / "bin/gpuslice"):
            for name, command, directory in (j for j in judges if j[0].startswith(("nvidia-ml-py 1", "nvitop"))):
                if judge(node, name, command, scratch, directory):
                    passed += 1
                else:
                    failed += 1
    if options.cc and (not options.only or options.only in "crowd"):
        crowd = subprocess.run([sys.executable, HERE / "crowd.py", "--build", options.build, "--go", f"{options.go}/crowd", "--cc", options.cc])
        passed, failed = (passed + 1, failed) if crowd.returncode == 0 else (passed, failed + 1)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
