"""nvidia-ml-py 13.615.71's ctypes structs against our declarations, and against what the library really writes.

1. src/simnvml/abi.h asserts a size for each struct of the ABI: the class of the binding must have that size.
2. Offsets of the fields that matter, from public listings.
3. For each call that takes a version word: the binding's own word is taken, and nothing is written past that struct.
"""

import ctypes
import pathlib
import re

import pynvml as n

from judge import Judge

ABI = pathlib.Path(__file__).resolve().parents[3] / "src/simnvml/abi.h"

# Our name: the binding's. A struct of abi.h that is not here must be one that the binding does not declare.
CLASSES = {
    "PciInfoV3": n.nvmlPciInfo_t, "PciInfoV2": n.nvmlPciInfo_v2_t, "PciInfoExtV1": n.nvmlPciInfoExt_v1_t,
    "MemoryV1": n.c_nvmlMemory_t, "MemoryV2": n.c_nvmlMemory_v2_t, "Bar1Memory": n.c_nvmlBAR1Memory_t,
    "Utilization": n.c_nvmlUtilization_t, "ProcessInfoV2": n.c_nvmlProcessInfo_v3_t, "ProcessDetail": n.c_nvmlProcessDetail_v1_t,
    "ProcessDetailList": n.c_nvmlProcessDetailList_v1_t, "DeviceAttributes": n.c_nvmlDeviceAttributes,
    "GiProfileInfo": n.c_nvmlGpuInstanceProfileInfo_t, "GiProfileInfoV2": n.c_nvmlGpuInstanceProfileInfo_v2_t,
    "CiProfileInfo": n.c_nvmlComputeInstanceProfileInfo_t, "CiProfileInfoV2": n.c_nvmlComputeInstanceProfileInfo_v2_t,
    "GiInfo": n.c_nvmlGpuInstanceInfo_t, "CiInfo": n.c_nvmlComputeInstanceInfo_t, "FieldValue": n.c_nvmlFieldValue_t,
    "EventData": n.c_nvmlEventData_t, "ProcessUtilizationSample": n.c_nvmlProcessUtilizationSample_t,
    "ProcessUtilizationInfo": n.c_nvmlProcessUtilizationInfo_v1_t, "ProcessesUtilizationInfo": n.c_nvmlProcessesUtilizationInfo_v1_t,
    "Sample": n.c_nvmlSample_t, "TemperatureV1": n.c_nvmlTemperature_v1_t, "UuidV1": n.c_nvmlUUID_t,
    "FabricInfo": n.c_nvmlGpuFabricInfo_t, "FabricInfoV2": n.c_nvmlGpuFabricInfo_v2_t, "FabricInfoV3": n.c_nvmlGpuFabricInfo_v3_t,
    "PdiV1": n.c_nvmlPdi_t, "AddressingModeV1": n.c_nvmlDeviceAddressingMode_t, "RepairStatusV1": n.c_nvmlRepairStatus_t,
    "MarginTemperatureV1": n.c_nvmlMarginTemperature_v1_t, "FanSpeedInfoV1": n.c_nvmlFanSpeedInfo_t,
    "ClockOffsetsV1": n.c_nvmlClockOffset_t, "ViolationTime": n.c_nvmlViolationTime_t, "SramEccStatusV1": n.c_nvmlEccSramErrorStatus_v1_t,
    "CapabilitiesV1": n.c_nvmlDeviceCapabilities_v1_t, "DriverBranchV1": n.c_nvmlSystemDriverBranchInfo_v1_t,
}
# Older or newer than what the binding declares.
NOT_IN_THE_BINDING = {"ProcessInfoV1", "GiProfileInfoV3", "CiProfileInfoV3", "CiInfoV1"}

