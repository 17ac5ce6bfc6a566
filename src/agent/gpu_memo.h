#pragma once

// Which GPUs this life of the machine has shown, as a file under /run: a GPU that is lost when the
// agent starts does not tell its UUID, and its devices, which pods may hold, must be listed
// (unhealthy) all the same. Lines of text:
//   gpuslice-gpus 1 <boot id>
//   <index> <minor> <NUMA node> <UUID>

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "ports/nvml.h"

namespace gpuslice::agent {

[[nodiscard]] std::string format_gpu_memo(const std::vector<ports::Gpu>& gpus,
                                          std::string_view boot_id);
// kCorrupt for a text that is no memo; empty for one of another boot.
[[nodiscard]] Result<std::vector<ports::Gpu>> parse_gpu_memo(std::string_view text,
                                                             std::string_view boot_id);

}  // namespace gpuslice::agent
