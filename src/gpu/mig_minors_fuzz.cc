// Arbitrary bytes as the driver's list of capability minors: refused with a sentence, or every
// instance found again under a minor that a device number can hold.
#include <cstdlib>
#include <string>

#include "gpu/mig_minors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gpuslice;
  const auto minors = gpu::parse_mig_minors({reinterpret_cast<const char*>(data), size});
  if (!minors) return minors.error().message.empty() ? (std::abort(), 0) : 0;
  size_t found = 0;
  for (uint32_t gpu = 0; gpu < 3; ++gpu)
    for (uint32_t gi = 0; gi < 3; ++gi) {
      const auto check = [&](std::optional<uint32_t> minor) {
        if (!minor) return;
        ++found;
        if (*minor > gpu::kMaxCapMinor) std::abort();
      };
      check(minors->access(GpuMinor{gpu}, GiId{gi}));
      for (uint32_t ci = 0; ci < 3; ++ci) check(minors->access(GpuMinor{gpu}, GiId{gi}, CiId{ci}));
    }
  if (found > minors->size()) std::abort();
  return 0;
}
