// What a device is: identity, modes, clocks, power, temperature, PCIe, NVLink, ECC.

#include <fmt/format.h>

#include <cstring>

#include "base/text.h"
#include "sim/events.h"
#include "sim/life.h"
#include "simnvml/session.h"

namespace gpuslice::simnvml {
namespace {

std::string mig_name(const Call& c) {
  const gpu::Profile& gi = sim::gi_profile(c.state(), c.object.gpu, c.object.gi);
  const sim::Ci& ci = c.gpu().gis[c.object.gi].cis[c.object.ci];
  const std::string slices = ci.size < gi.slices ? fmt::format("{}c.", ci.size) : "";
  return fmt::format("{} MIG {}{}", c.board().name, slices, gi.name);
}

// The board's part number and a version: 692-2G520-0282-000 has G520.0282.02.02.
std::string inforom_image(const gpu::Board& board) {
  const auto parts = split(board.part_number, '-');
  if (parts.size() != 4 || parts[1].size() != 5) return "G506.0200.00.04";
  return fmt::format("{}.{}.{}", parts[1].substr(1), parts[2],
                     board.arch < gpu::Arch::kHopper ? "00.04" : "02.02");
}

sim::Vitals vitals(const Call& c) { return sim::vitals(c.state(), c.object.gpu, c.now()); }

template <class F>
int board_value(const char* name, Handle h, uint32_t* out, F&& f) {
  return device_call(name, h, kGpuOnly,
                     [&](Call& c) { return put(out, static_cast<uint32_t>(f(c))); });
}

bool same_switch(const Call& a) { return a.board().links.nvswitch; }

}  // namespace

NVML_API int nvmlDeviceGetName(Handle h, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    return put_text(out, length, c.is_mig() ? mig_name(c) : std::string(c.board().name));
  });
}
NVML_API int nvmlDeviceGetUUID(Handle h, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    return put_text(out, length,
                    c.is_mig() ? sim::mig_uuid(c.state(), c.object.gpu, c.object.gi, c.object.ci)
                               : std::string(c.gpu().uuid));
  });
}
NVML_API int nvmlDeviceGetMinorNumber(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.gpu().minor; });
}
NVML_API int nvmlDeviceGetModuleId(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.object.gpu; });
}
NVML_API int nvmlDeviceGetIndex(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (c.is_mig()) {
      const auto index = sim::mig_index(c.state(), c.object.gpu, c.object.gi, c.object.ci);
      return index ? put(out, *index) : Ret::kNotFound;
    }
    uint32_t gpus[sim::kMaxGpus];
    const uint32_t n = visible_gpus(c, gpus);
    for (uint32_t i = 0; i < n; ++i)
      if (gpus[i] == c.object.gpu) return put(out, i);
    return Ret::kNotFound;
  });
}
NVML_API int nvmlDeviceGetSerial(Handle h, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return put_text(out, length, fmt::format("{:013}", c.gpu().pdi % 10'000'000'000'000ULL));
  });
}
NVML_API int nvmlDeviceGetVbiosVersion(Handle h, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOnly,
                     [&](Call& c) { return put_text(out, length, c.board().vbios); });
}
NVML_API int nvmlDeviceGetBoardPartNumber(Handle h, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOnly,
                     [&](Call& c) { return put_text(out, length, c.board().part_number); });
}
NVML_API int nvmlDeviceGetBoardId(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return uint32_t{c.gpu().pci_bus} << 8; });
}
NVML_API int nvmlDeviceGetMultiGpuBoard(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call&) { return 0; });
}
NVML_API int nvmlDeviceGetInforomImageVersion(Handle h, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOnly,
                     [&](Call& c) { return put_text(out, length, inforom_image(c.board())); });
}
NVML_API int nvmlDeviceGetInforomVersion(Handle h, uint32_t object, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (object > 3) return Ret::kInvalidArgument;
    if (object > 1) return Ret::kNotSupported;
    constexpr std::string_view kOlder[] = {"2.0", "6.16"}, kHopper[] = {"2.1", "7.16"};
    return put_text(out, length,
                    c.board().arch < gpu::Arch::kHopper ? kOlder[object] : kHopper[object]);
  });
}
NVML_API int nvmlDeviceGetBrand(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOrMig,
                     [&](Call& c) { return put(out, uint32_t{c.board().brand}); });
}
NVML_API int nvmlDeviceGetArchitecture(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    constexpr uint32_t kNumbers[] = {6, 7, 8, 9, 10};  // Turing, Ampere, Ada, Hopper, Blackwell
    return put(out, kNumbers[static_cast<size_t>(c.board().arch)]);
  });
}
NVML_API int nvmlDeviceGetCudaComputeCapability(Handle h, int* major, int* minor) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (major == nullptr || minor == nullptr) return Ret::kInvalidArgument;
    *major = c.board().cc_major;
    *minor = c.board().cc_minor;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetNumGpuCores(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (c.gpu().mig_current != 0) return Ret::kNotSupported;
    return put(out, c.board().sm * c.board().cores_per_sm);
  });
}
NVML_API int nvmlDeviceGetMemoryBusWidth(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().memory_bus_bits; });
}
NVML_API int nvmlDeviceGetDisplayMode(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call&) { return 0; });
}
NVML_API int nvmlDeviceGetDisplayActive(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call&) { return 0; });
}
NVML_API int nvmlDeviceGetPersistenceMode(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.gpu().persistence_mode; });
}
NVML_API int nvmlDeviceSetPersistenceMode(Handle h, uint32_t mode) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (mode > 1) return Ret::kInvalidArgument;
    if (!c.caller().admin) return Ret::kNoPermission;
    return change(c, [&](sim::State& s) {
      s.gpus[c.object.gpu].persistence_mode = static_cast<uint8_t>(mode);
      return Ret::kSuccess;
    });
  });
}
NVML_API int nvmlDeviceGetComputeMode(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (c.is_mig())
      return put(out, uint32_t{c.gpu().gis[c.object.gi].cis[c.object.ci].compute_mode});
    return put(out, uint32_t{c.gpu().compute_mode});
  });
}
NVML_API int nvmlDeviceSetComputeMode(Handle h, uint32_t mode) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (mode > 3 || mode == 1) return mode == 1 ? Ret::kNotSupported : Ret::kInvalidArgument;
    if (!c.caller().admin) return Ret::kNoPermission;
    if (!c.is_mig() && c.gpu().mig_current != 0) return Ret::kNotSupported;
    return change(c, [&](sim::State& s) {
      sim::Gpu& gpu = s.gpus[c.object.gpu];
      (c.is_mig() ? gpu.gis[c.object.gi].cis[c.object.ci].compute_mode : gpu.compute_mode) =
          static_cast<uint8_t>(mode);
      return Ret::kSuccess;
    });
  });
}
NVML_API int nvmlDeviceGetVirtualizationMode(Handle h, uint32_t* out) {
  return board_value(__func__, h, out,
                     [](Call& c) { return c.state().node.passthrough != 0 ? 1 : 0; });
}
NVML_API int nvmlDeviceGetGspFirmwareMode(Handle h, uint32_t* enabled, uint32_t* by_default) {
  return device_call(__func__, h, kGpuOnly, [&](Call&) {
    if (enabled == nullptr || by_default == nullptr) return Ret::kInvalidArgument;
    *enabled = *by_default = 1;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetGspFirmwareVersion(Handle h, char* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return put_text(
        out, 80,
        std::string_view(c.state().node.driver, strnlen(c.state().node.driver, sim::kDriverName)));
  });
}
NVML_API int nvmlDeviceGetPdi(Handle h, PdiV1* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 580) return Ret::kFunctionNotFound;
    if (out->version != version_word(sizeof *out, 1)) return Ret::kArgumentVersionMismatch;
    out->value = c.gpu().pdi;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetAddressingMode(Handle h, AddressingModeV1* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 580) return Ret::kFunctionNotFound;
    if (out->version != version_word(sizeof *out, 1)) return Ret::kArgumentVersionMismatch;
    out->value = 0;  // neither HMM nor ATS
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetRepairStatus(Handle h, RepairStatusV1* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 580) return Ret::kFunctionNotFound;
    if (out->version != version_word(sizeof *out, 1)) return Ret::kArgumentVersionMismatch;
    out->channel_repair_pending = out->tpc_repair_pending = 0;
    return Ret::kSuccess;
  });
}

