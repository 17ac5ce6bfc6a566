#pragma once

// GPU instance ids, and the driver's choice where a client names no placement. Pure.
//
// A board is a binary tree of slots ("spans"): id 0 is all of it, 1-2 the halves, 3-6 the quarters,
// 7-14 the eighths (open kernel modules, kmigmgr). Which slots an id covers is fixed; which *start*
// NVML reports for them depends on what was fused off (Sweep), so neither follows from the other
// for a reader of NVML. Among the free ids that a profile may take the driver takes the one that
// leaves the most ids free; of equals the lowest id. This replays every published sequence (tests),
// also the one that fails for fragmentation.

#include <cstdint>
#include <optional>
#include <span>

#include "gpu/board.h"
#include "sim/state.h"

namespace gpuslice::sim {

// Memory units of the board; for compute instances, compute slices of the GI.
using gpu::Placement;

// A board as the tree sees it.
struct Geometry {
  uint8_t units = 8;   // memory units that placements count in: 8, 4, or 12 (RTX PRO 6000)
  uint8_t leaves = 8;  // slots: 8, or 4
  Sweep sweep = Sweep::kPlain;
};
[[nodiscard]] Geometry geometry_of(const gpu::Board& board, Sweep sweep);

// The GI id at a placement that the board offers.
[[nodiscard]] uint8_t gi_id_of(const Geometry& geometry, Placement placement);
// The slots that an id covers, one bit each.
[[nodiscard]] uint32_t leaves_of(const Geometry& geometry, uint8_t gi);

// The driver's choice among `candidates` (placements of the wanted profile that are free) when the
// slots in `used` are taken; nothing when there are none.
[[nodiscard]] std::optional<Placement> choose_gi(const Geometry& geometry,
                                                 std::span<const Placement> candidates,
                                                 uint32_t used);

// The driver's choice for a compute instance: of `candidates` the one that leaves the most of
// `offered` (the placements of all compute profiles of this GI) free beside `taken`; of equals the
// lowest start.
[[nodiscard]] std::optional<Placement> choose_ci(std::span<const Placement> candidates,
                                                 std::span<const Placement> offered,
                                                 std::span<const Placement> taken);

[[nodiscard]] constexpr bool overlap(Placement a, Placement b) {
  return a.start < b.start + b.size && b.start < a.start + a.size;
}

}  // namespace gpuslice::sim
