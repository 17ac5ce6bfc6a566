// gpuslice: shares the NVIDIA GPUs of a Kubernetes node. Parses the command line, builds, hands
// over.

#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "bin/agent_check.h"
#include "bin/agent_main.h"
#include "bin/ask_main.h"
#include "bin/command_line.h"
#include "bin/hook_main.h"
#include "bin/mig_main.h"
#include "bin/version.h"
#include "cli/format.h"

namespace {

using gpuslice::Error;
using gpuslice::Result;
using gpuslice::bin::CommandLine;
using gpuslice::cli::Format;

int say_error(const Error& error, Format format = Format::kTable) {
  fmt::print("{}", gpuslice::cli::error_json(error, format));
  fmt::print(stderr, "{}\n", error.text());
  return gpuslice::exit_code(error.code);
}

int exit_of(const Result<int>& code, Format format = Format::kTable) {
  return code ? *code : say_error(code.error(), format);
}

// MIG_PARTED_OUTPUT_FORMAT counts as well.
Format format_of(const gpuslice::bin::MigCommand& command) {
  return gpuslice::cli::parse_format(command.output).value_or(Format::kTable);
}

int run(const CommandLine& line) {
  switch (line.verb) {
    case CommandLine::Verb::kHelp:
      fmt::print("{}", line.help);
      return 0;
    case CommandLine::Verb::kVersion:
      fmt::print("gpuslice {}\n", gpuslice::bin::kVersion);
      return 0;
    case CommandLine::Verb::kAgent: {
      if (line.agent.check) return gpuslice::bin::run_agent_check(line.agent, environ);
      return exit_of(gpuslice::bin::run_agent(line.agent, environ));
    }
    case CommandLine::Verb::kAgentStatus:
      return exit_of(gpuslice::bin::run_agent_status(line.args),
                     gpuslice::cli::asked_format(line.args));
    case CommandLine::Verb::kList:
      return exit_of(gpuslice::bin::run_list(line.args, environ),
                     gpuslice::cli::asked_format(line.args));
    case CommandLine::Verb::kSmi:
      return exit_of(gpuslice::bin::run_smi(line.args));
    case CommandLine::Verb::kHook:
      return exit_of(gpuslice::bin::run_hook(line.args));
    case CommandLine::Verb::kMig: {
      const auto command = gpuslice::bin::parse_mig_command(line.args);
      if (!command) return say_error(command.error(), gpuslice::cli::asked_format(line.args));
      return exit_of(gpuslice::bin::run_mig(*command), format_of(*command));
    }
  }
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  // A dozen threads with an arena each would be most of the memory of an idle agent.
  mallopt(M_ARENA_MAX, 2);
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (gpuslice::bin::started_as_smi(argv[0])) return exit_of(gpuslice::bin::run_smi(args));
  const Result<CommandLine> line = gpuslice::bin::parse_command_line(args);
  return line ? run(*line) : say_error(line.error());
}
