"""nvidia-ml-py 13.615.71, NVIDIA's own Python binding, asks for all that it can and compares."""

import os
import subprocess
import time

import pynvml as n

from judge import Judge, all_clients, memory_of, overhead_of

MIB = 1 << 20
NOWHERE = 0xFFFFFFFF


def identity(j, gpu, device):
    at = f"GPU {gpu['index']}"
    j.equal(f"{at} UUID", n.nvmlDeviceGetUUID(device), gpu["uuid"])
    j.equal(f"{at} name", n.nvmlDeviceGetName(device), gpu["name"])
    j.equal(f"{at} index", n.nvmlDeviceGetIndex(device), gpu["index"])
    j.equal(f"{at} minor", n.nvmlDeviceGetMinorNumber(device), gpu["minor"])
    pci = n.nvmlDeviceGetPciInfo(device)
    j.equal(f"{at} bus id", pci.busId, gpu["busId"])
    j.equal(f"{at} legacy bus id", pci.busIdLegacy, gpu["busId"][4:])
    j.equal(f"{at} bus and device", (pci.domain, pci.bus, pci.device),
            (int(gpu["busId"][:8], 16), int(gpu["busId"][9:11], 16), int(gpu["busId"][12:14], 16)))
    if gpu["pciDeviceIds"]:
        j.equal(f"{at} PCI device id is the board's", f"0x{pci.pciDeviceId:08X}" in gpu["pciDeviceIds"], True)
    j.equal(f"{at} compute capability", "%d.%d" % tuple(n.nvmlDeviceGetCudaComputeCapability(device)), gpu["cc"])
    for how, other in (("UUID", n.nvmlDeviceGetHandleByUUID(gpu["uuid"])), ("bus id", n.nvmlDeviceGetHandleByPciBusId(gpu["busId"]))):
        j.equal(f"{at} by {how}", n.nvmlDeviceGetUUID(other), gpu["uuid"])
    j.equal(f"{at} is no MIG device", n.nvmlDeviceIsMigDeviceHandle(device).value, 0)


def memory(j, at, device, total_mib, used_mib, overhead=(0, 0)):
    v2 = n.nvmlDeviceGetMemoryInfo(device, version=n.nvmlMemory_v2)
    v1 = n.nvmlDeviceGetMemoryInfo(device)
    j.equal(f"{at} memory total", v2.total, total_mib * MIB)
    j.equal(f"{at} memory total, v1", v1.total, v2.total)
    j.within(f"{at} memory used", v2.used, (used_mib + overhead[0]) * MIB, (used_mib + overhead[1]) * MIB)
    j.equal(f"{at} reserved + free + used", v2.reserved + v2.free + v2.used, v2.total)
    j.equal(f"{at} used of v1 counts the reserved too", v1.used, v2.used + v2.reserved)
    j.equal(f"{at} free of v1", v1.free, v2.free)


def processes(j, gpu, device):
    at = f"GPU {gpu['index']}"
    wanted = [(c["pid"], c["memoryMiB"] * MIB, NOWHERE if c["gi"] is None else c["gi"], NOWHERE if c["ci"] is None else c["ci"])
              for c in all_clients(gpu)]
    for version, call in (("v2", n.nvmlDeviceGetComputeRunningProcesses_v2), ("v3", n.nvmlDeviceGetComputeRunningProcesses_v3)):
        seen = sorted((p.pid, p.usedGpuMemory, p.gpuInstanceId, p.computeInstanceId) for p in call(device))
        j.equal(f"{at} compute processes {version}", seen, wanted)
    j.equal(f"{at} graphics processes", n.nvmlDeviceGetGraphicsRunningProcesses(device), [])
    j.equal(f"{at} MPS processes", n.nvmlDeviceGetMPSComputeRunningProcesses_v3(device), [])
    for pid, *_ in wanted:
        j.equal(f"{at} name of process {pid}", os.path.basename(n.nvmlSystemGetProcessName(pid)), "gpuslice-sim")


def activity(j, gpu, device):
    at = f"GPU {gpu['index']}"
    if gpu["mig"]:
        j.raises(f"{at} utilisation under MIG", n.NVMLError_NotSupported, n.nvmlDeviceGetUtilizationRates, device)
        return
    j.within(f"{at} utilisation", n.nvmlDeviceGetUtilizationRates(device).gpu, gpu["busy"] - 1, gpu["busy"] + 1)
    if not gpu["clients"]:
        return
    samples = n.nvmlDeviceGetProcessUtilization(device, 0)
    asked = sum(c["activity"] for c in gpu["clients"])
    newest = {s.pid: s.smUtil for s in sorted(samples, key=lambda s: s.timeStamp)}
    j.equal(f"{at} processes with utilisation", sorted(newest), [c["pid"] for c in gpu["clients"]])
    for client in gpu["clients"]:
        fair = 100 * client["activity"] / max(1.0, asked)
        j.within(f"{at} share of {client['pid']}", newest.get(client["pid"]), fair - 2, fair + 2)


