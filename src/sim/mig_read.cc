// The half of mig.h that changes nothing.

#include <algorithm>
#include <vector>

#include "gpu/uuid.h"
#include "sim/mig.h"
#include "sim/mig_rules.h"

namespace gpuslice::sim {
namespace {

// Fills `out` as far as it goes; says how many there are.
void hand_out(std::span<const Placement> all, std::span<Placement> out, uint32_t& count) {
  std::copy_n(all.begin(), std::min(all.size(), out.size()), out.begin());
  count = static_cast<uint32_t>(all.size());
}

bool live_gi(const State& state, uint32_t gpu, uint8_t gi) {
  return gpu < state.node.gpu_count && gi < kMaxGis && state.gpus[gpu].gis[gi].live;
}

}  // namespace

const gpu::Board& board_of(const State& state, uint32_t gpu) {
  return gpu::boards()[state.gpus[gpu].board];
}

bool mig_capable(const State& state, uint32_t gpu) { return board_of(state, gpu).mig(); }

std::optional<uint8_t> profile_index(const State& state, uint32_t gpu, ProfileId id) {
  const auto& profiles = board_of(state, gpu).profiles;
  for (size_t i = 0; i < profiles.size(); ++i)
    if (profiles[i].id == id) return static_cast<uint8_t>(i);
  return std::nullopt;
}

const gpu::Profile& gi_profile(const State& state, uint32_t gpu, uint8_t gi) {
  return board_of(state, gpu).profiles[state.gpus[gpu].gis[gi].profile];
}

const gpu::CiProfile* ci_profile(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci_enum) {
  return find_ci_profile(gi_profile(state, gpu, gi).slices, ci_enum);
}

MigDevices mig_devices(const State& state, uint32_t gpu) {
  MigDevices devices;
  for (uint8_t gi = 0; gi < kMaxGis; ++gi) {
    if (!state.gpus[gpu].gis[gi].live) continue;
    for (uint8_t ci = 0; ci < kMaxCis && devices.count < kMaxMigDevices; ++ci)
      if (state.gpus[gpu].gis[gi].cis[ci].live) devices.device[devices.count++] = {gi, ci};
  }
  return devices;
}

std::string ci_name(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci) {
  const gpu::Profile& profile = gi_profile(state, gpu, gi);
  const Ci& one = state.gpus[gpu].gis[gi].cis[ci];
  std::string name(profile.name);
  if (one.size == profile.slices) return name;
  return std::to_string(one.size) + "c." + name;
}

std::optional<uint32_t> mig_index(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci) {
  const MigDevices devices = mig_devices(state, gpu);
  for (uint32_t index = 0; index < devices.count; ++index)
    if (devices.device[index] == MigDevice{gi, ci}) return index;
  return std::nullopt;
}

uint32_t max_mig_devices(const State& state, uint32_t gpu) {
  if (!mig_capable(state, gpu)) return 0;
  if (!state.gpus[gpu].mig_current && !state.node.max_mig_while_off) return 0;
  return board_of(state, gpu).compute_slices;
}

std::string mig_uuid(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci) {
  const Gpu& one = state.gpus[gpu];
  // The graphics engine of a compute instance is that of its first slice.
  return "MIG-" +
         gpu::uuid_text(gpu::mig_uuid(one.chip_id, one.pdi, gi, one.gis[gi].cis[ci].start));
}

std::optional<Instance> find_mig_uuid(const State& state, std::string_view uuid) {
  for (uint32_t gpu = 0; gpu < state.node.gpu_count; ++gpu) {
    const MigDevices devices = mig_devices(state, gpu);
    for (const MigDevice& one : devices)
      if (mig_uuid(state, gpu, one.gi, one.ci) == uuid) return Instance{gpu, one.gi, one.ci};
  }
  return std::nullopt;
}

Ret gi_placements(const State& state, uint32_t gpu, ProfileId profile, std::span<Placement> out,
                  uint32_t& count) {
  if (gpu >= state.node.gpu_count) return Ret::kInvalidArgument;
  if (!mig_capable(state, gpu)) return Ret::kNotSupported;
  const std::optional<uint8_t> index = profile_index(state, gpu, profile);
  if (!index) return Ret::kInvalidArgument;
  hand_out(board_of(state, gpu).profiles[*index].placements, out, count);
  return Ret::kSuccess;
}

Ret gi_capacity(const State& state, uint32_t gpu, ProfileId profile, uint32_t& count) {
  if (gpu >= state.node.gpu_count) return Ret::kInvalidArgument;
  if (!mig_capable(state, gpu)) return Ret::kNotSupported;
  const std::optional<uint8_t> index = profile_index(state, gpu, profile);
  if (!index) return Ret::kInvalidArgument;
  // Instances of this profile are made on a copy until no more fit: the placements of one profile
  // never overlap each other, so the order does not matter, and every limit counts.
  const gpu::Board& board = board_of(state, gpu);
  Gpu trial = state.gpus[gpu];
  const Geometry geometry = geometry_of(board, trial.sweep);
  Placement at;
  count = 0;
  while (place_gi(board, trial, *index, std::nullopt, at) == Ret::kSuccess) {
    Gi& gi = trial.gis[gi_id_of(geometry, at)];
    gi.live = 1;
    gi.profile = *index;
    ++count;
  }
  return Ret::kSuccess;
}

Ret ci_placements(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci_enum,
                  std::span<Placement> out, uint32_t& count) {
  if (!live_gi(state, gpu, gi)) return Ret::kInvalidArgument;
  const gpu::CiProfile* const profile = ci_profile(state, gpu, gi, ci_enum);
  if (profile == nullptr) return Ret::kNotSupported;
  hand_out(profile->placements, out, count);
  return Ret::kSuccess;
}

Ret ci_capacity(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci_enum, uint32_t& count) {
  if (!live_gi(state, gpu, gi)) return Ret::kInvalidArgument;
  const uint8_t slices = gi_profile(state, gpu, gi).slices;
  Gi trial = state.gpus[gpu].gis[gi];
  Placement at;
  uint8_t id = 0;
  count = 0;
  Ret ret = place_ci(slices, trial, ci_enum, std::nullopt, at, id);
  if (ret == Ret::kInvalidArgument) return Ret::kNotSupported;
  while (ret == Ret::kSuccess) {
    trial.cis[id] = {.live = 1, .profile = ci_enum, .start = at.start, .size = at.size};
    ++count;
    ret = place_ci(slices, trial, ci_enum, std::nullopt, at, id);
  }
  return Ret::kSuccess;
}

}  // namespace gpuslice::sim
