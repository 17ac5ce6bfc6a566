#!/usr/bin/env python3
"""tools/nvml_record.py and tools/nvml_diff.py on simulated nodes: recorder.py --bin DIR"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = HERE.parent.parent / "tools"
EXPORTS = HERE.parent.parent / "src" / "simnvml" / "exports.inc"
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(TOOLS))
sys.dont_write_bytecode = True
import nvml_record  # noqa: E402
from node_under_test import NodeUnderTest  # noqa: E402

BIN = None
LAYOUT = """version: v1
mig-configs:
  mixed:
  - devices: all
    mig-enabled: true
    mig-devices: {3g.20gb: 1, 1g.5gb: 2}
"""


def record(node, *words):
    text = node.on_node(sys.executable, TOOLS / "nvml_record.py", *words)
    return [json.loads(line) for line in text.splitlines()]


class Recorder(unittest.TestCase):
    def found(self, records, call, on="gpu0", **args):
        """The one record of a call with exactly these arguments."""
        hits = [r for r in records if (r["call"], r["on"], r["args"]) == (call, on, args)]
        self.assertEqual(len(hits), 1, (call, on, args))
        return hits[0]

    def test_h200(self):
        with NodeUnderTest(BIN, gpus="1xH200-141GB") as node:
            records = record(node)
            gpu = node.show()["gpus"][0]
        self.assertEqual(self.found(records, "nvmlDeviceGetUUID", length=96)["out"]["text"], gpu["uuid"])
        self.assertEqual(self.found(records, "nvmlDeviceGetName", length=96)["out"]["text"], "NVIDIA H200")
        memory = self.found(records, "nvmlDeviceGetMemoryInfo_v2", value="version 0x02000028")["out"]["value"]
        self.assertEqual(memory["total"], memory["reserved"] + memory["free"] + memory["used"])
        self.assertEqual(self.found(records, "nvmlDeviceGetMigMode")["out"], {"first": 0, "second": 0})
        for version in (2, 3):
            profile = self.found(records, "nvmlDeviceGetGpuInstanceProfileInfoV", enum=0, profile=f"version {version}")["out"]["profile"]
            self.assertEqual((profile["id"], profile["name"], profile["count"]), (19, "MIG 1g.18gb" if version == 2 else "", 7))
        places = [r for r in records if r["call"] == "nvmlDeviceGetGpuInstancePossiblePlacements_v2" and r["args"] == {"id": 9}]
        self.assertEqual(places[0]["out"]["placements"], [{"start": 0, "size": 4}, {"start": 4, "size": 4}])
        self.assertEqual(self.found(records, "nvmlDeviceGetFieldValues", field=184, scope=0)["out"]["value"], 1)
        self.assertEqual([r["out"]["text"] for r in records if r["call"] == "nvmlErrorString" and r["args"]["code"] in (0, 19)],
                         ["Success", "In use by another client"])
        # Before init, after the last shutdown.
        self.assertEqual(self.found(records, "nvmlDeviceGetCount_v2", on="node", note="before init")["ret"], 1)
        self.assertEqual(self.found(records, "nvmlDeviceGetCount_v2", on="node", note="after shutdown")["ret"], 1)
        self.assertEqual(self.found(records, "nvmlDeviceGetMemoryInfo", value="NULL", note="NULL output")["ret"], 2)
        self.assertEqual(self.found(records, "nvmlDeviceGetUUID", length=8, note="short")["ret"], 7)
        # Nothing was written behind what we believe is the end, and nothing crashed.
        self.assertEqual([r for r in records if "beyond" in r or r["ret"] == "crash"], [])

    def test_mig(self):
        with NodeUnderTest(BIN, gpus="1xA100-SXM4-40GB") as node:
            (node.dir / "layout.yaml").write_text(LAYOUT)
            subprocess.run([node.agent_program, "apply", "--root", node.root, "-f", node.dir / "layout.yaml", "-c", "mixed"],
                           check=True, capture_output=True)
            before = node.show()["gpus"][0]
            records = record(node, "--no-hostile")
            after = node.show()["gpus"][0]
        self.assertEqual(before["calls"], after["calls"])
        uuids = {f"gpu0/gi{gi['id']}/ci{ci['id']}": ci["uuid"] for gi in before["gpuInstances"] for ci in gi["computeInstances"]}
        self.assertEqual(len(uuids), 3)
        self.assertEqual({r["on"]: r["out"]["text"] for r in records if r["call"] == "nvmlDeviceGetUUID" and "/ci" in r["on"]}, uuids)
        devices = [r["out"]["text"] for r in records if r["call"] == "nvmlDeviceGetUUID" and "/mig" in r["on"]]
        self.assertEqual(sorted(devices), sorted(uuids.values()))
        self.assertEqual(self.found(records, "nvmlDeviceGetUtilizationRates")["ret"], 3)
        self.assertNotIn("NULL output", {r["args"].get("note") for r in records})
        # With instances there, nothing that the simulated library models is left out.
        modelled = re.findall(r"EXPORT\((nvml[A-Z][a-zA-Z]*?(?:Get|Is|Query)[A-Z]\w*)", EXPORTS.read_text())
        self.assertGreater(len(modelled), 150)
        self.assertEqual(set(modelled) - {r["call"] for r in records}, set())

    def test_difference(self):
        with tempfile.TemporaryDirectory() as folder:
            files = [pathlib.Path(folder) / name for name in ("a", "b")]
            common = {"call": "nvmlA", "on": "gpu0", "args": {}, "ret": 0, "us": 3, "out": {"x": 1, "t": "12:ab"}}
            a = [common, {"call": "nvmlB", "on": "gpu0", "args": {"id": 1}, "ret": 0}, {"call": "nvmlC", "on": "node", "args": {}, "ret": None}]
            b = [{**common, "us": 9, "out": {"x": 2**32 - 1, "t": "99:cd"}}, {"call": "nvmlB", "on": "gpu0", "args": {"id": 1}, "ret": 3}]
            for file, lines in zip(files, (a, b)):
                file.write_text("".join(json.dumps(line) + "\n" for line in lines))
            told = [subprocess.run([sys.executable, TOOLS / "nvml_diff.py", *pair, *more], capture_output=True, text=True)
                    for pair, more in ((files, ()), (files, ("--values",)), ((files[0], files[0]), ()))]
        self.assertEqual(told[0].stdout, "return codes that differ: 1\n  nvmlB on gpu0 (id=1): 0 against 3\n"
                         "values that differ in kind: 1\n  nvmlA on gpu0: out.x: 1 against 4294967295\n"
                         "calls that one of them lacks: 1\n  A only: nvmlC on node -> no such function\n")
        self.assertEqual(told[1].stdout, told[0].stdout + "other values that differ: 1\n  nvmlA on gpu0: out.t: '12:ab' against '99:cd'\n")
        self.assertEqual([t.returncode for t in told], [1, 1, 0])

    def test_it_calls_getters_only(self):
        with NodeUnderTest(BIN, gpus="1xT4") as node:
            library = next(node.root.glob("usr/lib/*/libnvidia-ml.so.1"))
            recorder = nvml_record.Recorder(str(library), sys.stdout)
            for name in ("nvmlDeviceSetMigMode", "nvmlDeviceCreateGpuInstance", "nvmlGpuInstanceDestroy", "nvmlDeviceClearEccErrorCounts",
                         "nvmlDeviceResetApplicationsClocks", "nvmlDeviceRegisterEvents", "nvmlEventSetCreate", "nvmlDeviceClearFieldValues",
                         "gpuslice_sim_gpu_reset", "nvmlDeviceDiscoverGpus", "nvmlDeviceFreezeNvLinkUtilizationCounter"):
                with self.assertRaises(SystemExit, msg=name):
                    recorder.function(name)
            self.assertIsNotNone(recorder.function("nvmlDeviceGetCount_v2"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    args, rest = parser.parse_known_args()
    BIN = args.bin
    unittest.main(argv=[sys.argv[0], *rest])
