#pragma once

// The geometry rules behind mig.h: what may stand beside what on one board. Pure; no permission, no
// holders, no counters. Not for use outside the MIG engine and its tests.

#include <array>
#include <cstdint>
#include <optional>

#include "gpu/board.h"
#include "sim/default_placement.h"
#include "sim/ret.h"
#include "sim/state.h"

namespace gpuslice::sim {

// Media engines: a board has so many, and each instance takes its profile's. That is why there is
// one +me on an A100, and why only -me profiles stand beside a +me.all. Copy engines are not
// counted: boards report more of them over all instances than the full profile has.
struct Engines {
  std::array<uint32_t, 4> count{};  // decoder, encoder, jpeg, ofa
  Engines& operator+=(const Engines& other);
  [[nodiscard]] bool fits(const Engines& budget) const;
};
[[nodiscard]] Engines engines_of(const gpu::Profile& profile);
[[nodiscard]] Engines engine_budget(const gpu::Board& board);

// The slots that the GPU's instances cover.
[[nodiscard]] uint32_t used_slots(const Gpu& gpu, const Geometry& geometry);

// Where an instance of `profile` (index into the board's) would come to stand: at `wanted`, or
// where the driver chooses. kInvalidArgument: not offered; kInsufficientResources: no room.
[[nodiscard]] Ret place_gi(const gpu::Board& board, const Gpu& gpu, uint8_t profile,
                           std::optional<Placement> wanted, Placement& chosen);

// The compute profile of NVML enum `ci_enum` in a GI of `gi_slices` compute slices, or null.
[[nodiscard]] const gpu::CiProfile* find_ci_profile(uint8_t gi_slices, uint8_t ci_enum);

// As place_gi, inside a GI; `free_id` becomes the new instance's id, the lowest that is free.
[[nodiscard]] Ret place_ci(uint8_t gi_slices, const Gi& gi, uint8_t ci_enum,
                           std::optional<Placement> wanted, Placement& chosen, uint8_t& free_id);

// The mode of this board changes by a reset (Ampere), not in place (Hopper and newer).
[[nodiscard]] bool needs_reset_for_mode(const gpu::Board& board);

// Fills node.boot_id from seed and boot_count.
void make_boot_id(State& state);

}  // namespace gpuslice::sim
