#include "bin/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "base/text.h"

namespace gpuslice::bin {
namespace {

constexpr auto kVerbs = std::to_array<std::string_view>(
    {"agent", "plan", "apply", "assert", "diff", "export", "checkpoint", "restore",
     "generate-config", "list", "smi", "hook", "version", "help"});

// Those that change MIG, or say what would change: bin/mig_command.h reads them.
constexpr auto kMigVerbs = std::to_array<std::string_view>(
    {"plan", "apply", "assert", "diff", "export", "checkpoint", "restore", "generate-config"});

// Verbs of the command-line contract that this version does not have.
constexpr auto kLaterVerbs = std::to_array<std::string_view>({"explain", "lint", "top", "doctor"});

constexpr std::string_view kHelp = R"(gpuslice shares the NVIDIA GPUs of a Kubernetes node.

usage: gpuslice VERB [FLAGS]

  agent                 the node daemon: device plugin, health, metrics, page (gpuslice agent --help)
  agent status          all state of the agent that runs on this node (-o json)
  plan -f FILE -c LABEL   what apply would do to the MIG layout, step by step
  apply -f FILE -c LABEL  make it so, disturbing as little as possible
  assert, diff          is it so, and what differs
  export, checkpoint, restore, generate-config
                        the layout as a file, and back
  list gpus|devices|profiles|placements|layouts|instances
                        what is there, and what the kubelet is offered
  smi                   nvidia-smi's habits: -L, --query-gpu=…, the table, mig -lgip|-cgi|…, -mig 0|1,
                        --gpu-reset (gpuslice smi --help)
  hook                  what CDI specs let a container runtime run
  version               what this is

Exit codes: 0 done · 1 internal error · 2 usage · 3 configuration invalid · 4 impossible on this hardware ·
5 in use · 6 reset or reboot needed · 7 failed, nothing lost · 10 differs
)";

// One-letter flags mean different things in the programs that gpuslice takes the place of.
struct OneLetter {
  char letter;
  std::string_view long_name;
};
constexpr auto kOneLetters = std::to_array<OneLetter>({
    {'c', "--config"},
    {'f', "--mig-config"},
    {'l', "--mig-label"},
    {'n', "--node-name"},
    {'o', "--output-file"},
});

// Flags of GPU feature discovery about the API server; no file sets them.
constexpr auto kKubeFlags = std::to_array<std::string_view>(
    {"kubeconfig", "kube-api-qps", "kube-api-burst", "namespace", "node-name", "pod-name"});

// "--driver-root,--nvidia-driver-root"
std::string option_names(const config::FlagRow& row) {
  std::string names;
  for (const std::string_view name : row.options) {
    if (name.empty()) continue;
    if (!names.empty()) names += ',';
    names += "--";
    names += name;
  }
  return names;
}

void add_flags(CLI::App& app, AgentCommand& agent) {
  app.add_option("--root", agent.root, "folder under which the driver's files lie (/)");
  app.add_option("--kubelet-dir", agent.kubelet_dir, "the kubelet's folder")->capture_default_str();
  app.add_option("--listen", agent.listen, "HOST:PORT of health, metrics and page; \"\" for none")
      ->capture_default_str();
  app.add_option("--config", agent.config_file, "device-plugin configuration, v1");
  app.add_option("--config-dir", agent.config_dir,
                 "folder of a mounted ConfigMap; the node's label nvidia.com/device-plugin.config "
                 "names the key");
  app.add_option("--default-config", agent.default_config,
                 "the key where the node has no such label (default, or the only one)");
  app.add_option("--config-compat", agent.config_compat,
                 "strict, or nvidia: read as its plugin does")
      ->check(CLI::IsMember({"strict", "nvidia"}))
      ->capture_default_str();
  app.add_option("--mig-config", agent.mig_config, "mig-parted configuration, v1");
  app.add_option("--mig-label", agent.mig_label, "which label of it");
  app.add_option("--mig-label-file", agent.mig_label_file,
                 "a file that holds the label; written again, it is tried again");
  app.add_option("--mig-wait", agent.mig_wait,
                 "how long a change waits for pods that hold what must go, such as 10m (0s)");
  app.add_flag("--mig-evict", agent.mig_evict,
               "evict pods that hold what must go, through the API server; waits 5m where "
               "--mig-wait says nothing else");
  app.add_option(
      "--state-dir", agent.state_dir,
      "where journals and the last good configuration are kept (/var/lib/gpuslice; below "
      "a simulated node's root)");
  app.add_option("--run-dir", agent.run_dir,
                 "where the ledger of this boot and locks are kept (/run/gpuslice; likewise)");
  app.add_option("--driver-patience", agent.driver_patience,
                 "how long the driver may take for one answer before /healthz fails; 0s: for ever")
      ->capture_default_str();
  app.add_flag("--check", agent.check,
               "look whether all that it needs is there, a line each, and end");
  app.add_option("--log-level", agent.log_level, "debug, info, warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
  app.add_option("--log-format", agent.log_form, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  app.add_option("--roles", agent.roles, "what to do: plugin,labels,mig,metrics")
      ->delimiter(',')
      ->check(CLI::IsMember({"plugin", "labels", "mig", "metrics"}));
  app.add_option("--labels-to", agent.labels_to,
                 "where the node's labels go: nfd-file (see --output-file), stdout, node")
      ->check(CLI::IsMember({"node", "nfd-file", "stdout"}));
  app.add_option("--cdi-extra-mount", agent.cdi_extra_mounts,
                 "HOST:CONTAINER[:rw], in each CDI spec");
  app.add_option("--cdi-dir", agent.cdi_dir, "where CDI specs are written (/var/run/cdi)");
  app.add_option("--cdi-hook-path", agent.cdi_hook_path,
                 "gpuslice on the host, for CDI hooks (a copy below --state-dir is made)");
  app.add_flag("--require-distinct", agent.require_distinct,
               "several replicas in one container are of several devices, or refused");
  app.add_flag("--no-kube", agent.no_kube, "without the API server");
  app.add_option("--events", agent.events,
                 "Events of the Node when a GPU's health changes: on, off, or auto: where the API "
                 "server is talked to anyway")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->capture_default_str();
  for (const std::string_view name : kKubeFlags) {
    app.add_option("--" + std::string(name), agent.kube[std::string(name)], "of the API server")
        ->group("as NVIDIA's");
  }
  for (const config::FlagRow& row : config::flag_rows()) {
    std::string& value = agent.options[row.flag];
    const std::string help = row.key.empty() ? "" : fmt::format("as {} in the file", row.key);
    CLI::Option* option = row.type == config::FlagType::kBool
                              ? app.add_flag(option_names(row), value, help)
                              : app.add_option(option_names(row), value, help);
    option->group("as NVIDIA's");
    // May be given several times, as of the programs that it comes from.
    if (row.type == config::FlagType::kChoices || row.type == config::FlagType::kList)
      option->multi_option_policy(CLI::MultiOptionPolicy::Join)->delimiter(',');
  }
}

std::vector<std::string> long_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

Error unknown_argument(const CLI::App& app, const std::string& argument) {
  if (argument.size() >= 2 && argument[0] == '-' && argument[1] != '-') {
    const auto known =
        std::find_if(kOneLetters.begin(), kOneLetters.end(),
                     [&](const OneLetter& one) { return one.letter == argument[1]; });
    const std::string hint = known == kOneLetters.end()
                                 ? "write the long name (gpuslice agent --help)"
                                 : fmt::format("write the long name, perhaps {}", known->long_name);
    return {Code::kUsage,
            fmt::format("agent: flag '{}': one-letter flags mean different things in the programs "
                        "that gpuslice takes the place of; {}",
                        argument, hint),
            {}};
  }
  if (!argument.starts_with("-")) {
    return {
        Code::kUsage,
        fmt::format("agent: '{}': the agent takes flags only; see gpuslice agent --help", argument),
        {}};
  }
  const std::string name = argument.substr(0, argument.find('='));
  const std::vector<std::string> names = long_names(app);
  const std::vector<std::string_view> candidates(names.begin(), names.end());
  const auto near = nearest(name, candidates);
  return {Code::kUsage,
          near ? fmt::format("agent: unknown flag '{}'; did you mean {}?", name, *near)
               : fmt::format("agent: unknown flag '{}'; see gpuslice agent --help", name),
          {}};
}

Result<CommandLine> parse_agent(std::span<const std::string> args) {
  CommandLine line;
  line.verb = CommandLine::Verb::kAgent;
  CLI::App app{"The node daemon: device plugin, health, metrics and a page.", "gpuslice agent"};
  app.allow_extras();
  add_flags(app, line.agent);
  std::vector<std::string> reversed(args.rbegin(), args.rend());  // as CLI11 wants them
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    line.verb = CommandLine::Verb::kHelp;
    line.help = app.help();
    return line;
  } catch (const CLI::ParseError& error) {
    return fail(Code::kUsage, "agent: {}; see gpuslice agent --help", error.what());
  }
  if (const std::vector<std::string> rest = app.remaining(); !rest.empty()) {
    return std::unexpected(unknown_argument(app, rest.front()));
  }
  // Only what was written: an absent flag must not hide the environment or the file.
  for (const config::FlagRow& row : config::flag_rows()) {
    if (app.get_option("--" + std::string(row.options[0]))->count() == 0) {
      line.agent.options.erase(row.flag);
    }
  }
  std::erase_if(line.agent.kube, [](const auto& flag) { return flag.second.empty(); });
  return line;
}

Error unknown_verb(const std::string& verb) {
  if (std::find(kLaterVerbs.begin(), kLaterVerbs.end(), verb) != kLaterVerbs.end()) {
    return {Code::kUsage,
            fmt::format("gpuslice: this version has no verb '{}'; see gpuslice --help", verb),
            {}};
  }
  const auto near = nearest(verb, kVerbs);
  return {Code::kUsage,
          near ? fmt::format("gpuslice: unknown verb '{}'; did you mean '{}'?", verb, *near)
               : fmt::format("gpuslice: unknown verb '{}'; see gpuslice --help", verb),
          {}};
}

}  // namespace

Result<CommandLine> parse_command_line(std::span<const std::string> args) {
  CommandLine line;
  if (args.empty()) {
    return fail(
        Code::kUsage,
        "gpuslice: a verb is missing: agent, plan, apply, list, smi …; see gpuslice --help");
  }
  const std::string& verb = args.front();
  const std::span<const std::string> rest = args.subspan(1);
  if (verb == "help" || verb == "--help" || verb == "-h") {
    line.help = kHelp;
    return line;
  }
  if (verb == "version" || verb == "--version") {
    line.verb = CommandLine::Verb::kVersion;
    return line;
  }
  if (verb == "agent" && !rest.empty() && rest.front() == "status") {
    line.verb = CommandLine::Verb::kAgentStatus;
    line.args.assign(rest.begin() + 1, rest.end());
    return line;
  }
  if (verb == "agent") return parse_agent(rest);
  if (verb == "list" || verb == "smi" || verb == "hook") {
    line.verb = verb == "list"  ? CommandLine::Verb::kList
                : verb == "smi" ? CommandLine::Verb::kSmi
                                : CommandLine::Verb::kHook;
    line.args.assign(rest.begin(), rest.end());
    return line;
  }
  // mig-parted takes this one before the verb.
  if ((verb == "-d" || verb == "--debug") && !rest.empty() &&
      std::find(kMigVerbs.begin(), kMigVerbs.end(), rest.front()) != kMigVerbs.end())
    return parse_command_line(rest);
  if (std::find(kMigVerbs.begin(), kMigVerbs.end(), verb) != kMigVerbs.end()) {
    line.verb = CommandLine::Verb::kMig;
    line.args.assign(args.begin(), args.end());
    return line;
  }
  return std::unexpected(unknown_verb(verb));
}

}  // namespace gpuslice::bin
