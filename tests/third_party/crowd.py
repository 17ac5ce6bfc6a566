#!/usr/bin/env python3
"""200 processes of three languages on one world at once: crowd.py --build DIR --go CROWD --cc CROWD

While all 200 have NVML open they read every GPU and fight for the seven slices of GPU 0. What they count themselves must be what
`gpuslice-sim show` counted: nothing lost, nothing twice; and when they have ended, nothing of them is left.
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
import threading

HERE = pathlib.Path(__file__).resolve().parent
PROCESSES, ROUNDS, PATIENCE_S = 200, 5, 240
_libc = ctypes.CDLL(None)


def _die_with_parent():
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def show(sim, root):
    return json.loads(subprocess.run([sim, "show", "--root", root, "-o", "json"], check=True, capture_output=True, text=True).stdout)


def expect(what, seen, wanted):
    if seen != wanted:
        raise SystemExit(f"FAIL  {PROCESSES} processes: {what}: expected {wanted}, seen {seen}")


def run(sim, root, commands):
    """Starts all, lets them go together, and returns what each said at the end, with the world seen while all were attached."""
    crowd = [subprocess.Popen([sim, "exec", "--root", root, "--", *map(str, commands[i % len(commands)]), str(ROUNDS)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True, preexec_fn=_die_with_parent) for i in range(PROCESSES)]
    patience = threading.Timer(PATIENCE_S, lambda: [process.kill() for process in crowd])
    patience.start()
    try:
        expect("that are ready", [p.stdout.readline() for p in crowd], ["ready\n"] * PROCESSES)
        together = show(sim, root)
        for process in crowd:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.stdout.readline().strip() for process in crowd]
        for process in crowd:
            process.stdin.close()
        expect("exit statuses", {process.wait() for process in crowd}, {0})
        return said, together
    finally:
        patience.cancel()
        for process in crowd:
            if process.poll() is None:
                process.kill()
                process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--go", required=True)
    parser.add_argument("--cc", required=True)
    options = parser.parse_args()
    sim = str(pathlib.Path(options.build).resolve() / "bin/gpuslice-sim")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with tempfile.TemporaryDirectory(prefix="gpuslice-crowd-") as folder:
        root = str(pathlib.Path(folder) / "node")
        subprocess.run([sim, "create", "--root", root, "--gpus", "2xA100-SXM4-40GB"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([sim, "exec", "--root", root, "--", sys.executable, HERE / "python/partition.py", '{"0": []}'], check=True)
        before = show(sim, root)["gpus"][0]["calls"]
        said, together = run(sim, root, [(sys.executable, HERE / "crowd/crowd.py"), (options.go,), (options.cc,)])
        counts = [re.fullmatch(r"created (\d+) refused (\d+) destroyed (\d+) wrong (\d+)", line) for line in said]
        expect("that told what they did", [line for line, match in zip(said, counts) if not match], [])
        created, refused, destroyed, wrong = (sum(int(match.group(i)) for match in counts) for i in (1, 2, 3, 4))
        for gpu in together["gpus"]:
            expect(f"attached to GPU {gpu['index']} together", len({c["pid"] for c in gpu["attached"]}), PROCESSES)
        expect("reads that did not add up", wrong, 0)
        expect("tries to create", created + refused, PROCESSES * ROUNDS)
        after = show(sim, root)["gpus"]
        calls = after[0]["calls"]
        expect("creations counted", {k: calls["createGi"][k] - before["createGi"][k] for k in ("ok", "failed")}, {"ok": created, "failed": refused})
        expect("destructions counted", {k: calls["destroyGi"][k] - before["destroyGi"][k] for k in ("ok", "failed")}, {"ok": destroyed, "failed": 0})
        expect("instances left", after[0]["gpuInstances"], [])
        expect("still attached", [c["pid"] for gpu in after for c in gpu["attached"]], [])
    print(f"ok    {PROCESSES} processes (Python, Go, C++) on one world: {created} instances made and destroyed, {refused} refused, none lost")


if __name__ == "__main__":
    main()