// --- utilisation, clocks, power, temperature
// -----------------------------------------------------------------------

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

// --- PCIe, NVLink, topology
// ------------------------------------------------------------------------------------------

NVML_API int nvmlDeviceGetCurrPcieLinkGeneration(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().links.pcie_generation; });
}
NVML_API int nvmlDeviceGetMaxPcieLinkGeneration(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().links.pcie_generation; });
}
NVML_API int nvmlDeviceGetGpuMaxPcieLinkGeneration(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().links.pcie_generation; });
}
NVML_API int nvmlDeviceGetCurrPcieLinkWidth(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().links.pcie_width; });
}
NVML_API int nvmlDeviceGetMaxPcieLinkWidth(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().links.pcie_width; });
}
NVML_API int nvmlDeviceGetPcieSpeed(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) {
    return c.board().links.pcie_generation >= 5   ? 32000
           : c.board().links.pcie_generation == 4 ? 16000
                                                  : 8000;
  });
}
NVML_API int nvmlDeviceGetPcieLinkMaxSpeed(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().links.pcie_generation; });
}
NVML_API int nvmlDeviceGetPcieThroughput(Handle h, uint32_t counter, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (counter > 1) return Ret::kInvalidArgument;
    return put(out, counter == 0 ? vitals(c).pcie_tx_kbps : vitals(c).pcie_rx_kbps);
  });
}
NVML_API int nvmlDeviceGetPcieReplayCounter(Handle h, uint32_t* out) {
  return board_value(__func__, h, out,
                     [](Call& c) { return c.state().life.gpus[c.object.gpu].pcie_replays; });
}
NVML_API int nvmlDeviceGetNvLinkState(Handle h, uint32_t link, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (link >= 18) return Ret::kInvalidArgument;
    if (c.board().links.nvlinks == 0) return Ret::kNotSupported;
    return link >= c.board().links.nvlinks ? Ret::kInvalidArgument : put(out, 1U);
  });
}
NVML_API int nvmlDeviceGetNvLinkVersion(Handle h, uint32_t link, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (link >= 18) return Ret::kInvalidArgument;
    if (link >= c.board().links.nvlinks) return Ret::kNotSupported;
    return put(out, uint32_t{c.board().links.nvlink_version});
  });
}
NVML_API int nvmlDeviceGetNvLinkCapability(Handle h, uint32_t link, uint32_t capability,
                                           uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (link >= 18 || capability > 5) return Ret::kInvalidArgument;
    if (link >= c.board().links.nvlinks) return Ret::kNotSupported;
    return put(out, capability == 4 ? 0U : 1U);  // no SLI
  });
}
NVML_API int nvmlDeviceGetNvLinkErrorCounter(Handle h, uint32_t link, uint32_t counter,
                                             unsigned long long* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (link >= 18 || counter > 4) return Ret::kInvalidArgument;
    if (link >= c.board().links.nvlinks) return Ret::kNotSupported;
    return put(out, 0ULL);
  });
}
namespace {
// On an NVSwitch board every link ends at one of six switches; else links are spread over the peers
// of the same board.
std::optional<sim::Gpu> nvlink_peer(const Call& c, uint32_t link) {
  uint32_t peers[sim::kMaxGpus];
  uint32_t n = 0;
  for (uint32_t gpu = 0; gpu < c.state().node.gpu_count; ++gpu)
    if (gpu != c.object.gpu && c.state().gpus[gpu].board == c.gpu().board) peers[n++] = gpu;
  if (n == 0) return std::nullopt;
  return c.state().gpus[peers[link % n]];
}
Ret remote_pci(Call& c, uint32_t link, PciInfoV3& info) {
  if (link >= 18) return Ret::kInvalidArgument;
  if (link >= c.board().links.nvlinks) return Ret::kNotSupported;
  std::memset(&info, 0, sizeof info);
  if (same_switch(c)) {
    info.bus = 0xc0 + link % 6;
    info.pci_device_id = 0x1af110de;  // an NVSwitch
  } else if (const auto peer = nvlink_peer(c, link)) {
    info.domain = peer->pci_domain;
    info.bus = peer->pci_bus;
    info.device = peer->pci_device;
    info.pci_device_id = c.board().pci_device_id;
    info.pci_subsystem_id = c.board().pci_subsystem_id;
  } else {
    return Ret::kNotSupported;
  }
  const std::string text =
      fmt::format("{:08X}:{:02X}:{:02X}.0", info.domain, info.bus, info.device);
  std::memcpy(info.bus_id, text.data(), text.size());
  const std::string legacy = text.substr(4);
  std::memcpy(info.bus_id_legacy, legacy.data(), legacy.size());
  return Ret::kSuccess;
}
}  // namespace
NVML_API int nvmlDeviceGetNvLinkRemotePciInfo(Handle h, uint32_t link, PciInfoV2* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    PciInfoV3 info;
    if (const Ret ret = remote_pci(c, link, info); ret != Ret::kSuccess) return ret;
    std::memcpy(out, &info, 36);  // what v1 and v3 have in common
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetNvLinkRemotePciInfo_v2(Handle h, uint32_t link, PciInfoV3* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    return remote_pci(c, link, *out);
  });
}
NVML_API int nvmlDeviceGetNvLinkRemoteDeviceType(Handle h, uint32_t link, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (link >= c.board().links.nvlinks)
      return link >= 18 ? Ret::kInvalidArgument : Ret::kNotSupported;
    return put(out, same_switch(c) ? 2U : 0U);  // a switch, a GPU
  });
}

