#!/usr/bin/env python3
"""What gpuslice apply refuses, untouched: mig_refusals.py --bin DIR

On simulated nodes of each driver branch that names its profiles with MIG off (550 and later): a wish that cannot be is
refused with its exact sentence and exit code, and the oracle shows the same instances, the same generations and not one
call more to the driver that changes anything. No journal stays behind.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
from node_under_test import NodeUnderTest, eventually  # noqa: E402

BIN = None  # by --bin
DRIVERS = ("550.90.07", "570.86.15", "580.65.06")
NOBODY = "65534"
USAGE, INVALID, IMPOSSIBLE, IN_USE, FAILED = 2, 3, 4, 5, 7
A100 = "NVIDIA A100-SXM4-40GB"
NOBODYS = (f"label wanted: no entry of it is for a GPU of this node, which has GPU 0 ({A100}, PCI 0x20B010DE), GPU 1 ({A100}, PCI 0x20B010DE), "
           "GPU 2 (Tesla T4, PCI 0x1EB810DE, no MIG); name one of these in devices and, if given, in device-filter")
OFFERS = "1g.5gb, 2g.10gb, 3g.20gb, 4g.20gb, 7g.40gb, 1g.5gb+me, 1g.10gb"


def run(*words, timeout=60, **how):
    return subprocess.run([*map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout, cwd="/", **how)


def label(entries, name="wanted"):
    return f"version: v1\nmig-configs:\n  {name}:\n{entries}"


def entry(profiles, devices="all", enabled="true", more=""):
    return f"    - devices: {devices}\n{more}      mig-enabled: {enabled}\n      mig-devices: {profiles}\n"


class Node:
    """Two A100s and a T4: seven instances on GPU 0, four on GPU 1."""

    def __init__(self, driver, folder):
        self.folder = pathlib.Path(folder)
        self.root = self.folder / "node"
        self.file = self.folder / "mig.yaml"
        self.sim("create", "--root", self.root, "--gpus", "2xA100-SXM4-40GB,1xT4", "--driver", driver)
        self.write(label(entry("{1g.5gb: 7}", "[0]") + entry("{3g.20gb: 1, 2g.10gb: 1, 1g.5gb: 2}", "[1]")))
        done = self.apply()
        if done.returncode != 0:
            raise AssertionError(f"driver {driver}: the node cannot be prepared: {done.stderr}")

    def sim(self, *words):
        done = run(BIN / "gpuslice-sim", *words)
        if done.returncode != 0:
            raise AssertionError(f"gpuslice-sim {words}: {done.stderr}")
        return done.stdout

    def write(self, text):
        self.file.write_text(text)

    def apply(self, *more, before=(), name="wanted"):
        return run(*before, BIN / "gpuslice", "apply", "--root", self.root, "--kubelet-dir", self.folder / "kubelet", "-f", self.file,
                   "-c", name, *more)

    def seen(self):
        """What must not change: instances with their generations, modes, counts of calls, resets; and our own files."""
        gpus = json.loads(self.sim("show", "--root", self.root, "-o", "json"))["gpus"]
        world = [{key: gpu[key] for key in ("uuid", "migMode", "resets", "calls")} |
                 {"gis": [(gi["id"], gi["profile"], gi["generation"], [(ci["id"], ci["generation"]) for ci in gi["computeInstances"]])
                          for gi in gpu["gpuInstances"]]} for gpu in gpus]
        state = self.root / "var" / "lib" / "gpuslice"
        return world, sorted(str(p) for p in state.rglob("*") if p.is_file())

    def instances(self, gpu):
        return json.loads(self.sim("show", "--root", self.root, "-o", "json"))["gpus"][gpu]["gpuInstances"]


class Refused(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = pathlib.Path(tempfile.mkdtemp(prefix="gpuslice-refused-"))
        os.chmod(cls.tmp, 0o755)
        cls.nodes = {}
        for driver in DRIVERS:
            folder = cls.tmp / driver
            folder.mkdir()
            cls.nodes[driver] = Node(driver, folder)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.tmp, ignore_errors=True)

    def refused(self, code, sentence, text, *more, before=(), name="wanted", node=None):
        """On every driver, or on one node: that code, that sentence last on stderr, and nothing touched.

        In the sentence {file} is the configuration and {gpu0} GPU 0's UUID; a temporary file's number is left out.
        """
        for one in [node] if node else self.nodes.values():
            one.write(text)
            before_it = one.seen()
            said = sentence.format(file=one.file, gpu0=before_it[0][0]["uuid"], root=one.root)
            done = one.apply(*more, before=before, name=name)
            self.assertEqual(one.seen(), before_it, f"the node was touched: {done.stdout}{done.stderr}")
            seen = re.sub(r"\.tmp\.\d+", "", done.stderr)
            self.assertEqual((done.returncode, seen.splitlines()[-1:]), (code, [said]), done.stdout + done.stderr)
            as_json = one.apply(*more, "-o", "json", before=before, name=name)
            self.assertEqual((as_json.returncode, one.seen()), (code, before_it), "the node was touched with -o json")
            self.assertIn(json.dumps(said)[1:-1], re.sub(r"\.tmp\.\d+", "", as_json.stdout), "-o json does not say why")
            json.loads(as_json.stdout)

    # --- what the file says ----------------------------------------------------------------------------------------

    def test_profile_of_another_board(self):
        self.refused(IMPOSSIBLE, f"GPU 0 ({A100}): it has no profile 1g.18gb; the nearest is 1g.10gb; it offers {OFFERS}",
                     label(entry("{1g.18gb: 7}", "[0]")))

    def test_one_gigabyte_off_is_another_board(self):
        self.refused(IMPOSSIBLE, f"GPU 0 ({A100}): it has no profile 1g.6gb; the nearest is 1g.5gb; it offers {OFFERS}",
                     label(entry("{1g.6gb: 4}", "[0]")))

    def test_one_too_many(self):
        self.refused(IMPOSSIBLE, f"GPU 0 ({A100}): 8 x 1g.5gb wanted, but at most 7 fit on this GPU; the most that can be had of it: 7 x 1g.5gb",
                     label(entry("{1g.5gb: 8}", "[0]")))

    def test_too_much_together(self):
        self.refused(IMPOSSIBLE, f"GPU 0 ({A100}): 1 x 3g.20gb, 2 x 2g.10gb, 1 x 1g.5gb need 9 memory slices, and this GPU has 8; the most "
                     "that can be had of it: 2 x 2g.10gb + 1 x 3g.20gb",
                     label(entry("{3g.20gb: 1, 2g.10gb: 2, 1g.5gb: 1}", "[0]")))

    def test_typo_in_a_profile(self):
        self.refused(INVALID, "{file}:6:21: mig-devices: \"1g.5g\" is no MIG profile: the memory (.5gb) is missing; a profile looks like "
                     "1g.5gb, 1c.3g.20gb or 1g.10gb+me",
                     label(entry("{1g.5g: 7}", "[0]")))

    def test_typo_in_a_key(self):
        self.refused(INVALID, "{file}:6:7: unknown key \"mig-devcies\" under mig-configs.<label>[]; did you mean mig-devices?",
                     label("    - devices: [0]\n      mig-enabled: true\n      mig-devcies: {1g.5gb: 7}\n"))

    def test_typo_in_the_label(self):
        self.refused(INVALID, "{file}: it has no label wantde; did you mean wanted? it has wanted",
                     label(entry("{1g.5gb: 7}", "[0]")), name="wantde")

    def test_malformed_filter(self):
        self.refused(INVALID, "{file}:5:22: device-filter: \"0x20B010D\" is no PCI id and would never match; write \"0x\", the device and the "
                     "vendor: \"0x20B010DE\", if wanted with the subsystem: \"0x20B010DE:0x134F10DE\"; nvidia-smi "
                     "--query-gpu=name,pci.device_id,pci.sub_device_id --format=csv shows them",
                     label(entry("{7g.40gb: 1}", more="      device-filter: 0x20B010D\n")))

    def test_product_name_as_filter(self):
        self.refused(INVALID, "{file}:5:23: device-filter: \"A100-SXM4-40GB\" is a product name and would never match; the PCI id of that board "
                     "is \"0x20B010DE\"",
                     label(entry("{7g.40gb: 1}", more='      device-filter: ["A100-SXM4-40GB"]\n')))

    def test_filter_of_another_board(self):
        self.refused(INVALID, "{file}:3:3: " + NOBODYS,
                     label(entry("{7g.80gb: 1}", more='      device-filter: "0x233010DE"\n')))

    def test_wrong_index(self):
        self.refused(INVALID, "{file}:3:3: " + NOBODYS,
                     label(entry("{7g.40gb: 1}", "[7]")))

    def test_zero_count(self):
        self.refused(INVALID, "{file}:6:29: mig-devices.1g.5gb is 0: leave the profile out; with a 0 mig-parted makes everything anew at each apply",
                     label(entry("{1g.5gb: 0, 7g.40gb: 1}", "[0]")))

    def test_board_without_mig(self):
        self.refused(IMPOSSIBLE, "{file}:4:17: GPU 2 (Tesla T4): MIG is wanted, and this board has none; leave it out of devices, or give it "
                     "mig-enabled: false",
                     label(entry("{1g.5gb: 7}", "[2]")))

    def test_second_gpu_impossible_leaves_the_first(self):
        self.refused(IMPOSSIBLE, f"GPU 1 ({A100}): 2 x 7g.40gb wanted, but at most 1 fit on this GPU; the most that can be had of it: 1 x 7g.40gb",
                     label(entry("{7g.40gb: 1}", "[0]") + entry("{7g.40gb: 2}", "[1]")))

    # --- what the node says ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def working(self, node, gpu):
        gi = node.instances(gpu)[0]
        uuid = gi["computeInstances"][0]["uuid"]
        work = subprocess.Popen([BIN / "gpuslice-sim", "work", "--root", node.root, "--device", uuid, "--memory", "1Gi"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 20
            while not node.instances(gpu)[0]["computeInstances"][0]["clients"]:
                if time.monotonic() > until:
                    raise AssertionError("the workload does not come")
                time.sleep(0.02)
            yield work.pid, gi
        finally:
            work.kill()
            work.wait()

    def test_busy_instance(self):
        for node in self.nodes.values():
            with self.working(node, 0) as (pid, gi):
                self.refused(IN_USE, f"GPU 0 ({A100}): 1 x 7g.40gb cannot be made without touching what is in use: GPU instance "
                             f"{gi['id']} (1g.5gb at 0:1): held by PID {pid} (gpuslice-sim), on GPU instance {gi['id']}, compute "
                             "instance 0; nothing of it can be had meanwhile; end what holds it, or wait with --wait (the agent: --mig-wait)",
                             label(entry("{7g.40gb: 1}", "[0]")), node=node)

    def test_lost_gpu(self):
        for node in self.nodes.values():
            node.sim("inject", "--root", node.root, "lose", "--gpu", "1")
            try:
                lost = ("GPU 1 does not answer, and the label is for it: GPU 1: nvmlDeviceGetHandleByIndex_v2: GPU is lost (15); "
                        "nothing is changed: see dmesg for XIDs and reset or reboot it, or leave it out of devices")
                self.refused(FAILED, lost, label(entry("{7g.40gb: 1}", "[1]")), node=node)
                self.refused(FAILED, lost, label(entry("{7g.40gb: 1}")), node=node)
            finally:
                node.sim("inject", "--root", node.root, "restore", "--gpu", "1")

    def test_no_permission(self):
        self.needs_root("a process without root's rights")
        # Also where the folders of locks and journals are one's own.
        with tempfile.TemporaryDirectory() as own:
            os.chmod(own, 0o777)
            for more in ((), ("--run-dir", f"{own}/run", "--state-dir", f"{own}/state")):
                self.refused(FAILED, "GPU 0: MIG may be changed by root, and by who can open {root}/dev/nvidia-caps/nvidia-cap1 (mig/config), which "
                             f"user {NOBODY} cannot; nothing is changed: run it as root", label(entry("{7g.40gb: 1}", "[0]")), *more,
                             before=("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"))

    # --- the journal's folder --------------------------------------------------------------------------------------

    def needs_root(self, what):
        if os.geteuid() != 0:
            self.fail(f"{what} cannot be made without root: run this test as root (in a container is enough)")

    def full_or_read_only(self, script):
        """The folder `state` with a tmpfs over it, which `script` prepares, and a command prefix that sees it so."""
        state = self.tmp / "state"
        state.mkdir(exist_ok=True)
        mount = f"mount -t tmpfs -o size=8k journals {state} && {{ {script.format(state=state)}; }} && exec \"$@\""
        return state, ("unshare", "--mount", "sh", "-c", mount, "sh")

    def test_journal_folder_is_read_only(self):
        self.needs_root("a read-only file system")
        state, before = self.full_or_read_only("mount -o remount,ro {state}")
        self.refused(FAILED, f"GPU 0: nothing is changed without a journal: {state}/mig: folder cannot be made: Read-only file system; "
                     "make that writable or give another --state-dir", label(entry("{7g.40gb: 1}", "[0]")), "--state-dir", state,
                     before=before)

    def test_journal_folder_is_full(self):
        self.needs_root("a full file system")
        state, before = self.full_or_read_only("mkdir {state}/mig; head -c 9000 /dev/zero > {state}/full 2>/dev/null || :")
        self.refused(FAILED, f"GPU 0: nothing is changed without a journal: {state}/mig/{{gpu0}}.journal: cannot be written: No space "
                     "left on device; make room or give another --state-dir", label(entry("{7g.40gb: 1}", "[0]")), "--state-dir", state,
                     before=before)

    # --- pods ------------------------------------------------------------------------------------------------------

    def test_a_pod_that_holds_a_gpu(self):
        with NodeUnderTest(BIN) as node:
            node.configure("version: v1\n")
            node.start_kubelet()
            node.start_agent()
            eventually("four GPUs are offered", lambda: node.allocatable() == 4)
            node.sim("pod", "--dir", node.kubelet_dir, "run", "train", "--request", "nvidia.com/gpu=1", "--work", "--memory 1Gi")
            eventually("the pod computes", lambda: any(gpu["clients"] for gpu in node.show()["gpus"]))
            held = next(gpu["index"] for gpu in node.show()["gpus"] if gpu["clients"])
            file = node.dir / "mig.yaml"
            file.write_text(label(entry("{1g.5gb: 7}", f"[{held}]")))
            before = [(gpu["migMode"], gpu["calls"]) for gpu in node.show()["gpus"]]
            done = run(BIN / "gpuslice", "apply", "--root", node.root, "--kubelet-dir", node.kubelet_dir, "--run-dir", node.dir / "run",
                       "-f", file, "-c", "wanted")
            self.assertEqual(done.returncode, IN_USE, done.stdout + done.stderr)
            self.assertRegex(done.stderr, rf"^GPU {held}: its MIG mode cannot be switched on while it is in use: PID \d+ \(\S+\) of pod "
                             r"default/train, container \S+; end them, or wait with --wait \(the agent: --mig-wait\)\n$")
            self.assertEqual([(gpu["migMode"], gpu["calls"]) for gpu in node.show()["gpus"]], before)

    # --- a driver that does not say --------------------------------------------------------------------------------

    def test_who_uses_it_cannot_be_asked(self):
        """A list that cannot be read is not an empty one."""
        for node in self.nodes.values():
            for call, name, number, object_ in (("nvmlDeviceGetComputeRunningProcesses_v3", "UNKNOWN", 999, "GPU 0"),
                                                ("nvmlDeviceGetGpuInstances", "NO_PERMISSION", 4, "GPU 0"),
                                                ("nvmlGpuInstanceGetComputeInstances", "TIMEOUT", 10, "GPU 0, GPU instance")):
                node.write(label(entry("{7g.40gb: 1}", "[0]")))
                before = node.seen()
                node.sim("inject", "--root", node.root, "fail", "--call", call, "--return", name, "--times", "1000")
                try:
                    done = node.apply()
                finally:
                    node.sim("inject", "--root", node.root, "clear")
                self.assertEqual((done.returncode, node.seen()), (FAILED, before), done.stdout + done.stderr)
                self.assertRegex(done.stderr, rf"^{object_}.*: {call}: .* \({number}\)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    known, rest = parser.parse_known_args()
    BIN = pathlib.Path(known.bin).resolve()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=1)
