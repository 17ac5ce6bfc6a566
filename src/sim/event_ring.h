#pragma once

// NVML events as they happened, the newest kEventRing of them. events.h writes and reads it.

#include <cstdint>

namespace gpuslice::sim {

inline constexpr uint32_t kEventRing = 512;

struct Event {
  uint64_t number = 0;  // from 1, never given twice in the life of the node
  int64_t time_ns = 0;
  uint64_t type = 0;  // NVML's bit: 8 XID, 1 single-bit ECC …
  uint64_t data = 0;  // the XID
  uint32_t gpu = 0;
  uint32_t gi = 0xffffffff;  // 0xffffffff: not attributable
  uint32_t ci = 0xffffffff;
  uint32_t pad_ = 0;
};

struct EventRing {
  uint64_t next = 1;  // number of the next event
  Event events[kEventRing];
};

}  // namespace gpuslice::sim
