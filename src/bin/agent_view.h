#pragma once

// The agent's status as metric families and as the page. Pure.

#include <map>
#include <optional>
#include <string>

#include "agent/status.h"
#include "bin/agent_driver.h"
#include "bin/agent_web.h"
#include "bin/queue_state.h"
#include "kubelet/node_kubelet.h"
#include "ports/kube.h"

namespace gpuslice::bin {

// Samples that are older say nothing of now: they are from the last time that somebody looked.
inline constexpr Duration kSamplesShown = std::chrono::seconds(15);

struct View {
  const agent::AgentStatus& status;
  const Samples* samples = nullptr;  // null before the first look
  const std::map<std::string, kubelet::PluginCounts>& plugins;
  std::string version;
  const std::vector<QueueState>& queues;
  std::optional<ports::KubeCounts> kube;  // nothing: the API server is not asked
  uint64_t log_left_out = 0;              // lines that were said already
  double driver_busy_seconds = 0;         // how long the driver has not answered
  MonotonicTime now{};
};

[[nodiscard]] WebState make_web_state(const View& view);

}  // namespace gpuslice::bin
