#pragma once

// The exhaustive search under the planner: items of several kinds onto slices, keeping what lies
// there already where that costs least. Used twice: GPU instances on a board, compute instances
// inside a GPU instance.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "plan/layout.h"

namespace gpuslice::plan {

struct Kind {
  std::vector<Span> placements;
  uint32_t most = 0;
  Engines engines;
};

// Something that lies there. `busy` must be matched by an item.
struct Lying {
  size_t kind = 0;
  Span placement;
  bool busy = false;
};

// Something wanted. Items with equal kind, fixed placement and `variant` are interchangeable.
struct Item {
  size_t kind = 0;
  std::optional<Span> fixed;
  size_t variant = 0;  // what else tells items apart (the compute instances wanted inside)
};

struct Cost {
  uint32_t destroyed = 0;
  uint32_t inner_destroyed = 0;
  uint32_t created = 0;
  uint32_t inner_created = 0;
};

// What it costs to keep the lying instance `lying` as `variant`; nothing if that would touch
// something busy.
using KeepCost = std::function<std::optional<Cost>(size_t lying, size_t variant)>;

struct Fit {
  std::vector<Span> placements;              // one for each item, in the order given
  std::vector<std::optional<size_t>> keeps;  // the lying instance that the item keeps
};

struct FitProblem {
  std::span<const Kind> kinds;
  std::span<const Lying> lying;
  std::span<const Item> items;
  KeepCost keep_cost;                               // called at most once for each pair
  std::function<Cost(size_t variant)> create_cost;  // of an item that is new
  std::function<Cost(size_t lying)> destroy_cost;   // of a lying instance that goes
};

// The best fit by the planner's objective, or nothing. `visited` counts the complete layouts that
// were compared.
[[nodiscard]] std::optional<Fit> best_fit(const FitProblem& problem, uint64_t& visited);

// The slices of a span as a bit mask; spans lie below kMostSlices.
[[nodiscard]] constexpr uint64_t mask_of(Span span) {
  const uint64_t ones = span.size >= 64 ? ~uint64_t{0} : (uint64_t{1} << span.size) - 1;
  return ones << span.start;
}

// Pairs (kind, placement) that could be added to `used` (kind and placement of each).
struct Used {
  size_t kind = 0;
  Span placement;
};
[[nodiscard]] uint32_t left_open(std::span<const Kind> kinds, std::span<const Used> used);

}  // namespace gpuslice::plan
