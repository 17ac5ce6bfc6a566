"""crowd.py ROUNDS: see README.md."""

import sys

import pynvml as n

ONE_SLICE = 19


def read_all(devices, uuids):
    wrong = 0
    for device, uuid in zip(devices, uuids):
        m = n.nvmlDeviceGetMemoryInfo(device, version=n.nvmlMemory_v2)
        wrong += m.total != m.reserved + m.free + m.used
        wrong += n.nvmlDeviceGetUUID(device) != uuid
    return wrong


def main():
    n.nvmlInit()
    devices = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
    uuids = [n.nvmlDeviceGetUUID(d) for d in devices]
    print("ready", flush=True)
    sys.stdin.readline()
    created = refused = destroyed = wrong = 0
    for _ in range(int(sys.argv[1])):
        wrong += read_all(devices, uuids)
        try:
            gi = n.nvmlDeviceCreateGpuInstance(devices[0], ONE_SLICE)
        except n.NVMLError_InsufficientResources:
            refused += 1
            continue
        created += 1
        wrong += n.nvmlGpuInstanceGetInfo(gi).profileId != ONE_SLICE
        n.nvmlGpuInstanceDestroy(gi)
        destroyed += 1
    print(f"created {created} refused {refused} destroyed {destroyed} wrong {wrong}", flush=True)
    sys.stdin.read()
    n.nvmlShutdown()


if __name__ == "__main__":
    main()
