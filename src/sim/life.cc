#include "sim/life.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "sim/mig.h"

namespace gpuslice::sim {
namespace {

constexpr uint64_t kMib = 1024 * 1024;
// What a GPU instance takes for itself: a listing of an empty 1g shows 11 to 15 MiB.
constexpr uint64_t kGiBaseMib = 13;
// The time in which a board gets 63 % of the way to its new temperature.
constexpr double kWarmUpSeconds = 45.0;
constexpr uint64_t kReasonIdle = 0x1;
constexpr uint64_t kReasonPowerCap = 0x4;
constexpr double kNs = 1e-9;

const gpu::Board& board(const State& state, uint32_t gpu) { return board_of(state, gpu); }

// Each board is a little different: permille of its idle values, by seed, 970..1030.
uint32_t individuality(const State& state, uint32_t gpu) {
  uint64_t x = state.node.seed * 0x9e3779b97f4a7c15ULL + gpu + 1;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  return 970 + static_cast<uint32_t>((x >> 33) % 61);
}

uint32_t power_limit(const State& state, uint32_t gpu) {
  const uint32_t set = state.gpus[gpu].power_limit_mw;
  return set != 0 ? set : board(state, gpu).power.default_limit;
}

uint32_t uncapped_power(const State& state, uint32_t gpu, uint32_t permille) {
  const gpu::Power& power = board(state, gpu).power;
  const uint64_t idle = uint64_t{power.idle} * individuality(state, gpu) / 1000;
  const uint64_t span = power.default_limit - power.idle;
  return static_cast<uint32_t>(idle + span * permille * 96 / 100'000);
}

uint32_t power_of(const State& state, uint32_t gpu) {
  return std::min(uncapped_power(state, gpu, activity_permille(state, gpu)),
                  power_limit(state, gpu));
}

// How busy at a time that may have passed; before what is remembered, as at its beginning.
uint32_t activity_at(const State& state, uint32_t gpu, int64_t time) {
  if (time >= state.life.gpus[gpu].settled_ns) return activity_permille(state, gpu);
  uint32_t permille = activity_permille(state, gpu);
  for (const Stretch& stretch : state.life.past[gpu]) {
    if (stretch.until_ns <= time) break;  // unused ones end at 0
    permille = stretch.permille;
  }
  return permille;
}

// Remembers how busy it was until `now`.
void remember(State& state, uint32_t gpu, int64_t now) {
  Stretch* const past = state.life.past[gpu];
  const uint32_t permille = activity_permille(state, gpu);
  if (past[0].until_ns == 0 || past[0].permille != permille)
    std::copy_backward(past, past + kMaxStretches - 1, past + kMaxStretches);
  past[0].until_ns = now;
  past[0].permille = permille;
}

// How far sample number `sample` is from the mean, in permille of `reach`: three by seed in each
// second and, one by one, the same the other way.
int64_t waver(const State& state, uint32_t gpu, uint64_t sample, int64_t reach) {
  const uint64_t second = sample / 6, place = sample % 6;
  uint64_t seed = state.node.seed * 0x9e3779b97f4a7c15ULL + gpu;
  seed = splitmix64(seed) + second * 3 + place % 3;
  const auto far = static_cast<int64_t>(splitmix64(seed) % 2001) - 1000;
  return (place < 3 ? far : -far) * reach / 1000;
}

double steady_temperature(const State& state, uint32_t gpu) {
  const gpu::Board& b = board(state, gpu);
  const double share =
      static_cast<double>(power_of(state, gpu)) / static_cast<double>(b.power.default_limit);
  const double idle = b.temperatures.idle * (individuality(state, gpu) / 1000.0);
  return idle + (b.temperatures.full_load - idle) * share;
}

double temperature_at(const State& state, uint32_t gpu, int64_t now) {
  const GpuLife& life = state.life.gpus[gpu];
  const double goal = steady_temperature(state, gpu);
  if (life.temperature_mc == 0) return goal;
  const double seconds = static_cast<double>(std::max<int64_t>(0, now - life.settled_ns)) * kNs;
  const double start = life.temperature_mc / 1000.0;
  return goal + (start - goal) * std::exp(-seconds / kWarmUpSeconds);
}

// Microjoules since the last settling.
uint64_t energy_since(const State& state, uint32_t gpu, int64_t now) {
  const int64_t ns = std::max<int64_t>(0, now - state.life.gpus[gpu].settled_ns);
  return static_cast<uint64_t>(static_cast<double>(power_of(state, gpu)) * static_cast<double>(ns) *
                               1e-6);
}

bool on(const Work& work, uint32_t gpu, uint8_t gi, uint8_t ci) {
  return work.used != 0 && work.gpu == gpu && work.gi == gi && (ci == kNone || work.ci == ci);
}

}  // namespace

std::vector<Grant> grants(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci) {
  std::vector<Grant> out;
  for (uint16_t i = 0; i < kMaxWorks; ++i)
    if (on(state.works[i], gpu, gi, gi == kNone ? kNone : ci)) out.push_back({i, 0});
  // Max-min: whoever wants least gets it, the rest is shared by the others.
  std::vector<Grant*> order;
  for (Grant& grant : out) order.push_back(&grant);
  // By demand, then by index: std::stable_sort would do, but clang refuses libstdc++'s.
  std::sort(order.begin(), order.end(), [&](const Grant* a, const Grant* b) {
    return std::pair(state.works[a->work].activity_permille, a->work) <
           std::pair(state.works[b->work].activity_permille, b->work);
  });
  uint32_t left = 1000;
  for (size_t i = 0; i < order.size(); ++i) {
    const auto share = static_cast<uint32_t>(left / (order.size() - i));
    order[i]->permille = std::min(state.works[order[i]->work].activity_permille, share);
    left -= order[i]->permille;
  }
  return out;
}

uint32_t instance_activity_permille(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci) {
  uint32_t sum = 0;
  for (const Work& work : state.works)
    if (on(work, gpu, gi, ci)) sum += work.activity_permille;
  return std::min(sum, 1000U);
}

uint32_t activity_permille(const State& state, uint32_t gpu) {
  const Gpu& one = state.gpus[gpu];
  if (one.lost != 0) return 0;
  if (one.mig_current == 0) return instance_activity_permille(state, gpu, kNone, kNone);
  const gpu::Board& b = board(state, gpu);
  uint64_t weighed = 0;
  for (uint8_t gi = 0; gi < kMaxGis; ++gi) {
    if (one.gis[gi].live == 0) continue;
    for (uint8_t ci = 0; ci < kMaxCis; ++ci) {
      if (one.gis[gi].cis[ci].live == 0) continue;
      const uint32_t sm =
          gpu::ci_multiprocessors(b, gi_profile(state, gpu, gi), one.gis[gi].cis[ci].size);
      weighed += uint64_t{sm} * instance_activity_permille(state, gpu, gi, ci);
    }
  }
  return static_cast<uint32_t>(std::min<uint64_t>(1000, weighed / std::max(1U, b.sm)));
}

MemoryUse gi_memory(const State& state, uint32_t gpu, uint8_t gi) {
  const gpu::Profile& profile = gi_profile(state, gpu, gi);
  MemoryUse use;
  use.total = profile.memory_mib * kMib;
  use.used = kGiBaseMib * profile.slices * kMib;
  for (const Work& work : state.works)
    if (on(work, gpu, gi, kNone)) use.used += work.memory_bytes;
  use.used = std::min(use.used, use.total);
  return use;
}

MemoryUse gpu_memory(const State& state, uint32_t gpu) {
  const gpu::Board& b = board(state, gpu);
  const Gpu& one = state.gpus[gpu];
  MemoryUse use;
  use.total = b.memory_total_mib * kMib;
  use.reserved = b.memory_reserved_mib * kMib;
  if (one.mig_current == 0) {
    for (const Work& work : state.works)
      if (on(work, gpu, kNone, kNone)) use.used += work.memory_bytes;
  } else {
    for (uint8_t gi = 0; gi < kMaxGis; ++gi)
      if (one.gis[gi].live != 0) use.used += gi_memory(state, gpu, gi).used;
  }
  use.used = std::min(use.used, use.total - use.reserved);
  return use;
}

uint32_t memory_utilisation(uint32_t permille) { return permille * 4 / 100; }

Vitals vitals(const State& state, uint32_t gpu, int64_t now) {
  const gpu::Board& b = board(state, gpu);
  const Gpu& one = state.gpus[gpu];
  const GpuLife& life = state.life.gpus[gpu];
  const uint32_t activity = activity_permille(state, gpu);
  Vitals v;
  v.power_limit_mw = power_limit(state, gpu);
  v.power_mw = power_of(state, gpu);
  v.temperature_c = life.heat_c != 0
                        ? life.heat_c
                        : static_cast<uint32_t>(std::lround(temperature_at(state, gpu, now)));
  v.memory_temperature_c = b.temperatures.memory_max == 0 ? 0 : v.temperature_c + 6;
  v.energy_mj = life.energy_mj + (life.energy_rest_uj + energy_since(state, gpu, now)) / 1000;
  const bool idle = activity == 0;
  const bool capped = uncapped_power(state, gpu, activity) > v.power_limit_mw;
  v.throttle_reasons =
      life.throttle_reasons | (idle ? kReasonIdle : 0) | (capped ? kReasonPowerCap : 0);
  uint32_t graphics = idle                        ? b.clocks.graphics_idle
                      : one.app_graphics_mhz != 0 ? one.app_graphics_mhz
                                                  : b.clocks.graphics_max;
  if (!idle && (capped || life.throttle_reasons != 0))
    graphics = std::min(graphics, b.clocks.graphics_base);
  if (one.locked_graphics_max_mhz != 0)
    graphics = std::clamp(graphics, one.locked_graphics_min_mhz, one.locked_graphics_max_mhz);
  v.graphics_mhz = v.sm_mhz = graphics;
  v.memory_mhz = idle ? b.clocks.memory_idle : b.clocks.memory_max;
  v.video_mhz =
      b.clocks.graphics_max == 0
          ? 0
          : std::max(b.clocks.video_idle, static_cast<uint32_t>(uint64_t{b.clocks.video_max} *
                                                                graphics / b.clocks.graphics_max));
  // HBM boards stay in P0; those that clock their memory down go to P8.
  v.performance_state = idle && b.clocks.memory_idle != b.clocks.memory_max ? 8 : 0;
  v.memory_utilisation = memory_utilisation(activity);
  v.pcie_rx_kbps = activity * 1200;
  v.pcie_tx_kbps = activity * 400;
  v.fan_percent = b.fans == 0 ? 0 : 30 + activity * 5 / 100;
  return v;
}

SampleValues sampled(const State& state, uint32_t gpu, uint64_t sample) {
  const auto time = static_cast<int64_t>(sample * kSamplePeriodUs * 1000);
  const uint32_t mean = activity_at(state, gpu, time);
  // A tenth of the way to idle or to full, whichever is nearer.
  const int64_t reach = std::min(mean, 1000 - mean) / 10;
  SampleValues values;
  values.activity_permille =
      static_cast<uint32_t>(static_cast<int64_t>(mean) + waver(state, gpu, sample, reach));
  values.power_mw =
      std::min(uncapped_power(state, gpu, values.activity_permille), power_limit(state, gpu));
  return values;
}

void settle(State& state, int64_t now) {
  for (uint32_t gpu = 0; gpu < state.node.gpu_count; ++gpu) {
    GpuLife& life = state.life.gpus[gpu];
    if (life.settled_ns == now && life.temperature_mc != 0) continue;
    const double temperature = temperature_at(state, gpu, now);
    if (life.settled_ns != 0) {
      const uint64_t uj = life.energy_rest_uj + energy_since(state, gpu, now);
      life.energy_mj += uj / 1000;
      life.energy_rest_uj = uj % 1000;
    }
    life.temperature_mc = static_cast<int32_t>(std::lround(temperature * 1000.0));
    remember(state, gpu, now);
    life.settled_ns = now;
  }
}

AddWork add_work(State& state, const Work& work) {
  if (work.gpu >= state.node.gpu_count) return AddWork::kNoSuchDevice;
  const Gpu& one = state.gpus[work.gpu];
  if (one.lost != 0) return AddWork::kNoSuchDevice;
  if (work.gi == kNone) {
    if (one.mig_current != 0) return AddWork::kNoSuchDevice;  // CUDA sees no whole GPU under MIG
    if (gpu_memory(state, work.gpu).free() < work.memory_bytes) return AddWork::kOutOfMemory;
  } else {
    if (work.gi >= kMaxGis || work.ci >= kMaxCis || one.gis[work.gi].cis[work.ci].live == 0)
      return AddWork::kNoSuchDevice;
    if (gi_memory(state, work.gpu, work.gi).free() < work.memory_bytes)
      return AddWork::kOutOfMemory;
  }
  for (Work& slot : state.works) {
    if (slot.used != 0) continue;
    slot = work;
    slot.used = 1;
    slot.since_ns = state.node.clock.last_ns;
    return AddWork::kAdded;
  }
  return AddWork::kTableFull;
}

void remove_works_of(State& state, uint16_t client) {
  for (Work& work : state.works)
    if (work.used != 0 && work.client == client) work = {};
}

}  // namespace gpuslice::sim
