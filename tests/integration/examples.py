#!/usr/bin/env python3
"""The guide's files in examples/ do what they say: examples.py --bin DIR"""

import argparse
import pathlib
import re
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = HERE.parent.parent / "examples"
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
from node_under_test import NodeUnderTest, config_map_data  # noqa: E402

BIN = None
# The guide's; others stand beside them.
FILES = {"time-slicing-config.yaml", "time-slicing-test.yaml", "mig-config.yaml", "mixed-mig-config.yaml", "inference-deployment.yaml",
         "training-job.yaml", "gpu-quota.yaml"}


def text_of(name):
    return (EXAMPLES / name).read_text()


def without_comments(text):
    return re.sub(r"(?m)(^|[ \t]+)#.*", "", text)


class Examples(unittest.TestCase):
    def test_each_says_what_was_corrected(self):
        for name in FILES:
            first, *rest = text_of(name).splitlines()
            self.assertTrue(first.startswith("# The guide's "), name)
            comment = " ".join([first, *(line for line in rest[:5] if line.startswith("#"))])
            self.assertRegex(comment, "Corrected|Left out", name)

    def test_mig_configurations(self):
        """28 × 1g.5gb; then the mixed layout, in which GPU 1 stays as it is."""
        with NodeUnderTest(BIN) as node:
            def apply(name, label):
                data = config_map_data(text_of(name))
                self.assertEqual(list(data), ["config.yaml"], name)
                file = node.dir / name
                file.write_text(data["config.yaml"])
                done = subprocess.run([node.agent_program, "apply", "--root", node.root, "-f", file, "-c", label], capture_output=True, text=True)
                self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
                return node.show()["gpus"]

            def profiles(gpu):
                return sorted(gi["profile"] for gi in gpu["gpuInstances"] if gi["computeInstances"])

            equal = apply("mig-config.yaml", "all-1g.5gb")
            self.assertEqual([profiles(gpu) for gpu in equal], [["1g.5gb"] * 7] * 4)
            mixed = apply("mixed-mig-config.yaml", "mixed")
            self.assertEqual([profiles(gpu) for gpu in mixed], [["2g.10gb"] * 3, ["1g.5gb"] * 7, ["4g.20gb"], []])
            self.assertEqual(mixed[1]["gpuInstances"], equal[1]["gpuInstances"])
            self.assertEqual([gpu["migMode"]["current"] for gpu in mixed], [1, 1, 1, 0])

    def test_a_mig_configuration_is_not_the_device_plugins(self):
        with NodeUnderTest(BIN) as node:
            file = node.dir / "config.yaml"
            file.write_text(config_map_data(text_of("mig-config.yaml"))["config.yaml"])
            done = subprocess.run([node.agent_program, "list", "devices", "--root", node.root, "--config", file], capture_output=True, text=True)
            self.assertEqual(done.returncode, 3)
            self.assertIn("MIG", done.stderr)

    def test_manifests(self):
        quota = without_comments(text_of("gpu-quota.yaml"))
        self.assertIn('    requests.nvidia.com/mig-1g.5gb: "10"\n', quota)
        self.assertNotRegex(quota, r"(?m)^ *nvidia\.com/")
        for name, resource in (("inference-deployment.yaml", "nvidia.com/mig-1g.5gb"), ("training-job.yaml", "nvidia.com/mig-2g.10gb")):
            text = without_comments(text_of(name))
            self.assertEqual(re.findall(r"(nvidia\.com/\S+): (\d+)", text), [(resource, "1")] * 2, name)
            self.assertNotIn("CUDA_MIG_ENABLED", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    known, rest = parser.parse_known_args()
    BIN = known.bin
    unittest.main(argv=[sys.argv[0], *rest])