OFFSETS = {
    n.nvmlPciInfo_t: {"busIdLegacy": 0, "domain": 16, "bus": 20, "device": 24, "pciDeviceId": 28, "pciSubSystemId": 32, "busId": 36},
    n.c_nvmlMemory_v2_t: {"version": 0, "total": 8, "reserved": 16, "free": 24, "used": 32},
    n.c_nvmlProcessInfo_v3_t: {"pid": 0, "usedGpuMemory": 8, "gpuInstanceId": 16, "computeInstanceId": 20},
    n.c_nvmlProcessDetail_v1_t: {"pid": 0, "usedGpuMemory": 8, "gpuInstanceId": 16, "computeInstanceId": 20, "usedGpuCcProtectedMemory": 24},
    n.c_nvmlProcessDetailList_v1_t: {"version": 0, "mode": 4, "numProcArrayEntries": 8, "procArray": 16},
    n.c_nvmlDeviceAttributes: {"multiprocessorCount": 0, "sharedCopyEngineCount": 4, "gpuInstanceSliceCount": 24,
                               "computeInstanceSliceCount": 28, "memorySizeMB": 32},
    n.c_nvmlGpuInstanceProfileInfo_t: {"id": 0, "sliceCount": 8, "instanceCount": 12, "memorySizeMB": 40},
    n.c_nvmlGpuInstanceProfileInfo_v2_t: {"version": 0, "id": 4, "sliceCount": 12, "instanceCount": 16, "memorySizeMB": 48, "name": 56},
    n.c_nvmlComputeInstanceProfileInfo_v2_t: {"version": 0, "id": 4, "name": 40},
    n.c_nvmlGpuInstanceInfo_t: {"device": 0, "id": 8, "profileId": 12, "placement": 16},
    n.c_nvmlComputeInstanceInfo_t: {"device": 0, "gpuInstance": 8, "id": 16, "profileId": 20, "placement": 24},
    n.c_nvmlFieldValue_t: {"fieldId": 0, "scopeId": 4, "timestamp": 8, "latencyUsec": 16, "valueType": 24, "nvmlReturn": 28, "value": 32},
    n.c_nvmlEventData_t: {"device": 0, "eventType": 8, "eventData": 16, "gpuInstanceId": 24, "computeInstanceId": 28},
    n.c_nvmlProcessUtilizationSample_t: {"pid": 0, "timeStamp": 8, "smUtil": 16, "memUtil": 20, "encUtil": 24, "decUtil": 28},
    n.c_nvmlUUID_t: {"version": 0, "type": 4, "value": 8},
    n.c_nvmlGpmMetric_t: {"metricId": 0, "nvmlReturn": 4, "value": 8},
}

# Version words as public listings give them; the binding must say the same.
WORDS = {"nvmlMemory_v2": 0x02000028, "nvmlGpuInstanceProfileInfo_v2": 0x02000098, "nvmlComputeInstanceProfileInfo_v2": 0x02000088,
         "nvmlPciInfoExt_v1": 0x01000040, "nvmlTemperature_v1": 0x0100000C, "nvmlGpuFabricInfo_v2": 0x02000024,
         "nvmlGpuFabricInfo_v3": 0x03000028, "nvmlDeviceAddressingMode_v1": 0x01000008, "nvmlRepairStatus_v1": 0x0100000C,
         "nvmlMarginTemperature_v1": 0x01000008, "nvmlPlatformInfo_v1": 0x0100002C, "nvmlPlatformInfo_v2": 0x0200002C,
         "nvmlFanSpeedInfo_v1": 0x0100000C, "nvmlPdi_v1": 0x01000010, "nvmlUUID_v1": 0x01000034}

GUARD = 0xA5
GUARD_BYTES = 256


def ours():
    text = ABI.read_text()
    return {name: int(size) for name, size in re.findall(r"sizeof\((\w+)\) == (\d+)", text)}


