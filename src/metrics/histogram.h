#pragma once

// A histogram that any thread may feed without a lock; read as a HistogramSample.

#include <array>
#include <atomic>
#include <cstdint>

#include "base/time.h"
#include "metrics/family.h"

namespace gpuslice::metrics {

// Durations of calls on this machine's sockets, which take from tens of microseconds to a few
// seconds when something is wrong.
class DurationHistogram {
 public:
  static constexpr std::array<double, 10> kBounds = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                                                     0.01,   0.1,     1,      10};  // seconds

  // Any thread. A negative duration counts as zero.
  void observe(Duration duration);

  // A snapshot; the buckets and the sum may be one observation apart while others observe.
  [[nodiscard]] HistogramSample sample(std::vector<Label> labels) const;

  [[nodiscard]] uint64_t count() const;

 private:
  std::array<std::atomic<uint64_t>, kBounds.size() + 1> counts_{};
  std::atomic<int64_t> sum_ns_{0};
};

}  // namespace gpuslice::metrics
