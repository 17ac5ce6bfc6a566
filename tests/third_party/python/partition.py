"""Lays out the mixed node with nvidia-ml-py, as an administrator's program would: partition.py LAYOUT

LAYOUT is JSON: {"<gpu index>": [[profile id, start, size, [[compute profile id, how many], …]], …]}. An empty list: MIG mode alone.
"""

import json
import sys

import pynvml as n


def main():
    n.nvmlInit()
    for index, layout in json.loads(sys.argv[1]).items():
        device = n.nvmlDeviceGetHandleByIndex(int(index))
        status = n.nvmlDeviceSetMigMode(device, n.NVML_DEVICE_MIG_ENABLE)
        if status != n.NVML_SUCCESS:
            sys.exit(f"GPU {index}: MIG mode stays pending: {n.nvmlErrorString(status)}")
        device = n.nvmlDeviceGetHandleByIndex(int(index))
        for profile, start, size, computes in layout:
            place = n.c_nvmlGpuInstancePlacement_t(start=start, size=size)
            gi = n.nvmlDeviceCreateGpuInstanceWithPlacement(device, profile, n.byref(place))
            for compute, how_many in computes:
                for _ in range(how_many):
                    n.nvmlGpuInstanceCreateComputeInstance(gi, compute)
    n.nvmlShutdown()


if __name__ == "__main__":
    main()
