// What a device measures and how it is driven: utilisation, clocks, power, temperature, fans.

#include "simnvml/board_calls.h"

namespace gpuslice::simnvml {

NVML_API int nvmlDeviceGetUtilizationRates(Handle h, Utilization* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (c.gpu().mig_current != 0) return Ret::kNotSupported;
    out->gpu = (sim::activity_permille(c.state(), c.object.gpu) + 5) / 10;
    out->memory = vitals(c).memory_utilisation;
    return Ret::kSuccess;
  });
}
namespace {
int engine_utilization(const char* name, Handle h, uint32_t* utilization, uint32_t* period) {
  return device_call(name, h, kGpuOnly, [&](Call& c) {
    if (utilization == nullptr || period == nullptr) return Ret::kInvalidArgument;
    if (c.gpu().mig_current != 0) return Ret::kNotSupported;
    *utilization = 0;
    *period = 100'000;  // microseconds
    return Ret::kSuccess;
  });
}
}  // namespace
NVML_API int nvmlDeviceGetEncoderUtilization(Handle h, uint32_t* u, uint32_t* p) {
  return engine_utilization(__func__, h, u, p);
}
NVML_API int nvmlDeviceGetDecoderUtilization(Handle h, uint32_t* u, uint32_t* p) {
  return engine_utilization(__func__, h, u, p);
}
NVML_API int nvmlDeviceGetJpgUtilization(Handle h, uint32_t* u, uint32_t* p) {
  return engine_utilization(__func__, h, u, p);
}
NVML_API int nvmlDeviceGetOfaUtilization(Handle h, uint32_t* u, uint32_t* p) {
  return engine_utilization(__func__, h, u, p);
}
NVML_API int nvmlDeviceGetEncoderStats(Handle h, uint32_t* sessions, uint32_t* fps,
                                       uint32_t* latency) {
  return device_call(__func__, h, kGpuOnly, [&](Call&) {
    if (sessions == nullptr || fps == nullptr || latency == nullptr) return Ret::kInvalidArgument;
    *sessions = *fps = *latency = 0;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetEncoderCapacity(Handle h, uint32_t codec, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    // A Hopper says so of H.264 and HEVC, and has no encoder.
    if (c.board().arch == gpu::Arch::kHopper && codec <= 1) return put(out, 100U);
    return c.board().encoders == 0 ? Ret::kNotSupported : put(out, 100U);
  });
}
NVML_API int nvmlDeviceGetEncoderSessions(Handle h, uint32_t* count, void*) {
  return board_value(__func__, h, count, [](Call&) { return 0; });
}
NVML_API int nvmlDeviceGetFBCSessions(Handle h, uint32_t* count, void*) {
  return board_value(__func__, h, count, [](Call&) { return 0; });
}

namespace {
enum Clock : uint32_t { kGraphicsClock = 0, kSmClock = 1, kMemoryClock = 2, kVideoClock = 3 };

// Of an unknown kind: "not supported" here, "invalid argument" of the other clocks.
Ret current_clock(const Call& c, uint32_t type, uint32_t* out) {
  const sim::Vitals v = vitals(c);
  switch (type) {
    case kGraphicsClock:
      return put(out, v.graphics_mhz);
    case kSmClock:
      return put(out, v.sm_mhz);
    case kMemoryClock:
      return put(out, v.memory_mhz);
    case kVideoClock:
      return put(out, v.video_mhz);
    default:
      return Ret::kNotSupported;
  }
}
Ret max_clock(const Call& c, uint32_t type, uint32_t* out) {
  const gpu::Clocks& clocks = c.board().clocks;
  switch (type) {
    case kGraphicsClock:
    case kSmClock:
      return put(out, clocks.graphics_max);
    case kMemoryClock:
      return put(out, clocks.memory_max);
    case kVideoClock:
      return put(out, clocks.video_max);
    default:
      return Ret::kInvalidArgument;
  }
}
// What a customer may boost to: memory and video are not theirs.
Ret boost_clock(const Call& c, uint32_t type, uint32_t* out) {
  if (type == kMemoryClock || type == kVideoClock) return Ret::kNotSupported;
  return max_clock(c, type, out);
}
Ret app_clock(const Call& c, uint32_t type, uint32_t* out, bool by_default) {
  const gpu::Clocks& clocks = c.board().clocks;
  const uint32_t graphics = !by_default && c.gpu().app_graphics_mhz != 0 ? c.gpu().app_graphics_mhz
                            : clocks.graphics_app != 0                   ? clocks.graphics_app
                                                                         : clocks.graphics_base;
  const uint32_t memory =
      !by_default && c.gpu().app_memory_mhz != 0 ? c.gpu().app_memory_mhz : clocks.memory_max;
  switch (type) {
    case kGraphicsClock:
    case kSmClock:
      return put(out, graphics);
    case kMemoryClock:
      return put(out, memory);
    case kVideoClock:
      return Ret::kNotSupported;
    default:
      return Ret::kInvalidArgument;
  }
}
}  // namespace

NVML_API int nvmlDeviceGetClockInfo(Handle h, uint32_t type, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) { return current_clock(c, type, out); });
}
NVML_API int nvmlDeviceGetMaxClockInfo(Handle h, uint32_t type, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) { return max_clock(c, type, out); });
}
NVML_API int nvmlDeviceGetMaxCustomerBoostClock(Handle h, uint32_t type, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) { return boost_clock(c, type, out); });
}
NVML_API int nvmlDeviceGetApplicationsClock(Handle h, uint32_t type, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly,
                     [&](Call& c) { return app_clock(c, type, out, false); });
}
NVML_API int nvmlDeviceGetDefaultApplicationsClock(Handle h, uint32_t type, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) { return app_clock(c, type, out, true); });
}
NVML_API int nvmlDeviceGetClock(Handle h, uint32_t type, uint32_t id, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    switch (id) {
      case 0:
        return current_clock(c, type, out);
      case 1:
        return app_clock(c, type, out, false);
      case 2:
        return app_clock(c, type, out, true);
      case 3:
        return boost_clock(c, type, out);
      default:
        return Ret::kInvalidArgument;
    }
  });
}
NVML_API int nvmlDeviceGetSupportedMemoryClocks(Handle h, uint32_t* count, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (count == nullptr) return Ret::kInvalidArgument;
    const gpu::Clocks& clocks = c.board().clocks;
    const uint32_t low = clocks.memory_low != 0 ? clocks.memory_low : clocks.memory_idle;
    const uint32_t have = low == clocks.memory_max ? 1 : 2;
    const uint32_t room = *count;
    *count = have;
    if (out == nullptr || room < have) return Ret::kInsufficientSize;
    out[0] = clocks.memory_max;
    if (have == 2) out[1] = low;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetSupportedGraphicsClocks(Handle h, uint32_t memory, uint32_t* count,
                                                  uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (count == nullptr) return Ret::kInvalidArgument;
    const gpu::Clocks& clocks = c.board().clocks;
    if (memory != clocks.memory_max && memory != clocks.memory_idle &&
        (memory != clocks.memory_low || memory == 0))
      return Ret::kNotFound;
    constexpr uint32_t kStep = 15;
    const uint32_t have = (clocks.graphics_max - clocks.graphics_idle) / kStep + 1;
    const uint32_t room = *count;
    *count = have;
    if (out == nullptr || room < have) return Ret::kInsufficientSize;
    for (uint32_t i = 0; i < have; ++i) out[i] = clocks.graphics_max - i * kStep;
    return Ret::kSuccess;
  });
}
namespace {
int set_clocks(const char* name, Handle h, bool valid, void (*set)(sim::Gpu&, uint32_t, uint32_t),
               uint32_t a, uint32_t b) {
  return device_call(name, h, kGpuOnly, [&](Call& c) {
    if (!valid) return Ret::kInvalidArgument;
    if (!c.caller().admin) return Ret::kNoPermission;
    return change(c, [&](sim::State& s) {
      set(s.gpus[c.object.gpu], a, b);
      return Ret::kSuccess;
    });
  });
}
}  // namespace
NVML_API int nvmlDeviceSetApplicationsClocks(Handle h, uint32_t memory, uint32_t graphics) {
  return set_clocks(
      __func__, h, memory != 0 && graphics != 0,
      [](sim::Gpu& g, uint32_t m, uint32_t gr) {
        g.app_memory_mhz = m;
        g.app_graphics_mhz = gr;
      },
      memory, graphics);
}
NVML_API int nvmlDeviceResetApplicationsClocks(Handle h) {
  return set_clocks(
      __func__, h, true,
      [](sim::Gpu& g, uint32_t, uint32_t) { g.app_memory_mhz = g.app_graphics_mhz = 0; }, 0, 0);
}
NVML_API int nvmlDeviceSetGpuLockedClocks(Handle h, uint32_t low, uint32_t high) {
  return set_clocks(
      __func__, h, low <= high && high != 0,
      [](sim::Gpu& g, uint32_t l, uint32_t u) {
        g.locked_graphics_min_mhz = l;
        g.locked_graphics_max_mhz = u;
      },
      low, high);
}
NVML_API int nvmlDeviceResetGpuLockedClocks(Handle h) {
  return set_clocks(
      __func__, h, true,
      [](sim::Gpu& g, uint32_t, uint32_t) {
        g.locked_graphics_min_mhz = g.locked_graphics_max_mhz = 0;
      },
      0, 0);
}
namespace {
int event_reasons(const char* name, Handle h, uint64_t* out) {
  return device_call(name, h, kGpuOnly,
                     [&](Call& c) { return put(out, vitals(c).throttle_reasons); });
}
int supported_reasons(const char* name, Handle h, uint64_t* out) {
  return device_call(name, h, kGpuOnly, [&](Call&) { return put(out, uint64_t{0x1ff}); });
}
}  // namespace
NVML_API int nvmlDeviceGetCurrentClocksThrottleReasons(Handle h, unsigned long* out) {
  return event_reasons(__func__, h, reinterpret_cast<uint64_t*>(out));
}
NVML_API int nvmlDeviceGetCurrentClocksEventReasons(Handle h, unsigned long* out) {
  return event_reasons(__func__, h, reinterpret_cast<uint64_t*>(out));
}
NVML_API int nvmlDeviceGetSupportedClocksThrottleReasons(Handle h, unsigned long* out) {
  return supported_reasons(__func__, h, reinterpret_cast<uint64_t*>(out));
}
NVML_API int nvmlDeviceGetSupportedClocksEventReasons(Handle h, unsigned long* out) {
  return supported_reasons(__func__, h, reinterpret_cast<uint64_t*>(out));
}
NVML_API int nvmlDeviceGetPerformanceState(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return vitals(c).performance_state; });
}
NVML_API int nvmlDeviceGetPowerState(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return vitals(c).performance_state; });
}
NVML_API int nvmlDeviceGetPowerUsage(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return vitals(c).power_mw; });
}
NVML_API int nvmlDeviceGetPowerManagementMode(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call&) { return 1; });
}
NVML_API int nvmlDeviceGetPowerManagementLimit(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return vitals(c).power_limit_mw; });
}
NVML_API int nvmlDeviceGetEnforcedPowerLimit(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return vitals(c).power_limit_mw; });
}
NVML_API int nvmlDeviceGetPowerManagementDefaultLimit(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().power.default_limit; });
}
NVML_API int nvmlDeviceGetPowerManagementLimitConstraints(Handle h, uint32_t* low, uint32_t* high) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (low == nullptr || high == nullptr) return Ret::kInvalidArgument;
    *low = c.board().power.min_limit;
    *high = c.board().power.max_limit;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceSetPowerManagementLimit(Handle h, uint32_t limit) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (limit < c.board().power.min_limit || limit > c.board().power.max_limit)
      return Ret::kInvalidArgument;
    if (!c.caller().admin) return Ret::kNoPermission;
    return change(c, [&](sim::State& s) {
      s.gpus[c.object.gpu].power_limit_mw = limit;
      return Ret::kSuccess;
    });
  });
}
NVML_API int nvmlDeviceGetTotalEnergyConsumption(Handle h, unsigned long long* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return put(out, static_cast<unsigned long long>(vitals(c).energy_mj));
  });
}
NVML_API int nvmlDeviceGetTemperature(Handle h, uint32_t sensor, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return sensor != 0 ? Ret::kInvalidArgument : put(out, vitals(c).temperature_c);
  });
}
NVML_API int nvmlDeviceGetTemperatureV(Handle h, TemperatureV1* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 570) return Ret::kFunctionNotFound;
    if (out->version != version_word(sizeof *out, 1)) return Ret::kArgumentVersionMismatch;
    if (out->sensor != 0) return Ret::kInvalidArgument;
    out->temperature = static_cast<int32_t>(vitals(c).temperature_c);
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetMarginTemperature(Handle h, MarginTemperatureV1* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 570) return Ret::kFunctionNotFound;
    if (out->version != version_word(sizeof *out, 1)) return Ret::kArgumentVersionMismatch;
    out->margin = static_cast<int32_t>(c.board().temperatures.max_operating) -
                  static_cast<int32_t>(vitals(c).temperature_c);
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetTemperatureThreshold(Handle h, uint32_t type, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    const gpu::Temperatures& t = c.board().temperatures;
    switch (type) {
      case 0:
        return put(out, t.shutdown);
      case 1:
        return put(out, t.slowdown);
      case 2:
        return t.memory_max == 0 ? Ret::kNotSupported : put(out, t.memory_max);
      case 3:
        return put(out, t.max_operating);
      case 4:
      case 5:
      case 6:
      case 7:
        return Ret::kNotSupported;
      default:
        return Ret::kInvalidArgument;
    }
  });
}
NVML_API int nvmlDeviceGetNumFans(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().fans; });
}
NVML_API int nvmlDeviceGetFanSpeed(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return c.board().fans == 0 ? Ret::kNotSupported : put(out, vitals(c).fan_percent);
  });
}
NVML_API int nvmlDeviceGetFanSpeed_v2(Handle h, uint32_t fan, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return fan >= c.board().fans ? Ret::kInvalidArgument : put(out, vitals(c).fan_percent);
  });
}

}  // namespace gpuslice::simnvml
