#pragma once

// Every layout that a GPU can have, counted by what it consists of. At most 2,318 on a board of 8
// memory slices.

#include <cstdint>
#include <map>
#include <vector>

#include "plan/layout.h"

namespace gpuslice::plan {

struct Combination {
  std::vector<ProfileId> profiles;  // sorted
  uint32_t layouts = 0;             // ways to place it
  uint32_t maximal = 0;             // those of them to which no instance can be added
};

// By overlap, counts and media engines; the empty layout is left out. Sorted by profiles.
[[nodiscard]] std::vector<Combination> combinations(const Offer& offer);

}  // namespace gpuslice::plan