namespace {
template <class F>
int pair_call(const char* name, Handle a, Handle b, F&& f) {
  return device_call(name, a, kGpuOnly, [&](Call& c) {
    const auto other = object_of(c.state(), b);
    if (!other || other->kind != Kind::kGpu) return Ret::kInvalidArgument;
    return f(c, other->gpu);
  });
}
}  // namespace
NVML_API int nvmlDeviceGetTopologyCommonAncestor(Handle a, Handle b, uint32_t* out) {
  return pair_call(__func__, a, b, [&](Call& c, uint32_t other) {
    if (other == c.object.gpu) return Ret::kNotSupported;
    return put(out,
               c.state().gpus[other].numa_node == c.gpu().numa_node ? 40U : 50U);  // NODE, SYSTEM
  });
}
NVML_API int nvmlDeviceGetTopologyNearestGpus(Handle h, uint32_t level, uint32_t* count,
                                              Handle* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (count == nullptr) return Ret::kInvalidArgument;
    uint32_t gpus[sim::kMaxGpus];
    const uint32_t n = visible_gpus(c, gpus);
    uint32_t found = 0;
    for (uint32_t i = 0; i < n; ++i) {
      if (gpus[i] == c.object.gpu) continue;
      const uint32_t distance = c.state().gpus[gpus[i]].numa_node == c.gpu().numa_node ? 40 : 50;
      if (distance != level) continue;
      if (out != nullptr && found < *count)
        out[found] = handle_of(c.state(), {Kind::kGpu, gpus[i]});
      ++found;
    }
    *count = found;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetP2PStatus(Handle a, Handle b, uint32_t index, uint32_t* out) {
  return pair_call(__func__, a, b, [&](Call& c, uint32_t other) {
    if (index > 5) return Ret::kInvalidArgument;
    if (other == c.object.gpu) return put(out, index == 5 ? 0U : 5U);  // NOT_SUPPORTED
    const bool linked = c.board().links.nvlinks > 0 && c.state().gpus[other].board == c.gpu().board;
    const bool ok = c.gpu().mig_current == 0 && c.state().gpus[other].mig_current == 0 &&
                    (index != 2 || linked);
    return put(out, ok ? 0U : 2U);  // OK, GPU_NOT_SUPPORTED
  });
}
namespace {
Ret cpu_set(const Call& c, uint32_t words, unsigned long* out) {
  if (out == nullptr || words == 0) return Ret::kInvalidArgument;
  std::memset(out, 0, words * sizeof *out);
  for (uint32_t cpu = uint32_t{c.gpu().numa_node} * 8; cpu < (uint32_t{c.gpu().numa_node} + 1) * 8;
       ++cpu)
    if (cpu / 64 < words) out[cpu / 64] |= 1UL << (cpu % 64);
  return Ret::kSuccess;
}
}  // namespace
NVML_API int nvmlDeviceGetCpuAffinity(Handle h, uint32_t words, unsigned long* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) { return cpu_set(c, words, out); });
}
NVML_API int nvmlDeviceGetCpuAffinityWithinScope(Handle h, uint32_t words, unsigned long* out,
                                                 uint32_t scope) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return scope > 1 ? Ret::kInvalidArgument : cpu_set(c, words, out);
  });
}
NVML_API int nvmlDeviceGetMemoryAffinity(Handle h, uint32_t words, unsigned long* out,
                                         uint32_t scope) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr || words == 0 || scope > 1) return Ret::kInvalidArgument;
    std::memset(out, 0, words * sizeof *out);
    out[0] = 1UL << c.gpu().numa_node;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetNumaNodeId(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    // Coherent platforms only.
    return driver_major(c.state()) < 550 ? Ret::kFunctionNotFound : Ret::kNotSupported;
  });
}
namespace {
template <class Info>
Ret no_fabric(Info& info) {
  std::memset(info.cluster, 0, sizeof info.cluster);
  info.status = 0;
  info.clique = 0;
  info.state = 0;  // NOT_SUPPORTED: no multi-node NVLink here
  return Ret::kSuccess;
}
}  // namespace
NVML_API int nvmlDeviceGetGpuFabricInfo(Handle h, FabricInfo* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    return c.board().arch < gpu::Arch::kHopper ? Ret::kNotSupported : no_fabric(*out);
  });
}
NVML_API int nvmlDeviceGetGpuFabricInfoV(Handle h, FabricInfoV2* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 550) return Ret::kFunctionNotFound;
    const bool v3 = out->version == version_word(sizeof(FabricInfoV3), 3);
    if (!v3 && out->version != version_word(sizeof(FabricInfoV2), 2))
      return Ret::kArgumentVersionMismatch;
    if (c.board().arch < gpu::Arch::kHopper) return Ret::kNotSupported;
    out->health_mask = 0;
    if (v3) reinterpret_cast<FabricInfoV3*>(out)->health_summary = 0;
    return no_fabric(*out);
  });
}

