#!/usr/bin/env python3
"""What an NVML library answers, as JSON Lines: nvml_record.py [LIBRARY] > FILE

Calls every getter that the simulated library models, and some that it does not, on every GPU, GPU instance, compute
instance and MIG device, and prints one JSON object per call: its name, what it was asked of, the arguments, the return
code, and what was written. It reads only: a name that could set, create, destroy, reset, register or clear is refused
before it is looked up. tools/nvml_diff.py compares two recordings.

Python's standard library only. LIBRARY is libnvidia-ml.so.1 unless said.

One record: {"call", "on": "node|gpu0|gpu0/gi1|gpu0/gi1/ci0|gpu0/mig0", "args": {…}, "ret": 0, "us": 12, "out": {…}}
  ret       NVML's code; null where the library has no such function; "crash" where the process ended (hostile calls)
  on_error  names of outputs that were written although the call failed
  beyond    {output: bytes} written behind the end of what we believe is its size
"""

import argparse
import ctypes
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time

READ_ONLY = re.compile(r"nvml(System|Device|GpuInstance|ComputeInstance|Unit|Gpm)(Get|Is|Query|OnSameBoard)\w*$")
NEVER = re.compile(r"Set|Create|Destroy|Clear|Reset|Register|Remove")
PLAIN = {"nvmlInit_v2", "nvmlInit", "nvmlInitWithFlags", "nvmlShutdown", "nvmlErrorString"}
# Getters in spite of a word in their name.
GETTERS = {"nvmlSystemGetTopologyGpuSet"}

PAD, FILL = 1024, 0xEE
SIZES = {"I": 4, "i": 4, "Q": 8, "q": 8, "d": 8, "B": 1, "H": 2, "P": 8}

FIELDS = range(1, 304)
GI_ENUMS, CI_ENUMS = range(0, 24), range(0, 12)
MOST = 64  # entries of an array that a driver fills


