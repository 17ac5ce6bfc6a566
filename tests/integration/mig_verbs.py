#!/usr/bin/env python3
"""The MIG verbs as scripts use them: mig_verbs.py --bin DIR

Exit codes, standard input, mig-parted's environment names, hooks, checkpoints, two writers at once, a writer killed in
the middle; on simulated nodes.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
BIN = None  # by --bin
OK, USAGE, INVALID, IMPOSSIBLE, IN_USE, RESET, FAILED, DIFFERS = 0, 2, 3, 4, 5, 6, 7, 10
LABELS = """version: v1
mig-configs:
  mixed:
  - {devices: [0], mig-enabled: true, mig-devices: {1g.5gb: 7}}
  - {devices: [1], mig-enabled: true, mig-devices: {1c.3g.20gb: 2, 2g.10gb: 1}}
  whole:
  - {devices: all, mig-enabled: true, mig-devices: {7g.40gb: 1}}
  off:
  - {devices: all, mig-enabled: false}
"""


class Verbs(unittest.TestCase):
    def setUp(self):
        self.tmp = pathlib.Path(tempfile.mkdtemp(prefix="gpuslice-verbs-"))
        self.root = self.tmp / "node"
        self.file = self.tmp / "mig.yaml"
        self.file.write_text(LABELS)
        self.sim("create", "--root", self.root, "--gpus", "2xA100-SXM4-40GB")

    def tearDown(self):
        shutil.rmtree(self.tmp, ignore_errors=True)

    def sim(self, *words):
        done = subprocess.run([BIN / "gpuslice-sim", *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def command(self, verb, *words):
        return [BIN / "gpuslice", verb, "--root", self.root, "--kubelet-dir", self.tmp / "kubelet", *map(str, words)]

    def run_verb(self, code, verb, *words, env=None, stdin=""):
        done = subprocess.run(self.command(verb, *words), capture_output=True, text=True, input=stdin, env=dict(os.environ, **(env or {})))
        self.assertEqual(done.returncode, code, f"{verb} {words}: {done.stdout}{done.stderr}")
        return done

    def label(self, code, verb, name, *words, **how):
        return self.run_verb(code, verb, "-f", self.file, "-c", name, *words, **how)

    def gpus(self):
        return json.loads(self.sim("show", "--root", self.root, "-o", "json"))["gpus"]

    def layout(self):
        return [sorted((gi["profile"], gi["placement"]["start"], len(gi["computeInstances"])) for gi in gpu["gpuInstances"])
                for gpu in self.gpus()]

    def journals(self):
        return list((self.root / "var/lib/gpuslice/mig").glob("*"))

    # ---------------------------------------------------------------------------------------------------------------

    def test_a_label_from_plan_to_assert(self):
        self.label(OK, "plan", "mixed")
        plan = json.loads(self.label(DIFFERS, "plan", "mixed", "--detailed-exitcode", "-o", "json").stdout)
        self.assertEqual((plan["possible"], plan["changes"], len(plan["kept"])), (True, True, 0))
        ops = [step["op"] for step in plan["steps"]]
        self.assertEqual(ops, ["set-mode", "reset"] + ["create-gi"] * 7 + ["create-ci"] * 7 + ["set-mode", "reset"] + ["create-gi"] * 2 +
                         ["create-ci"] * 3)
        self.assertTrue(all("placement" in step for step in plan["steps"] if step["op"].startswith("create")))
        self.assertEqual(self.layout(), [[], []], "plan touches nothing")
        said = self.label(DIFFERS, "assert", "mixed").stderr
        self.assertEqual(said, "GPU 0: it differs from label mixed: MIG off\nGPU 1: it differs from label mixed: MIG off\n")
        self.assertIn("+ 2g.10gb at 0:2, 3g.20gb at 4:4 in 2 compute instances\n", self.label(DIFFERS, "diff", "mixed").stdout)
        self.label(DIFFERS, "assert", "mixed", "--mode-only")
        self.label(OK, "apply", "mixed", "--mode-only")
        self.label(OK, "assert", "mixed", "-m")
        self.assertEqual(self.layout(), [[], []])
        done = self.label(OK, "apply", "mixed")
        self.assertTrue(done.stdout.endswith("MIG configuration applied successfully\n"), done.stdout)
        self.assertEqual(self.layout(), [[("1g.5gb", n, 1) for n in range(7)], [("2g.10gb", 0, 1), ("3g.20gb", 4, 2)]])
        self.assertEqual(self.journals(), [])
        for verb in ("assert", "diff"):
            self.label(OK, verb, "mixed")
        self.label(OK, "plan", "mixed", "--detailed-exitcode")
        calls = [gpu["calls"] for gpu in self.gpus()]
        again = json.loads(self.label(OK, "apply", "mixed", "-o", "json").stdout)
        self.assertEqual([(gpu["end"], gpu["driverCalls"]) for gpu in again["gpus"]], [("already", 0)] * 2)
        self.assertEqual([gpu["calls"] for gpu in self.gpus()], calls)
        self.label(OK, "apply", "off")
        self.assertEqual([gpu["migMode"]["current"] for gpu in self.gpus()], [0, 0])

    def test_how_a_label_is_given(self):
        self.assertIn("choose one with -c: mixed, off, whole", self.run_verb(USAGE, "apply", "-f", self.file).stderr)
        self.assertEqual(self.run_verb(USAGE, "apply").stderr, "apply: which configuration? gpuslice apply -f FILE -c LABEL\n")
        self.run_verb(INVALID, "apply", "-f", self.tmp / "none", "-c", "mixed")
        self.run_verb(OK, "plan", "-f", "-", "-c", "off", stdin=LABELS)
        said = self.run_verb(INVALID, "plan", "-f", "-", "-c", "off", stdin="version: v2\n").stderr
        self.assertTrue(said.startswith("standard input:1:10: "), said)
        self.run_verb(OK, "plan", env={"MIG_PARTED_CONFIG_FILE": str(self.file), "MIG_PARTED_SELECTED_CONFIG": "off"})
        self.run_verb(OK, "assert", env={"MIG_PARTED_CONFIG_FILE": str(self.file), "MIG_PARTED_SELECTED_CONFIG": "mixed",
                                         "MIG_PARTED_VALID_CONFIG": "true"})
        self.label(OK, "assert", "mixed", "-a")
        self.label(INVALID, "assert", "mixd", "-a")
        self.assertIn("did you mean --mode-only?", self.label(USAGE, "apply", "off", "--mode-olny").stderr)

    def test_what_programs_read(self):
        for verb, how in (("plan", DIFFERS), ("diff", DIFFERS), ("assert", DIFFERS), ("apply", OK), ("apply", OK), ("assert", OK)):
            more = ["--detailed-exitcode"] if verb == "plan" else []
            yaml = self.label(how, verb, "whole", "-o", "yaml", *more).stdout
            self.assertRegex(yaml, r"(?m)^(label|ok): ")
        # An error is told to both, of a wrong command line, too.
        for code, kind, words in ((INVALID, "invalid-config", ("plan", "-f", self.tmp / "none", "-c", "off", "-o", "json")),
                                  (USAGE, "usage", ("plan", "-o", "json")),
                                  (USAGE, "usage", ("apply", "-f", self.file, "--labell", "off", "--output=json")),
                                  (INVALID, "invalid-config", ("restore", "-f", self.tmp / "none", "-ojson"))):
            done = self.run_verb(code, *words)
            error = json.loads(done.stdout)
            self.assertEqual((error["ok"], error["error"]["code"]), (False, kind))
            self.assertEqual(done.stderr, error["error"]["message"] + "\n")
        nothing = [BIN / "gpuslice", "list", "gpus", "--root", self.tmp / "empty"]
        done = subprocess.run([*nothing, "-o", "json"], capture_output=True, text=True)
        self.assertEqual((done.returncode, json.loads(done.stdout)["error"]["code"]), (FAILED, "unavailable"))
        done = subprocess.run([*nothing, "--output", "yaml"], capture_output=True, text=True)
        self.assertIn('code: "unavailable"', done.stdout)
        self.assertEqual(subprocess.run(nothing, capture_output=True, text=True).stdout, "")

    def test_lists_that_are_empty_say_why(self):
        for gpus, driver, said in (("T4", "580", "no GPU of this node has MIG\n"),
                                   ("A30", "535", "GPU 0: this driver names its MIG profiles only while MIG is on; switch it on first "
                                    "(gpuslice smi -mig 1 -i 0)\n")):
            self.sim("create", "--root", self.tmp / gpus, "--gpus", gpus, "--driver", driver)
            for what in ("profiles", "placements", "layouts"):
                done = subprocess.run([BIN / "gpuslice", "list", what, "--root", self.tmp / gpus, "-o", "json"], capture_output=True, text=True)
                self.assertEqual((done.returncode, done.stderr), (OK, said))

    def test_a_plan_that_was_not_begun_counts_nothing(self):
        self.label(OK, "apply", "mixed")
        (self.tmp / "state").write_text("a file")
        done = self.label(FAILED, "apply", "whole", "--state-dir", self.tmp / "state", "-o", "json")
        for gpu in json.loads(done.stdout)["gpus"]:
            self.assertEqual((gpu["end"], gpu["kept"], gpu["destroyed"], gpu["created"]), ("refused", 0, 0, 0))

    def test_export_comes_back(self):
        self.label(OK, "apply", "mixed")
        for words in ((), ("-o", "json"), ("--placements",)):
            written = self.tmp / "exported"
            written.write_text(self.run_verb(OK, "export", "-l", "then", *words).stdout)
            self.run_verb(OK, "assert", "-f", written, "-c", "then")
        for label, key in (("all-1g.5gb", "all-1g.5gb"), ("on", '"on"'), ("7", '"7"'), ("a: b", '"a: b"'), ("Null", '"Null"')):
            named = self.tmp / "named"
            named.write_text(self.run_verb(OK, "export", "-l", label).stdout)
            self.assertIn(f"\n  {key}:\n", named.read_text())
            self.run_verb(OK, "assert", "-f", named, "-c", label)
        generated = self.run_verb(OK, "generate-config", "-f", self.tmp / "generated")
        self.assertEqual(generated.stdout, "")
        self.run_verb(OK, "apply", "-f", self.tmp / "generated", "-c", "all-balanced")
        self.run_verb(DIFFERS, "assert", "-f", written, "-c", "then")

    def test_checkpoints(self):
        self.label(OK, "apply", "mixed")
        saved = self.tmp / "saved.json"
        self.run_verb(OK, "checkpoint", "-f", saved)
        before = self.layout()
        self.label(OK, "apply", "whole")
        document = json.loads(saved.read_text())
        document["MigState"]["Devices"].reverse()
        saved.write_text(json.dumps(document))
        self.run_verb(OK, "restore", "-f", saved)
        self.assertEqual(self.layout(), before)
        # As mig-parted writes it: without names, without the placements of compute instances.
        self.label(OK, "apply", "whole")
        for device in document["MigState"]["Devices"]:
            for gi in device["GpuInstances"]:
                del gi["Profile"]
                for ci in gi["ComputeInstances"]:
                    del ci["Placement"]
        self.run_verb(OK, "restore", "-f", "-", stdin=json.dumps(document))
        self.assertEqual(self.layout(), before)
        self.label(OK, "apply", "whole")
        calls = [gpu["calls"] for gpu in self.gpus()]
        uuid = document["MigState"]["Devices"][1]["UUID"]
        document["MigState"]["Devices"][1]["UUID"] = "GPU-ffffffff" + uuid[12:]
        said = self.run_verb(IMPOSSIBLE, "restore", "-f", "-", stdin=json.dumps(document)).stderr
        self.assertIn(f"it has GPU-ffffffff{uuid[12:]}, which this node has not", said)
        self.assertEqual([gpu["calls"] for gpu in self.gpus()], calls)
        self.run_verb(INVALID, "restore", "-f", "-", stdin="{}")

    def test_hooks(self):
        log = self.tmp / "log"
        hooks = self.tmp / "hooks.yaml"

        def write(**commands):
            text = "version: v1\nhooks:\n"
            for point in ("apply-start", "pre-apply-mode", "pre-apply-config", "apply-exit"):
                command = commands.get(point.replace("-", "_"), f"echo {point} $MIG_PARTED_SELECTED_CONFIG $EXTRA >> {log}")
                text += f"  {point}:\n  - {{command: sh, args: [-c, {json.dumps(command)}], envs: {{EXTRA: more}}, workdir: /}}\n"
            hooks.write_text(text)
            log.write_text("")

        write()
        self.label(OK, "apply", "mixed", "-k", hooks)
        self.assertEqual(log.read_text(), "".join(f"{point} mixed more\n" for point in (
            "apply-start", "pre-apply-mode", "pre-apply-config", "apply-exit")))
        write()
        self.label(OK, "apply", "whole", "-k", hooks)  # no mode to change
        self.assertEqual([line.split()[0] for line in log.read_text().splitlines()], ["apply-start", "pre-apply-config", "apply-exit"])
        write()
        self.label(OK, "apply", "whole", "-k", hooks)  # nothing to change
        self.assertEqual([line.split()[0] for line in log.read_text().splitlines()], ["apply-start", "apply-exit"])
        # One that fails before: nothing is changed, and apply-exit still runs.
        write(pre_apply_config="exit 3")
        before = self.layout()
        said = self.label(FAILED, "apply", "mixed", "-k", hooks).stderr
        self.assertEqual(said, "hook pre-apply-config: sh: ended with exit code 3\n")
        self.assertEqual((self.layout(), log.read_text()), (before, "apply-start mixed more\napply-exit mixed more\n"))
        write(apply_exit="exit 4")
        self.assertEqual(self.label(FAILED, "apply", "mixed", "-k", hooks).stderr, "hook apply-exit: sh: ended with exit code 4\n")
        self.label(OK, "assert", "mixed")

    def test_a_mode_that_waits(self):
        """Somebody computes on the GPU: named, and the mode is not left pending."""
        holder = subprocess.Popen([BIN / "gpuslice-sim", "work", "--root", self.root, "--device", "0", "--memory", "1Mi"],
                                  stdout=subprocess.PIPE, text=True)
        try:
            holder.stdout.readline()
            said = self.label(IN_USE, "apply", "whole").stderr
            self.assertIn(f"PID {holder.pid} (gpuslice-sim)", said)
            self.assertEqual([gpu["migMode"] for gpu in self.gpus()], [{"current": 0, "pending": 0}] * 2)
            # Who says that no reset is wanted now may have it pending: that disturbs nobody.
            for again in ((), ("--mode-only",)):
                said = self.label(RESET, "apply", "whole", "--skip-reset", *again).stderr
                self.assertRegex(said, r"^GPU 0: MIG on is pending.*gpuslice smi --gpu-reset -i 0")
                self.assertEqual(self.gpus()[0]["migMode"], {"current": 0, "pending": 1})
            self.assertEqual(self.journals(), [])
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()
        self.label(OK, "apply", "whole")

    def test_a_mode_that_no_reset_is_needed_for(self):
        self.root = self.tmp / "hopper"
        self.sim("create", "--root", self.root, "--gpus", "1xH100-80GB-SXM")
        holder = subprocess.Popen([BIN / "gpuslice-sim", "work", "--root", self.root, "--memory", "1Mi"], stdout=subprocess.PIPE, text=True)
        try:
            holder.stdout.readline()
            self.file.write_text(LABELS.replace("7g.40gb", "7g.80gb"))
            self.label(IN_USE, "apply", "whole", "--skip-reset")
            self.assertEqual(self.gpus()[0]["migMode"], {"current": 0, "pending": 0})
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()
        self.label(OK, "apply", "whole")

    def test_a_mode_that_takes_a_reboot(self):
        """In a virtual machine: exit 6, the mode pending; after the reboot the same label is made."""
        self.root = self.tmp / "machine"
        self.sim("create", "--root", self.root, "--gpus", "1xA100-SXM4-40GB", "--passthrough")
        for words in (("--skip-reset",), ()):
            said = self.label(RESET, "apply", "whole", *words).stderr
            self.assertRegex(said, r"^GPU 0: .*reboot")
            self.assertEqual(self.gpus()[0]["migMode"], {"current": 0, "pending": 1})
            self.assertEqual(self.journals(), [])
        self.sim("reboot", "--root", self.root)
        self.label(OK, "apply", "whole")
        self.assertEqual(self.layout(), [[("7g.40gb", 0, 1)]])

    def test_a_driver_that_hangs(self):
        """The program ends, named call and all; the journal stands, and the next apply goes on from it."""
        self.label(OK, "apply", "mixed")
        self.sim("inject", "--root", self.root, "hang", "--call", "nvmlGpuInstanceDestroy", "--gpu", "0", "--after", "3", "--times", "1")
        started = time.monotonic()
        said = self.label(FAILED, "apply", "whole", "--call-timeout", "1s").stderr
        self.assertLess(time.monotonic() - started, 15)
        self.assertRegex(said, r"^NVIDIA driver: nvmlGpuInstanceDestroy has not answered for 1 s; this program ends here: if a change was under way "
                         rf"its journal is in {self.root}/var/lib/gpuslice/mig, and the next start goes on from it; look for XIDs in dmesg\n$")
        self.assertEqual(len(self.journals()), 2)
        self.sim("inject", "--root", self.root, "clear")
        self.label(OK, "apply", "mixed")
        self.label(OK, "assert", "mixed")
        self.assertEqual(self.journals(), [])

    def test_two_writers(self):
        self.label(OK, "apply", "mixed")
        self.sim("inject", "--root", self.root, "latency", "--call", "nvmlGpuInstanceDestroy", "--for", "200ms", "--times", "0")
        first = subprocess.Popen(self.command("apply", "-f", self.file, "-c", "whole"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 10
        while not self.journals():
            self.assertLess(time.monotonic(), until, "the first writer does not begin")
            time.sleep(0.01)
        second = self.label(IN_USE, "apply", "off")
        self.assertRegex(second.stderr, rf"^GPU 0: busy, by PID {first.pid}, since \d{{4}}-.*Z; try again when it has ended\n")
        out, err = first.communicate(timeout=60)
        self.assertEqual((first.returncode, err), (0, ""), out)
        self.assertEqual(self.layout(), [[("7g.40gb", 0, 1)]] * 2)

    def test_killed_in_the_middle(self):
        """kill -9 at any moment: the next apply ends where it should, and leaves no journal."""
        rng = random.Random(5)
        self.label(OK, "apply", "mixed")
        for call in ("nvmlGpuInstanceDestroy", "nvmlComputeInstanceDestroy", "nvmlDeviceCreateGpuInstance*"):
            self.sim("inject", "--root", self.root, "latency", "--call", call, "--for", "20ms", "--times", "0")
        left = 0
        for round_ in range(12):
            writer = subprocess.Popen(self.command("apply", "-f", self.file, "-c", "whole" if round_ % 2 == 0 else "mixed"),
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.05, 0.5))
            writer.kill()
            writer.wait()
            left += len(self.journals())
            wanted = rng.choice(("mixed", "whole"))
            self.label(OK, "apply", wanted)
            self.label(OK, "assert", wanted)
            self.assertEqual(self.journals(), [])
        self.assertGreater(left, 0, "no writer was killed in the middle")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    known, rest = parser.parse_known_args()
    BIN = pathlib.Path(known.bin).resolve()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=1)
