#pragma once

// From the command line and the environment to what the agent is built from. Reads folders, changes
// nothing.

#include <optional>
#include <string>

#include "agent/cdi_keeper.h"
#include "agent/config_keeper.h"
#include "agent/health.h"
#include "agent/label_keeper.h"
#include "agent/partition.h"
#include "base/result.h"
#include "base/time.h"
#include "bin/agent_flags.h"
#include "bin/config_folder.h"
#include "bin/places.h"
#include "kube/account.h"

namespace gpuslice::bin {

struct AgentSetup {
  std::string root;                 // where the driver's files are, for us
  std::string kubelet_dir;          // absolute
  std::string registration_socket;  // absolute, or "" for the usual one
  agent::ConfigSource config;
  std::optional<agent::ConfigFolderOptions>
      config_folder;                     // --config-dir: config.path is what it says
  std::optional<std::string> host_root;  // --root, as the host has it: "" for "/"
  agent::CdiOptions cdi;                 // but for install_hook
  bool install_hook = false;
  bool require_distinct = false;
  agent::LabelsTo labels_to = agent::LabelsTo::kNowhere;
  agent::PartitionOptions partition;
  agent::HealthOptions health;
  bool health_events = false;  // with `kube`: changes of health are told as Events of the Node
  Duration driver_patience{};  // before /healthz fails; zero: for ever
  bool changes_mig = true;     // the role mig
  bool evicts = false;         // pods that are in the way of a change
  Places places;
  std::optional<kube::Account> kube;  // where something is asked of the API server
  std::string node;                   // the own Node's name, with `kube`
  std::string without_kube;           // why the API server is not asked although it could choose
};

// kUsage or kInvalidConfig when what was said does not hold together.
[[nodiscard]] Result<AgentSetup> make_setup(const AgentCommand& command, char** environment);

}  // namespace gpuslice::bin
