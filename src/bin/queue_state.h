#pragma once

// One bounded thing of the agent: how full it is, how full it may be, how often it said no. All of
// them are shown alike, by /metrics and by `agent status`.

#include <cstdint>
#include <string>
#include <vector>

#include "metrics/family.h"

namespace gpuslice::bin {

struct QueueState {
  std::string name;  // "event_loop"
  uint64_t length = 0;
  uint64_t limit = 0;
  uint64_t refused = 0;
};

// gpuslice_queue_length, _limit and _refused_total, by queue.
[[nodiscard]] std::vector<metrics::Family> queue_families(const std::vector<QueueState>& queues);

}  // namespace gpuslice::bin