def health(j, gpu, device):
    at = f"GPU {gpu['index']}"
    lowest, highest = n.nvmlDeviceGetPowerManagementLimitConstraints(device)
    limit = n.nvmlDeviceGetEnforcedPowerLimit(device)
    j.within(f"{at} power limit", limit, lowest, highest)
    j.within(f"{at} power", n.nvmlDeviceGetPowerUsage(device), 1000, limit)
    slowdown = n.nvmlDeviceGetTemperatureThreshold(device, n.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
    j.within(f"{at} temperature", n.nvmlDeviceGetTemperatureV(device, n.NVML_TEMPERATURE_GPU), 20, slowdown)
    for clock in (n.NVML_CLOCK_GRAPHICS, n.NVML_CLOCK_SM, n.NVML_CLOCK_MEM):
        j.within(f"{at} clock {clock}", n.nvmlDeviceGetClockInfo(device, clock), 100, n.nvmlDeviceGetMaxClockInfo(device, clock))
    before = n.nvmlDeviceGetTotalEnergyConsumption(device)
    time.sleep(0.12)
    grown = n.nvmlDeviceGetTotalEnergyConsumption(device) - before
    power = n.nvmlDeviceGetPowerUsage(device)
    j.within(f"{at} energy of 0.12 s at {power} mW", grown, 0.08 * power, 0.5 * power)
    field = n.nvmlDeviceGetFieldValues(device, [n.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, 100000])
    j.equal(f"{at} energy as a field", (field[0].nvmlReturn, field[0].value.ullVal >= before), (0, True))
    j.equal(f"{at} a field that is none, alone", field[1].nvmlReturn in (n.NVML_ERROR_INVALID_ARGUMENT, n.NVML_ERROR_NOT_SUPPORTED), True)
    j.equal(f"{at} double-bit errors", n.nvmlDeviceGetTotalEccErrors(device, n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, n.NVML_VOLATILE_ECC), 0)


def profiles(j, gpu, device):
    at = f"GPU {gpu['index']}"
    if not gpu["capable"]:
        j.raises(f"{at} MIG mode of a board without", n.NVMLError_NotSupported, n.nvmlDeviceGetMigMode, device)
        return
    j.equal(f"{at} MIG mode", n.nvmlDeviceGetMigMode(device), [int(gpu["mig"])] * 2)
    by_enum = {row["nvml_gi_enum"]: row for row in gpu["profiles"]}
    for enum in range(n.NVML_GPU_INSTANCE_PROFILE_COUNT):
        row = by_enum.get(enum)
        if row is None:
            # The binding knows one more than branch 580, which ends the list at 16.
            refused = n.NVMLError_NotSupported if enum < 17 else n.NVMLError_InvalidArgument
            j.raises(f"{at} profile {enum}", refused, n.nvmlDeviceGetGpuInstanceProfileInfo, device, enum)
            continue
        info = n.nvmlDeviceGetGpuInstanceProfileInfo(device, enum)
        seen = (info.id, info.sliceCount, info.instanceCount, info.multiprocessorCount, info.copyEngineCount, info.decoderCount,
                info.encoderCount, info.jpegCount, info.ofaCount, info.memorySizeMB, info.name)
        j.equal(f"{at} profile {row['name']}", seen,
                (row["smi_id"], row["slices"], row["max_instances"], row["sm"], row["ce"], row["nvdec"], row["nvenc"], row["jpeg"],
                 row["ofa"], row["memory_mib"], f"MIG {row['name']}"))
        count = n.c_uint(0)
        n.nvmlDeviceGetGpuInstancePossiblePlacements(device, row["smi_id"], None, n.byref(count))
        places = (n.c_nvmlGpuInstancePlacement_t * count.value)()
        n.nvmlDeviceGetGpuInstancePossiblePlacements(device, row["smi_id"], places, n.byref(count))
        j.equal(f"{at} placements of {row['name']}", [f"{p.start}:{p.size}" for p in places], row["placements"])
    j.raises(f"{at} profile beyond the last", n.NVMLError_InvalidArgument, n.nvmlDeviceGetGpuInstanceProfileInfo, device, 10_000)


def instances(j, gpu, device):
    at = f"GPU {gpu['index']}"
    for gi in gpu["instances"]:
        handle = n.nvmlDeviceGetGpuInstanceById(device, gi["gi"])
        info = n.nvmlGpuInstanceGetInfo(handle)
        j.equal(f"{at} GI {gi['gi']}", (info.id, info.profileId, info.placement.start, info.placement.size),
                (gi["gi"], gi["profileId"], gi["placement"]["start"], gi["placement"]["size"]))
    wanted = {ci["uuid"]: (gi, ci) for gi in gpu["instances"] for ci in gi["computeInstances"]}
    seen = []
    for index in range(n.nvmlDeviceGetMaxMigDeviceCount(device) if gpu["mig"] else 0):
        try:
            mig = n.nvmlDeviceGetMigDeviceHandleByIndex(device, index)
        except n.NVMLError_NotFound:
            continue
        uuid = n.nvmlDeviceGetUUID(mig)
        seen.append(uuid)
        if uuid in wanted:
            mig_device(j, f"{at} MIG {index}", gpu, mig, *wanted[uuid])
    j.equal(f"{at} MIG devices", sorted(seen), sorted(wanted))
    for index in range(len(seen)):
        n.nvmlDeviceGetMigDeviceHandleByIndex(device, index)
    j.equal(f"{at} MIG indices have no holes", len(set(seen)), len(seen))


def mig_device(j, at, gpu, mig, gi, ci):
    j.equal(f"{at} name", n.nvmlDeviceGetName(mig), ci["name"])
    j.equal(f"{at} instance ids", (n.nvmlDeviceGetGpuInstanceId(mig), n.nvmlDeviceGetComputeInstanceId(mig)), (gi["gi"], ci["ci"]))
    j.equal(f"{at} parent", n.nvmlDeviceGetUUID(n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig)), gpu["uuid"])
    j.equal(f"{at} is a MIG device", n.nvmlDeviceIsMigDeviceHandle(mig).value, 1)
    j.equal(f"{at} by UUID", n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByUUID(ci["uuid"])), ci["uuid"])
    a = n.nvmlDeviceGetAttributes_v2(mig)
    row = gi["row"]
    j.equal(f"{at} slices, memory", (a.gpuInstanceSliceCount, a.computeInstanceSliceCount, a.memorySizeMB),
            (row["slices"], ci["slices"], row["memory_mib"]))
    if ci["slices"] == row["slices"]:
        j.equal(f"{at} multiprocessors", a.multiprocessorCount, row["sm"])
    j.equal(f"{at} engines", (a.sharedCopyEngineCount, a.sharedDecoderCount, a.sharedEncoderCount, a.sharedJpegCount, a.sharedOfaCount),
            (row["ce"], row["nvdec"], row["nvenc"], row["jpeg"], row["ofa"]))
    used = sum(memory_of(other["clients"]) for other in gi["computeInstances"])
    memory(j, at, mig, row["memory_mib"], used, overhead_of([gi]))
    running = sorted((p.pid, p.usedGpuMemory) for p in n.nvmlDeviceGetComputeRunningProcesses(mig))
    j.equal(f"{at} processes", running, [(c["pid"], c["memoryMiB"] * MIB) for c in ci["clients"]])
    j.raises(f"{at} utilisation", n.NVMLError_NotSupported, n.nvmlDeviceGetUtilizationRates, mig)


