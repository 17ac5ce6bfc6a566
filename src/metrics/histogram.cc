#include "metrics/histogram.h"

#include <algorithm>
#include <utility>

namespace gpuslice::metrics {

void DurationHistogram::observe(Duration duration) {
  const int64_t ns = std::max<int64_t>(duration.count(), 0);
  const double seconds = static_cast<double>(ns) / 1e9;
  const auto bucket = std::lower_bound(kBounds.begin(), kBounds.end(), seconds) - kBounds.begin();
  counts_[static_cast<size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
  sum_ns_.fetch_add(ns, std::memory_order_relaxed);
}

HistogramSample DurationHistogram::sample(std::vector<Label> labels) const {
  HistogramSample out;
  out.labels = std::move(labels);
  out.bounds.assign(kBounds.begin(), kBounds.end());
  for (const auto& count : counts_) out.counts.push_back(count.load(std::memory_order_relaxed));
  out.sum = static_cast<double>(sum_ns_.load(std::memory_order_relaxed)) / 1e9;
  return out;
}

uint64_t DurationHistogram::count() const {
  uint64_t total = 0;
  for (const auto& count : counts_) total += count.load(std::memory_order_relaxed);
  return total;
}

}  // namespace gpuslice::metrics
