// What GPUs tell of themselves beside XIDs: how it comes, and how it goes.

#include "hardware.h"

namespace gpuslice::dst {
namespace {

constexpr sim::Caller kRoot{.admin = true, .client = sim::kNoClient};
// Below the temperature at which it switches itself off: not cool enough yet, and cool.
constexpr uint32_t kWarmBelow = 3;
constexpr uint32_t kCoolBelow = 10;
// NVML's enum of recovery actions: reset, reboot, drain, drain and reset.
constexpr uint64_t kMostActions = 4;
constexpr uint8_t kRecoverByDraining = 3;

}  // namespace

std::map<std::string, Hardware::Illness> Hardware::illnesses() {
  std::map<std::string, Illness> out;
  const auto state = world_->snapshot();
  for (uint32_t i = 0; i < state->node.gpu_count; ++i) {
    const sim::GpuLife& life = state->life.gpus[i];
    const uint32_t off = sim::board_of(*state, i).temperatures.shutdown;
    Illness one;
    one.lost = state->gpus[i].lost != 0;
    one.ecc = life.ecc_volatile.uncorrected > 0;
    one.remap_pending = life.remap_pending != 0;
    one.remap_failed = life.remap_failed != 0;
    one.recovery = life.recovery_action != 0;
    if (life.heat_c >= off)
      one.heat = Heat::kHot;
    else if (life.heat_c == off - kWarmBelow)
      one.heat = Heat::kWarm;
    const bool well = !one.lost && !one.ecc && !one.remap_pending && !one.remap_failed &&
                      !one.recovery && one.heat == Heat::kCool;
    if (well) continue;
    for (const sim::Gi& gi : state->gpus[i].gis)
      for (const sim::Ci& ci : gi.cis)
        one.instances = one.instances || (gi.live != 0 && ci.live != 0);
    out[state->gpus[i].uuid] = one;
  }
  return out;
}

void Hardware::fall_ill(uint32_t index, Fault fault, uint64_t dice) {
  (void)world_->write([&](sim::State& s) {
    sim::GpuLife& life = s.life.gpus[index];
    switch (fault) {
      case Fault::kEccErrors:
        life.ecc_volatile.uncorrected += 1 + dice % 3;
        break;
      case Fault::kRemapPending:
        life.remap_pending = 1;
        break;
      case Fault::kRemapFailed:
        life.remap_failed = 1;
        break;
      case Fault::kRecoveryWanted:
        // What it wants already is done first: no driver takes back that it needs a reset.
        if (life.recovery_action == 0)
          life.recovery_action = static_cast<uint8_t>(1 + dice % kMostActions);
        break;
      default:
        life.heat_c =
            static_cast<uint8_t>(sim::board_of(s, index).temperatures.shutdown + dice % 3);
    }
    return true;
  });
}

bool Hardware::recover(uint32_t index, Fault fault) {
  return world_
      ->write([&](sim::State& s) {
        sim::GpuLife& life = s.life.gpus[index];
        const uint32_t off = sim::board_of(s, index).temperatures.shutdown;
        switch (fault) {
          case Fault::kEccErrors:
            return std::exchange(life.ecc_volatile.uncorrected, 0) != 0;
          case Fault::kRemapFailed:  // the board was exchanged, for one that looks like it
            return std::exchange(life.remap_failed, 0) != 0;
          case Fault::kRecoveryWanted:
            if (life.recovery_action != kRecoverByDraining) return false;
            life.recovery_action = 0;
            return true;
          case Fault::kRemapPending:
            return false;
          default:
            if (life.heat_c == 0) return false;
            life.heat_c = static_cast<uint8_t>(
                life.heat_c >= off ? off - kWarmBelow
                                   : (life.heat_c == off - kWarmBelow ? off - kCoolBelow : 0));
            return true;
        }
      })
      .value_or(false);
}

bool Hardware::wants_reset(uint32_t index, Fault fault) {
  const auto state = world_->snapshot();
  const sim::GpuLife& life = state->life.gpus[index];
  if (fault == Fault::kRemapPending) return life.remap_pending != 0;
  return fault == Fault::kRecoveryWanted && (life.recovery_action == sim::kRecoverByReset ||
                                             life.recovery_action == sim::kRecoverByDrainAndReset);
}

bool Hardware::reset_by_others(uint32_t index) {
  const bool done =
      world_
          ->write([&](sim::State& s) {
            return s.gpus[index].lost == 0 && sim::reset_gpu(s, index, kRoot) == sim::Ret::kSuccess;
          })
          .value_or(false);
  settle_counters();
  return done;
}

}  // namespace gpuslice::dst
