#include "sim/default_placement.h"

#include <bit>

namespace gpuslice::sim {
namespace {

// Slots that hold no GPC for a GPU instance of one slice: ids that touch them do not count as room
// left. Boards of four slots have none.
uint32_t uncounted_slots(const Geometry& geometry) {
  if (geometry.leaves != 8) return 0;
  switch (geometry.sweep) {
    case Sweep::kPlain:
      return 1U << 7;
    case Sweep::kMirrored:
      return 1U << 3;
    case Sweep::kSwept:
      // Slot 2 counts for nothing, so it is given away first: the first 1g is GI 9.
      return (1U << 7) | (1U << 2);
  }
  return 0;
}

uint32_t slots(uint32_t first, uint32_t count) { return ((1U << count) - 1) << first; }

}  // namespace

Geometry geometry_of(const gpu::Board& board, Sweep sweep) {
  const uint8_t units = board.memory_units;
  return {.units = units, .leaves = static_cast<uint8_t>(units == 8 ? 8 : 4), .sweep = sweep};
}

uint8_t gi_id_of(const Geometry& geometry, Placement placement) {
  const uint32_t leaves = geometry.leaves;
  const uint32_t length = placement.size * leaves / geometry.units;
  uint32_t first = placement.start * leaves / geometry.units;
  if (geometry.sweep == Sweep::kMirrored && length < leaves) first = (first + leaves / 2) % leaves;
  const uint32_t on_this_level = leaves / length;  // 1, 2, 4, 8 ids, numbered from the sum above
  return static_cast<uint8_t>(on_this_level - 1 + first / length);
}

uint32_t leaves_of(const Geometry& geometry, uint8_t gi) {
  const uint32_t on_this_level = std::bit_floor(uint32_t{gi} + 1);
  const uint32_t length = geometry.leaves / on_this_level;
  return slots((gi + 1 - on_this_level) * length, length);
}

std::optional<Placement> choose_gi(const Geometry& geometry, std::span<const Placement> candidates,
                                   uint32_t used) {
  const uint32_t uncounted = uncounted_slots(geometry);
  const auto ids = static_cast<uint8_t>(2 * geometry.leaves - 1);
  std::optional<Placement> best;
  uint8_t best_id = 0;
  int best_left = -1;
  for (const Placement& one : candidates) {
    const uint8_t id = gi_id_of(geometry, one);
    const uint32_t then_used = used | leaves_of(geometry, id);
    int left = 0;
    for (uint8_t other = 0; other < ids; ++other) {
      const uint32_t covers = leaves_of(geometry, other);
      if ((covers & then_used) == 0 && (covers & uncounted) == 0) ++left;
    }
    if (left < best_left || (left == best_left && id > best_id)) continue;
    best = one;
    best_id = id;
    best_left = left;
  }
  return best;
}

std::optional<Placement> choose_ci(std::span<const Placement> candidates,
                                   std::span<const Placement> offered,
                                   std::span<const Placement> taken) {
  std::optional<Placement> best;
  int best_left = -1;
  for (const Placement& one : candidates) {
    int left = 0;
    for (const Placement& other : offered) {
      bool free = !overlap(one, other);
      for (const Placement& held : taken) free = free && !overlap(held, other);
      if (free) ++left;
    }
    if (left < best_left || (left == best_left && one > *best)) continue;
    best = one;
    best_left = left;
  }
  return best;
}

}  // namespace gpuslice::sim
