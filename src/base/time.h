#pragma once

// Time as values. Pure folders take times as arguments; only adapters read a clock (port Clock).

#include <chrono>
#include <cstdint>

namespace gpuslice {

// Nanoseconds on a clock that never goes back. Its zero has no meaning across processes unless the
// owner says so.
using Duration = std::chrono::nanoseconds;

struct MonotonicTag {
  using rep = int64_t;
  using period = std::nano;
  using duration = Duration;
  using time_point = std::chrono::time_point<MonotonicTag>;
  static constexpr bool is_steady = true;
};
using MonotonicTime = std::chrono::time_point<MonotonicTag, Duration>;

// Nanoseconds since 1970-01-01 UTC; may jump.
struct WallTag {
  using rep = int64_t;
  using period = std::nano;
  using duration = Duration;
  using time_point = std::chrono::time_point<WallTag>;
  static constexpr bool is_steady = false;
};
using WallTime = std::chrono::time_point<WallTag, Duration>;

}  // namespace gpuslice