// --- ECC and memory health
// -------------------------------------------------------------------------------------------

NVML_API int nvmlDeviceGetEccMode(Handle h, uint32_t* current, uint32_t* pending) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (current == nullptr || pending == nullptr) return Ret::kInvalidArgument;
    *current = c.gpu().ecc_current;
    *pending = c.gpu().ecc_pending;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetDefaultEccMode(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call&) { return 1; });
}
NVML_API int nvmlDeviceGetTotalEccErrors(Handle h, uint32_t type, uint32_t counter,
                                         unsigned long long* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (type > 1 || counter > 1) return Ret::kInvalidArgument;
    if (c.gpu().ecc_current == 0) return Ret::kNotSupported;
    const sim::GpuLife& life = c.state().life.gpus[c.object.gpu];
    const sim::EccCounts& counts = counter == 0 ? life.ecc_volatile : life.ecc_aggregate;
    return put(out,
               static_cast<unsigned long long>(type == 0 ? counts.corrected : counts.uncorrected));
  });
}
NVML_API int nvmlDeviceGetMemoryErrorCounter(Handle h, uint32_t type, uint32_t counter,
                                             uint32_t location, unsigned long long* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (type > 1 || counter > 1 || location > 7) return Ret::kInvalidArgument;
    if (location != 2 && location != 7) {
      // Hopper and its followers count device memory and SRAM alone.
      const bool cache = location == 0 || location == 1 || location == 3;
      return cache && c.board().arch < gpu::Arch::kHopper ? put(out, 0ULL) : Ret::kNotSupported;
    }
    const sim::GpuLife& life = c.state().life.gpus[c.object.gpu];
    const sim::EccCounts& counts = counter == 0 ? life.ecc_volatile : life.ecc_aggregate;
    if (location == 7) return put(out, 0ULL);  // SRAM
    return put(out,
               static_cast<unsigned long long>(type == 0 ? counts.corrected : counts.uncorrected));
  });
}
NVML_API int nvmlDeviceClearEccErrorCounts(Handle h, uint32_t counter) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (counter > 1) return Ret::kInvalidArgument;
    if (!c.caller().admin) return Ret::kNoPermission;
    return change(c, [&](sim::State& s) {
      sim::GpuLife& life = s.life.gpus[c.object.gpu];
      (counter == 0 ? life.ecc_volatile : life.ecc_aggregate) = {};
      return Ret::kSuccess;
    });
  });
}
NVML_API int nvmlDeviceGetRemappedRows(Handle h, uint32_t* corrected, uint32_t* uncorrected,
                                       uint32_t* pending, uint32_t* failed) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (corrected == nullptr || uncorrected == nullptr || pending == nullptr || failed == nullptr)
      return Ret::kInvalidArgument;
    if (c.board().arch < gpu::Arch::kAmpere) return Ret::kNotSupported;
    if (c.gpu().mig_current != 0 && sim::mig_devices(c.state(), c.object.gpu).count > 0)
      return Ret::kNotSupported;
    const sim::GpuLife& life = c.state().life.gpus[c.object.gpu];
    *corrected = life.remapped_corrected;
    *uncorrected = life.remapped_uncorrected;
    *pending = life.remap_pending;
    *failed = life.remap_failed;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetRowRemapperHistogram(Handle h, RowRemapHistogram* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (c.board().arch < gpu::Arch::kAmpere) return Ret::kNotSupported;
    *out = {c.board().remap_banks, 0, 0, 0, 0};
    return Ret::kSuccess;
  });
}
namespace {
Ret no_retired_pages(const Call& c, uint32_t cause, uint32_t* count) {
  if (cause > 1) return Ret::kInvalidArgument;
  if (c.board().arch >= gpu::Arch::kAmpere) return Ret::kNotSupported;  // rows are remapped instead
  return put(count, 0U);
}
}  // namespace
NVML_API int nvmlDeviceGetRetiredPages(Handle h, uint32_t cause, uint32_t* count,
                                       unsigned long long*) {
  return device_call(__func__, h, kGpuOnly,
                     [&](Call& c) { return no_retired_pages(c, cause, count); });
}
NVML_API int nvmlDeviceGetRetiredPages_v2(Handle h, uint32_t cause, uint32_t* count,
                                          unsigned long long*, unsigned long long*) {
  return device_call(__func__, h, kGpuOnly,
                     [&](Call& c) { return no_retired_pages(c, cause, count); });
}
NVML_API int nvmlDeviceGetRetiredPagesPendingStatus(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) { return no_retired_pages(c, 0, out); });
}

}  // namespace gpuslice::simnvml
