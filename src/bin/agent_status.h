#pragma once

// `gpuslice agent status`: all of an agent's state as one JSON document (docs/formats.md), bounded.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/status.h"
#include "bin/places.h"
#include "bin/queue_state.h"
#include "kubelet/node_kubelet.h"
#include "ports/kube.h"

namespace gpuslice::bin {

// Devices, pods and ids of one list; what is beyond is counted and left out.
inline constexpr size_t kMaxStatusRows = 10'000;

struct KubeView {
  std::string node;
  bool seen = false;    // the Node, once
  std::string trouble;  // "" while it answers
  ports::KubeCounts counts;
};

struct StatusView {
  std::string version;
  int pid = 0;
  Duration uptime{};
  const agent::AgentStatus& status;
  const agent::AgentDetails& details;
  const Places& places;
  std::vector<std::string> journals;  // GPUs that have one
  const std::map<std::string, kubelet::PluginCounts>& plugins;
  const std::vector<QueueState>& queues;
  Duration driver_busy{};
  std::string config_key;        // with --config-dir
  std::string labels_to;         // "node", "nfd-file", "stdout" or "nowhere"
  std::optional<KubeView> kube;  // nothing: the API server is not asked
  std::string without_kube;      // … and why, where that is worth a word
};

// In one line.
[[nodiscard]] std::string status_json(const StatusView& view);

}  // namespace gpuslice::bin
