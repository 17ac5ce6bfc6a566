#include "bin/agent_setup.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/text.h"

namespace gpuslice::bin {
namespace {

namespace fs = std::filesystem;
using config::Flag;

std::string absolute(const std::string& path) {
  const fs::path whole = fs::absolute(path);
  // "link/../x" is not "x": what lies behind a link is for the kernel to say.
  return path.find("..") == std::string::npos ? whole.lexically_normal().string() : whole.string();
}

config::Said said_by(const AgentCommand& command, char** environment) {
  config::Said said;
  said.options = command.options;
  for (char** entry = environment; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const size_t equals = text.find('=');
    if (equals == std::string_view::npos) continue;
    said.environment.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return said;
}

// What was said outside the file of one flag; "" when nothing was.
std::string said_of(const config::Said& said, Flag flag) {
  if (const auto option = said.options.find(flag); option != said.options.end()) {
    return option->second;
  }
  for (const std::string_view name : config::flag_row(flag).environment) {
    const auto variable = said.environment.find(std::string(name));
    if (!name.empty() && variable != said.environment.end() && !variable->second.empty()) {
      return variable->second;
    }
  }
  return "";
}

// --root, or what NVIDIA's plugin would take: the driver root, which a container sees at another
// place.
std::string driver_root(const AgentCommand& command, const config::Said& said) {
  if (!command.root.empty()) return absolute(command.root);
  const std::string host = said_of(said, Flag::kNvidiaDriverRoot);
  if (host.empty() || host == "/") return "/";
  std::string here = said_of(said, Flag::kContainerDriverRoot);
  if (here.empty()) here = config::flag_row(Flag::kContainerDriverRoot).by_default;
  return ::access(here.c_str(), R_OK) == 0 ? here : host;
}

// How long evicted pods may take to end where nothing else is said: ten grace periods.
constexpr Duration kEvictionPatience = std::chrono::minutes(5);

// For people who want back what another program changed.
std::string how_to_ask_again(const agent::MigSource& source) {
  if (source.label_from_api)
    return "to have it back, remove the node's label nvidia.com/mig.config.state";
  if (!source.label_path.empty()) return "to have it back, write " + source.label_path + " again";
  return "to have it back, send the agent SIGHUP";
}

bool has_role(const AgentCommand& command, const char* role) {
  return command.roles.empty() ||
         std::find(command.roles.begin(), command.roles.end(), role) != command.roles.end();
}

Result<agent::PartitionOptions> partition_options(const AgentCommand& command,
                                                  const Places& places) {
  agent::PartitionOptions options;
  const bool label = !command.mig_label.empty() || !command.mig_label_file.empty();
  if (label && command.mig_config.empty())
    return fail(Code::kUsage,
                "agent: --mig-label{} names a label of a MIG configuration, and there is none: add "
                "--mig-config FILE",
                command.mig_label.empty() ? "-file" : "");
  if (!command.mig_label.empty() && !command.mig_label_file.empty())
    return fail(Code::kUsage, "agent: --mig-label and --mig-label-file: give one of them");
  if (!command.mig_config.empty()) options.source.config_path = absolute(command.mig_config);
  options.source.label = command.mig_label;
  if (!command.mig_label_file.empty()) options.source.label_path = absolute(command.mig_label_file);
  options.source.state_dir = places.state_dir;
  options.journal_folder = places.journals();
  if (!command.mig_wait.empty()) {
    const auto wait = parse_duration_ns(command.mig_wait);
    if (!wait)
      return fail(Code::kUsage, "agent: --mig-wait {}: write a time such as 90s or 10m",
                  command.mig_wait);
    options.wait = Duration(*wait);
  } else if (command.mig_evict) {
    options.wait = kEvictionPatience;
  }
  if (command.mig_evict && command.mig_config.empty())
    return fail(Code::kUsage,
                "agent: --mig-evict: there is no MIG configuration to evict pods for: add "
                "--mig-config FILE");
  return options;
}

Status check_roles(const AgentCommand& command) {
  if (has_role(command, "plugin")) return {};
  return fail(Code::kUsage,
              "agent: --roles: plugin is missing, and labels tell what it serves, MIG changes what "
              "it offers; write --roles plugin,{}, or leave --roles out",
              fmt::join(command.roles, ","));
}

// Flags of which one would take back, or never use, what another says.
Status check_pairs(const AgentCommand& command) {
  if (!command.config_file.empty() && !command.config_dir.empty())
    return fail(Code::kUsage, "agent: --config and --config-dir: give one of them");
  if (!command.default_config.empty() && command.config_dir.empty())
    return fail(Code::kUsage,
                "agent: --default-config {} names a key of a mounted ConfigMap, and there is none: "
                "add --config-dir DIR",
                command.default_config);
  if (!command.mig_wait.empty() && command.mig_config.empty())
    return fail(Code::kUsage,
                "agent: --mig-wait: there is no MIG configuration whose changes could wait: add "
                "--mig-config FILE");
  if (!command.labels_to.empty() && !has_role(command, "labels"))
    return fail(Code::kUsage,
                "agent: --labels-to {} and --roles without labels: only one of them can hold",
                command.labels_to);
  const auto socket = command.options.find(Flag::kKubeletSocket);
  if (socket != command.options.end() && socket->second.empty())
    return fail(Code::kUsage,
                "agent: --kubelet-socket \"\": an agent that registers with no kubelet serves "
                "nobody; name the socket, or leave the flag out for the one in --kubelet-dir");
  return {};
}

agent::LabelsTo labels_to(const AgentCommand& command) {
  if (command.labels_to == "nfd-file") return agent::LabelsTo::kNfdFile;
  if (command.labels_to == "stdout") return agent::LabelsTo::kStdout;
  if (command.labels_to == "node") return agent::LabelsTo::kNode;
  return agent::LabelsTo::kNowhere;
}

std::string variable(char** environment, std::string_view name) {
  for (char** entry = environment; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (text.starts_with(name) && text.substr(name.size()).starts_with('='))
      return std::string(text.substr(name.size() + 1));
  }
  return {};
}

// A flag about the API server, else its variable.
std::string said_of_kube(const AgentCommand& command, const std::string& flag, char** environment,
                         std::string_view name) {
  const auto said = command.kube.find(flag);
  return said != command.kube.end() ? said->second : variable(environment, name);
}

// The account that was named, or the pod's own.
Result<kube::Account> account(const std::string& kubeconfig, char** environment) {
  if (!kubeconfig.empty()) return kube::load_kubeconfig(kubeconfig);
  return kube::in_cluster_account(variable(environment, "KUBERNETES_SERVICE_HOST"),
                                  variable(environment, "KUBERNETES_SERVICE_PORT"),
                                  std::string(kube::kServiceAccountDir));
}

// What is asked of the API server: labels that tell, where that was said, and labels that choose,
// where there is something to choose from and an account.
Status set_kube(const AgentCommand& command, char** environment, AgentSetup& setup) {
  const char* const teller = setup.labels_to == agent::LabelsTo::kNode ? "--labels-to node"
                             : command.events == "on"                  ? "--events on"
                                                                       : nullptr;
  const bool tells = teller != nullptr;
  const agent::MigSource& mig = setup.partition.source;
  const bool chooses_mig =
      setup.changes_mig && mig.any() && mig.label.empty() && mig.label_path.empty();
  const bool chooses = chooses_mig || setup.config_folder.has_value();
  const bool needed = tells || command.mig_evict;
  if (command.no_kube && tells)
    return fail(Code::kUsage, "agent: {} and --no-kube: only one of them can hold", teller);
  if (command.no_kube && command.mig_evict)
    return fail(Code::kUsage, "agent: --mig-evict and --no-kube: only one of them can hold");
  if (command.no_kube || (!needed && !chooses)) return {};
  const std::string kubeconfig = said_of_kube(command, "kubeconfig", environment, "KUBECONFIG");
  auto found = account(kubeconfig, environment);
  if (!found && !needed && kubeconfig.empty()) {
    // No pod, or one without an account: a node without the API server.
    setup.without_kube = found.error().message;
    return {};
  }
  TRY_ASSIGN(setup.kube, std::move(found));
  setup.node = said_of_kube(command, "node-name", environment, "NODE_NAME");
  if (setup.node.empty())
    return fail(Code::kUsage,
                "agent: {}: which node this is is not known; write --node-name, or give NODE_NAME "
                "from the pod's spec.nodeName{}",
                tells               ? teller
                : command.mig_evict ? "--mig-evict"
                : chooses_mig       ? "--mig-config with the API server"
                                    : "--config-dir with the API server",
                needed ? "" : "; without the API server: --no-kube");
  setup.health_events = command.events != "off";
  setup.partition.source.label_from_api = chooses_mig;
  setup.evicts = command.mig_evict;
  if (setup.config_folder) setup.config_folder->by_label = true;
  return {};
}

// CDI specs are the host's: with --root, whose driver files are the host's too, they lie below it.
Status set_cdi(const AgentCommand& command, AgentSetup& setup) {
  if (!command.root.empty()) setup.host_root = setup.root == "/" ? "" : setup.root;
  setup.cdi.folder = absolute(
      command.cdi_dir.empty() ? setup.host_root.value_or("") + "/var/run/cdi" : command.cdi_dir);
  setup.install_hook = command.cdi_hook_path.empty();
  setup.cdi.hook = setup.install_hook ? setup.places.state_dir + "/bin/gpuslice"
                                      : absolute(command.cdi_hook_path);
  for (const std::string& mount : command.cdi_extra_mounts) {
    TRY_ASSIGN(agent::ExtraMount extra, agent::parse_extra_mount(mount));
    setup.cdi.extra_mounts.push_back(std::move(extra));
  }
  return {};
}

}  // namespace

Result<AgentSetup> make_setup(const AgentCommand& command, char** environment) {
  TRY(check_roles(command));
  TRY(check_pairs(command));
  AgentSetup setup;
  setup.config.said = said_by(command, environment);
  TRY(config::check_said(setup.config.said));
  setup.config.compat =
      command.config_compat == "nvidia" ? config::Compat::kNvidia : config::Compat::kStrict;
  setup.config.path = command.config_file;
  if (setup.config.path.empty() && !command.config_dir.empty()) {
    const std::string by_default = command.default_config.empty()
                                       ? variable(environment, "DEFAULT_CONFIG")
                                       : command.default_config;
    TRY_ASSIGN(agent::Fallbacks fallbacks,
               agent::parse_fallbacks(variable(environment, "FALLBACK_STRATEGIES")));
    setup.config_folder = agent::ConfigFolderOptions{absolute(command.config_dir), by_default,
                                                     false, std::move(fallbacks)};
    setup.config.follows = true;
  } else if (setup.config.path.empty()) {
    setup.config.path = said_of(setup.config.said, Flag::kConfigFile);
  }
  if (!setup.config.path.empty()) setup.config.path = absolute(setup.config.path);
  setup.root = driver_root(command, setup.config.said);
  setup.places = places_below(setup.root, command.state_dir, command.run_dir);
  setup.config.last_good_path = setup.places.state_dir + "/last-good-config.yaml";
  TRY_ASSIGN(setup.partition, partition_options(command, setup.places));
  setup.health = {variable(environment, "DP_DISABLE_HEALTHCHECKS"),
                  variable(environment, "DP_ENABLE_HEALTHCHECKS")};
  const auto patience = parse_duration_ns(command.driver_patience);
  if (!patience)
    return fail(Code::kUsage, "agent: --driver-patience {}: write a time such as 90s or 10m",
                command.driver_patience);
  setup.driver_patience = Duration(*patience);
  setup.changes_mig = has_role(command, "mig");
  setup.registration_socket = said_of(setup.config.said, Flag::kKubeletSocket);
  if (!setup.registration_socket.empty()) {
    setup.registration_socket = absolute(setup.registration_socket);
  }
  setup.kubelet_dir = absolute(command.kubelet_dir);
  while (setup.kubelet_dir.size() > 1 && setup.kubelet_dir.ends_with('/')) {
    setup.kubelet_dir.pop_back();
  }
  setup.labels_to = labels_to(command);
  TRY(set_kube(command, environment, setup));
  setup.partition.how_to_ask_again = how_to_ask_again(setup.partition.source);
  // Without a label to wait for, a start that cannot choose says so at once.
  if (setup.config_folder && !setup.config_folder->by_label) {
    TRY_ASSIGN(setup.config.path, choose_file(*setup.config_folder, ""));
  }
  TRY(set_cdi(command, setup));
  setup.require_distinct = command.require_distinct;
  return setup;
}

}  // namespace gpuslice::bin
