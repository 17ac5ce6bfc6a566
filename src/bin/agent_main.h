#pragma once

// `gpuslice agent`: the owner of everything. Builds adapters and agent on thread T0, runs its loop,
// and takes them down in the opposite order.
//
// Threads: T0 (all state); one for each served resource and one for calls to the kubelet (gRPC);
// the NVML worker; the HTTP server. All but T0 post values to it or read immutable snapshots.

#include "base/result.h"
#include "bin/agent_flags.h"

namespace gpuslice::bin {

// Runs until SIGTERM or SIGINT and returns the exit code; an error when it cannot start at all.
[[nodiscard]] Result<int> run_agent(const AgentCommand& command, char** environment);

}  // namespace gpuslice::bin
