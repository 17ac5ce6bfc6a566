#pragma once

// `gpuslice smi`: nvidia-smi's habits on any NVML. It does not copy the tool; it prints the words,
// columns and widths that scripts read (docs/formats.md). Installed on a simulated node as
// usr/bin/nvidia-smi.

#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/node_view.h"

namespace gpuslice::cli {

struct SmiRequest {
  enum class What : uint8_t { kTable, kList, kQueryGpu, kQueryApps, kHelp } what = What::kTable;
  std::vector<std::string> fields;  // of a query
  bool header = true;
  bool units = true;
  std::vector<std::string> gpus;  // -i: indices, UUIDs or bus ids; empty: all
};

// kUsage names the word that was not understood and the nearest that exists.
[[nodiscard]] Result<SmiRequest> parse_smi(std::span<const std::string> args);

// What to print. kNotFound for a GPU of -i that is not there.
[[nodiscard]] Result<std::string> smi(const SmiRequest& request, const NodeView& node);

[[nodiscard]] std::string smi_help();

}  // namespace gpuslice::cli
