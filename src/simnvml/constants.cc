// What a board answers with the same words always: how it is attached and fed, clock offsets that
// nobody set, counters of what does not happen here. As an H200 under driver 580.159.04 answers
// (docs/hardware.md); what no other board is known to answer is said of Hopper alone.

#include <algorithm>
#include <cstring>

#include "sim/trees.h"
#include "simnvml/session.h"

namespace gpuslice::simnvml {
namespace {

constexpr uint32_t kStates = 16;  // P0..P15
constexpr uint32_t kUnknownState = 32;
enum Clock : uint32_t { kGraphics = 0, kSm = 1, kMemory = 2, kVideo = 3 };

bool hopper(const Call& c) { return c.board().arch == gpu::Arch::kHopper; }

int gpu_value(const char* name, Handle h, uint32_t* out, uint32_t value) {
  return device_call(name, h, kGpuOnly, [&](Call&) { return put(out, value); });
}

// No offset is set, and none can be.
int offset(const char* name, Handle h, int* out) {
  return device_call(name, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    return hopper(c) ? put(out, 0) : Ret::kNotSupported;
  });
}
int offset_range(const char* name, Handle h, int* low, int* high) {
  return device_call(name, h, kGpuOnly, [&](Call& c) {
    if (low == nullptr || high == nullptr) return Ret::kInvalidArgument;
    if (!hopper(c)) return Ret::kNotSupported;
    *low = *high = 0;
    return Ret::kSuccess;
  });
}

// The answer of a call that a fan would have: there is none on a passive board.
Ret of_fan(const Call& c, uint32_t fan) {
  return fan >= c.board().fans ? Ret::kInvalidArgument : Ret::kNotSupported;
}

// What stands before the fields of a struct with a version word.
Ret judge(const Call& c, uint32_t since, const void* info, uint32_t word) {
  if (info == nullptr) return Ret::kInvalidArgument;
  if (driver_major(c.state()) < since) return Ret::kFunctionNotFound;
  uint32_t said = 0;
  std::memcpy(&said, info, sizeof said);
  return said == word ? Ret::kSuccess : Ret::kArgumentVersionMismatch;
}

}  // namespace

NVML_API int nvmlSystemGetNvlinkBwMode(uint32_t* mode) {
  return node_call(__func__, [&](Call& c) {
    if (mode == nullptr) return Ret::kInvalidArgument;
    return as_measured(c) ? put(mode, 0U) : Ret::kNotSupported;  // 0: full
  });
}

NVML_API int nvmlDeviceGetIrqNum(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly,
                     [&](Call& c) { return put(out, sim::irq_of(c.object.gpu)); });
}
NVML_API int nvmlDeviceGetBusType(Handle h, uint32_t* out) {
  return gpu_value(__func__, h, out, 2);  // PCIe
}
NVML_API int nvmlDeviceGetPowerSource(Handle h, uint32_t* out) {
  return gpu_value(__func__, h, out, 0);  // AC
}
NVML_API int nvmlDeviceGetAdaptiveClockInfoStatus(Handle h, uint32_t* out) {
  return gpu_value(__func__, h, out, 1);  // on
}
// Of the kinds of calls that may be kept for root, 0 is no Hopper's and 1 may be made by all.
NVML_API int nvmlDeviceGetAPIRestriction(Handle h, uint32_t kind, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr || kind > 1) return Ret::kInvalidArgument;
    return hopper(c) && kind == 1 ? put(out, 0U) : Ret::kNotSupported;
  });
}
// Accounting is off and nothing can switch it on, so nobody is accounted for.
NVML_API int nvmlDeviceGetAccountingBufferSize(Handle h, uint32_t* out) {
  return gpu_value(__func__, h, out, 4000);
}
NVML_API int nvmlDeviceGetAccountingPids(Handle h, uint32_t* count, uint32_t*) {
  return gpu_value(__func__, h, count, 0);
}

// --- clocks ---

