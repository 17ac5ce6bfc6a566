#pragma once

// The MIG planner: pure, exhaustive, deterministic. From what a GPU offers, what is there and what
// is wanted to the ordered steps with explicit placements, or to the reason why it cannot be and
// the nearest that can.
//
// Objective, in this order: no busy instance is touched · fewest GPU instances, then compute
// instances, destroyed · fewest GPU instances, then compute instances, created · most placements
// left open afterwards, over all profiles · lowest positions. Same input, same plan, byte for byte.
//
// Cost: at most 1 ms for a GPU (a board of 8 memory slices has 2,318 layouts; a search visits those
// of one multiset).

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "plan/layout.h"

namespace gpuslice::plan {

// One call to the driver. Steps come in an order that can be executed as it stands: compute
// instances that go, GPU instances that go, GPU instances that come, compute instances that come.
struct Step {
  enum class Op { kDestroyCi, kDestroyGi, kCreateGi, kCreateCi };
  Op op = Op::kDestroyCi;
  ProfileId profile;    // of the instance that goes or comes
  Span placement;       // its placement
  Span gi_placement;    // where its GPU instance lies: names a new GPU instance, whose id only the
                        // driver knows
  GiId gi;              // of the GPU instance that is there; unset (0) where it is new
  CiId ci;              // of the compute instance that goes
  bool new_gi = false;  // the GPU instance comes in this plan
  friend bool operator==(const Step&, const Step&) = default;
};

struct Plan {
  std::vector<Step> steps;
  std::vector<Gi> kept;  // instances that stay, with the compute instances that stay in them
  uint32_t gis_destroyed = 0;
  uint32_t cis_destroyed = 0;  // those of GPU instances that go included
  uint32_t gis_created = 0;
  uint32_t cis_created = 0;
  uint32_t left_open = 0;  // (profile, placement) pairs that could still be created afterwards
};

// Why not, for a person, and the most of what was wanted that can be had beside what is busy (as
// profile ids, sorted).
struct Impossible {
  std::string reason;
  std::vector<ProfileId> nearest;
  // The fewest busy GPU instances that the wish would destroy, or destroy something in (see
  // make_room_plan()); empty if they are not the reason.
  std::vector<GiId> in_the_way;
};

using Outcome = std::variant<Plan, Impossible>;

[[nodiscard]] Outcome make_plan(const Offer& offer, std::span<const Gi> there,
                                std::span<const WantedGi> wanted);

// What could be made if busy instances might be touched, as few of them as possible: whoever is to
// make room for it. Nothing where not even that would do.
[[nodiscard]] std::optional<Plan> make_room_plan(const Offer& offer, std::span<const Gi> there,
                                                 std::span<const WantedGi> wanted);

// Whether `wanted` fits an empty GPU.
[[nodiscard]] bool fits(const Offer& offer, std::span<const WantedGi> wanted);

// (profile, placement) pairs that can still be created beside `there`.
[[nodiscard]] uint32_t placements_left_open(const Offer& offer, std::span<const Gi> there);

}  // namespace gpuslice::plan
