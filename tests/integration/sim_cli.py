#!/usr/bin/env python3
"""gpuslice-sim's refusals: sim_cli.py --bin DIR

Each verb with missing and wrong arguments, world files that are damaged, boards that do not exist, without root. Each
time the exit code of the contract and one sentence on stderr that names what was wrong and what to do.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
from node_under_test import NodeUnderTest  # noqa: E402

SIM = None  # the program, by --bin
NOBODY = 65534
USAGE, IN_USE, FAILED = 2, 5, 7
HELP = "; gpuslice-sim --help says how"
VERBS = "create, exec, show, reset, reboot, driver-reload, time, work, inject, kubelet, pod, node, kubelet-restart"


def sim(*words, env=None, before=(), timeout=20):
    return subprocess.run([*before, SIM, *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout,
                          env=env, cwd="/")


class Refusals(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = pathlib.Path(tempfile.mkdtemp(prefix="gpuslice-cli-"))
        os.chmod(cls.tmp, 0o755)
        cls.node = cls.tmp / "node"
        made = sim("create", "--root", cls.node, "--gpus", "2xA100-SXM4-40GB")
        assert made.returncode == 0, made.stderr
        cls.nothing = cls.tmp / "nothing"

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.tmp, ignore_errors=True)

    def refused(self, code, sentence, *words, **how):
        """One line, which is the sentence; nothing on stdout."""
        done = sim(*words, **how)
        said = " ".join(map(str, words))
        self.assertEqual((done.returncode, done.stderr, done.stdout), (code, f"gpuslice-sim: {sentence}\n", ""), said)

    def done(self, *words, **how):
        done = sim(*words, **how)
        self.assertEqual((done.returncode, done.stderr), (0, ""), words)
        return done.stdout

    # --- the command line alone ----------------------------------------------------------------------------------

    def test_verbs(self):
        self.refused(USAGE, f"which verb? there are {VERBS}{HELP}")
        self.refused(USAGE, f'there is no verb "--frob"; there are {VERBS}{HELP}', "--frob")
        self.refused(USAGE, 'there is no verb "creat"; did you mean create?; gpuslice-sim --help lists them', "creat")
        self.refused(USAGE, 'there is no verb "xyzzy"; gpuslice-sim --help lists them', "xyzzy")
        self.refused(USAGE, f'pod: which verb? there are run, rm, ls, exec{HELP}', "pod", "--dir", "/x")
        self.refused(USAGE, f'pod: there is no verb "frob"; there are run, rm, ls, exec{HELP}', "pod", "--dir", "/x", "frob")

    def test_missing_arguments(self):
        for verb in ("create", "exec", "show", "inject", "reset", "reboot", "driver-reload", "time"):
            self.refused(USAGE, f"--root is required{HELP}", verb)
        for verb in ("kubelet", "pod", "node", "kubelet-restart"):
            self.refused(USAGE, f"--dir is required{HELP}", verb)
        self.refused(USAGE, f"--advance is required{HELP}", "time", "--root", self.node)
        self.refused(USAGE, f"fault is required{HELP}", "inject", "--root", self.node)
        self.refused(USAGE, f"name is required{HELP}", "pod", "--dir", "/x", "run")
        self.refused(USAGE, f"--request is required{HELP}", "pod", "--dir", "/x", "run", "p")
        self.refused(USAGE, f"name is required{HELP}", "pod", "--dir", "/x", "exec")
        self.refused(USAGE, "pod rm: which pod? NAME… or --all", "pod", "--dir", "/x", "rm")
        self.refused(USAGE, f"exec: which program? gpuslice-sim exec --root {self.node} -- CMD…", "exec", "--root", self.node)
        for flag in ("--root", "--gpus", "--driver", "--library"):
            self.refused(USAGE, f"{flag}: 1 required TEXT missing{HELP}", "create", flag)

    def test_arguments_nobody_asked_for(self):
        for verb in ("create", "show", "reboot", "driver-reload"):
            self.refused(USAGE, f"The following argument was not expected: extra{HELP}", verb, "--root", self.nothing, "extra")
        self.refused(USAGE, f"The following arguments were not expected: 1 --sed{HELP}", "create", "--root", self.nothing, "--sed", "1")
        self.assertFalse(self.nothing.exists())

    def test_numbers(self):
        for words, flag in ((("create", "--root", self.nothing), "--seed"), (("reset", "--root", self.node), "--gpu"),
                            (("inject", "--root", self.node, "lose"), "--gpu"), (("inject", "--root", self.node, "xid"), "--code"),
                            (("inject", "--root", self.node, "fail"), "--after"), (("inject", "--root", self.node, "fail"), "--times"),
                            (("inject", "--root", self.node, "ecc"), "--corrected"), (("work",), "--seconds")):
            self.refused(USAGE, f"Could not convert: {flag} = x{HELP}", *words, flag, "x")
            self.refused(USAGE, f"{flag}: -1 is negative{HELP}", *words, flag, "-1")
        for wrong in ("0", "-1", "1001"):
            self.refused(USAGE, f"--count: Value {wrong} not in range 1 to 1000{HELP}", "pod", "--dir", "/x", "run", "p", "--request", "a=1",
                         "--count", wrong)
        self.refused(USAGE, f"--output: yaml not in {{json}}{HELP}", "show", "--root", self.node, "-o", "yaml")
        for verb in (("pod", "--dir", "/x", "ls"), ("node", "--dir", "/x")):
            self.refused(USAGE, f"--output: yaml not in {{json,table}}{HELP}", *verb, "-o", "yaml")
        self.refused(USAGE, f"--kind: gaming not in {{compute,graphics,mps}}{HELP}", "work", "--kind", "gaming")

    def test_durations(self):
        for wrong in ("x", "5", "-5s", "5 s"):
            self.refused(USAGE, f"time --advance {wrong}: a duration such as 90s or 5m", "time", "--root", self.node, f"--advance={wrong}")
            for flag in ("--socket-latency", "--restart-every", "--grace"):
                self.refused(USAGE, f"{flag} {wrong}: a duration such as 200ms or 5s", "kubelet", "--dir", self.nothing, f"{flag}={wrong}")
            self.refused(USAGE, f"--timeout {wrong}: a duration such as 200ms or 5s", "pod", "--dir", "/x", "run", "p", "--request", "a=1",
                         f"--timeout={wrong}")

    # --- create --------------------------------------------------------------------------------------------------

    def test_boards(self):
        known = ("NVIDIA A100-SXM4-40GB", "NVIDIA A30", "NVIDIA H100 80GB HBM3", "NVIDIA L40S", "Tesla T4")
        for board in ("A101", "H100-90GB", "", "A100-SXM4-40GB "):
            gpus = f"2x{board}," if board.endswith(" ") else f"2x{board}"
            done = sim("create", "--root", self.nothing, "--gpus", gpus)
            self.assertEqual((done.returncode, done.stdout), (USAGE, ""))
            name = "" if board.endswith(" ") else board
            self.assertTrue(done.stderr.startswith(f'gpuslice-sim: --gpus {gpus}: board "{name}": no such board'), done.stderr)
            self.assertIn(" Known: ", done.stderr)
            for one in known:
                self.assertIn(one, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)
        self.refused(USAGE, '--gpus 2xA800: board "A800": which one? There is NVIDIA A800-SXM4-80GB, NVIDIA A800 80GB PCIe, NVIDIA A800 40GB',
                     "create", "--root", self.nothing, "--gpus", "2xA800")
        for gpus in ("0xT4", "33xT4", "16xT4,17xT4", "99999999999xT4"):
            self.refused(USAGE, f"--gpus {gpus}: a node has 1 to 32 GPUs", "create", "--root", self.nothing, "--gpus", gpus)
        self.assertFalse(self.nothing.exists())

    def test_drivers(self):
        for driver in ("1", "590", "580.x", "581.1", "580.65.06.1", "v580.65", ".."):
            self.refused(USAGE, f"--driver {driver}: a version of the branches 535, 550, 570 or 580, such as 580.65.06, or one of these "
                         "numbers alone", "create", "--root", self.nothing, "--driver", driver)
        self.assertFalse(self.nothing.exists())
        for branch in ("535", "550", "570", "580"):
            node = self.tmp / branch
            self.done("create", "--root", node, "--gpus", "T4", "--driver", branch)
            self.assertEqual(json.loads(self.done("show", "--root", node))["driver"].split(".")[0], branch)

    def test_folders(self):
        file = self.tmp / "a file"
        file.write_text("x")
        full = self.tmp / "full"
        full.mkdir()
        (full / "mine").write_text("x")
        self.refused(USAGE, f"--root {file}: this is a file, not a folder", "create", "--root", file)
        self.refused(FAILED, f"--root {full}: the folder is not empty; take a new one", "create", "--root", full)
        self.refused(FAILED, f"--root {self.node}: there is a simulated node already; remove the folder or take another one", "create",
                     "--root", self.node)
        self.refused(FAILED, f"--root {file}/x: cannot make the folder: Not a directory", "create", "--root", file / "x")
        self.refused(FAILED, "/no/such: the simulated library is not there; build it, or name it with --library", "create", "--root",
                     self.nothing, "--library", "/no/such")
        self.assertEqual([p.name for p in full.iterdir()], ["mine"])

    # --- a node that is not there, or not whole ------------------------------------------------------------------

    def test_no_node(self):
        no_node = f"{self.nothing}: there is no simulated node; make one with: gpuslice-sim create --root {self.nothing}"
        for words in (("show",), ("reboot",), ("driver-reload",), ("reset",), ("time", "--advance", "1s"), ("exec",)):
            self.refused(FAILED, no_node, words[0], "--root", self.nothing, *words[1:])
        self.refused(FAILED, f"--root {no_node}", "kubelet", "--root", self.nothing, "--dir", self.tmp / "k")
        named = f"{self.nothing}: there is no simulated node; name it with --root"
        self.refused(FAILED, named, "work", "--root", self.nothing)
        self.refused(FAILED, named, "work", env=dict(os.environ, GPUSLICE_SIM_ROOT=str(self.nothing)))
        self.refused(FAILED, named, "inject", "--root", self.nothing, "lose", "--gpu", "0")
        self.assertFalse(self.nothing.exists())
        self.assertFalse((self.tmp / "k").exists())

    def test_damaged_worlds(self):
        """Magic, other format, other byte order, other sizes, a torn copy: refused by every verb, and left as it is."""
        whole = (self.node / "world" / "state").read_bytes()
        page, copies = 4096, (len(whole) - 4096) // 2

        def with_bytes(at, new):
            return whole[:at] + new + whole[at + len(new):]

        both_torn = bytearray(whole)
        for copy in (0, 1):
            both_torn[page + copy * copies + 64] ^= 0xFF
        damaged = {"empty": b"", "short": whole[:100], "half": whole[: len(whole) // 2], "longer": whole + b"x" * 4096, "zeros": bytes(len(whole)),
                   "magic": with_bytes(0, b"no world at all!"), "other version": with_bytes(16, struct.pack("<I", 999)),
                   "byte order": with_bytes(20, struct.pack(">I", 0x01020304)), "state size": with_bytes(24, struct.pack("<Q", 8)),
                   "torn": bytes(both_torn)}
        for name, data in damaged.items():
            with self.subTest(name):
                root = self.tmp / f"damaged {name}"
                (root / "world").mkdir(parents=True)
                file = root / "world" / "state"
                file.write_bytes(data)
                for words in (("show",), ("reset",), ("reboot",), ("time", "--advance", "1s"), ("exec", "--", "true"),
                              ("inject", "lose", "--gpu", "0"), ("work",)):
                    done = sim(words[0], "--root", root, *words[1:])
                    self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (FAILED, "", 1), (words, done.stderr))
                    self.assertTrue(done.stderr.startswith(f"gpuslice-sim: simulated node: world file {file}: refused: "), done.stderr)
                    self.assertTrue(done.stderr.endswith("; remove the node's folder and make it anew with gpuslice-sim create\n"), done.stderr)
                self.assertEqual(file.read_bytes(), data)

    def test_the_version_is_named(self):
        root = self.tmp / "versions"
        (root / "world").mkdir(parents=True)
        whole = bytearray((self.node / "world" / "state").read_bytes())
        whole[16:20] = struct.pack("<I", 999)
        (root / "world" / "state").write_bytes(whole)
        self.assertIn("999", sim("show", "--root", root).stderr)

    # --- faults, resets, work ------------------------------------------------------------------------------------

    def test_inject(self):
        at = ("inject", "--root", self.node)
        faults = "there are xid, lose, restore, fail, latency, hang, ecc, remap, recovery, heat, throttle, clear"
        self.refused(USAGE, f'inject: "frobnicate" is no fault; {faults}', *at, "frobnicate", "--gpu", "0")
        self.refused(USAGE, f'inject: "los" is no fault; did you mean lose?; {faults}', *at, "los", "--gpu", "0")
        for fault in ("xid", "lose", "restore", "ecc", "remap", "throttle"):
            self.refused(USAGE, f"inject {fault}: which GPU? --gpu N", *at, fault)
        self.refused(FAILED, "inject: no GPU 2: this node has GPUs 0 to 1", *at, "lose", "--gpu", "2")
        for fault in ("fail", "latency", "hang"):
            for call in ((), ("--call", "GpuInstanceDestroy")):
                self.refused(USAGE, f"inject {fault} --call {''.join(call[1:])}: a call of NVML such as nvmlGpuInstanceDestroy, or nvmlDevice*", *at,
                             fault, *call)
            self.refused(USAGE, f"inject {fault} --call nvmlGpuInstanceDestory: NVML has no such call; did you mean nvmlGpuInstanceDestroy?", *at, fault,
                         "--call", "nvmlGpuInstanceDestory")
            self.refused(USAGE, f"inject {fault} --call nvmlGpuInstanze*: NVML has no such call", *at, fault, "--call", "nvmlGpuInstanze*")
        for call, code in (("nvmlGpuInstanceDestroy", "NVML_ERROR_IN_USE"), ("nvmlDeviceCreate*", "IN_USE"), ("nvmlVgpuInstanceGetType", "UNKNOWN")):
            self.done(*at, "fail", "--call", call, "--return", code)
        self.done(*at, "clear")
        self.refused(USAGE, "inject fail --return NOPE: a code of NVML such as IN_USE, UNKNOWN, GPU_IS_LOST", *at, "fail", "--call",
                     "nvmlInit_v2", "--return", "NOPE")
        self.refused(USAGE, "inject latency --for long: a duration such as 200ms", *at, "latency", "--call", "nvmlInit_v2", "--for", "long")
        before = self.done("show", "--root", self.node)
        self.assertNotIn('"lost": true', before)

    def test_reset(self):
        self.refused(FAILED, "GPU 2: this node has GPUs 0 to 1", "reset", "--root", self.node, "--gpu", "2")
        self.refused(FAILED, "reset: no GPU has the bus id 0000:ff:00.0", "reset", "--root", self.node, "--bus", "0000:ff:00.0")

    def test_work(self):
        at = ("work", "--root", self.node)
        for wrong in ("x", "-1", "1Q"):
            self.refused(USAGE, f"work --memory {wrong}: an amount such as 512Mi or 2Gi", *at, f"--memory={wrong}")
        for wrong in ("1.5", "-0.5"):
            self.refused(USAGE, f"work --activity {wrong}: between 0 and 1", *at, f"--activity={wrong}")
        for device in ("7", "GPU-00000000", "0:0"):
            self.refused(FAILED, f"work: no device {device} is visible here", *at, "--device", device)

    def test_out_of_memory_ends_that_process_alone(self):
        first = subprocess.Popen([SIM, "work", "--root", self.node, "--device", "1", "--memory", "30Gi"], stdout=subprocess.PIPE, text=True,
                                 stdin=subprocess.DEVNULL)
        try:
            self.assertEqual(first.stdout.readline(), "working on GPU 1\n")
            second = sim("work", "--root", self.node, "--device", "1", "--memory", "30Gi")
            self.assertEqual((second.returncode, second.stderr), (-signal.SIGABRT, "CUDA error: out of memory (30Gi asked for on GPU 1)\n"))
            self.assertIsNone(first.poll())
            third = sim("work", "--root", self.node, "--device", "1", "--memory", "9Gi", "--seconds", "0.01")
            self.assertEqual((third.returncode, third.stderr), (0, ""))
        finally:
            first.terminate()
            self.assertEqual(first.wait(5), 0)
            first.stdout.close()

    # --- the kubelet stand-in ------------------------------------------------------------------------------------

    def test_no_kubelet(self):
        sentence = f"{self.nothing}: no kubelet stand-in runs there; start one with: gpuslice-sim kubelet --root ROOT --dir {self.nothing}"
        for words in (("pod", "run", "p", "--request", "a.b/c=1"), ("pod", "ls"), ("pod", "rm", "p"), ("pod", "exec", "p", "--", "true"), ("node",),
                      ("kubelet-restart",)):
            self.refused(FAILED, sentence, words[0], "--dir", self.nothing, *words[1:])

    def test_pods(self):
        for wrong in ("nvidia.com/gpu", "nvidia.com/gpu=", "nvidia.com/gpu=0", "nvidia.com/gpu=x", "=1", "nvidia.com/gpu=1001", "nvidia.com/gpu=1.5"):
            self.refused(USAGE, f"--request {wrong}: a resource and a whole number, such as nvidia.com/gpu=1", "pod", "--dir", "/x", "run", "p",
                         "--request", wrong)
        with NodeUnderTest(pathlib.Path(SIM).parent, gpus="1xA30-24GB", under=self.tmp) as node:
            node.start_kubelet()
            at = ("pod", "--dir", node.kubelet_dir)
            self.refused(FAILED, "there is no pod nobody", *at, "rm", "nobody")
            self.refused(FAILED, "there is no pod nobody", *at, "exec", "nobody", "--", "true")
            self.refused(FAILED, "pod p: still Pending: this node has no resource nvidia.com/gpu", *at, "run", "p", "--request",
                         "nvidia.com/gpu=1", "--timeout", "50ms")
            self.refused(FAILED, "pod p exists already; remove it with: gpuslice-sim pod rm p", *at, "run", "p", "--request", "nvidia.com/gpu=1")
            self.refused(FAILED, "pod p: it does not run", *at, "exec", "p", "--", "true")
            self.refused(FAILED, "a pod's name has 1 to 253 characters", *at, "run", "p" * 254, "--request", "nvidia.com/gpu=1")
            socket = node.kubelet_dir / "gpuslice-sim.sock"
            self.refused(IN_USE, f"{socket}: a kubelet stand-in runs there already; take another --dir", "kubelet", "--dir", node.kubelet_dir)
            self.assertEqual(self.done("pod", "--dir", node.kubelet_dir, "rm", "--all"), "")

    def test_kubelet_folders(self):
        file = self.tmp / "no folder"
        file.write_text("x")
        self.refused(FAILED, f"--dir {file}/k: cannot make the folder: Not a directory", "kubelet", "--dir", file / "k")
        deep = self.tmp / ("d" * 100)
        done = sim("kubelet", "--dir", deep)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (USAGE, 1))
        self.assertIn("too long for a socket: at most 107 characters", done.stderr)

    # --- without root --------------------------------------------------------------------------------------------

    def test_without_root(self):
        """A copy where nobody may read: a node of one's own works; another's is not touched; a view of one's own may be refused."""
        if os.geteuid() != 0:
            self.skipTest("this test begins as root and gives it up")
        there = self.tmp / "copy"
        (there / "bin").mkdir(parents=True)
        (there / "lib").mkdir()
        shutil.copy(SIM, there / "bin")
        shutil.copy(pathlib.Path(SIM).parents[1] / "lib" / "libnvidia-ml.so.1", there / "lib")
        home = self.tmp / "theirs"
        home.mkdir()
        os.chown(home, NOBODY, NOBODY)
        before = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

        def as_nobody(*words):
            return subprocess.run([*before, there / "bin" / "gpuslice-sim", *map(str, words)], capture_output=True, text=True,
                                  stdin=subprocess.DEVNULL, timeout=20, cwd="/")

        made = as_nobody("create", "--root", home / "node", "--gpus", "1xT4")
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        self.assertEqual(as_nobody("show", "--root", home / "node").returncode, 0)
        worked = as_nobody("work", "--root", home / "node", "--seconds", "0.01")
        self.assertEqual((worked.returncode, worked.stdout, worked.stderr), (0, "working on GPU 0\n", ""))
        refused = as_nobody("create", "--root", self.tmp / "ours", "--gpus", "1xT4")
        self.assertEqual((refused.returncode, refused.stderr),
                         (FAILED, f"gpuslice-sim: --root {self.tmp}/ours: cannot make the folder: Permission denied\n"))
        view = as_nobody("exec", "--root", home / "node", "--private-mounts", "--", "true")
        if view.returncode != 0:
            self.assertEqual((view.returncode, view.stderr.count("\n")), (FAILED, 1), view.stderr)
            self.assertTrue(view.stderr.startswith("gpuslice-sim: private view: "), view.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    known, rest = parser.parse_known_args()
    SIM = str(pathlib.Path(known.bin).resolve() / "gpuslice-sim")
    unittest.main(argv=[sys.argv[0], *rest])
