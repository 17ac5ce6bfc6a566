#pragma once

// What a GPU does over time, as pure functions of the State and a node time: how busy it is, what
// memory is taken, power, temperature, clocks, energy. Nothing here changes by itself: between two
// writes activity is constant, so everything has a closed form, and settle() writes down what has
// run up.
//
// Demand above capacity is shared: on a whole GPU by its time-slicers, in max-min fair shares;
// between MIG instances the cut is hard, each has its own multiprocessors. Permille throughout, so
// that sums are exact.

#include <cstdint>
#include <span>
#include <vector>

#include "sim/state.h"

namespace gpuslice::sim {

// What a piece of work gets, permille of what it runs on (the GPU, or its compute instance).
struct Grant {
  uint16_t work = 0;  // index into State::works
  uint32_t permille = 0;
};
// Of all work on a GPU (gi == kNone) or on one compute instance; by rising index.
[[nodiscard]] std::vector<Grant> grants(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci);

// How busy: of the GPU as a whole (instances weighed by their multiprocessors), or of one compute
// instance.
[[nodiscard]] uint32_t activity_permille(const State& state, uint32_t gpu);
[[nodiscard]] uint32_t instance_activity_permille(const State& state, uint32_t gpu, uint8_t gi,
                                                  uint8_t ci);

struct MemoryUse {
  uint64_t total = 0;
  uint64_t reserved = 0;
  uint64_t used = 0;  // without reserved
  [[nodiscard]] uint64_t free() const { return total - reserved - used; }
};
[[nodiscard]] MemoryUse gpu_memory(const State& state, uint32_t gpu);
// Of a GPU instance; its compute instances share it.
[[nodiscard]] MemoryUse gi_memory(const State& state, uint32_t gpu, uint8_t gi);

// Percent of the time that memory is read or written at this activity.
[[nodiscard]] uint32_t memory_utilisation(uint32_t permille);

struct Vitals {
  uint32_t power_mw = 0;
  uint32_t power_limit_mw = 0;
  uint32_t temperature_c = 0;
  uint32_t memory_temperature_c = 0;
  uint64_t energy_mj = 0;
  uint32_t graphics_mhz = 0, sm_mhz = 0, memory_mhz = 0, video_mhz = 0;
  uint32_t performance_state = 0;   // P-state
  uint64_t throttle_reasons = 0;    // NVML's clocks event reasons
  uint32_t memory_utilisation = 0;  // percent of the time that memory was read or written
  uint32_t fan_percent = 0;
  uint32_t pcie_rx_kbps = 0, pcie_tx_kbps = 0;
};
[[nodiscard]] Vitals vitals(const State& state, uint32_t gpu, int64_t now);

// What the driver's samples show, six a second: a GPU that is neither idle nor full wavers around
// its mean, by seed, and is just at it over each second. `sample` counts from the node's time 0.
inline constexpr uint64_t kSamplePeriodUs = 166'667;
struct SampleValues {
  uint32_t activity_permille = 0;
  uint32_t power_mw = 0;
};
[[nodiscard]] SampleValues sampled(const State& state, uint32_t gpu, uint64_t sample);

// Writes down energy and temperature up to `now`; called around every change of the world.
void settle(State& state, int64_t now);

enum class AddWork : uint8_t { kAdded, kOutOfMemory, kNoSuchDevice, kTableFull };
// Puts a piece of work of `client` on a device. kOutOfMemory: the GPU or the instance has not so
// much left.
[[nodiscard]] AddWork add_work(State& state, const Work& work);
void remove_works_of(State& state, uint16_t client);

}  // namespace gpuslice::sim
