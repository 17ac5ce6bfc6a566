// Arbitrary bytes as a checkpoint: refused with a sentence, or GPUs named once each, with instances
// that lie within a board.
#include <cstdlib>
#include <set>
#include <string>

#include "mig/checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gpuslice;
  const auto saved = mig::parse_checkpoint({reinterpret_cast<const char*>(data), size});
  if (!saved)
    return saved.error().code != Code::kInvalidConfig || saved.error().message.empty()
               ? (std::abort(), 0)
               : 0;
  std::set<std::string> uuids;
  for (const mig::SavedGpu& gpu : *saved) {
    if (!uuids.insert(gpu.uuid).second || !gpu.wish.saved) std::abort();
    if (!gpu.wish.mig && !gpu.wish.saved->empty()) std::abort();
    for (const mig::SavedGi& gi : *gpu.wish.saved) {
      if (gi.placement.size == 0 || gi.placement.start + gi.placement.size > plan::kMostSlices)
        std::abort();
      for (const mig::SavedCi& ci : gi.cis)
        if (ci.placement && ci.placement->start + ci.placement->size > plan::kMostSlices)
          std::abort();
    }
  }
  return 0;
}
