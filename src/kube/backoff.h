#pragma once

// How long to wait after the n-th failure in a row: doubled each time up to a ceiling, and spread,
// so that the agents of a thousand nodes do not come back to an API server in one instant.

#include <algorithm>
#include <cstdint>

#include "base/random.h"
#include "base/time.h"

namespace gpuslice::kube {

inline constexpr Duration kBackoffFirst = std::chrono::milliseconds(250);
inline constexpr Duration kBackoffCeiling = std::chrono::seconds(30);
// A Retry-After beyond it is taken for it: a server that says "in a year" is asked sooner.
inline constexpr Duration kMaxRetryAfter = std::chrono::seconds(60);

class Backoff {
 public:
  explicit Backoff(uint64_t seed) : random_(seed) {}

  // Between half and the whole of the doubled wait, and never sooner than the server asked for.
  [[nodiscard]] Duration next(Duration retry_after = Duration::zero()) {
    const Duration whole = std::min(kBackoffCeiling, kBackoffFirst * (int64_t{1} << failures_));
    if (failures_ < kMaxDoublings) ++failures_;
    const Duration spread(random_.between(whole.count() / 2, whole.count()));
    return std::max(spread, std::min(retry_after, kMaxRetryAfter));
  }
  void succeeded() { failures_ = 0; }
  [[nodiscard]] uint32_t failures() const { return failures_; }

 private:
  static constexpr uint32_t kMaxDoublings = 8;
  Random random_;
  uint32_t failures_ = 0;
};

}  // namespace gpuslice::kube
