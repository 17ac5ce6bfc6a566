#pragma once

// The MIG verbs' command lines, as values.

#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace gpuslice::bin {

struct MigCommand {
  enum class Verb {
    kHelp,
    kPlan,
    kApply,
    kAssert,
    kDiff,
    kExport,
    kCheckpoint,
    kRestore,
    kGenerate,
  };
  Verb verb = Verb::kHelp;
  std::string help;        // of kHelp
  std::string root;        // "" for "/"
  std::string file;        // configuration or checkpoint; "-" is standard input or output
  std::string label;       // -c, and -l of export
  std::string hooks_file;  // -k
  std::string output;      // text, json or yaml
  std::string kubelet_dir = "/var/lib/kubelet";
  std::string state_dir;  // "" when not said
  std::string run_dir;    // "" when not said
  bool mode_only = false;
  bool skip_reset = false;
  bool valid_config = false;
  bool detailed_exitcode = false;
  bool placements = false;
  bool without_agent = false;
  Duration wait{};
  Duration call_timeout = std::chrono::seconds(60);
};

// Those that change what is there.
[[nodiscard]] bool changes_mig(MigCommand::Verb verb);
[[nodiscard]] bool is_mig_verb(const std::string& verb);

// `args` without the program's name; the first is the verb. Environment names of mig-parted
// (MIG_PARTED_CONFIG_FILE …) count where a flag is not given. kUsage.
[[nodiscard]] Result<MigCommand> parse_mig_command(std::span<const std::string> args);

}  // namespace gpuslice::bin
