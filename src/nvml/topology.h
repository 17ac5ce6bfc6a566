#pragma once

// How near the GPUs of a node are to each other: some forty calls for each GPU, so it is read when
// the GPUs change and not with every inventory.

#include <vector>

#include "nvml/calls.h"
#include "ports/nvml.h"

namespace gpuslice::nvml {

// Of the GPUs with these indices. Never fails: what the driver does not tell is left out.
[[nodiscard]] ports::Topology read_topology(Calls& calls, const std::vector<GpuIndex>& gpus);

}  // namespace gpuslice::nvml