def events(j, gpu, device):
    """An XID that gpuslice-sim injects is seen by who waits, with its device and number."""
    waiting = n.nvmlEventSetCreate()
    n.nvmlDeviceRegisterEvents(device, n.nvmlEventTypeXidCriticalError, waiting)
    j.raises(f"GPU {gpu['index']} no event yet", n.NVMLError_Timeout, n.nvmlEventSetWait_v2, waiting, 50)
    subprocess.run([os.environ["JUDGE_SIM"], "inject", "--root", os.environ["GPUSLICE_SIM_ROOT"], "xid", "--gpu", str(gpu["index"]),
                    "--code", "43"], check=True, stdout=subprocess.DEVNULL)
    event = n.nvmlEventSetWait_v2(waiting, 3000)
    j.equal(f"GPU {gpu['index']} XID", (event.eventType, event.eventData, n.nvmlDeviceGetUUID(event.device)),
            (n.nvmlEventTypeXidCriticalError, 43, gpu["uuid"]))
    n.nvmlEventSetFree(waiting)


def main():
    j = Judge()
    j.raises("before init", n.NVMLError_Uninitialized, n.nvmlDeviceGetCount)
    n.nvmlInit()
    n.nvmlInit()
    n.nvmlShutdown()  # counted: still open
    j.equal("driver", n.nvmlSystemGetDriverVersion(), j.truth["driver"])
    j.equal("NVML version", n.nvmlSystemGetNVMLVersion().split(".", 1)[1], j.truth["driver"])
    j.equal("GPUs", n.nvmlDeviceGetCount(), len(j.truth["gpus"]))
    j.raises("a GPU beyond the last", n.NVMLError_InvalidArgument, n.nvmlDeviceGetHandleByIndex, len(j.truth["gpus"]))
    j.raises("a UUID that is none", n.NVMLError_NotFound, n.nvmlDeviceGetHandleByUUID, "GPU-00000000-0000-0000-0000-000000000000")
    for gpu in j.truth["gpus"]:
        device = n.nvmlDeviceGetHandleByIndex(gpu["index"])
        identity(j, gpu, device)
        memory(j, f"GPU {gpu['index']}", device, gpu["memoryMiB"], memory_of(all_clients(gpu)), overhead_of(gpu["instances"]))
        processes(j, gpu, device)
        activity(j, gpu, device)
        health(j, gpu, device)
        profiles(j, gpu, device)
        instances(j, gpu, device)
    events(j, j.truth["gpus"][0], n.nvmlDeviceGetHandleByIndex(0))
    n.nvmlShutdown()
    j.raises("after the last shutdown", n.NVMLError_Uninitialized, n.nvmlDeviceGetCount)
    j.end()


if __name__ == "__main__":
    main()
