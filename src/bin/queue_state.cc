#include "bin/queue_state.h"

namespace gpuslice::bin {

std::vector<metrics::Family> queue_families(const std::vector<QueueState>& queues) {
  using metrics::Type;
  metrics::Family length{
      "gpuslice_queue_length", "What waits in a bounded queue now.", Type::kGauge, {}, {}};
  metrics::Family limit{
      "gpuslice_queue_limit", "What a bounded queue holds at most.", Type::kGauge, {}, {}};
  metrics::Family refused{
      "gpuslice_queue_refused_total", "What a full queue did not take.", Type::kCounter, {}, {}};
  for (const QueueState& queue : queues) {
    length.samples.push_back({{{"queue", queue.name}}, static_cast<double>(queue.length)});
    limit.samples.push_back({{{"queue", queue.name}}, static_cast<double>(queue.limit)});
    refused.samples.push_back({{{"queue", queue.name}}, static_cast<double>(queue.refused)});
  }
  return {std::move(length), std::move(limit), std::move(refused)};
}

}  // namespace gpuslice::bin
