#include "bin/mig_command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <string_view>

#include "base/text.h"

namespace gpuslice::bin {
namespace {

using Verb = MigCommand::Verb;

struct VerbRow {
  std::string_view name;
  Verb verb;
  const char* says;
};
constexpr auto kVerbs = std::to_array<VerbRow>({
    {"plan", Verb::kPlan, "What apply would do, step by step, with placements, and what it keeps."},
    {"apply", Verb::kApply, "Make a label so, disturbing as little as possible."},
    {"assert", Verb::kAssert, "Is a label so? Exit code 0, or 10 when it differs."},
    {"diff", Verb::kDiff, "What differs between this node and a label."},
    {"export", Verb::kExport, "What is there, as a configuration."},
    {"checkpoint", Verb::kCheckpoint, "What is there, exactly, as a file for restore."},
    {"restore", Verb::kRestore, "Make what a checkpoint says."},
    {"generate-config", Verb::kGenerate, "A configuration of all that this hardware offers."},
});

const VerbRow* row_of(std::string_view name) {
  const auto it =
      std::find_if(kVerbs.begin(), kVerbs.end(), [&](const VerbRow& r) { return r.name == name; });
  return it == kVerbs.end() ? nullptr : &*it;
}

struct Texts {
  std::string wait, call_timeout;
};

bool takes_label(Verb verb) {
  return verb == Verb::kPlan || verb == Verb::kApply || verb == Verb::kAssert ||
         verb == Verb::kDiff;
}

void add_options(CLI::App& app, MigCommand& c, Texts& texts) {
  const Verb verb = c.verb;
  app.add_option("--root", c.root, "folder under which the driver's files lie (/)");
  app.add_option("--kubelet-dir", c.kubelet_dir, "the kubelet's folder: who holds what")
      ->capture_default_str();
  app.add_option("--state-dir", c.state_dir, "where journals are kept (/var/lib/gpuslice)");
  app.add_option("--run-dir", c.run_dir, "where locks and the agent's ledger are (/run/gpuslice)");
  app.add_option("--call-timeout", texts.call_timeout,
                 "how long the driver may take for one call (60s)");
  if (takes_label(verb)) {
    app.add_option("-f,--config-file", c.file, "mig-parted configuration, v1; - is standard input")
        ->envname("MIG_PARTED_CONFIG_FILE");
    app.add_option("-c,--selected-config", c.label,
                   "which label of it; not needed if it is the only one")
        ->envname("MIG_PARTED_SELECTED_CONFIG");
  }
  if (takes_label(verb) || verb == Verb::kRestore)
    app.add_flag("-m,--mode-only", c.mode_only, "the MIG mode alone")
        ->envname("MIG_PARTED_MODE_CHANGE_ONLY");
  if (changes_mig(verb)) {
    app.add_option("-k,--hooks-file", c.hooks_file, "commands around it")
        ->envname("MIG_PARTED_HOOKS_FILE");
    app.add_option("--wait", texts.wait, "how long to wait for holders to end, such as 10m");
    app.add_flag("--without-agent", c.without_agent,
                 "do not ask the agent of this node: pods may be given what goes");
  }
  if (verb == Verb::kApply)
    app.add_flag("-s,--skip-reset", c.skip_reset, "leave a mode that needs a reset waiting for it")
        ->envname("MIG_PARTED_SKIP_RESET");
  if (verb == Verb::kAssert)
    app.add_flag("-a,--valid-config", c.valid_config, "only read the file and look for the label")
        ->envname("MIG_PARTED_VALID_CONFIG");
  if (verb == Verb::kPlan)
    app.add_flag("--detailed-exitcode", c.detailed_exitcode, "exit code 10 when something changes");
  if (verb == Verb::kCheckpoint || verb == Verb::kRestore)
    app.add_option("-f,--checkpoint-file", c.file, "- is standard output or input")
        ->envname("MIG_PARTED_CHECKPOINT_FILE");
  if (verb == Verb::kExport) {
    c.label = "current";
    app.add_option("-l,--config-label", c.label, "name of the label")
        ->envname("MIG_PARTED_CONFIG_LABEL")
        ->capture_default_str();
    app.add_flag("--placements", c.placements, "write where each instance lies, too");
  }
  if (verb == Verb::kGenerate)
    app.add_option("-f,--output-file", c.file, "where to write; else standard output")
        ->envname("MIG_PARTED_OUTPUT_FILE");
  if (verb == Verb::kExport || verb == Verb::kGenerate)
    app.add_option("-o,--output-format", c.output, "yaml or json")
        ->envname("MIG_PARTED_OUTPUT_FORMAT")
        ->check(CLI::IsMember({"yaml", "json"}));
  else
    app.add_option("-o,--output", c.output, "text, json or yaml")
        ->check(CLI::IsMember({"text", "json", "yaml"}));
  app.add_flag("-d,--debug")->description("taken for mig-parted's sake; nothing is hidden here");
}

Error unknown_word(const CLI::App& app, const std::string& verb, const std::string& word) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  const std::vector<std::string_view> candidates(names.begin(), names.end());
  const auto near = nearest(word.substr(0, word.find('=')), candidates);
  return {Code::kUsage,
          near
              ? fmt::format("{}: unknown flag '{}'; did you mean {}?", verb, word, *near)
              : fmt::format("{}: '{}' is not understood; see gpuslice {} --help", verb, word, verb),
          {}};
}

Status duration(const std::string& verb, const char* flag, const std::string& text, Duration& out) {
  if (text.empty()) return {};
  const auto value = parse_duration_ns(text);
  if (!value)
    return fail(Code::kUsage, "{}: {} {}: write a time such as 90s or 10m", verb, flag, text);
  out = Duration(*value);
  return {};
}

}  // namespace

bool changes_mig(Verb verb) { return verb == Verb::kApply || verb == Verb::kRestore; }

bool is_mig_verb(const std::string& verb) { return row_of(verb) != nullptr; }

Result<MigCommand> parse_mig_command(std::span<const std::string> args) {
  const VerbRow* row = row_of(args.front());
  MigCommand command;
  command.verb = row->verb;
  const std::string verb(row->name);
  CLI::App app{row->says, "gpuslice " + verb};
  app.allow_extras();
  Texts texts;
  add_options(app, command, texts);
  std::vector<std::string> reversed(args.rbegin(), args.rend() - 1);  // as CLI11 wants them
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    command.verb = Verb::kHelp;
    command.help = app.help();
    return command;
  } catch (const CLI::ParseError& error) {
    return fail(Code::kUsage, "{}: {}; see gpuslice {} --help", verb, error.what(), verb);
  }
  if (const std::vector<std::string> rest = app.remaining(); !rest.empty())
    return std::unexpected(unknown_word(app, verb, rest.front()));
  TRY(duration(verb, "--wait", texts.wait, command.wait));
  TRY(duration(verb, "--call-timeout", texts.call_timeout, command.call_timeout));
  if (takes_label(command.verb) && command.file.empty())
    return fail(Code::kUsage, "{}: which configuration? gpuslice {} -f FILE -c LABEL", verb, verb);
  if (command.verb == Verb::kRestore && command.file.empty())
    return fail(Code::kUsage, "restore: which checkpoint? gpuslice restore -f FILE");
  return command;
}

}  // namespace gpuslice::bin
