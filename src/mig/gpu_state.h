#pragma once

// One GPU's MIG as it is: read from NVML anew each time, with who uses what, and in the planner's
// terms.

#include <optional>
#include <string>
#include <vector>

#include "plan/planner.h"
#include "ports/mig.h"

namespace gpuslice::mig {

// Somebody who uses a GPU or one of its instances.
struct Holder {
  enum class Source { kProcess, kPod, kLedger };
  Source source = Source::kProcess;
  std::optional<GiId> gi;  // nothing: the whole GPU
  std::optional<CiId> ci;
  uint32_t pid = 0;     // of kProcess; 0 where it cannot be seen
  std::string command;  // of kProcess
  std::string pod_namespace, pod, container;
  // Of kProcess, where several pods hold the same: it is one of theirs, and not known which.
  bool of_several = false;
  std::string device;  // the id that was allocated

  // "PID 4242 (python3) of pod ml/train-0, container main, on GPU instance 7"
  [[nodiscard]] std::string text() const;
  friend bool operator==(const Holder&, const Holder&) = default;
};

// What names a GPU for good, and for people.
struct GpuName {
  GpuIndex index;
  std::string uuid;
  std::string bus_id;
  std::string board;                       // "NVIDIA A100-SXM4-40GB"
  [[nodiscard]] std::string text() const;  // "GPU 3"
};
[[nodiscard]] GpuName name_of(const ports::Gpu& gpu);

// A layout that is meant exactly: every GPU instance with its placement, every compute instance
// with its own. Sorted by placement.
struct Layout {
  bool mig = false;
  std::vector<plan::WantedGi> gis;
  friend bool operator==(const Layout&, const Layout&) = default;
};
// Whether a GPU instance of that profile lies there, whatever is inside it.
[[nodiscard]] bool has_place(const Layout& layout, const plan::WantedGi& gi);
// Sorts, so that equal layouts compare equal.
void normalise(Layout& layout);

struct GpuState {
  GpuName gpu;
  ports::MigMode mode;
  bool profiles_trusted = true;  // see ports::GiProfiles
  std::vector<ports::GiProfile> profiles;
  std::vector<ports::GpuInstance> instances;
  std::vector<ports::Process> processes;
  // The same for the planner; busy is what `processes` name, and what mark_held() adds.
  plan::Offer offer;
  std::vector<plan::Gi> there;
  bool gpu_busy = false;  // somebody uses the GPU as a whole

  [[nodiscard]] Layout layout() const;
  [[nodiscard]] const ports::GiProfile* profile(ProfileId id) const;
  // "1g.5gb" of a GPU instance profile, "profile 19" where the driver does not offer it.
  [[nodiscard]] std::string profile_name(ProfileId id) const;
};

// kImpossible: a board without MIG. kGpuLost, kNoPermission, …: as the driver says.
[[nodiscard]] Result<GpuState> read_state(ports::Mig& mig, const GpuName& gpu);

// Marks as busy what `holders` hold.
void mark_held(GpuState& state, const std::vector<Holder>& holders);

// Those of `state.processes` as holders.
[[nodiscard]] std::vector<Holder> process_holders(const GpuState& state);

// "MIG off", "MIG on, no instances", "3g.20gb at 0:4, 1g.5gb at 4:1".
[[nodiscard]] std::string layout_text(const Layout& layout, const GpuState& names);

[[nodiscard]] plan::Span span_of(gpu::Placement placement);
[[nodiscard]] gpu::Placement placement_of(plan::Span span);

}  // namespace gpuslice::mig
