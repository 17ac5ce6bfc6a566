#pragma once

// gpuslice's command line, as values. The only place that knows CLI11.

#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "bin/agent_flags.h"

namespace gpuslice::bin {

struct CommandLine {
  enum class Verb { kHelp, kVersion, kAgent, kAgentStatus, kList, kSmi, kHook, kMig };
  Verb verb = Verb::kHelp;
  std::string help;    // kHelp: what to print
  AgentCommand agent;  // kAgent
  std::vector<std::string>
      args;  // kList, kSmi, kHook, kAgentStatus: what stands after the verb; kMig: with the verb
};

// `args` without the program's name. kUsage names what was not understood and the nearest that
// exists.
[[nodiscard]] Result<CommandLine> parse_command_line(std::span<const std::string> args);

}  // namespace gpuslice::bin
