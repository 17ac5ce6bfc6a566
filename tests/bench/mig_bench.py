#!/usr/bin/env python3
"""A change of one GPU, by gpuslice and by mig-parted's sequence, on the same simulated node: mig_bench.py --bin DIR

Each create and each destroy takes 200 ms, as told of hardware (some take a second). Driver calls are counted by the
simulated node; the time is the program's, from start to end. Prints rows of a markdown table.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

LATENCY_MS = 200
CHANGING = ("nvmlDeviceCreateGpuInstance*", "nvmlGpuInstanceCreateComputeInstance*", "nvmlGpuInstanceDestroy", "nvmlComputeInstanceDestroy")
CASES = (  # what, from, to, with latency
    ("7 × 1g.5gb from six of them", {"1g.5gb": 6}, {"1g.5gb": 7}, True),
    ("a 2g.10gb beside 3g.20gb + 2 × 1g.5gb", {"3g.20gb": 1, "1g.5gb": 2}, {"3g.20gb": 1, "2g.10gb": 1, "1g.5gb": 2}, True),
    ("7 × 1g.5gb to 2 × 2g.10gb + 3 × 1g.5gb", {"1g.5gb": 7}, {"2g.10gb": 2, "1g.5gb": 3}, True),
    ("1g.5gb+me + 2 × 1g.10gb + 3 × 1g.5gb from nothing, as one run of it orders them", {}, {"1g.5gb+me": 1, "1g.10gb": 2, "1g.5gb": 3}, False),
    ("the same, as another run of it does", {}, {"1g.5gb+me": 1, "1g.5gb": 3, "1g.10gb": 2}, False),
    ("3g.20gb + 2g.10gb + 3 × 1g.5gb, which cannot be, over 7 × 1g.5gb", {"1g.5gb": 7}, {"3g.20gb": 1, "2g.10gb": 1, "1g.5gb": 3}, False),
)


class Node:
    def __init__(self, bin_dir, folder, name):
        self.bin = bin_dir
        self.root = folder / name
        self.file = folder / f"{name}.yaml"
        self.sim("create", "--root", self.root, "--gpus", "1xA100-SXM4-40GB")

    def sim(self, *words):
        return subprocess.run([self.bin / "gpuslice-sim", *map(str, words)], check=True, capture_output=True, text=True).stdout

    def apply(self, profiles, check=True):
        text = ", ".join(f'"{name}": {count}' for name, count in profiles.items())
        self.file.write_text(f"version: v1\nmig-configs:\n  x:\n  - devices: all\n    mig-enabled: true\n    mig-devices: {{{text}}}\n")
        return subprocess.run([self.bin / "gpuslice", "apply", "--root", self.root, "-f", self.file, "-c", "x"], check=check,
                              capture_output=True, text=True)

    def sequence(self, profiles):
        return subprocess.run([self.bin / "mig_parted_sequence", self.root, "0", *(f"{name}={count}" for name, count in profiles.items())],
                              capture_output=True, text=True)

    def gpu(self):
        return json.loads(self.sim("show", "--root", self.root, "-o", "json"))["gpus"][0]

    def calls(self):
        counts = self.gpu()["calls"]
        return sum(counts[kind][end] for kind in counts for end in ("ok", "failed"))

    def measured(self, what, slow):
        for call in CHANGING if slow else ():
            self.sim("inject", "--root", self.root, "latency", "--call", call, "--for", f"{LATENCY_MS}ms", "--times", "0")
        before = self.calls()
        started = time.monotonic()
        done = what()
        ms = 1000 * (time.monotonic() - started)
        left = sum(len(gi["computeInstances"]) for gi in self.gpu()["gpuInstances"])
        return self.calls() - before, ms, done, left


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    bin_dir = parser.parse_args().bin.resolve()
    with tempfile.TemporaryDirectory(prefix="gpuslice-bench-") as folder:
        folder = pathlib.Path(folder)
        for number, (what, first, then, slow) in enumerate(CASES):
            ours, theirs = (Node(bin_dir, folder, f"{who}{number}") for who in ("ours", "theirs"))
            for node in (ours, theirs):
                node.apply(first)
            calls, ms, done, left = ours.measured(lambda: ours.apply(then, check=False), slow)
            their_calls, their_ms, their_done, their_left = theirs.measured(lambda: theirs.sequence(then), slow)
            if (done.returncode == 0) != (their_done.returncode == 0):
                sys.exit(f"mig_bench: {what}: {done.stderr}{their_done.stderr}")
            time_of = (lambda c, m: f"{c} calls, {m:.0f} ms") if slow else (lambda c, m: f"{c} calls")
            end_of = (lambda n: "") if done.returncode == 0 else (lambda n: f", refused; {n} instances are left")
            rounds = their_done.stdout.split()[0]
            tried = f" in {rounds} rounds" if rounds != "1" else ""
            print(f"| {what} | {time_of(calls, ms)}{end_of(left)} | {time_of(their_calls, their_ms)}{tried}{end_of(their_left)} |")


if __name__ == "__main__":
    main()
