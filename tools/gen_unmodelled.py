#!/usr/bin/env python3
"""Writes src/simnvml/unmodelled.inc: the names of data/nvml-symbols.txt that no source of src/simnvml defines."""
import glob
import os
import re

root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
names = [line.split()[0] for line in open(os.path.join(root, "data/nvml-symbols.txt"), encoding="utf-8") if line.strip() and not line.startswith("#")]
done = set()
for path in glob.glob(os.path.join(root, "src/simnvml/*.cc")):
    done |= set(re.findall(r"NVML_API\s+[\w\s\*]*?\b(nvml\w+)\(", open(path, encoding="utf-8").read()))
unknown = sorted(done - set(names))
assert not unknown, "not NVML's: %s" % unknown
with open(os.path.join(root, "src/simnvml/unmodelled.inc"), "w", encoding="utf-8") as out:
    out.write("// Made by tools/gen_unmodelled.py: exported, and not modelled. UNMODELLED_DEVICE takes a device first.\n")
    for name in sorted(set(names) - done):
        out.write("%s(%s)\n" % ("UNMODELLED_DEVICE" if name.startswith("nvmlDevice") else "UNMODELLED", name))
print(len(done), "modelled,", len(names) - len(done), "not")
