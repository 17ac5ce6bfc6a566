#pragma once

// The verbs that ask: `list` and `smi` read the driver themselves, `agent status` asks the agent.

#include <string>
#include <vector>

#include "base/result.h"

namespace gpuslice::bin {

// `args`: what stands after the verb. Each returns the exit code.
[[nodiscard]] Result<int> run_list(const std::vector<std::string>& args, char** environment);
// `agent status`: asks the agent itself.
[[nodiscard]] Result<int> run_agent_status(const std::vector<std::string>& args);
[[nodiscard]] Result<int> run_smi(const std::vector<std::string>& args);

// True when the program was started under nvidia-smi's name, as on a simulated node.
[[nodiscard]] bool started_as_smi(const char* argv0);

}  // namespace gpuslice::bin
