#pragma once

// The plain table of `smi`: GPUs, MIG devices, processes, in the three boxes that people know.

#include <string>

#include "cli/node_view.h"

namespace gpuslice::cli {

[[nodiscard]] std::string smi_table(const NodeView& node);

}  // namespace gpuslice::cli
