#pragma once

// `gpuslice agent --check`: would an agent that is started like this work here? A line for each
// thing that it needs, "ok" or "FAIL" with cause and next step. Changes nothing, needs no root, and
// may run beside an agent.

#include "bin/agent_flags.h"

namespace gpuslice::bin {

// Prints to the standard output. The exit code: 0, or that of the first failure.
[[nodiscard]] int run_agent_check(const AgentCommand& command, char** environment);

}  // namespace gpuslice::bin