NVML_API int nvmlDeviceGetMemClkVfOffset(Handle h, int* out) { return offset(__func__, h, out); }
NVML_API int nvmlDeviceGetGpcClkVfOffset(Handle h, int* out) { return offset(__func__, h, out); }
NVML_API int nvmlDeviceGetMemClkMinMaxVfOffset(Handle h, int* low, int* high) {
  return offset_range(__func__, h, low, high);
}
NVML_API int nvmlDeviceGetGpcClkMinMaxVfOffset(Handle h, int* low, int* high) {
  return offset_range(__func__, h, low, high);
}
NVML_API int nvmlDeviceGetClockOffsets(Handle h, ClockOffsetsV1* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (const Ret ret = judge(c, 560, out, version_word(sizeof *out, 1)); ret != Ret::kSuccess)
      return ret;
    if (!hopper(c) || !as_measured(c)) return Ret::kNotSupported;
    if ((out->type != kGraphics && out->type != kMemory) || out->pstate >= kStates)
      return Ret::kInvalidArgument;
    if (out->pstate != 0) return Ret::kNotSupported;
    out->offset_mhz = out->min_mhz = out->max_mhz = 0;
    return Ret::kSuccess;
  });
}
// Of P0 alone: what other states run at is not known.
NVML_API int nvmlDeviceGetMinMaxClockOfPState(Handle h, uint32_t type, uint32_t pstate,
                                              uint32_t* low, uint32_t* high) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (low == nullptr || high == nullptr || type > kVideo || pstate >= kStates)
      return Ret::kInvalidArgument;
    if (!hopper(c) || pstate != 0) return Ret::kNotSupported;
    const gpu::Clocks& clocks = c.board().clocks;
    switch (type) {
      case kMemory:
        *low = *high = clocks.memory_max;
        return Ret::kSuccess;
      case kVideo:
        if (clocks.video_idle == 0) return Ret::kNotSupported;
        *low = clocks.video_idle;
        *high = clocks.video_max;
        return Ret::kSuccess;
      default:
        *low = clocks.graphics_idle;
        *high = clocks.graphics_max;
        return Ret::kSuccess;
    }
  });
}
// P2, with the lower memory clock where there is one, and P0; the rest of the caller's room is
// filled with "unknown".
NVML_API int nvmlDeviceGetSupportedPerformanceStates(Handle h, uint32_t* out, uint32_t bytes) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (!hopper(c)) return Ret::kNotSupported;
    const bool two = c.board().clocks.memory_low != 0;
    const auto room = static_cast<uint32_t>(bytes / sizeof *out);
    if (room < (two ? 2U : 1U)) return Ret::kInsufficientSize;
    std::fill_n(out, std::min(room, kStates), kUnknownState);
    if (two) *out++ = 2;
    *out = 0;
    return Ret::kSuccess;
  });
}

// --- counters of what does not happen here ---

// For how long each policy slowed the GPU down: power, thermal, sync boost, board limit, low
// utilisation, reliability; clocks below the application's, below the base.
NVML_API int nvmlDeviceGetViolationStatus(Handle h, uint32_t policy, ViolationTime* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr || policy > 11 || (policy >= 6 && policy <= 9)) return Ret::kInvalidArgument;
    *out = {static_cast<uint64_t>(c.now() / 1000), 0};
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetSramEccErrorStatus(Handle h, SramEccStatusV1* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (const Ret ret = judge(c, 535, out, version_word(sizeof *out, 1)); ret != Ret::kSuccess)
      return ret;
    if (!hopper(c) || c.gpu().ecc_current == 0) return Ret::kNotSupported;
    std::memset(out->counts, 0, sizeof out->counts);
    out->threshold_exceeded = 0;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetCapabilities(Handle h, CapabilitiesV1* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (const Ret ret = judge(c, 560, out, version_word(sizeof *out, 1)); ret != Ret::kSuccess)
      return ret;
    if (!as_measured(c)) return Ret::kNotSupported;
    out->mask = 0;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetC2cModeInfoV(Handle h, C2cModeInfoV1* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (!as_measured(c) || !hopper(c)) return Ret::kNotSupported;
    out->is_c2c = 0;
    return Ret::kSuccess;
  });
}

// --- fans ---

NVML_API int nvmlDeviceGetMinMaxFanSpeed(Handle h, uint32_t* low, uint32_t* high) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return low == nullptr || high == nullptr ? Ret::kInvalidArgument : of_fan(c, 0);
  });
}
NVML_API int nvmlDeviceGetTargetFanSpeed(Handle h, uint32_t fan, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return out == nullptr ? Ret::kInvalidArgument : of_fan(c, fan);
  });
}
NVML_API int nvmlDeviceGetFanSpeedRPM(Handle h, FanSpeedInfoV1* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    const Ret ret = judge(c, 570, out, version_word(sizeof *out, 1));
    return ret != Ret::kSuccess ? ret : of_fan(c, out->fan);
  });
}

}  // namespace gpuslice::simnvml
