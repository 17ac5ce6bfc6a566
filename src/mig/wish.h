#pragma once

// What is wanted of one GPU, and what that means on its hardware.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gpu/profile_name.h"
#include "mig/gpu_state.h"

namespace gpuslice::mig {

struct WishedProfile {
  gpu::ProfileName name;
  uint32_t count = 0;            // compute instances, as mig-parted counts: one for each device
  std::vector<uint32_t> starts;  // where the GPU instances lie; empty: the planner chooses
};

// An instance of a checkpoint: profiles by NVML's enums, as mig-parted names them.
struct SavedCi {
  uint32_t nvml_enum = 0;
  std::optional<plan::Span> placement;
};
struct SavedGi {
  uint32_t nvml_enum = 0;
  plan::Span placement;
  std::vector<SavedCi> cis;
};

struct Wish {
  bool mig = false;
  std::vector<WishedProfile> profiles;
  // Instead of `profiles`:
  std::optional<Layout> exact;
  std::optional<std::vector<SavedGi>> saved;
  // A switch of the mode may be left waiting for a reset: who uses the whole GPU is not in its way.
  bool mode_may_wait = false;
};

// The wish in this GPU's profiles.
struct Resolved {
  std::vector<plan::WantedGi> gis;
  std::vector<std::string>
      notes;  // each name that was taken for another: "1g.23gb is 1g.24gb here"
};
// kImpossible: a name that this GPU does not offer, with those that it does and the nearest.
[[nodiscard]] Result<Resolved> resolve(const Wish& wish, const GpuState& state);

// What has to happen on one GPU. Nothing in it says how: change.h does that.
struct GpuPlan {
  Layout before, after;
  plan::Plan steps;  // empty while `provisional`
  bool mode_changes = false;
  // The driver says only with MIG on what there is: the mode is switched first, then it is planned.
  bool provisional = false;
  std::vector<std::string> notes;
  [[nodiscard]] bool nothing_to_do() const { return before == after && !mode_changes; }
};

struct Refusal {
  Error error;
  std::vector<std::string> nearest;  // profile names of the most that can be had, sorted
  // Those in the way: if they went the wish could be, and none of them may stay. As few instances
  // as possible, and no pod beside one that makes room enough.
  std::vector<Holder> holders;
  std::vector<std::string> going;  // … and the UUIDs of what the wish would then take away
};

struct Decision {
  std::optional<GpuPlan> plan;
  std::optional<Refusal> refusal;
};

// UUIDs of the devices that the plan takes away from the GPU that is as `state` says: of compute
// instances, or of the GPU itself when its mode changes.
[[nodiscard]] std::vector<std::string> devices_that_go(const GpuState& state, const GpuPlan& plan);

// Pure. `holders`: who uses what beside the processes that the state names (they are in it as
// well).
[[nodiscard]] Decision decide(const GpuState& state, const Wish& wish,
                              const std::vector<Holder>& holders);

}  // namespace gpuslice::mig
