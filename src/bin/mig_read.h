#pragma once

// What the MIG verbs tell of a node and change nothing for: files of what is there or could be, and
// the listings of profiles, placements, layouts and instances.

#include <optional>
#include <string>

#include "base/result.h"
#include "bin/mig_command.h"
#include "cli/format.h"

namespace gpuslice::bin {

// export, checkpoint, generate-config
[[nodiscard]] Result<int> run_mig_export(const MigCommand& command);

// `gpuslice list profiles|placements|layouts|instances`
struct MigListCommand {
  std::string what;  // one of these
  std::string root = "/";
  cli::Format format = cli::Format::kTable;
  std::optional<std::string> only;  // index, UUID or bus id of a GPU
  bool all = false;                 // layouts: every combination
};
[[nodiscard]] Result<int> run_mig_list(const MigListCommand& command);

}  // namespace gpuslice::bin
