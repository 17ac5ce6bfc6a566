"""What must be true of a node, worked out without asking NVML: from `gpuslice-sim show`, from the driver's files on
the node, from data/mig-profiles.yaml, and from what the runner started.

    truth = {driver, gpus: [gpu]}
    gpu   = {index, uuid, name, minor, busId, memoryMiB, cc, mig, clients, busy, instances}
    client = {pid, memoryMiB, activity}; busy: per cent of the GPU, what all of them ask, at most 100
    instance = {gi, profile, profileId, placement, row (of the YAML), computeInstances: [{ci, slices, uuid, name, clients}]}
"""

import json
import pathlib
import re
import subprocess

import yaml

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
# nvidia-smi's memory.total of the boards that the runner uses, in MiB (public listings).
MEMORY_MIB = {"NVIDIA A100-SXM4-40GB": 40960, "NVIDIA H100 80GB HBM3": 81559, "NVIDIA A30": 24576,
              "NVIDIA L40S": 46068, "Tesla T4": 15360}
COMPUTE_CAPABILITY = {"NVIDIA L40S": "8.9", "Tesla T4": "7.5"}


def boards():
    return yaml.safe_load((REPOSITORY / "data" / "mig-profiles.yaml").read_text())["devices"]


def board_of(name):
    for board in boards().values():
        if name in board["product_names"]:
            return board
    return None


def bus_ids(root):
    """{GPU UUID: bus id as NVML writes it}, from /proc/driver/nvidia/gpus."""
    found = {}
    for folder in (root / "proc/driver/nvidia/gpus").iterdir():
        uuid = re.search(r"GPU UUID:\s*(\S+)", (folder / "information").read_text()).group(1)
        found[uuid] = "0000" + folder.name.upper()
    return found


def mig_name(board_name, gi_profile, gi_slices, ci_slices):
    part = gi_profile if ci_slices == gi_slices else f"{ci_slices}c.{gi_profile}"
    return f"{board_name} MIG {part}"


def clients_of(shown):
    return sorted(({k: c[k] for k in ("pid", "memoryMiB", "activity")} for c in shown), key=lambda c: c["pid"])


def instance_truth(gi, name, rows):
    row = rows[gi["profileId"]]
    return {"gi": gi["id"], "profile": gi["profile"], "profileId": gi["profileId"], "placement": gi["placement"], "row": row,
            "computeInstances": [{"ci": ci["id"], "slices": ci["placement"]["size"], "uuid": ci["uuid"],
                                  "name": mig_name(name, gi["profile"], row["slices"], ci["placement"]["size"]),
                                  "clients": clients_of(ci["clients"])} for ci in gi["computeInstances"]]}


def truth_of(sim, root):
    shown = json.loads(subprocess.run([sim, "show", "--root", root, "-o", "json"], check=True, capture_output=True, text=True).stdout)
    buses = bus_ids(root)
    gpus = []
    for gpu in shown["gpus"]:
        board = board_of(gpu["name"])
        rows = {row["smi_id"]: row for row in board["profiles"]} if board else {}
        clients = clients_of(gpu["clients"])
        gpus.append({
            "index": gpu["index"], "uuid": gpu["uuid"], "name": gpu["name"], "minor": gpu["minor"], "busId": buses[gpu["uuid"]],
            "memoryMiB": MEMORY_MIB[gpu["name"]], "cc": board["cuda_cc"] if board else COMPUTE_CAPABILITY[gpu["name"]],
            "pciDeviceIds": board["pci_device_ids"] if board else [], "capable": board is not None,
            "profiles": list(rows.values()), "mig": gpu["migMode"]["current"] == 1, "clients": clients,
            "busy": min(100, round(100 * sum(c["activity"] for c in clients))),
            "instances": [instance_truth(gi, gpu["name"], rows) for gi in gpu["gpuInstances"]],
        })
    return {"driver": shown["driver"], "gpus": gpus}
