// Arbitrary bytes as a checkpoint: refused with a sentence, or GPUs named once each, with instances
// that lie within a board; and what is read is written and read again the same.
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "mig/checkpoint.h"

namespace {

using namespace gpuslice;

void check_span(plan::Span span) {
  if (span.size == 0 || span.start + span.size > plan::kMostSlices) std::abort();
}

// A GPU on which that is there: profiles are known by NVML's enums alone, so they are its ids.
mig::GpuState state_of(const mig::SavedGpu& saved) {
  mig::GpuState state;
  state.gpu.uuid = saved.uuid;
  state.mode = {saved.wish.mig, saved.wish.mig};
  for (const mig::SavedGi& gi : *saved.wish.saved) {
    ports::GiProfile profile;
    profile.id = ProfileId{gi.nvml_enum};
    profile.nvml_enum = gi.nvml_enum;
    profile.name = "1g.5gb";
    state.profiles.push_back(profile);
    ports::GpuInstance one{GiId{0}, profile.id, mig::placement_of(gi.placement), {}};
    for (const mig::SavedCi& ci : gi.cis)
      one.cis.push_back({CiId{0}, ProfileId{ci.nvml_enum},
                         mig::placement_of(ci.placement.value_or(plan::Span{0, 1})), ""});
    state.instances.push_back(std::move(one));
  }
  return state;
}

void check_same(const mig::SavedGpu& a, const mig::SavedGpu& b) {
  if (a.uuid != b.uuid || a.wish.mig != b.wish.mig) std::abort();
  if (a.wish.saved->size() != b.wish.saved->size()) std::abort();
  for (size_t i = 0; i < a.wish.saved->size(); ++i) {
    const mig::SavedGi& x = (*a.wish.saved)[i];
    const mig::SavedGi& y = (*b.wish.saved)[i];
    if (x.nvml_enum != y.nvml_enum || x.placement != y.placement || x.cis.size() != y.cis.size())
      std::abort();
    for (size_t c = 0; c < x.cis.size(); ++c)
      if (x.cis[c].nvml_enum != y.cis[c].nvml_enum || !y.cis[c].placement) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto saved = mig::parse_checkpoint({reinterpret_cast<const char*>(data), size});
  if (!saved) {
    if (saved.error().code != Code::kInvalidConfig || saved.error().message.empty()) std::abort();
    return 0;
  }
  std::set<std::string> uuids;
  std::vector<mig::GpuState> states;
  for (const mig::SavedGpu& gpu : *saved) {
    if (!uuids.insert(gpu.uuid).second || !gpu.wish.saved) std::abort();
    if (!gpu.wish.mig && !gpu.wish.saved->empty()) std::abort();
    for (const mig::SavedGi& gi : *gpu.wish.saved) {
      check_span(gi.placement);
      for (const mig::SavedCi& ci : gi.cis)
        if (ci.placement) check_span(*ci.placement);
    }
    states.push_back(state_of(gpu));
  }
  const auto again = mig::parse_checkpoint(mig::format_checkpoint(states));
  if (!again || again->size() != saved->size()) std::abort();
  for (size_t i = 0; i < saved->size(); ++i) check_same((*saved)[i], (*again)[i]);
  return 0;
}
