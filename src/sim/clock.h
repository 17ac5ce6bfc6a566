#pragma once

// The node's time: nanoseconds since 1970 as the node believes. A real clock runs with
// CLOCK_BOOTTIME, so that every process computes the same number, and stays ahead of the newest
// write; a virtual one stands until somebody advances it. Both live in the State, so that
// `advance` is seen by all processes.

#include <cstdint>

#include "sim/state.h"

namespace gpuslice::sim {

// A virtual clock starts here: 2026-01-01T00:00:00Z, the same in every run.
inline constexpr int64_t kVirtualEpochNs = 1'767'225'600'000'000'000;

// CLOCK_BOOTTIME and CLOCK_REALTIME in nanoseconds; the only clocks that sim/ reads.
[[nodiscard]] int64_t boottime_ns();
[[nodiscard]] int64_t realtime_ns();

// Node time now. Never below node.clock.last_ns.
[[nodiscard]] int64_t now_ns(const State& state);

// Sets the clock up so that it shows `start_ns` now.
void start_clock(State& state, bool is_virtual, int64_t start_ns);

// Lets `ns` (>= 0) pass at once, on either clock.
void advance(State& state, int64_t ns);

// The first thing that a write does: remembers that now was now, also when the machine itself was
// booted since and CLOCK_BOOTTIME began anew.
void settle_clock(State& state);

}  // namespace gpuslice::sim