def guarded(j, name, word, arguments_before, mismatch=n.NVML_ERROR_ARGUMENT_VERSION_MISMATCH):
    """Calls `name` with a struct of the size that `word` names, in the middle of guard bytes."""
    size = word & 0xFFFFFF
    buffer = (ctypes.c_ubyte * (size + GUARD_BYTES))(*([0] * size + [GUARD] * GUARD_BYTES))
    ctypes.cast(buffer, ctypes.POINTER(ctypes.c_uint32))[0] = word
    code = n._nvmlGetFunctionPointer(name)(*arguments_before, ctypes.byref(buffer))
    j.equal(f"{name} takes {word:#010x}", code in (n.NVML_SUCCESS, n.NVML_ERROR_NOT_SUPPORTED), True)
    j.equal(f"{name} {word:#010x} writes no further", bytes(buffer[size:]), bytes([GUARD] * GUARD_BYTES))
    ctypes.cast(buffer, ctypes.POINTER(ctypes.c_uint32))[0] = word ^ 0x10
    if code == n.NVML_SUCCESS:
        j.equal(f"{name} refuses another size", n._nvmlGetFunctionPointer(name)(*arguments_before, ctypes.byref(buffer)),
                mismatch)


def main():
    j = Judge()
    sizes = ours()
    j.within("structs of abi.h with a size", len(sizes), 30, 200)
    for name, cls in CLASSES.items():
        j.equal(f"size of {cls.__name__}", ctypes.sizeof(cls), sizes.get(name))
    j.equal("structs of abi.h that this judge does not know", sorted(set(sizes) - set(CLASSES) - NOT_IN_THE_BINDING), [])
    for cls, fields in OFFSETS.items():
        for field, offset in fields.items():
            j.equal(f"offset of {cls.__name__}.{field}", getattr(cls, field).offset, offset)
    for name, word in WORDS.items():
        j.equal(f"version word {name}", getattr(n, name), word)

    n.nvmlInit()
    device = n.nvmlDeviceGetHandleByIndex(0)
    # What branch 580 answers to a wrong word differs by call: docs/hardware.md.
    guarded(j, "nvmlDeviceGetMemoryInfo_v2", 0x02000028, [device], n.NVML_ERROR_FUNCTION_NOT_FOUND)
    guarded(j, "nvmlDeviceGetClockOffsets", 0x01000018, [device])
    guarded(j, "nvmlDeviceGetSramEccErrorStatus", 0x01000068, [device])
    guarded(j, "nvmlDeviceGetCapabilities", 0x01000008, [device])
    guarded(j, "nvmlDeviceGetPciInfoExt", 0x01000040, [device])
    guarded(j, "nvmlDeviceGetTemperatureV", 0x0100000C, [device])
    guarded(j, "nvmlDeviceGetMarginTemperature", 0x01000008, [device])
    guarded(j, "nvmlDeviceGetAddressingMode", 0x01000008, [device])
    guarded(j, "nvmlDeviceGetRepairStatus", 0x0100000C, [device])
    guarded(j, "nvmlDeviceGetPdi", 0x01000010, [device])
    guarded(j, "nvmlDeviceGetGpuFabricInfoV", 0x02000024, [device])
    guarded(j, "nvmlDeviceGetGpuFabricInfoV", 0x03000028, [device])
    guarded(j, "nvmlDeviceGetPlatformInfo", 0x0100002C, [device])
    guarded(j, "nvmlDeviceGetPlatformInfo", 0x0200002C, [device])
    if j.truth["gpus"][0]["capable"]:
        for word in (0x02000098, 0x03000098):
            guarded(j, "nvmlDeviceGetGpuInstanceProfileInfoV", word, [device, 0], n.NVML_ERROR_INVALID_ARGUMENT)
    # Plain structs: a v3 list of processes fills what was counted and no more.
    running = n.nvmlDeviceGetComputeRunningProcesses_v3(device)
    count = ctypes.c_uint(len(running))
    room = ctypes.sizeof(n.c_nvmlProcessInfo_v3_t) * len(running)
    buffer = (ctypes.c_ubyte * (room + GUARD_BYTES))(*([0] * room + [GUARD] * GUARD_BYTES))
    n._nvmlGetFunctionPointer("nvmlDeviceGetComputeRunningProcesses_v3")(device, ctypes.byref(count), ctypes.byref(buffer))
    j.equal("process list writes no further", bytes(buffer[room:]), bytes([GUARD] * GUARD_BYTES))
    n.nvmlShutdown()
    j.end()


if __name__ == "__main__":
    main()
