#pragma once

// What XIDs have marked, as it is in truth.

#include <cstdint>
#include <optional>
#include <string>

#include "base/time.h"

namespace gpuslice::dst {

// What an XID that is not ignored has marked: unhealthy from `due` on, until the hardware itself
// has changed.
struct Struck {
  std::string gpu;
  uint64_t making = 0;  // of a MIG device its generation, of a GPU its resets
  MonotonicTime due{};
};

// The same until its GPU was seen to be reset: the agent may say so as long.
struct EverStruck {
  std::string gpu;
  std::optional<uint64_t> energy_mj;  // the most that looks since the newest XID have told
};

}  // namespace gpuslice::dst
