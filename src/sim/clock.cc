#include "sim/clock.h"

#include <time.h>

#include <algorithm>

namespace gpuslice::sim {
namespace {

int64_t read_clock(clockid_t id) {
  timespec now{};
  clock_gettime(id, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

int64_t boottime_ns() { return read_clock(CLOCK_BOOTTIME); }

int64_t realtime_ns() { return read_clock(CLOCK_REALTIME); }

int64_t now_ns(const State& state) {
  const ClockState& clock = state.node.clock;
  const int64_t now = clock.is_virtual ? clock.virtual_ns : boottime_ns() + clock.offset_ns;
  return std::max(now, clock.last_ns);
}

void start_clock(State& state, bool is_virtual, int64_t start_ns) {
  ClockState& clock = state.node.clock;
  clock = {};
  clock.is_virtual = is_virtual ? 1 : 0;
  clock.virtual_ns = start_ns;
  clock.offset_ns = is_virtual ? 0 : start_ns - boottime_ns();
  clock.last_ns = start_ns;
}

void advance(State& state, int64_t ns) {
  ClockState& clock = state.node.clock;
  (clock.is_virtual ? clock.virtual_ns : clock.offset_ns) += ns;
  clock.last_ns = now_ns(state);
}

void settle_clock(State& state) {
  ClockState& clock = state.node.clock;
  if (!clock.is_virtual) {
    const int64_t behind = clock.last_ns - (boottime_ns() + clock.offset_ns);
    if (behind > 0) clock.offset_ns += behind;
  }
  clock.last_ns = now_ns(state);
}

}  // namespace gpuslice::sim
