#pragma once

// How often the kubelet called, with what result and how long it took: fed by the servers' threads,
// read by /metrics.

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/time.h"
#include "metrics/family.h"
#include "metrics/histogram.h"

namespace gpuslice::bin {

class RpcMetrics {
 public:
  // Resources that are counted apart; calls of further ones are counted under "other".
  static constexpr size_t kMaxResources = 64;

  // Any thread.
  void seen(const std::string& resource, std::string_view method, Duration duration, bool ok);
  // Any thread.
  [[nodiscard]] std::vector<metrics::Family> families() const;

 private:
  struct Series {
    metrics::DurationHistogram duration;
    std::atomic<uint64_t> failed{0};
  };
  using Key = std::pair<std::string, std::string>;  // resource, method

  mutable std::mutex mutex_;
  std::map<Key, std::unique_ptr<Series>> series_;
  std::map<std::string, bool> resources_;
};

}  // namespace gpuslice::bin
