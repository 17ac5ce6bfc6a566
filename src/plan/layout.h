#pragma once

// What the MIG planner reads and writes: values only, all from NVML (profiles, placements,
// instances), never from a table of ours. Placements of GPU instances count the board's memory
// slices (8 on A100, 12 on RTX PRO 6000), those of compute instances the compute slices inside
// their GPU instance.

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"

namespace gpuslice::plan {

// Half-open range [start, start + size) of slices. At most kMostSlices.
struct Span {
  uint32_t start = 0;
  uint32_t size = 0;
  friend auto operator<=>(const Span&, const Span&) = default;
};
inline constexpr uint32_t kMostSlices = 64;

// Media engines that an instance takes for itself. A board has as many of each as its largest
// profile lists.
struct Engines {
  uint32_t dec = 0;
  uint32_t enc = 0;
  uint32_t jpeg = 0;
  uint32_t ofa = 0;
};

struct CiProfile {
  ProfileId id;
  std::string name;   // "1c"
  uint32_t most = 0;  // instances that fit into one GPU instance
  std::vector<Span> placements;
};

struct GiProfile {
  ProfileId id;
  std::string name;   // "1g.5gb"
  uint32_t most = 0;  // nvmlGpuInstanceProfileInfo.instanceCount
  Engines engines;
  std::vector<Span> placements;
  std::vector<CiProfile> cis;  // what fits into it; the one that fills it last
};

// What a GPU offers. Profiles in any order; ids unique.
struct Offer {
  std::vector<GiProfile> profiles;
  [[nodiscard]] const GiProfile* find(ProfileId id) const;
};

// What is there.
struct Ci {
  CiId id;
  ProfileId profile;
  Span placement;
  bool busy = false;
  friend bool operator==(const Ci&, const Ci&) = default;
};
struct Gi {
  GiId id;
  ProfileId profile;
  Span placement;
  bool busy = false;  // somebody holds the GPU instance itself or one of its compute instances
  std::vector<Ci> cis;
  friend bool operator==(const Gi&, const Gi&) = default;
};

// What is wanted. Without a placement the planner chooses; without `cis` one compute instance fills
// the GPU instance.
struct WantedCi {
  ProfileId profile;
  std::optional<Span> placement;
  friend auto operator<=>(const WantedCi&, const WantedCi&) = default;
};
struct WantedGi {
  ProfileId profile;
  std::optional<Span> placement;
  std::optional<std::vector<WantedCi>> cis;
  friend auto operator<=>(const WantedGi&, const WantedGi&) = default;
};

}  // namespace gpuslice::plan
