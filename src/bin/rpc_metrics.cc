#include "bin/rpc_metrics.h"

namespace gpuslice::bin {

void RpcMetrics::seen(const std::string& resource, std::string_view method, Duration duration,
                      bool ok) {
  Series* series = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const bool known = resources_.contains(resource) || resources_.size() < kMaxResources;
    if (known) resources_[resource] = true;
    std::unique_ptr<Series>& slot = series_[{known ? resource : "other", std::string(method)}];
    if (!slot) slot = std::make_unique<Series>();
    series = slot.get();  // never removed
  }
  series->duration.observe(duration);
  if (!ok) series->failed.fetch_add(1, std::memory_order_relaxed);
}

std::vector<metrics::Family> RpcMetrics::families() const {
  metrics::Family durations{
      "gpuslice_kubelet_rpc_duration_seconds",
      "Time that calls of the kubelet took in the plugin, without the socket.",
      metrics::Type::kHistogram,
      {},
      {}};
  metrics::Family failed{"gpuslice_kubelet_rpc_failed_total",
                         "Calls of the kubelet that were answered with an error.",
                         metrics::Type::kCounter,
                         {},
                         {}};
  const std::lock_guard lock(mutex_);
  for (const auto& [key, series] : series_) {
    std::vector<metrics::Label> labels = {{"resource", key.first}, {"method", key.second}};
    durations.histograms.push_back(series->duration.sample(labels));
    failed.samples.push_back({std::move(labels), static_cast<double>(series->failed.load())});
  }
  return {std::move(durations), std::move(failed)};
}

}  // namespace gpuslice::bin