class Layout:
    """"total:Q free:Q name:s96 cluster:x16": C's alignment. One field without a name is a plain value."""

    def __init__(self, text):
        self.fields, offset, widest = [], 0, 1
        for word in text.split():
            name, _, kind = word.rpartition(":")
            if kind[0] in "sx":
                size, align = int(kind[1:]), 1
            else:
                size = align = SIZES[kind]
            offset = -(-offset // align) * align
            self.fields.append((name, kind, offset, size))
            offset += size
            widest = max(widest, align)
        self.size = -(-offset // widest) * widest

    def read(self, raw, at=0):
        out = {}
        for name, kind, offset, size in self.fields:
            piece = raw[at + offset:at + offset + size]
            if kind[0] == "s":
                out[name] = piece.split(b"\0")[0].decode("utf-8", "replace")
            elif kind[0] == "x":
                out[name] = piece.hex()
            elif kind == "P":
                out[name] = "pointer" if any(piece) else None
            else:
                out[name] = struct.unpack(kind, piece)[0]
        return out[""] if list(out) == [""] else out


class Out:
    """Something that the library writes: `count` of a layout, guarded behind its end."""

    def __init__(self, name, layout, count=None, start=b"", shown=None):
        self.name, self.layout, self.count, self.shown = name, Layout(layout), count, shown
        self.size = self.layout.size * (count or 1)
        self.raw = ctypes.create_string_buffer(bytes([FILL]) * (self.size + PAD), self.size + PAD)
        self.before = start + bytes([FILL]) * (self.size - len(start))
        ctypes.memmove(self.raw, start, len(start))

    def pointer(self):
        return ctypes.c_void_p(ctypes.addressof(self.raw))

    def value(self, entries=None):
        if self.count is None:
            return self.layout.read(self.raw.raw)
        return [self.layout.read(self.raw.raw, i * self.layout.size) for i in range(min(entries or 0, self.count))]

    def written(self):
        return self.raw.raw[:self.size] != self.before

    def beyond(self):
        return len(self.raw.raw[self.size:].rstrip(bytes([FILL])))


def u32(value):
    return struct.pack("I", value)


class Recorder:
    def __init__(self, path, stream):
        self.library = ctypes.CDLL(path)
        self.stream = stream
        self.functions = {}

    def emit(self, record):
        self.stream.write(json.dumps(record) + "\n")
        self.stream.flush()

    def function(self, name):
        if name not in PLAIN and name not in GETTERS and (not READ_ONLY.match(name) or NEVER.search(name)):
            raise SystemExit(f"nvml_record: {name} is not a getter; refused")
        if name not in self.functions:
            try:
                self.functions[name] = getattr(self.library, name)
            except AttributeError:
                self.functions[name] = None
        return self.functions[name]

    def call(self, name, on, *params, note=None, counted=None):
        """params: (label, ctypes value, what to show) or Out. counted: the Out that says how many entries others have.

        Returns the code and {output: value} of a call that succeeded.
        """
        record = {"call": name, "on": on, "args": {}, "ret": None}
        if note:
            record["args"]["note"] = note
        words, outs = [], []
        for param in params:
            if isinstance(param, Out):
                outs.append(param)
                words.append(param.pointer())
                if param.shown is not None:
                    record["args"][param.name] = param.shown
            else:
                label, value, shown = param
                words.append(value)
                if label:
                    record["args"][label] = shown
        function = self.function(name)
        if function is None:
            self.emit(record)
            return None, {}
        function.restype = ctypes.c_int
        began = time.perf_counter_ns()
        code = function(*words)
        record["us"] = (time.perf_counter_ns() - began) // 1000
        record["ret"] = code
        values = {}
        if code == 0:
            entries = struct.unpack("I", counted.raw.raw[:4])[0] if counted else None
            values = {out.name: out.value(entries) for out in outs}
            record["out"] = values
        else:
            wrote = [out.name for out in outs if out.written()]
            if wrote:
                record["on_error"] = wrote
            if code == 7 and counted:
                record["needed"] = struct.unpack("I", counted.raw.raw[:4])[0]
        over = {out.name: out.beyond() for out in outs if out.beyond()}
        if over:
            record["beyond"] = over
        self.emit(record)
        return code, values

    def error_string(self, code):
        function = self.function("nvmlErrorString")
        function.restype = ctypes.c_char_p
        text = function(ctypes.c_int(code))
        self.emit({"call": "nvmlErrorString", "on": "node", "args": {"code": code}, "ret": 0,
                   "out": {"text": text.decode() if text is not None else None}})


def handle_of(value):
    return ("", ctypes.c_void_p(value), None)


def number(label, value):
    return (label, ctypes.c_uint(value), value)


def wide(label, value):
    return (label, ctypes.c_ulonglong(value), value)


def null(label):
    return (label, ctypes.c_void_p(None), "NULL")


def text(label, value, shown):
    return (label, ctypes.c_char_p(value), shown)


def texts(r, name, on, handle, size=96, **how):
    head = [handle] if handle else []
    return r.call(name, on, *head, Out("text", f":s{size}"), number("length", size), **how)


# --- the node ------------------------------------------------------------------------------------------------------

def record_uninitialised(r):
    r.call("nvmlDeviceGetCount_v2", "node", Out("count", ":I"), note="before init")
    r.call("nvmlSystemGetDriverVersion", "node", Out("text", ":s80"), number("length", 80), note="before init")
    r.call("nvmlShutdown", "node", note="before init")
    for code in [*range(0, 31), 999, 31, 500, 1000, -1]:
        r.error_string(code)


def record_node(r):
    for name in ("nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion"):
        texts(r, name, "node", None, 80)
    for name in ("nvmlSystemGetCudaDriverVersion", "nvmlSystemGetCudaDriverVersion_v2"):
        r.call(name, "node", Out("version", ":i"))
    for name in ("nvmlDeviceGetCount", "nvmlDeviceGetCount_v2", "nvmlUnitGetCount"):
        r.call(name, "node", Out("count", ":I"))
    r.call("nvmlSystemGetDriverBranch", "node", Out("branch", "version:I branch:s80", start=u32(0x01000054)), number("length", 80))
    r.call("nvmlSystemGetProcessName", "node", number("", os.getpid()), Out("text", ":s256"), number("length", 256), note="our own pid")
    r.call("nvmlSystemGetProcessName", "node", number("pid", 0x7FFFFFF0), Out("text", ":s256"), number("length", 256))
    count = Out("count", ":I", start=u32(MOST))
    r.call("nvmlSystemGetHicVersion", "node", count, Out("entries", "id:I firmware:s32", MOST), counted=count)
    count = Out("count", ":I", start=u32(MOST))
    r.call("nvmlSystemGetTopologyGpuSet", "node", number("cpu", 0), count, Out("gpus", ":P", MOST), counted=count)
    r.call("nvmlUnitGetHandleByIndex", "node", number("index", 0), Out("unit", ":P"))
    r.call("nvmlSystemGetConfComputeCapabilities", "node", Out("capabilities", "cpu:I gpus:I"))
    r.call("nvmlSystemGetConfComputeState", "node", Out("state", "environment:I feature:I dev_tools:I"))
    r.call("nvmlSystemGetConfComputeGpusReadyState", "node", Out("ready", ":I"))
    r.call("nvmlSystemGetNvlinkBwMode", "node", Out("mode", ":I"))
    for index in (0, 1, 64, 0xFFFFFFFF):
        for name in ("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByIndex_v2"):
            r.call(name, "node", number("index", index), Out("gpu", ":P"))
    for name, value in (("nvmlDeviceGetHandleByUUID", b"GPU-00000000-0000-0000-0000-000000000000"), ("nvmlDeviceGetHandleByUUID", b"nonsense"),
                        ("nvmlDeviceGetHandleByUUID", b"MIG-00000000-0000-0000-0000-000000000000"), ("nvmlDeviceGetHandleByUUID", b""),
                        ("nvmlDeviceGetHandleByPciBusId_v2", b"00000000:FE:00.0"), ("nvmlDeviceGetHandleByPciBusId_v2", b"nonsense"),
                        ("nvmlDeviceGetHandleBySerial", b"0000000000000")):
        r.call(name, "node", text("id", value, value.decode()), Out("gpu", ":P"))


# --- one GPU, or one MIG device -------------------------------------------------------------------------------------

TEXTS = {"nvmlDeviceGetName": 96, "nvmlDeviceGetUUID": 96, "nvmlDeviceGetSerial": 30, "nvmlDeviceGetVbiosVersion": 32,
         "nvmlDeviceGetBoardPartNumber": 80, "nvmlDeviceGetInforomImageVersion": 16}

WORDS = """nvmlDeviceGetMinorNumber nvmlDeviceGetModuleId nvmlDeviceGetIndex nvmlDeviceGetBoardId nvmlDeviceGetMultiGpuBoard nvmlDeviceGetBrand
nvmlDeviceGetArchitecture nvmlDeviceGetNumGpuCores nvmlDeviceGetMemoryBusWidth nvmlDeviceGetDisplayMode nvmlDeviceGetDisplayActive
nvmlDeviceGetPersistenceMode nvmlDeviceGetComputeMode nvmlDeviceGetVirtualizationMode nvmlDeviceGetPerformanceState nvmlDeviceGetPowerState
nvmlDeviceGetPowerUsage nvmlDeviceGetPowerManagementMode nvmlDeviceGetPowerManagementLimit nvmlDeviceGetEnforcedPowerLimit
nvmlDeviceGetPowerManagementDefaultLimit nvmlDeviceGetNumFans nvmlDeviceGetFanSpeed nvmlDeviceGetCurrPcieLinkGeneration
nvmlDeviceGetMaxPcieLinkGeneration nvmlDeviceGetGpuMaxPcieLinkGeneration nvmlDeviceGetCurrPcieLinkWidth nvmlDeviceGetMaxPcieLinkWidth
nvmlDeviceGetPcieSpeed nvmlDeviceGetPcieLinkMaxSpeed nvmlDeviceGetPcieReplayCounter nvmlDeviceGetNumaNodeId nvmlDeviceGetDefaultEccMode
nvmlDeviceGetRetiredPagesPendingStatus nvmlDeviceGetAccountingMode nvmlDeviceIsMigDeviceHandle nvmlDeviceGetMaxMigDeviceCount
nvmlDeviceGetGpuInstanceId nvmlDeviceGetComputeInstanceId nvmlDeviceGetIrqNum nvmlDeviceGetBusType nvmlDeviceGetAdaptiveClockInfoStatus
nvmlDeviceGetAccountingBufferSize nvmlDeviceGetHostVgpuMode nvmlDeviceGetInforomConfigurationChecksum nvmlDeviceGetPowerSource
nvmlDeviceGetMemClkVfOffset nvmlDeviceGetGpcClkVfOffset""".split()

PAIRS = """nvmlDeviceGetEncoderUtilization nvmlDeviceGetDecoderUtilization nvmlDeviceGetJpgUtilization nvmlDeviceGetOfaUtilization
nvmlDeviceGetGspFirmwareMode nvmlDeviceGetPowerManagementLimitConstraints nvmlDeviceGetEccMode nvmlDeviceGetMigMode nvmlDeviceGetCudaComputeCapability
nvmlDeviceGetDriverModel nvmlDeviceGetDriverModel_v2 nvmlDeviceGetGpuOperationMode nvmlDeviceGetAutoBoostedClocksEnabled nvmlDeviceGetMinMaxFanSpeed
nvmlDeviceGetMemClkMinMaxVfOffset nvmlDeviceGetGpcClkMinMaxVfOffset""".split()

WIDES = """nvmlDeviceGetTotalEnergyConsumption nvmlDeviceGetSupportedEventTypes nvmlDeviceGetCurrentClocksThrottleReasons
nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetSupportedClocksThrottleReasons nvmlDeviceGetSupportedClocksEventReasons""".split()

# (name, layout, the version word)
STRUCTS = (
    ("nvmlDeviceGetMemoryInfo", "total:Q free:Q used:Q", 0),
    ("nvmlDeviceGetMemoryInfo_v2", "version:I total:Q reserved:Q free:Q used:Q", 0x02000028),
    ("nvmlDeviceGetBAR1MemoryInfo", "total:Q free:Q used:Q", 0),
    ("nvmlDeviceGetUtilizationRates", "gpu:I memory:I", 0),
    ("nvmlDeviceGetPciInfo", "bus_id:s16 domain:I bus:I device:I device_id:I subsystem_id:I", 0),
    ("nvmlDeviceGetPciInfo_v2", "bus_id:s16 domain:I bus:I device:I device_id:I subsystem_id:I reserved:x16", 0),
    ("nvmlDeviceGetPciInfo_v3", "bus_id_legacy:s16 domain:I bus:I device:I device_id:I subsystem_id:I bus_id:s32", 0),
    ("nvmlDeviceGetPciInfoExt", "version:I domain:I bus:I device:I device_id:I subsystem_id:I base_class:I sub_class:I bus_id:s32", 0x01000040),
    ("nvmlDeviceGetConfComputeMemSizeInfo", "protected:Q unprotected:Q", 0),
    ("nvmlDeviceGetPdi", "version:I value:Q", 0x01000010),
    ("nvmlDeviceGetAddressingMode", "version:I value:I", 0x01000008),
    ("nvmlDeviceGetRepairStatus", "version:I channel:I tpc:I", 0x0100000C),
    ("nvmlDeviceGetMarginTemperature", "version:I margin:i", 0x01000008),
    ("nvmlDeviceGetGpuFabricInfo", "cluster:x16 status:I clique:I state:B", 0),
    ("nvmlDeviceGetGpuFabricInfoV", "version:I cluster:x16 status:I clique:I state:B health_mask:I", 0x02000024),
    ("nvmlDeviceGetGpuFabricInfoV", "version:I cluster:x16 status:I clique:I state:B health_mask:I health_summary:B", 0x03000028),
    ("nvmlDeviceGetRowRemapperHistogram", "max:I high:I partial:I low:I none:I", 0),
    ("nvmlDeviceGetAttributes", "sm:I ce:I dec:I enc:I jpeg:I ofa:I gi_slices:I ci_slices:I memory_mb:Q", 0),
    ("nvmlDeviceGetAttributes_v2", "sm:I ce:I dec:I enc:I jpeg:I ofa:I gi_slices:I ci_slices:I memory_mb:Q", 0),
    ("nvmlDeviceGetSramEccErrorStatus", "version:I rest:x100", 0x01000068),
    ("nvmlDeviceGetPlatformInfo", "version:I rest:x40", 0x0100002C),
    ("nvmlDeviceGetPlatformInfo", "version:I rest:x40", 0x0200002C),
    ("nvmlDeviceGetFanSpeedRPM", "version:I fan:I speed:I", 0x0100000C),
    ("nvmlDeviceGetCapabilities", "version:I mask:I", 0x01000008),
    ("nvmlDeviceGetNvLinkInfo", "version:I encryption:I", 0x01000008),
    ("nvmlDeviceGetC2cModeInfoV", "enabled:I", 0),
    ("nvmlDeviceGetEncoderStats", "sessions:I", 0),
    ("nvmlGpmQueryDeviceSupport", "version:I supported:I", 0),
)


def first(r, name, on, handle, *more, layout, **how):
    return r.call(name, on, handle, *more, Out("value", layout), **how)


def record_getters(r, on, handle):
    for name, size in TEXTS.items():
        texts(r, name, on, handle, size)
    for name in WORDS:
        first(r, name, on, handle, layout=":I")
    for name in PAIRS:
        r.call(name, on, handle, Out("first", ":I"), Out("second", ":I"))
    for name in WIDES:
        first(r, name, on, handle, layout=":Q")
    for name, layout, version in STRUCTS:
        if name == "nvmlDeviceGetEncoderStats":
            r.call(name, on, handle, Out("sessions", ":I"), Out("fps", ":I"), Out("latency_us", ":I"))
            continue
        start = u32(version) if version else u32(1) if name.startswith("nvmlGpm") else b""
        if name == "nvmlDeviceGetFanSpeedRPM":
            start += u32(0)
        r.call(name, on, handle, Out("value", layout, start=start, shown=f"version {version:#010x}" if version else None))
    r.call("nvmlDeviceGetGspFirmwareVersion", on, handle, Out("text", ":s80"))
    r.call("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", on, handle, Out("gpu", ":P"))
    r.call("nvmlDeviceGetRemappedRows", on, handle, *(Out(name, ":I") for name in ("corrected", "uncorrected", "pending", "failed")))
    record_thermal_and_clocks(r, on, handle)
    record_ecc(r, on, handle)
    record_links(r, on, handle)
    record_processes(r, on, handle)
    record_fields(r, on, handle)


def record_thermal_and_clocks(r, on, handle):
    for sensor in range(0, 3):
        first(r, "nvmlDeviceGetTemperature", on, handle, number("sensor", sensor), layout=":I")
        r.call("nvmlDeviceGetTemperatureV", on, handle,
               Out("value", "version:I sensor:I celsius:i", start=u32(0x0100000C) + u32(sensor), shown=f"version 1, sensor {sensor}"))
    for threshold in range(0, 10):
        first(r, "nvmlDeviceGetTemperatureThreshold", on, handle, number("threshold", threshold), layout=":I")
    for fan in range(0, 2):
        first(r, "nvmlDeviceGetFanSpeed_v2", on, handle, number("fan", fan), layout=":I")
        first(r, "nvmlDeviceGetTargetFanSpeed", on, handle, number("fan", fan), layout=":I")
    for clock in range(0, 5):
        for name in ("nvmlDeviceGetClockInfo", "nvmlDeviceGetMaxClockInfo", "nvmlDeviceGetMaxCustomerBoostClock",
                     "nvmlDeviceGetApplicationsClock", "nvmlDeviceGetDefaultApplicationsClock"):
            first(r, name, on, handle, number("clock", clock), layout=":I")
        for which in range(0, 5):
            first(r, "nvmlDeviceGetClock", on, handle, number("clock", clock), number("which", which), layout=":I")
        r.call("nvmlDeviceGetClockOffsets", on, handle,
               Out("value", "version:I type:I pstate:I offset:i min:i max:i", start=u32(0x01000018) + u32(clock) + u32(0), shown=f"version 1, clock {clock}, P0"))
        r.call("nvmlDeviceGetMinMaxClockOfPState", on, handle, number("clock", clock), number("pstate", 0), Out("min", ":I"), Out("max", ":I"))
    r.call("nvmlDeviceGetSupportedPerformanceStates", on, handle, Out("states", ":x64"), number("bytes", 64))
    count = Out("count", ":I", start=u32(MOST))
    _, got = r.call("nvmlDeviceGetSupportedMemoryClocks", on, handle, count, Out("mhz", ":I", MOST), counted=count)
    for which, mhz in enumerate([*got.get("mhz", [])[:3], 1]):
        count = Out("count", ":I", start=u32(512))
        shown = "1 MHz" if mhz == 1 else f"memory clock {which}"
        r.call("nvmlDeviceGetSupportedGraphicsClocks", on, handle, ("memory", ctypes.c_uint(mhz), shown), count, Out("mhz", ":I", 512), counted=count)
    for policy in range(0, 12):
        r.call("nvmlDeviceGetViolationStatus", on, handle, number("policy", policy), Out("value", "reference:Q violation:Q"))
    for restriction in range(0, 2):
        first(r, "nvmlDeviceGetAPIRestriction", on, handle, number("api", restriction), layout=":I")


def record_ecc(r, on, handle):
    for kind in range(0, 3):
        for counter in range(0, 3):
            first(r, "nvmlDeviceGetTotalEccErrors", on, handle, number("type", kind), number("counter", counter), layout=":Q")
            for location in range(0, 10):
                first(r, "nvmlDeviceGetMemoryErrorCounter", on, handle, number("type", kind), number("counter", counter),
                      number("location", location), layout=":Q")
    for cause in range(0, 3):
        for name, more in (("nvmlDeviceGetRetiredPages", 1), ("nvmlDeviceGetRetiredPages_v2", 2)):
            count = Out("count", ":I", start=u32(MOST))
            r.call(name, on, handle, number("cause", cause), count, *(Out(f"array{i}", ":Q", MOST) for i in range(more)), counted=count)
    for inforom in range(0, 6):
        r.call("nvmlDeviceGetInforomVersion", on, handle, number("object", inforom), Out("text", ":s16"), number("length", 16))


def record_links(r, on, handle):
    for link in range(0, 20):
        for name in ("nvmlDeviceGetNvLinkState", "nvmlDeviceGetNvLinkVersion", "nvmlDeviceGetNvLinkRemoteDeviceType"):
            first(r, name, on, handle, number("link", link), layout=":I")
        r.call("nvmlDeviceGetNvLinkRemotePciInfo_v2", on, handle, number("link", link),
               Out("value", "bus_id_legacy:s16 domain:I bus:I device:I device_id:I subsystem_id:I bus_id:s32"))
    r.call("nvmlDeviceGetNvLinkRemotePciInfo", on, handle, number("link", 0),
           Out("value", "bus_id:s16 domain:I bus:I device:I device_id:I subsystem_id:I reserved:x16"))
    for capability in range(0, 8):
        first(r, "nvmlDeviceGetNvLinkCapability", on, handle, number("link", 0), number("capability", capability), layout=":I")
    for counter in range(0, 7):
        first(r, "nvmlDeviceGetNvLinkErrorCounter", on, handle, number("link", 0), number("counter", counter), layout=":Q")
    for counter in range(0, 3):
        first(r, "nvmlDeviceGetPcieThroughput", on, handle, number("counter", counter), layout=":I")
    first(r, "nvmlDeviceGetTopologyCommonAncestor", on, handle, handle, layout=":I", note="with itself")
    for index in range(0, 6):
        first(r, "nvmlDeviceGetP2PStatus", on, handle, handle, number("index", index), layout=":I", note="with itself")
    for level in (0, 10, 20, 30, 40, 50, 60):
        count = Out("count", ":I", start=u32(MOST))
        r.call("nvmlDeviceGetTopologyNearestGpus", on, handle, number("level", level), count, Out("gpus", ":P", MOST), counted=count)
    r.call("nvmlDeviceGetCpuAffinity", on, handle, number("words", 4), Out("mask", ":x32"))
    for scope in range(0, 3):
        r.call("nvmlDeviceGetCpuAffinityWithinScope", on, handle, number("words", 4), Out("mask", ":x32"), number("scope", scope))
        r.call("nvmlDeviceGetMemoryAffinity", on, handle, number("words", 1), Out("mask", ":x8"), number("scope", scope))


PROCESS_V1, PROCESS_V2 = "pid:I memory:Q", "pid:I memory:Q gi:I ci:I"
SAMPLE = "us:Q value:Q"


def record_processes(r, on, handle):
    for kind in ("Compute", "Graphics", "MPSCompute"):
        for suffix, layout in (("", PROCESS_V1), ("_v2", PROCESS_V2), ("_v3", PROCESS_V2)):
            name = f"nvmlDeviceGet{kind}RunningProcesses{suffix}"
            count = Out("count", ":I", start=u32(0), shown="0")
            r.call(name, on, handle, count, null("entries"), counted=count)
            count = Out("count", ":I", start=u32(MOST))
            r.call(name, on, handle, count, Out("entries", layout, MOST), counted=count)
    for mode in range(0, 4):
        entries = Out("entries", "pid:I memory:Q gi:I ci:I protected:Q", MOST)
        start = struct.pack("IIIxxxxQ", 0x01000018, mode, MOST, ctypes.addressof(entries.raw))
        r.call("nvmlDeviceGetRunningProcessDetailList", on, handle, Out("list", "version:I mode:I count:I entries:P", start=start, shown=f"version 1, mode {mode}"))
    count = Out("count", ":I", start=u32(0), shown="0")
    r.call("nvmlDeviceGetProcessUtilization", on, handle, null("entries"), count, wide("since", 0), counted=count)
    count = Out("count", ":I", start=u32(MOST))
    r.call("nvmlDeviceGetProcessUtilization", on, handle, Out("entries", "pid:I us:Q sm:I memory:I encoder:I decoder:I", MOST), count, wide("since", 0), counted=count)
    entries = Out("entries", "us:Q pid:I sm:I memory:I encoder:I decoder:I jpeg:I ofa:I", MOST)
    start = struct.pack("IIQQ", 0x01000018, MOST, 0, ctypes.addressof(entries.raw))
    r.call("nvmlDeviceGetProcessesUtilizationInfo", on, handle, Out("list", "version:I count:I since:Q entries:P", start=start, shown="version 1"))
    for kind in range(0, 10):
        count = Out("count", ":I", start=u32(0), shown="0")
        r.call("nvmlDeviceGetSamples", on, handle, number("kind", kind), wide("since", 0), Out("type", ":I"), count, null("samples"))
        count = Out("count", ":I", start=u32(256))
        r.call("nvmlDeviceGetSamples", on, handle, number("kind", kind), wide("since", 0), Out("type", ":I"), count, Out("samples", SAMPLE, 256), counted=count)
    for name in ("nvmlDeviceGetEncoderSessions", "nvmlDeviceGetFBCSessions"):
        count = Out("count", ":I", start=u32(0), shown="0")
        r.call(name, on, handle, count, null("sessions"))
    for codec in range(0, 3):
        first(r, "nvmlDeviceGetEncoderCapacity", on, handle, number("codec", codec), layout=":I")
    count = Out("count", ":I", start=u32(MOST))
    r.call("nvmlDeviceGetAccountingPids", on, handle, count, Out("pids", ":I", MOST), counted=count)


VALUE_TYPES = {0: "d", 1: "I", 2: "Q", 3: "Q", 4: "q", 5: "i", 6: "H"}


def record_fields(r, on, handle):
    layout = "field:I scope:I timestamp_us:q latency_us:q type:I ret:I value:x8"
    for field in FIELDS:
        out = Out("value", layout, 1, start=struct.pack("II", field, 0))
        record = {"call": "nvmlDeviceGetFieldValues", "on": on, "args": {"field": field, "scope": 0}, "ret": None}
        function = r.function("nvmlDeviceGetFieldValues")
        if function is None:
            r.emit(record)
            return
        began = time.perf_counter_ns()
        record["ret"] = function(handle[1], ctypes.c_int(1), out.pointer())
        record["us"] = (time.perf_counter_ns() - began) // 1000
        if record["ret"] == 0:
            value = out.value(1)[0]
            kind = VALUE_TYPES.get(value["type"])
            raw = bytes.fromhex(value["value"])
            if value["ret"] == 0 and kind:
                value["value"] = struct.unpack(kind, raw[:SIZES[kind]])[0]
            elif value["ret"] != 0:
                # The driver leaves the rest as it was.
                value = {"field": value["field"], "ret": value["ret"]}
            value.pop("timestamp_us", None)
            record["out"] = value
        r.emit(record)


# --- MIG ------------------------------------------------------------------------------------------------------------

GI_V1 = "id:I p2p:I slices:I count:I sm:I ce:I dec:I enc:I jpeg:I ofa:I memory_mb:Q"
GI_V2 = "version:I id:I p2p:I slices:I count:I sm:I ce:I dec:I enc:I jpeg:I ofa:I memory_mb:Q name:s96"
GI_V3 = "version:I id:I slices:I count:I sm:I ce:I dec:I enc:I jpeg:I ofa:I memory_mb:Q name:s96 capabilities:I"
CI_V1 = "id:I slices:I count:I sm:I ce:I dec:I enc:I jpeg:I ofa:I"
CI_V2 = "version:I id:I slices:I count:I sm:I ce:I dec:I enc:I jpeg:I ofa:I name:s96"
CI_V3 = CI_V2 + " capabilities:I"


def version_of(layout, version):
    return u32(Layout(layout).size | version << 24)


def record_mig(r, on, handle):
    ids = []
    for enum in GI_ENUMS:
        code, got = r.call("nvmlDeviceGetGpuInstanceProfileInfo", on, handle, number("enum", enum), Out("profile", GI_V1))
        if code == 0 and got["profile"]["id"] not in ids:
            ids.append(got["profile"]["id"])
        for layout, version in ((GI_V2, 2), (GI_V3, 3)):
            r.call("nvmlDeviceGetGpuInstanceProfileInfoV", on, handle, number("enum", enum),
                   Out("profile", layout, start=version_of(layout, version), shown=f"version {version}"))
    for profile in [*ids, 99]:
        for layout, version in ((GI_V2, 2), (GI_V3, 3)):
            r.call("nvmlDeviceGetGpuInstanceProfileInfoByIdV", on, handle, number("id", profile),
                   Out("profile", layout, start=version_of(layout, version), shown=f"version {version}"))
        for name in ("nvmlDeviceGetGpuInstancePossiblePlacements", "nvmlDeviceGetGpuInstancePossiblePlacements_v2"):
            r.call(name, on, handle, number("id", profile), null("placements"), Out("count", ":I", start=u32(0)))
            count = Out("count", ":I", start=u32(MOST))
            r.call(name, on, handle, number("id", profile), Out("placements", "start:I size:I", MOST), count, counted=count)
        first(r, "nvmlDeviceGetGpuInstanceRemainingCapacity", on, handle, number("id", profile), layout=":I")
        count = Out("count", ":I", start=u32(MOST))
        gis = Out("instances", ":P", MOST)
        code, got = r.call("nvmlDeviceGetGpuInstances", on, handle, number("id", profile), gis, count, counted=count)
        for i in range(got.get("count", 0)):
            record_gi(r, on, struct.unpack_from("Q", gis.raw.raw, 8 * i)[0])
    for gi in (0, 1, 14, 15, 99):
        r.call("nvmlDeviceGetGpuInstanceById", on, handle, number("id", gi), Out("instance", ":P"))
    for index in range(0, 9):
        mig = Out("device", ":P")
        code, _ = r.call("nvmlDeviceGetMigDeviceHandleByIndex", on, handle, number("index", index), mig)
        if code == 0:
            record_getters(r, f"{on}/mig{index}", handle_of(struct.unpack_from("Q", mig.raw.raw)[0]))


def record_gi(r, on, pointer):
    handle = handle_of(pointer)
    code, got = r.call("nvmlGpuInstanceGetInfo", on, handle, Out("info", "device:P id:I profile:I start:I size:I"))
    if code != 0:
        return
    on = f"{on}/gi{got['info']['id']}"
    for enum in CI_ENUMS:
        for engine in (0, 1):
            code, got = r.call("nvmlGpuInstanceGetComputeInstanceProfileInfo", on, handle, number("enum", enum), number("engine", engine), Out("profile", CI_V1))
            for layout, version in ((CI_V2, 2), (CI_V3, 3)):
                r.call("nvmlGpuInstanceGetComputeInstanceProfileInfoV", on, handle, number("enum", enum), number("engine", engine),
                       Out("profile", layout, start=version_of(layout, version), shown=f"version {version}"))
            if code == 0 and engine == 0:
                record_ci_profile(r, on, handle, got["profile"]["id"])
    r.call("nvmlGpuInstanceGetVgpuSchedulerState", on, handle, Out("state", "version:I rest:x20", start=u32(0x01000018), shown="version 1"))
    for ci in (0, 1, 7, 99):
        r.call("nvmlGpuInstanceGetComputeInstanceById", on, handle, number("id", ci), Out("instance", ":P"))


def record_ci_profile(r, on, handle, profile):
    first(r, "nvmlGpuInstanceGetComputeInstanceRemainingCapacity", on, handle, number("id", profile), layout=":I")
    r.call("nvmlGpuInstanceGetComputeInstancePossiblePlacements", on, handle, number("id", profile), null("placements"), Out("count", ":I", start=u32(0)))
    count = Out("count", ":I", start=u32(MOST))
    r.call("nvmlGpuInstanceGetComputeInstancePossiblePlacements", on, handle, number("id", profile), Out("placements", "start:I size:I", MOST), count, counted=count)
    count = Out("count", ":I", start=u32(MOST))
    cis = Out("instances", ":P", MOST)
    _, got = r.call("nvmlGpuInstanceGetComputeInstances", on, handle, number("id", profile), cis, count, counted=count)
    for i in range(got.get("count", 0)):
        ci = handle_of(struct.unpack_from("Q", cis.raw.raw, 8 * i)[0])
        r.call("nvmlComputeInstanceGetInfo", on, ci, Out("info", "device:P gi:P id:I profile:I"))
        info = Out("info", "device:P gi:P id:I profile:I start:I size:I")
        code, got_ci = r.call("nvmlComputeInstanceGetInfo_v2", on, ci, info)
        if code == 0:
            texts(r, "nvmlDeviceGetUUID", f"{on}/ci{got_ci['info']['id']}", handle_of(struct.unpack_from("Q", info.raw.raw)[0]), 96)


# --- hostile calls: in a process of their own, because a library may not look before it leaps ------------------------

def hostile_calls(handle):
    """(name, params, note), in an order that never changes."""
    def out():
        return Out("value", ":s96")
    calls = []
    for length in (0, 1, 8, 40, 41):
        calls.append(("nvmlDeviceGetUUID", (handle, out(), number("length", length)), "short"))
        calls.append(("nvmlDeviceGetName", (handle, out(), number("length", length)), "short"))
    calls.append(("nvmlSystemGetDriverVersion", (out(), number("length", 1)), "short"))
    for name, words in (("nvmlDeviceGetClockInfo", (99,)), ("nvmlDeviceGetTemperature", (99,)), ("nvmlDeviceGetTemperatureThreshold", (99,)),
                        ("nvmlDeviceGetPcieThroughput", (99,)), ("nvmlDeviceGetNvLinkState", (99,)), ("nvmlDeviceGetTotalEccErrors", (99, 0)),
                        ("nvmlDeviceGetGpuInstanceRemainingCapacity", (99,)), ("nvmlDeviceGetMigDeviceHandleByIndex", (99,))):
        calls.append((name, (handle, *(number(f"arg{i}", word) for i, word in enumerate(words)), out()), "out of range"))
    for version in (0, 0x02000027, 0x07000028, 40):
        calls.append(("nvmlDeviceGetMemoryInfo_v2", (handle, Out("value", "version:I rest:x36", start=u32(version), shown=f"{version:#x}")), "wrong version"))
    for version in (0, 0x01000098, 0x04000098):
        calls.append(("nvmlDeviceGetGpuInstanceProfileInfoV", (handle, number("enum", 0), Out("value", "version:I rest:x148", start=u32(version), shown=f"{version:#x}")), "wrong version"))
    calls.append(("nvmlDeviceGetFieldValues", (handle, number("count", 0), out()), "no entries"))
    one_null = ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetIndex",
                "nvmlDeviceGetMinorNumber", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetBAR1MemoryInfo", "nvmlDeviceIsMigDeviceHandle",
                "nvmlDeviceGetAttributes_v2")
    for name in one_null:
        calls.append((name, (handle, null("value")), "NULL output"))
    calls.append(("nvmlDeviceGetMigMode", (handle, null("current"), null("pending")), "NULL output"))
    calls.append(("nvmlDeviceGetName", (handle, null("text"), number("length", 96)), "NULL output"))
    calls.append(("nvmlDeviceGetFieldValues", (handle, number("count", 1), null("values")), "NULL output"))
    calls.append(("nvmlDeviceGetComputeRunningProcesses_v3", (handle, null("count"), null("entries")), "NULL output"))
    calls.append(("nvmlDeviceGetComputeRunningProcesses_v3", (handle, Out("count", ":I", start=u32(1), shown="1"), null("entries")), "NULL output"))
    calls.append(("nvmlDeviceGetGpuInstanceProfileInfo", (handle, number("enum", 0), null("profile")), "NULL output"))
    calls.append(("nvmlDeviceGetGpuInstancePossiblePlacements_v2", (handle, number("id", 19), null("placements"), null("count")), "NULL output"))
    calls.append(("nvmlDeviceGetCount_v2", (null("count"),), "NULL output"))
    calls.append(("nvmlDeviceGetHandleByIndex_v2", (number("index", 0), null("gpu")), "NULL output"))
    calls.append(("nvmlDeviceGetHandleByUUID", (null("uuid"), out()), "NULL input"))
    calls.append(("nvmlDeviceGetHandleByPciBusId_v2", (null("bus_id"), out()), "NULL input"))
    for name in (*one_null, "nvmlDeviceGetSupportedEventTypes"):
        calls.append((name, (("gpu", ctypes.c_void_p(None), "NULL"), out()), "NULL handle"))
    for name in ("nvmlGpuInstanceGetInfo", "nvmlComputeInstanceGetInfo_v2"):
        calls.append((name, (("instance", ctypes.c_void_p(None), "NULL"), out()), "NULL handle"))
    for value in (1, 0xDEAD0000):
        for name in ("nvmlDeviceGetIndex", "nvmlDeviceGetMemoryInfo", "nvmlGpuInstanceGetInfo"):
            calls.append((name, (("handle", ctypes.c_void_p(value), hex(value)), out()), "no handle of this library"))
    return calls


def first_gpu(r):
    gpu = ctypes.c_void_p()
    function = r.function("nvmlDeviceGetHandleByIndex_v2")
    return gpu.value if function is not None and function(ctypes.c_uint(0), ctypes.byref(gpu)) == 0 else None


def run_hostile(path, start):
    """The child: from call number `start` on, says each number before it calls."""
    r = Recorder(path, sys.stdout)
    if r.function("nvmlInit_v2")() != 0:
        return 1
    gpu = first_gpu(r)
    if gpu is None:
        return 1
    for i, (name, params, note) in enumerate(hostile_calls(handle_of(gpu))):
        if i >= start:
            print(f"#{i}", flush=True)
            r.call(name, "gpu0", *params, note=note)
    return 0


def record_hostile(r, path):
    start, total = 0, len(hostile_calls(handle_of(0)))
    while start < total:
        child = subprocess.run([sys.executable, os.path.abspath(__file__), path, "--hostile-from", str(start)], capture_output=True, text=True)
        last = start - 1
        for line in child.stdout.splitlines():
            if line.startswith("#"):
                last = int(line[1:])
            else:
                r.stream.write(line + "\n")
        if child.returncode >= 0:
            return
        name, params, note = hostile_calls(handle_of(0))[last]
        args = {"note": note, **{p[0]: p[2] for p in params if not isinstance(p, Out) and p[0]}}
        args.update({p.name: p.shown for p in params if isinstance(p, Out) and p.shown is not None})
        r.emit({"call": name, "on": "gpu0", "args": args, "ret": "crash", "signal": signal.Signals(-child.returncode).name})
        start = last + 1


# --------------------------------------------------------------------------------------------------------------------

def record_gpu(r, index):
    gpu = Out("gpu", ":P")
    code, _ = r.call("nvmlDeviceGetHandleByIndex_v2", f"gpu{index}", number("index", index), gpu)
    if code != 0:
        return
    on, handle = f"gpu{index}", handle_of(struct.unpack_from("Q", gpu.raw.raw)[0])
    record_getters(r, on, handle)
    record_mig(r, on, handle)
    _, uuid = texts(r, "nvmlDeviceGetUUID", on, handle, 96, note="for the lookup")
    _, pci = r.call("nvmlDeviceGetPciInfo_v3", on, handle, Out("value", "legacy:s16 rest:x20 bus_id:s32"), note="for the lookup")
    if uuid:
        r.call("nvmlDeviceGetHandleByUUID", on, text("uuid", uuid["text"].encode(), "its own"), Out("gpu", ":P"))
        ascii_uuid = struct.pack("II41s", 0x01000034, 1, uuid["text"].encode())
        r.call("nvmlDeviceGetHandleByUUIDV", on, Out("uuid", "version:I type:I text:s44", start=ascii_uuid, shown="version 1, its own"), Out("gpu", ":P"))
        r.call("nvmlDeviceGetHandleByUUID", on, text("uuid", uuid["text"].upper().encode(), "its own, upper case"), Out("gpu", ":P"))
    if pci:
        for form, value in (("its own", pci["value"]["bus_id"]), ("legacy", pci["value"]["legacy"]), ("lower case", pci["value"]["bus_id"].lower()),
                            ("without domain", pci["value"]["bus_id"].split(":", 1)[1])):
            for name in ("nvmlDeviceGetHandleByPciBusId", "nvmlDeviceGetHandleByPciBusId_v2"):
                r.call(name, on, text("bus_id", value.encode(), form), Out("gpu", ":P"))


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("library", nargs="?", default="libnvidia-ml.so.1")
    words.add_argument("--hostile-from", type=int, help=argparse.SUPPRESS)
    words.add_argument("--no-hostile", action="store_true", help="without the calls with NULL, short and wrong arguments")
    args = words.parse_args()
    if args.hostile_from is not None:
        return run_hostile(args.library, args.hostile_from)
    r = Recorder(args.library, sys.stdout)
    record_uninitialised(r)
    code, _ = r.call("nvmlInit_v2", "node")
    if code != 0:
        print(f"nvml_record: nvmlInit_v2 of {args.library} gave {code}", file=sys.stderr)
        return 1
    record_node(r)
    count = ctypes.c_uint()
    r.function("nvmlDeviceGetCount_v2")(ctypes.byref(count))
    for index in range(count.value):
        record_gpu(r, index)
    if count.value and not args.no_hostile:
        record_hostile(r, args.library)
    r.call("nvmlShutdown", "node")
    r.call("nvmlShutdown", "node", note="once more")
    r.call("nvmlDeviceGetCount_v2", "node", Out("count", ":I"), note="after shutdown")
    return 0


if __name__ == "__main__":
    sys.exit(main())
