#pragma once

// From the command line and the environment to what the agent is built from. Reads folders, changes
// nothing.

#include <string>

#include "agent/config_keeper.h"
#include "agent/label_keeper.h"
#include "base/result.h"
#include "bin/agent_flags.h"

namespace gpuslice::bin {

struct AgentSetup {
  std::string root;                 // where the driver's files are, for us
  std::string kubelet_dir;          // absolute
  std::string registration_socket;  // absolute, or "" for the usual one
  agent::ConfigSource config;
  std::string ledger_path;
  agent::LabelsTo labels_to = agent::LabelsTo::kNowhere;
};

// kUsage or kInvalidConfig when what was said does not hold together.
[[nodiscard]] Result<AgentSetup> make_setup(const AgentCommand& command, char** environment);

}  // namespace gpuslice::bin
