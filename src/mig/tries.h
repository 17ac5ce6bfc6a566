#pragma once

// How often something is tried again, and after which pause. Not a public header.

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "mig/change.h"

namespace gpuslice::mig {

inline Duration pause_after(int tries) {
  Duration pause = kFirstPause;
  for (int i = 1; i < tries && pause < kLongestPause; ++i) pause *= 2;
  return std::min(pause, kLongestPause);
}

// An error that no further try will mend.
inline bool is_final(Code code) {
  return code == Code::kGpuLost || code == Code::kNeedsReset || code == Code::kNoPermission ||
         code == Code::kCorrupt;
}

// Failures in a row of one drive().
struct Tries {
  Patience patience;
  int in_use = 0;
  int other = 0;
  // Another try, after a pause? Nothing is left else.
  [[nodiscard]] std::optional<Duration> next(const Error& error) {
    // On the way back a permission may be there again: the alternative is a GPU left half-way.
    const bool lasting = error.code != Code::kNoPermission || patience != Patience::kBack;
    if (is_final(error.code) && lasting) return std::nullopt;
    if (patience == Patience::kBack) {
      if (++other > kMostTriesGoingBack) return std::nullopt;
      return pause_after(other);
    }
    if (error.code == Code::kInUse) {
      if (++in_use > kMostTriesInUse) return std::nullopt;
      return pause_after(in_use);
    }
    if (++other > kMostTriesOther) return std::nullopt;
    return pause_after(other);
  }
  void progress() { in_use = other = 0; }
};

}  // namespace gpuslice::mig
