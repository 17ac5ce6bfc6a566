#pragma once

// Strong ids: two numbers that could be swapped by mistake are two types.

#include <compare>
#include <cstdint>

namespace gpuslice {

template <class Tag>
struct Id {
  uint32_t value = 0;
  friend auto operator<=>(const Id&, const Id&) = default;
};

using GpuIndex = Id<struct GpuIndexTag>;  // NVML index: PCI order among the GPUs that are visible
using GpuMinor = Id<struct GpuMinorTag>;  // N of /dev/nvidiaN; not the index
using GiId =
    Id<struct GiIdTag>;  // GPU instance id ("swizzId"), 0..14; never derived from a placement
using CiId = Id<struct CiIdTag>;            // compute instance id within its GPU instance, 0..7
using ProfileId = Id<struct ProfileIdTag>;  // what `nvidia-smi mig -cgi` takes and NVML's info.id
                                            // holds; not the enum

}  // namespace gpuslice
