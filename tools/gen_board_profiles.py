#!/usr/bin/env python3
"""Writes src/gpu/board_profiles.cc from data/mig-profiles.yaml: the rows of every board whose numbers are all known.

Usage: tools/gen_board_profiles.py > src/gpu/board_profiles.cc   (needs python3-yaml)
"""
import os
import sys

import yaml

WANTED = ("memory_mib", "sm", "smi_id", "placements", "max_instances", "ce", "nvdec", "nvenc", "jpeg", "ofa")


def unknown(row):
    return [w for w in WANTED if row[w] is None]


def ident(key):
    return key.lower().replace("-", "_")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "..", "data", "mig-profiles.yaml"), encoding="utf-8") as f:
        devices = yaml.safe_load(f)["devices"]
    out = ["// Made by tools/gen_board_profiles.py from data/mig-profiles.yaml. Do not edit.", "",
           '#include "gpu/board_profiles.h"', "", "namespace gpuslice::gpu {", "namespace {", ""]
    sets = {}
    body = []
    table = []
    refused = []
    for key, device in devices.items():
        rows = sorted(device["profiles"], key=lambda r: r["nvml_gi_enum"])
        missing = ["%s of %s" % ("/".join(unknown(r)), r["name"]) for r in rows if unknown(r)]
        if missing:
            refused.append((key, device["product_names"], "; ".join(missing)))
            continue
        body.append("constexpr Profile k_%s[] = {" % ident(key))
        for r in rows:
            spots = tuple(tuple(int(n) for n in p.split(":")) for p in r["placements"])
            name = sets.setdefault(spots, "kPlaces%d" % len(sets))
            body.append('    {"%s", %d, {%d}, %d, %d, %d, %d, %d, %d, %d, %d, %d, %s},' % (
                r["name"], r["nvml_gi_enum"], r["smi_id"], r["slices"], r["memory_mib"], r["sm"], r["ce"],
                r["nvdec"], r["nvenc"], r["jpeg"], r["ofa"], r["max_instances"], name))
        body.append("};")
        table.append('    {"%s", k_%s},' % (key, ident(key)))
    for spots, name in sets.items():
        out.append("constexpr Placement %s[] = {%s};" % (name, ", ".join("{%d, %d}" % s for s in spots)))
    out += [""] + body + ["", "constexpr ProfileTable kTables[] = {"] + table + ["};", "",
            "constexpr UnknownBoard kUnknown[] = {"]
    for key, names, why in refused:
        for name in names:
            if not name.startswith("..."):
                out.append('    {"%s", "%s",' % (key, name))
                out.append('     "%s"},' % why)
    out += ["};", "", "}  // namespace", "",
            "std::span<const ProfileTable> profile_tables() { return kTables; }",
            "std::span<const UnknownBoard> unknown_boards() { return kUnknown; }", "", "}  // namespace gpuslice::gpu"]
    sys.stdout.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
