#include "sim/mig_rules.h"

#include <algorithm>
#include <vector>

#include "base/random.h"

namespace gpuslice::sim {

Engines& Engines::operator+=(const Engines& other) {
  for (size_t i = 0; i < count.size(); ++i) count[i] += other.count[i];
  return *this;
}

bool Engines::fits(const Engines& budget) const {
  for (size_t i = 0; i < count.size(); ++i)
    if (count[i] > budget.count[i]) return false;
  return true;
}

Engines engines_of(const gpu::Profile& profile) {
  return {{profile.dec, profile.enc, profile.jpeg, profile.ofa}};
}

Engines engine_budget(const gpu::Board& board) {
  // The whole-board profile has all there are; taking the most of each needs no guess which one it
  // is.
  Engines budget;
  for (const gpu::Profile& profile : board.profiles) {
    const Engines one = engines_of(profile);
    for (size_t i = 0; i < budget.count.size(); ++i)
      budget.count[i] = std::max(budget.count[i], one.count[i]);
  }
  return budget;
}

uint32_t used_slots(const Gpu& gpu, const Geometry& geometry) {
  uint32_t used = 0;
  for (uint8_t id = 0; id < kMaxGis; ++id)
    if (gpu.gis[id].live) used |= leaves_of(geometry, id);
  return used;
}

Ret place_gi(const gpu::Board& board, const Gpu& gpu, uint8_t profile_index,
             std::optional<Placement> wanted, Placement& chosen) {
  const gpu::Profile& profile = board.profiles[profile_index];
  std::vector<Placement> candidates(profile.placements.begin(), profile.placements.end());
  if (wanted) {
    if (std::find(candidates.begin(), candidates.end(), *wanted) == candidates.end())
      return Ret::kInvalidArgument;
    candidates = {*wanted};
  }
  Engines engines = engines_of(profile);
  uint32_t same = 0;
  for (const Gi& gi : gpu.gis) {
    if (!gi.live) continue;
    engines += engines_of(board.profiles[gi.profile]);
    if (gi.profile == profile_index) ++same;
  }
  if (same >= profile.max_instances || !engines.fits(engine_budget(board)))
    return Ret::kInsufficientResources;

  const Geometry geometry = geometry_of(board, gpu.sweep);
  const uint32_t used = used_slots(gpu, geometry);
  std::erase_if(candidates, [&](Placement one) {
    return (leaves_of(geometry, gi_id_of(geometry, one)) & used) != 0;
  });
  const std::optional<Placement> choice = choose_gi(geometry, candidates, used);
  if (!choice) return Ret::kInsufficientResources;
  chosen = *choice;
  return Ret::kSuccess;
}

const gpu::CiProfile* find_ci_profile(uint8_t gi_slices, uint8_t ci_enum) {
  for (const gpu::CiProfile& one : gpu::ci_profiles(gi_slices))
    if (one.ci_enum == ci_enum) return &one;
  return nullptr;
}

Ret place_ci(uint8_t gi_slices, const Gi& gi, uint8_t ci_enum, std::optional<Placement> wanted,
             Placement& chosen, uint8_t& free_id) {
  const gpu::CiProfile* const profile = find_ci_profile(gi_slices, ci_enum);
  if (profile == nullptr) return Ret::kInvalidArgument;
  std::vector<Placement> candidates(profile->placements.begin(), profile->placements.end());
  if (wanted) {
    if (std::find(candidates.begin(), candidates.end(), *wanted) == candidates.end())
      return Ret::kInvalidArgument;
    candidates = {*wanted};
  }
  std::vector<Placement> taken;
  uint32_t same = 0;
  free_id = kNone;
  for (uint8_t id = 0; id < kMaxCis; ++id) {
    const Ci& ci = gi.cis[id];
    if (!ci.live) {
      if (free_id == kNone) free_id = id;
      continue;
    }
    taken.push_back({ci.start, ci.size});
    if (ci.profile == ci_enum) ++same;
  }
  if (same >= profile->max_instances || free_id == kNone) return Ret::kInsufficientResources;
  std::erase_if(candidates, [&](Placement one) {
    return std::any_of(taken.begin(), taken.end(), [&](Placement t) { return overlap(t, one); });
  });
  // The +me share stands where one slice does; counting its places twice would change no choice,
  // but they are one place.
  std::vector<Placement> offered;
  for (const gpu::CiProfile& one : gpu::ci_profiles(gi_slices))
    for (const Placement& place : one.placements)
      if (std::find(offered.begin(), offered.end(), place) == offered.end())
        offered.push_back(place);
  const std::optional<Placement> choice = choose_ci(candidates, offered, taken);
  if (!choice) return Ret::kInsufficientResources;
  chosen = *choice;
  return Ret::kSuccess;
}

bool needs_reset_for_mode(const gpu::Board& board) {
  return board.mode_change == gpu::ModeChange::kReset;
}

void make_boot_id(State& state) {
  uint64_t seed = state.node.seed ^ (uint64_t{state.node.boot_count} << 32) ^ 0xb007'1d00ULL;
  for (size_t i = 0; i < sizeof(state.node.boot_id); i += 8) {
    const uint64_t word = splitmix64(seed);
    for (size_t byte = 0; byte < 8; ++byte)
      state.node.boot_id[i + byte] = static_cast<uint8_t>(word >> (8 * byte));
  }
  // A random UUID's version and variant, as the kernel's are.
  state.node.boot_id[6] = static_cast<uint8_t>((state.node.boot_id[6] & 0x0f) | 0x40);
  state.node.boot_id[8] = static_cast<uint8_t>((state.node.boot_id[8] & 0x3f) | 0x80);
}

}  // namespace gpuslice::sim
