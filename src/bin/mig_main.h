#pragma once

// The MIG verbs: plan, apply, assert, diff, export, checkpoint, restore, generate-config.

#include "base/result.h"
#include "bin/mig_command.h"

namespace gpuslice::bin {

[[nodiscard]] Result<int> run_mig(const MigCommand& command);

}  // namespace gpuslice::bin
