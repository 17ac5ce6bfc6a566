#pragma once

// The MIG verbs: plan, apply, assert, diff, export, checkpoint, restore, generate-config, and the
// listings of profiles, placements, layouts and instances.

#include <string>
#include <vector>

#include "base/result.h"
#include "bin/mig_command.h"

namespace gpuslice::bin {

[[nodiscard]] Result<int> run_mig(const MigCommand& command);

// `gpuslice list profiles|placements|layouts|instances`; `what` is one of these, `args` the rest.
[[nodiscard]] Result<int> run_mig_list(const std::string& what, std::vector<std::string> args);

}  // namespace gpuslice::bin
