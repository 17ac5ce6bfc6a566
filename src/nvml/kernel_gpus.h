#pragma once

// The GPUs that the driver's kernel module knows, whether they answer or not: a GPU that fell off
// the bus before the agent's first look tells NVML not even its UUID, and its devices are to be
// listed, unhealthy, all the same.

#include <string>
#include <vector>

#include "ports/driver.h"

namespace gpuslice::nvml {

// Of <root>/proc/driver/nvidia/gpus/*/information, in PCI's order, which is NVML's: `minor`,
// `uuid`, `bus_id` and `numa_node`, nothing else. One that was never initialised has no UUID there
// and is left out, as is what cannot be read.
[[nodiscard]] std::vector<ports::Gpu> kernel_gpus(const std::string& root);

// Says of the silent GPUs which they are, where nobody can be taken for another: there are as many
// of them as of the kernel's GPUs that did not answer.
void name_silent(const std::vector<ports::Gpu>& kernel, ports::Inventory& inventory);

}  // namespace gpuslice::nvml
