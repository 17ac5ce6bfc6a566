#!/usr/bin/env python3
"""nvidia-smi on a simulated node, as scripts and the guide type it: smi_guide.py --bin DIR

Every nvidia-smi command line of the guide (docs/guide.md), in its order, with the words that it prints, its exit code and
what came of it in `gpuslice-sim show`; then what it refuses, and to whom.
"""

import argparse
import fcntl
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
from node_under_test import NodeUnderTest, eventually  # noqa: E402

BIN = None
NOBODY = 65534
F_OFD_SETLK = 37
NINES = ("mig", "-cgi", "9,9,9,9,9,9,9", "-C", "-i")
BUSES = ("00000000:07:00.0", "00000000:0F:00.0", "00000000:47:00.0", "00000000:4E:00.0")


class OnANode(unittest.TestCase):
    gpus = "4xA100-SXM4-40GB"

    def setUp(self):
        self.node = NodeUnderTest(BIN, gpus=self.gpus)
        self.addCleanup(self.node.end)
        os.chmod(self.node.dir, 0o755)
        self.workers = []
        self.addCleanup(lambda: [self.end(worker) for worker in self.workers])

    def smi(self, *words, before=()):
        """Exit code, standard output, standard error of nvidia-smi on the node."""
        done = subprocess.run([self.node.sim_program, "exec", "--root", self.node.root, "--", *before, "nvidia-smi", *words],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def says(self, code, text, *words, **how):
        """nvidia-smi prints exactly this and exits with that; what it adds on standard error is returned."""
        got, out, err = self.smi(*words, **how)
        self.assertEqual((out, got), (text, code), (words, err))
        return err

    def nobody(self):
        return ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--")

    def layout(self, gpu):
        """[(profile, start, compute instances)] as the world has it."""
        instances = self.node.show()["gpus"][gpu]["gpuInstances"]
        return sorted((gi["profile"], gi["placement"]["start"], len(gi["computeInstances"])) for gi in instances)

    def modes(self):
        return [(gpu["migMode"]["current"], gpu["migMode"]["pending"]) for gpu in self.node.show()["gpus"]]

    def work(self, device):
        worker = subprocess.Popen([self.node.sim_program, "work", "--root", self.node.root, "--device", device, "--memory", "1Gi"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self.workers.append(worker)
        eventually(f"a process works on {device}", lambda: re.search(rf'"pid":\s*{worker.pid}\b', self.node.sim("show", "--root", self.node.root, "-o", "json")))
        return worker

    @staticmethod
    def end(worker):
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
            worker.wait()


def made(gpu, gi, profile, number, ci):
    return (f"Successfully created GPU instance ID {gi:2} on GPU {gpu:2} using profile MIG {profile} (ID {number:2})\n"
            f"Successfully created compute instance ID  0 on GPU {gpu:2} GPU instance ID {gi:2} using profile MIG {profile} (ID {ci:2})\n")


REFUSED_NINE = ("Unable to create a GPU instance on GPU {:2} using profile 9: Insufficient Resources\n"
                "Failed to create GPU instances: Insufficient Resources\n")


class Guide(OnANode):
    def test_the_guide(self):
        # "First, check if your GPUs support MIG": branch 580 lists the profiles with MIG off too.
        code, before, _ = self.smi("mig", "-lgip")
        self.assertEqual((code, before.count("MIG 1g.5gb          19     7/7")), (0, 4))
        hint = self.says(0, "No MIG-enabled devices found.\n", "mig", "-lgi")
        self.assertIn("nvidia-smi -mig 1", hint)

        # "Enable MIG mode on GPUs"
        self.says(0, "".join(f"Enabled MIG Mode for GPU {bus}\n" for bus in BUSES) + "All done.\n", "-mig", "1")
        self.assertEqual(self.modes(), [(1, 1)] * 4)
        self.assertEqual([gpu["resets"] for gpu in self.node.show()["gpus"]], [1] * 4)

        # "nvidia-smi -L should show: GPU 0: A100-SXM4-40GB (MIG Enabled)": it does not say so.
        code, out, _ = self.smi("-L")
        self.assertEqual((code, out), (0, "".join(f"GPU {gpu['index']}: {gpu['name']} (UUID: {gpu['uuid']})\n" for gpu in self.node.show()["gpus"])))
        self.says(0, "pci.bus_id, mig.mode.current\n" + "".join(f"{bus}, Enabled\n" for bus in BUSES), "--query-gpu=pci.bus_id,mig.mode.current",
                  "--format=csv")
        code, out, _ = self.smi("mig", "-lgip")
        self.assertEqual((code, {len(line) for line in out.splitlines()}), (0, {81}))
        self.assertEqual(out, before)
        for gpu in range(4):
            for row in (f"|   {gpu}  MIG 1g.5gb          19     7/7        4.75       No     14     0     0   |",
                        f"|   {gpu}  MIG 3g.20gb          9     2/2        19.50      No     42     2     0   |",
                        f"|   {gpu}  MIG 7g.40gb          0     1/1        39.25      No     98     5     0   |"):
                self.assertIn(row + "\n", out)

        # "Create 7 equal instances (1g.5gb profile)": 9 is 3g.20gb, of which two fit; and each of the seven turns asks for seven more.
        loop = "for gpu_id in 0 1 2 3; do for i in {1..7}; do nvidia-smi mig -cgi 9,9,9,9,9,9,9 -C -i $gpu_id; done; done"
        done = subprocess.run([self.node.sim_program, "exec", "--root", self.node.root, "--", "bash", "-c", loop], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=120)
        self.assertEqual(done.returncode, 23)
        self.assertEqual(done.stdout, "".join(made(gpu, 2, "3g.20gb", 9, 2) + made(gpu, 1, "3g.20gb", 9, 2) + 7 * REFUSED_NINE.format(gpu)
                                              for gpu in range(4)))
        self.assertIn("GPU 0: there is no room for another 3g.20gb (profile 9)", done.stderr)
        for gpu in range(4):
            self.assertEqual(self.layout(gpu), [("3g.20gb", 0, 1), ("3g.20gb", 4, 1)])
            self.assertEqual(self.node.show()["gpus"][gpu]["calls"]["createGi"], {"ok": 2, "failed": 7})

        # "Verify instances were created": "GPU 0: 7x 1g.5gb instances" is not what stands there.
        code, out, _ = self.smi("mig", "-lgi")
        self.assertEqual((code, out.count("MIG 3g.20gb"), out.count("1g.5gb"), {len(line) for line in out.splitlines()}), (0, 8, 0, {57}))
        self.assertIn("|   0  MIG 3g.20gb          9        1          0:4     |\n", out)
        code, out, _ = self.smi("-L")
        self.assertEqual(out.count("\n  MIG 3g.20gb     Device  0: (UUID: MIG-"), 4)

        # What the guide means: the instances go, and 19 comes seven times.
        for word in ("-dci", "-dgi"):
            self.assertEqual(self.smi("mig", word)[0], 0)
        self.says(0, "".join(made(0, gi, "1g.5gb", 19, 0) for gi in (13, 11, 12, 7, 8, 9, 10)), "mig", "-cgi", "19,19,19,19,19,19,19", "-C", "-i", "0")
        self.assertEqual(self.layout(0), [("1g.5gb", start, 1) for start in range(7)])
        for word in ("-dci", "-dgi"):
            self.assertEqual(self.smi("mig", word)[0], 0)

        # "Mix of small and large instances"
        self.assertEqual(self.smi("mig", "-cgi", "14,14,14", "-C", "-i", "0")[0], 0)
        self.says(23, made(1, 2, "3g.20gb", 9, 2) + made(1, 1, "3g.20gb", 9, 2) + REFUSED_NINE.format(1), *NINES, "1")
        self.says(0, made(2, 1, "4g.20gb", 5, 3), "mig", "-cgi", "5", "-C", "-i", "2")
        self.assertEqual(self.layout(0), [("2g.10gb", start, 1) for start in (0, 2, 4)])
        self.assertEqual(self.layout(2), [("4g.20gb", 0, 1)])
        self.assertEqual(self.layout(3), [])
        self.assertEqual(self.smi("mig", "-lgi")[0], 0)

        # "Disable MIG on all GPUs": not while there are instances.
        hint = self.says(19, f"Unable to disable MIG Mode for GPU {BUSES[0]}: In use by another client\nTerminating early due to previous errors.\n", "-mig", "0",
                         "-i", "0,1,2,3")
        self.assertEqual(hint, "GPU 0: it has 3 GPU instances: nvidia-smi mig -dci -i 0 and nvidia-smi mig -dgi -i 0 first\n")
        for word in ("-dci", "-dgi"):
            self.assertEqual(self.smi("mig", word)[0], 0)
        self.says(0, "".join(f"Disabled MIG Mode for GPU {bus}\n" for bus in BUSES) + "All done.\n", "-mig", "0", "-i", "0,1,2,3")
        self.assertEqual(self.modes(), [(0, 0)] * 4)

        # "Reset the GPUs"
        self.says(0, "".join(f"GPU {bus} was successfully reset.\n" for bus in BUSES) + "All done.\n", "--gpu-reset")
        self.assertEqual([gpu["resets"] for gpu in self.node.show()["gpus"]], [3] * 4)
        code, out, _ = self.smi()
        self.assertEqual((code, {len(line) for line in out.splitlines() if line}), (0, {91}))


class Refused(OnANode):
    gpus = "2xA100-SXM4-40GB,1xT4"

    def test_a_busy_gpu(self):
        uuid = self.node.show()["gpus"][0]["uuid"]
        worker = self.work(uuid)
        busy = (f"Warning: MIG mode is in pending enable state for GPU {BUSES[0]}:In use by another client\n"
                f"{BUSES[0]} is currently being used by one or more other processes (a CUDA program, or one that watches GPUs). "
                "End them and try again, or reboot, to make MIG mode effective.\nAll done.\n")
        hint = self.says(0, busy, "-mig", "1", "-i", "0")
        self.assertRegex(hint, rf"^GPU 0: used by PID {worker.pid} \(.*gpuslice-sim\)\n$")
        self.assertEqual(self.modes()[0], (0, 1))
        self.says(0, "No MIG-enabled devices found.\n", "mig", "-lgi", "-i", "0")
        self.says(255, f"The following GPUs could not be reset:\n  GPU {BUSES[0]}: In use by another client\n\n1 device is currently being used by one or more "
                  "other processes (a CUDA program, or one that watches GPUs). End them and try again, or reboot.\n", "--gpu-reset", "-i", "0")
        self.end(worker)
        self.says(0, f"GPU {BUSES[0]} was successfully reset.\nAll done.\n", "-r", "-i", "0")
        self.assertEqual(self.modes()[0], (1, 1))

    def test_a_busy_instance(self):
        self.assertEqual(self.smi("-mig", "1", "-i", "0")[0], 0)
        self.assertEqual(self.smi("mig", "-cgi", "3g.20gb,3g.20gb", "-C", "-i", "0")[0], 0)
        before = self.node.show()["gpus"][0]["gpuInstances"]
        busy = before[1]
        worker = self.work(busy["computeInstances"][0]["uuid"])
        hint = self.says(19, "Successfully destroyed compute instance ID  0 from GPU  0 GPU instance ID  1\n"
                         "Unable to destroy compute instance ID  0 from GPU  0 GPU instance ID  2: In use by another client\n"
                         "Failed to destroy compute instances: In use by another client\n", "mig", "-dci")
        self.assertIn(f"GPU 0, GPU instance 2: used by PID {worker.pid}", hint)
        self.says(19, "Successfully destroyed GPU instance ID  1 from GPU  0\n"
                  "Unable to destroy GPU instance ID  2 from GPU  0: In use by another client\n"
                  "Failed to destroy GPU instances: In use by another client\n", "mig", "-dgi")
        after = self.node.show()["gpus"][0]["gpuInstances"]
        self.assertEqual([gi["generation"] for gi in after], [busy["generation"]], "what is in use is as it was")
        self.end(worker)
        self.says(0, "Successfully destroyed compute instance ID  0 from GPU  0 GPU instance ID  2\n", "mig", "-dci", "-gi", "2", "-ci", "0")
        self.says(0, "Successfully destroyed GPU instance ID  2 from GPU  0\n", "mig", "-dgi", "-gi", "2")
        self.says(6, "No GPU instances found: Not Found\n", "mig", "-dgi")
        self.says(6, "No compute instances found: Not Found\n", "mig", "-dci")

    def test_a_board_without_mig(self):
        hint = self.says(3, f"Unable to enable MIG Mode for GPU {BUSES[2]}: Not Supported\nTreating as warning and moving on.\nAll done.\n", "-mig", "1", "-i", "2")
        self.assertEqual(hint, "GPU 2 (Tesla T4): this board has no MIG\n")
        for code, words in ((0, ("-lgip",)), (0, ("-lgi",)), (6, ("-cgi", "19"))):
            self.says(code, "No MIG-enabled devices found.\n", "mig", *words, "-i", "2")
        # Among boards with MIG it is skipped.
        code, out, _ = self.smi("-mig", "1")
        self.assertEqual((code, out.count("Enabled MIG Mode"), out.count("Not Supported")), (0, 2, 1))

    def test_wrong_ids(self):
        self.assertEqual(self.smi("-mig", "1", "-i", "0,1")[0], 0)
        for wrong in ("99", "1g.6gb", "16"):
            hint = self.says(2, f"Unable to create a GPU instance on GPU  0 using profile {wrong}: Invalid Argument\n"
                             "Failed to create GPU instances: Invalid Argument\n", "mig", "-cgi", wrong, "-i", "0")
            self.assertTrue(hint.startswith(f"GPU 0 (NVIDIA A100-SXM4-40GB): it has no profile {wrong}; it has 19 (1g.5gb), "), hint)
        self.says(2, "Unable to create a GPU instance on GPU  0 using profile 9: Invalid Argument\nFailed to create GPU instances: Invalid Argument\n",
                  "mig", "-cgi", "9:1", "-i", "0")
        for words in (("mig", "-lgip", "-i", "7"), ("-mig", "1", "-i", "GPU-no"), ("--gpu-reset", "-i", "00000000:FF:00.0"), ("mig", "-dgi", "-i", "0,7")):
            self.says(6, "No devices were found\n", *words)
        self.assertEqual(self.node.show()["gpus"][0]["gpuInstances"], [])
        self.assertEqual(self.smi("mig", "-cgi")[0], 2)
        self.assertEqual(self.smi("mig", "-cgi", "9:4", "-C", "-i", "1")[0], 0)
        self.assertEqual(self.layout(1), [("3g.20gb", 4, 1)])

    @unittest.skipUnless(os.geteuid() == 0, "needs root to stop being root")
    def test_without_root(self):
        self.assertEqual(self.smi("-mig", "1", "-i", "0")[0], 0)
        self.assertEqual(self.smi("mig", "-cgi", "19", "-C", "-i", "0")[0], 0)
        before = self.node.show()["gpus"]
        words = "Insufficient Permissions"
        for text, *command in (
                (f"Unable to create a GPU instance on GPU  0 using profile 19: {words}\nFailed to create GPU instances: {words}\n", "mig", "-cgi", "19"),
                (f"Failed to create compute instances: {words}\n", "mig", "-cci"),
                (f"Failed to destroy compute instances: {words}\n", "mig", "-dci"),
                (f"Failed to destroy GPU instances: {words}\n", "mig", "-dgi"),
                (f"Unable to disable MIG Mode for GPU {BUSES[0]}: {words}\nTerminating early due to previous errors.\n", "-mig", "0", "-i", "0"),
                (f"The following GPUs could not be reset:\n  GPU {BUSES[0]}: {words}\n\n", "--gpu-reset", "-i", "0")):
            hint = self.says(4, text, *command, before=self.nobody())
            self.assertIn("; run it as root\n", hint)
        # Looking needs no root where the node lets everybody see the instances.
        self.assertEqual(self.smi("-L", before=self.nobody())[0], 0)
        self.assertEqual(self.smi("mig", "-lgip", "-i", "0", before=self.nobody())[0], 0)
        self.assertEqual(self.node.show()["gpus"], before)

    def test_a_gpu_that_somebody_changes(self):
        """An apply or the agent holds the GPU's lock."""
        uuid = self.node.show()["gpus"][0]["uuid"]
        lock = self.node.root / "run" / "gpuslice" / "mig" / f"{uuid}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with open(lock, "w") as held:
            held.write("PID 4242, since 2026-11-24T10:00:00Z\n")
            held.flush()
            fcntl.fcntl(held, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            hint = self.says(19, f"Unable to enable MIG Mode for GPU {BUSES[0]}: In use by another client\nTerminating early due to previous errors.\n", "-mig", "1",
                             "-i", "0")
            self.assertIn("GPU 0: busy, by PID 4242, since 2026-11-24T10:00:00Z", hint)
            self.assertEqual(self.node.show()["gpus"][0]["calls"]["setMigMode"], {"ok": 0, "failed": 0})
            self.assertEqual(self.smi("-mig", "1", "-i", "1")[0], 0, "another GPU is another lock")
        self.assertEqual(self.smi("-mig", "1", "-i", "0")[0], 0)

    def test_a_change_that_was_interrupted(self):
        """Its journal goes on at the next start, over what is made by hand meanwhile: that is told."""
        uuid = self.node.show()["gpus"][1]["uuid"]
        folder = self.node.root / "var" / "lib" / "gpuslice" / "mig"
        folder.mkdir(parents=True)
        (folder / f"{uuid}.journal").write_text("gpuslice-mig-journal 1\n")
        code, out, err = self.smi("-mig", "1", "-i", "0,1")
        self.assertEqual((code, out.count("Enabled MIG Mode")), (0, 2))
        self.assertEqual(err, f"GPU 1: an earlier change was interrupted; its journal is in {folder}, and the next gpuslice apply for this GPU, or the agent, "
                         "first goes on from it\n")
        self.assertEqual(self.smi("mig", "-lgip")[2], "", "looking is no change")
        self.assertEqual(self.smi("mig", "-cgi", "19", "-i", "0")[2], "", "another GPU")

    def test_a_lost_gpu(self):
        self.node.sim("inject", "--root", self.node.root, "lose", "--gpu", "1")
        self.says(15, "Unable to determine the device handle for gpu 1: GPU is lost\n", "-mig", "1", "-i", "1")
        code, out, _ = self.smi("-mig", "1")
        self.assertEqual(code, 15)
        self.assertIn(f"Enabled MIG Mode for GPU {BUSES[0]}\n", out)


class Resetless(OnANode):
    gpus = "1xH100-80GB-SXM"

    def test_the_mode_needs_no_reset_and_does_not_survive_one(self):
        bus = BUSES[0]
        self.says(0, f"Enabled MIG Mode for GPU {bus}\nAll done.\n", "-mig", "1")
        self.assertEqual(self.node.show()["gpus"][0]["resets"], 0)
        self.says(0, f"GPU {bus} was successfully reset.\nAll done.\n", "--gpu-reset")
        self.assertEqual(self.modes(), [(0, 0)])


class OtherBoards(OnANode):
    gpus = "1xA30-24GB,1xNVIDIA RTX PRO 6000 Blackwell Server Edition,1xH200-141GB"

    def test_every_row_is_as_wide_as_its_box(self):
        self.assertEqual(self.smi("-mig", "1")[0], 0)
        for gpu, profiles in (("0", "1g.6gb+me,2g.12gb"), ("1", "2g.48gb+me.all"), ("2", "1g.18gb,3g.71gb")):
            self.assertEqual(self.smi("mig", "-cgi", profiles, "-C", "-i", gpu)[0], 0, profiles)
        for word, width in (("-lgip", 81), ("-lgi", 57), ("-lci", 57), ("-lcip", 88)):
            code, out, _ = self.smi("mig", word)
            self.assertEqual((code, {len(line) for line in out.splitlines()}), (0, {width}), word)
        code, out, _ = self.smi()
        self.assertEqual((code, {len(line) for line in out.splitlines() if line}), (0, {91}))


class InAVirtualMachine(unittest.TestCase):
    def test_the_mode_stays_pending(self):
        with NodeUnderTest(BIN, gpus="1xT4") as node:
            root = node.dir / "vm"
            node.sim("create", "--root", root, "--gpus", "1xA100-SXM4-40GB", "--passthrough")

            def smi(*words):
                done = subprocess.run([node.sim_program, "exec", "--root", root, "--", "nvidia-smi", *words], capture_output=True, text=True,
                                      stdin=subprocess.DEVNULL, timeout=60)
                return done.returncode, done.stdout

            self.assertEqual(smi("-mig", "1"), (0, f"Warning: MIG mode is in pending enable state for GPU {BUSES[0]}:Not Supported\n"
                                                f"Reboot the system or try nvidia-smi --gpu-reset to make MIG mode effective on GPU {BUSES[0]}\nAll done.\n"))
            self.assertEqual(smi("--gpu-reset"), (3, f"Resetting GPU {BUSES[0]} is not supported.\n"))
            node.sim("reboot", "--root", root)
            self.assertEqual(smi("--query-gpu=mig.mode.current", "--format=csv,noheader"), (0, "Enabled\n"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    known, rest = parser.parse_known_args()
    BIN = known.bin
    unittest.main(argv=[sys.argv[0], *rest])
