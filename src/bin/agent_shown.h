#pragma once

// What the HTTP server's thread shows of the agent besides its status: snapshots of T0's, and
// samples of the GPUs, which are taken when somebody looks.

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "agent/status.h"
#include "base/log.h"
#include "bin/agent_driver.h"
#include "bin/agent_web.h"
#include "bin/queue_state.h"
#include "kubelet/node_kubelet.h"
#include "ports/kube.h"

namespace gpuslice::bin {

class AgentShown {
 public:
  // T0.
  void keep(std::map<std::string, kubelet::PluginCounts> plugins, std::vector<QueueState> queues,
            std::optional<ports::KubeCounts> kube);
  // Any thread. They come on T0, and `this` is there until then.
  void sample_if_stale(WorkerDriver& driver);
  // Any thread.
  [[nodiscard]] WebState web_state(const agent::AgentStatus& status, const WorkerDriver& driver,
                                   const Log& log);

 private:
  std::mutex mutex_;  // guards what follows
  std::shared_ptr<const Samples> samples_;
  std::map<std::string, kubelet::PluginCounts> plugins_;
  std::vector<QueueState> queues_;
  std::optional<ports::KubeCounts> kube_;
};

}  // namespace gpuslice::bin
