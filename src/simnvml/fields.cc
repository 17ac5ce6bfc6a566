// nvmlDeviceGetFieldValues: many numbers at once, each with a code of its own.

#include "sim/life.h"
#include "simnvml/session.h"

namespace gpuslice::simnvml {
namespace {

enum ValueType : uint32_t {
  kDouble = 0,
  kUint = 1,
  kUlong = 2,
  kUlongLong = 3,
  kLongLong = 4,
  kInt = 5
};

void set_ui(FieldValue& out, uint64_t value) {
  out.value_type = kUint;
  out.value.ull = 0;
  out.value.ui = static_cast<uint32_t>(value);
}
void set_si(FieldValue& out, int32_t value) {
  out.value_type = kInt;
  out.value.ull = 0;
  out.value.si = value;
}
void set_ull(FieldValue& out, uint64_t value) {
  out.value_type = kUlongLong;
  out.value.ull = value;
}

// Ids by NVML's header; sources of the meaning in parentheses where it is not the name.
Ret field(const Call& c, FieldValue& out) {
  const sim::GpuLife& life = c.state().life.gpus[c.object.gpu];
  const gpu::Board& b = c.board();
  const auto limit = [&](uint32_t celsius) {
    if (b.arch != gpu::Arch::kHopper) return Ret::kNotSupported;
    set_si(out, static_cast<int32_t>(b.temperatures.max_operating) - static_cast<int32_t>(celsius));
    return Ret::kSuccess;
  };
  const auto vitals = [&] { return sim::vitals(c.state(), c.object.gpu, c.now()); };
  switch (out.field_id) {
    case 1:
      set_ull(out, c.gpu().ecc_current);
      return Ret::kSuccess;
    case 2:
      set_ull(out, c.gpu().ecc_pending);
      return Ret::kSuccess;
    case 3:
      set_ull(out, life.ecc_volatile.corrected);
      return Ret::kSuccess;
    case 4:
      set_ull(out, life.ecc_volatile.uncorrected);
      return Ret::kSuccess;
    case 5:
      set_ull(out, life.ecc_aggregate.corrected);
      return Ret::kSuccess;
    case 6:
      set_ull(out, life.ecc_aggregate.uncorrected);
      return Ret::kSuccess;
    case 29:
    case 30:
    case 31:
      if (b.arch >= gpu::Arch::kAmpere) return Ret::kNotSupported;
      set_ui(out, out.field_id == 31 ? life.remap_pending : 0);
      return Ret::kSuccess;
    case 82:
      if (b.temperatures.memory_max == 0) return Ret::kNotSupported;
      set_ui(out, vitals().memory_temperature_c);
      return Ret::kSuccess;
    case 83:
      set_ull(out, vitals().energy_mj);
      return Ret::kSuccess;
    case 91:
      set_ui(out, b.links.nvlinks);
      return Ret::kSuccess;
    case 94:
      set_ui(out, life.pcie_replays);
      return Ret::kSuccess;
    case 142:
      set_ull(out, life.remapped_corrected);
      return Ret::kSuccess;
    case 143:
      set_ull(out, life.remapped_uncorrected);
      return Ret::kSuccess;
    case 144:
      set_ull(out, life.remap_pending);
      return Ret::kSuccess;
    case 145:
      set_ull(out, life.remap_failed);
      return Ret::kSuccess;
    case 160:
      if (b.links.nvlinks == 0) return Ret::kNotSupported;
      set_ull(out, 0);
      return Ret::kSuccess;
    case 164:  // speed of a link, MB/s
      if (out.scope_id >= b.links.nvlinks)
        return b.links.nvlinks == 0 ? Ret::kNotSupported : Ret::kInvalidArgument;
      set_ui(out, b.links.nvlink_mbps);
      return Ret::kSuccess;
    case 165:  // state of a link
      if (out.scope_id >= b.links.nvlinks)
        return b.links.nvlinks == 0 ? Ret::kNotSupported : Ret::kInvalidArgument;
      set_ui(out, 1);
      return Ret::kSuccess;
    // What does not happen here, as nvmlDeviceGetViolationStatus says it…
    case 74:
    case 75:
    case 76:
    case 77:
    case 78:
    case 79:
    case 80:
    case 81:
      set_ull(out, 0);
      return Ret::kSuccess;
    // … and as the reasons for lower clocks count it, from 580.
    case 269:
    case 270:
    case 271:
      if (!as_measured(c)) return Ret::kNotSupported;
      set_ull(out, 0);
      return Ret::kSuccess;
    case 95:   // the PCIe replay counter went round
    case 169:  // errors of the PCIe link: recoveries, …
    case 173:
    case 174:
    case 175:
    case 176:
    case 177:
    case 178:
    case 179:
    case 180:
    case 181:
    case 182:
    case 183:
      if (b.arch != gpu::Arch::kHopper) return Ret::kNotSupported;
      set_ui(out, 0);
      return Ret::kSuccess;
    case 228:  // atomics over PCIe, out and in
    case 229:
      if (b.arch != gpu::Arch::kHopper || !as_measured(c)) return Ret::kNotSupported;
      set_ui(out, 0);
      return Ret::kSuccess;
    case 192:  // the limit that was asked for
      set_ui(out, vitals().power_limit_mw);
      return Ret::kSuccess;
    case 193:  // limits as they stand to the highest temperature to work at
      return limit(b.temperatures.shutdown);
    case 194:
      return limit(b.temperatures.slowdown);
    case 195:  // of the memory, to its own
    case 196:
      return limit(b.temperatures.max_operating);
    case 184:
      if (!b.mig()) return Ret::kNotSupported;
      set_ui(out, b.mode_change == gpu::ModeChange::kResetless ? 1 : 0);
      return Ret::kSuccess;
    case 185:  // the mean of a second
      set_ui(out, vitals().power_mw);
      return Ret::kSuccess;
    case 186:  // at this instant
      set_ui(out, sim::sampled(c.state(), c.object.gpu,
                               static_cast<uint64_t>(c.now() / 1000) / sim::kSamplePeriodUs)
                      .power_mw);
      return Ret::kSuccess;
    case 187:
      set_ui(out, b.power.min_limit);
      return Ret::kSuccess;
    case 188:
      set_ui(out, b.power.max_limit);
      return Ret::kSuccess;
    case 189:
      set_ui(out, b.power.default_limit);
      return Ret::kSuccess;
    case 190:
      set_ui(out, vitals().power_limit_mw);
      return Ret::kSuccess;
    case 191:
      set_ull(out, vitals().energy_mj);
      return Ret::kSuccess;
    case 199:
      if (!b.mig()) return Ret::kNotSupported;
      set_ui(out, driver_major(c.state()) >= 550 ? 1 : 0);
      return Ret::kSuccess;
    case 226:
      set_ui(out, c.gpu().reset_required != 0 || life.recovery_action == sim::kRecoverByReset);
      return Ret::kSuccess;  // reset required
    case 227:
      set_ui(out, life.recovery_action == sim::kRecoverByDrainAndReset);
      return Ret::kSuccess;  // drain and reset
    case 230:
      set_ui(out, life.recovery_action != 0 ? life.recovery_action
                                            : uint64_t{c.gpu().reset_required != 0});
      return Ret::kSuccess;  // recovery action
    default:
      return out.field_id == 0 || out.field_id > 303 ? Ret::kInvalidArgument : Ret::kNotSupported;
  }
}

}  // namespace

NVML_API int nvmlDeviceGetFieldValues(Handle h, int count, FieldValue* values) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (values == nullptr || count <= 0) return Ret::kInvalidArgument;
    for (int i = 0; i < count; ++i) {
      FieldValue& value = values[i];
      value.timestamp_us = c.now() / 1000;
      value.latency_us = 0;
      value.ret = static_cast<uint32_t>(field(c, value));
    }
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceClearFieldValues(Handle h, int count, FieldValue* values) {
  return device_call(__func__, h, kGpuOnly, [&](Call&) {
    if (values == nullptr || count <= 0) return Ret::kInvalidArgument;
    for (int i = 0; i < count; ++i) values[i].ret = static_cast<uint32_t>(Ret::kNotSupported);
    return Ret::kSuccess;
  });
}

}  // namespace gpuslice::simnvml
