#include "sim/events.h"

#include <algorithm>

namespace gpuslice::sim {

void push_event(State& state, const NewEvent& event) {
  EventRing& ring = state.events;
  Event& slot = ring.events[ring.next % kEventRing];
  slot = {};
  slot.number = ring.next++;
  slot.time_ns = state.node.clock.last_ns;
  slot.type = event.type;
  slot.data = event.data;
  slot.gpu = event.gpu;
  slot.gi = event.gi;
  slot.ci = event.ci;
  if (event.type == kEventXid && event.gpu < kMaxGpus)
    state.life.gpus[event.gpu].last_xid = event.data;
}

std::optional<Event> next_event(const State& state, uint64_t from,
                                const uint64_t (&masks)[kMaxGpus]) {
  const EventRing& ring = state.events;
  const uint64_t oldest = ring.next > kEventRing ? ring.next - kEventRing : 1;
  for (uint64_t number = std::max(from, oldest); number < ring.next; ++number) {
    const Event& event = ring.events[number % kEventRing];
    if (event.number == number && event.gpu < kMaxGpus && (masks[event.gpu] & event.type) != 0)
      return event;
  }
  return std::nullopt;
}

}  // namespace gpuslice::sim
