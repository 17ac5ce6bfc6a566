#pragma once

// mig-parted's hooks: commands around an apply, one after the other. What they print goes where
// ours goes.

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/hooks_file.h"

namespace gpuslice::bin {

// Runs them in order; the first that fails ends it: kFailed with the point, the command and how it
// ended. `envs` go to each beside its own.
[[nodiscard]] Status run_hooks(const std::string& point, const std::vector<config::Hook>& hooks,
                               const std::map<std::string, std::string>& envs);

}  // namespace gpuslice::bin
