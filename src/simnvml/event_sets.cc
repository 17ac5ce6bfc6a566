// Event sets: register a GPU's events, wait for the next. An event set reads the world's ring from
// where it registered.

#include <algorithm>
#include <bit>
#include <ctime>
#include <memory>
#include <mutex>
#include <vector>

#include "sim/events.h"
#include "simnvml/session.h"

namespace gpuslice::simnvml {
namespace {

constexpr uint64_t kSupported = sim::kEventSingleBitEcc | sim::kEventDoubleBitEcc |
                                sim::kEventPState | sim::kEventXid | sim::kEventClock |
                                sim::kEventMigConfig;
constexpr size_t kMaxEventSets = 1024;

constexpr uint32_t kEventTypes = 16;  // bits of NVML's event types

struct EventSet {
  uint64_t id = 0;
  uint64_t masks[sim::kMaxGpus] = {};
  uint64_t since[sim::kMaxGpus][kEventTypes] = {};  // no event from before its registration
  uint64_t next = 0;
};

struct Sets {
  std::mutex mutex;
  uint64_t made = 0;
  std::vector<std::shared_ptr<EventSet>> all;
};

Sets& sets() {
  static Sets* const kSets = new Sets;  // leaked on purpose: threads may wait during exit
  return *kSets;
}

// A number of its own for every set, so that the handle of a freed one is never another's. The mark
// stands where a user address has zeros.
Handle handle_of(const EventSet& set) {
  constexpr uint64_t kMark = uint64_t{0x4e45} << 48;
  return std::bit_cast<Handle>(kMark | set.id);
}

// The set of a caller's handle, if it is one of ours.
std::shared_ptr<EventSet> find(Handle handle) {
  const std::lock_guard lock(sets().mutex);
  for (const auto& set : sets().all)
    if (handle_of(*set) == handle) return set;
  return nullptr;
}

int64_t real_ns() {
  timespec ts{};
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}

// Tells the world which GPUs this process watches, where that changed.
void tell_world(const Call& c) {
  uint32_t gpus = 0;
  {
    const std::lock_guard lock(sets().mutex);
    for (const auto& set : sets().all)
      for (uint32_t gpu = 0; gpu < sim::kMaxGpus; ++gpu)
        if (set->masks[gpu] != 0) gpus |= uint32_t{1} << gpu;
  }
  const std::optional<uint16_t> slot = c.world.attached();
  if (!slot || c.state().clients[*slot].event_gpus == gpus) return;
  // Not told is not counted as a holder; the event set works all the same.
  [[maybe_unused]] const Status told =
      c.world.write([&](sim::State& state) { state.clients[*slot].event_gpus = gpus; });
}

// Called with the sets' mutex held.
std::optional<sim::Event> next_wanted(const sim::State& state, EventSet& set) {
  while (const auto event = sim::next_event(state, set.next, set.masks)) {
    set.next = event->number + 1;
    const auto bit = static_cast<uint32_t>(std::countr_zero(event->type));
    if (bit < kEventTypes && event->number >= set.since[event->gpu][bit]) return event;
  }
  return std::nullopt;
}

Ret wait(Call& c, Handle handle, EventData* out, uint32_t timeout_ms, bool with_instance) {
  const auto set = find(handle);
  if (!set || out == nullptr) return Ret::kInvalidArgument;
  const int64_t until = real_ns() + int64_t{timeout_ms} * 1'000'000;
  for (;;) {
    const uint64_t sequence = c.world.sequence();
    c.snapshot = c.world.snapshot();
    std::optional<sim::Event> event;
    {
      const std::lock_guard lock(sets().mutex);
      event = next_wanted(c.state(), *set);
    }
    if (event) {
      out->device = simnvml::handle_of(c.state(), {Kind::kGpu, event->gpu});
      out->type = event->type;
      out->data = event->data;
      if (with_instance) {
        out->gi = event->gi;
        out->ci = event->ci;
      }
      return Ret::kSuccess;
    }
    const int64_t left = until - real_ns();
    if (left <= 0) return Ret::kTimeout;
    // Holds no lock. The world tells of a change; a bound keeps a set that was freed meanwhile from
    // waiting on.
    (void)c.world.wait(sequence, std::min<int64_t>(left, 1'000'000'000));
    if (find(handle) == nullptr) return Ret::kInvalidArgument;
  }
}

}  // namespace

void drop_event_sets() {
  const std::lock_guard lock(sets().mutex);
  sets().all.clear();
}
void lock_event_sets() { sets().mutex.lock(); }
void unlock_event_sets() { sets().mutex.unlock(); }

NVML_API int nvmlEventSetCreate(Handle* out) {
  return node_call(__func__, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    auto set = std::make_shared<EventSet>();
    set->next = c.state().events.next;
    const std::lock_guard lock(sets().mutex);
    if (sets().all.size() >= kMaxEventSets) return Ret::kMemory;
    set->id = ++sets().made;
    *out = handle_of(*set);
    sets().all.push_back(std::move(set));
    return Ret::kSuccess;
  });
}
NVML_API int nvmlEventSetFree(Handle handle) {
  return node_call(__func__, [&](Call& c) {
    {
      const std::lock_guard lock(sets().mutex);
      auto& all = sets().all;
      const auto it = std::find_if(all.begin(), all.end(),
                                   [&](const auto& set) { return handle_of(*set) == handle; });
      if (it == all.end()) return Ret::kInvalidArgument;
      all.erase(it);
    }
    tell_world(c);
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetSupportedEventTypes(Handle h, unsigned long long* out) {
  return device_call(__func__, h, kGpuOnly,
                     [&](Call&) { return put(out, static_cast<unsigned long long>(kSupported)); });
}
NVML_API int nvmlDeviceRegisterEvents(Handle h, unsigned long long types, Handle handle) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    const auto set = find(handle);
    if (!set) return Ret::kInvalidArgument;
    if ((types & ~kSupported) != 0) return Ret::kNotSupported;  // and nothing is registered
    {
      const std::lock_guard lock(sets().mutex);
      const uint64_t fresh = types & ~set->masks[c.object.gpu];
      for (uint32_t bit = 0; bit < kEventTypes; ++bit)
        if ((fresh >> bit & 1) != 0) set->since[c.object.gpu][bit] = c.state().events.next;
      set->masks[c.object.gpu] |= types;
    }
    tell_world(c);
    return Ret::kSuccess;
  });
}
NVML_API int nvmlEventSetWait(Handle handle, EventData* out, uint32_t timeout_ms) {
  return node_call(__func__, [&](Call& c) { return wait(c, handle, out, timeout_ms, false); });
}
NVML_API int nvmlEventSetWait_v2(Handle handle, EventData* out, uint32_t timeout_ms) {
  return node_call(__func__, [&](Call& c) { return wait(c, handle, out, timeout_ms, true); });
}

}  // namespace gpuslice::simnvml
