#pragma once

// Events of the simulated driver: pushed by faults and the MIG engine's callers, read by event
// sets.

#include <cstdint>
#include <optional>

#include "sim/state.h"

namespace gpuslice::sim {

inline constexpr uint64_t kEventSingleBitEcc = 0x1;
inline constexpr uint64_t kEventDoubleBitEcc = 0x2;
inline constexpr uint64_t kEventPState = 0x4;
inline constexpr uint64_t kEventXid = 0x8;
inline constexpr uint64_t kEventClock = 0x10;
inline constexpr uint64_t kEventMigConfig = 0x100;

struct NewEvent {
  uint64_t type = 0;
  uint64_t data = 0;
  uint32_t gpu = 0;
  uint32_t gi = kNoInstance;
  uint32_t ci = kNoInstance;
};
void push_event(State& state, const NewEvent& event);

// The oldest event with a number of at least `from` that is still remembered and of which (gpu,
// type) is asked for. `masks` has the event types wanted of each GPU.
[[nodiscard]] std::optional<Event> next_event(const State& state, uint64_t from,
                                              const uint64_t (&masks)[kMaxGpus]);

}  // namespace gpuslice::sim
