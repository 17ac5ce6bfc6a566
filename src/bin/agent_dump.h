#pragma once

// All that the process's parts know of themselves, gathered for `agent status` and /metrics. T0.

#include <string>
#include <vector>

#include "agent/agent.h"
#include "bin/agent_door.h"
#include "bin/agent_driver.h"
#include "bin/agent_setup.h"
#include "bin/agent_web.h"
#include "bin/api_node.h"
#include "bin/queue_state.h"
#include "kube/node_kube.h"
#include "kubelet/node_kubelet.h"

namespace gpuslice::bin {

struct AgentParts {
  const AgentSetup& setup;
  const host::EventLoop& loop;
  const WorkerDriver& driver;
  const agent::Agent& agent;
  const kubelet::NodeKubelet& kubelet;
  ports::HostFiles& files;
  const AgentWeb* web = nullptr;  // null where there is none, as what follows
  const AgentDoor* door = nullptr;
  const ApiNode* api_node = nullptr;
  const kube::NodeKube* kube = nullptr;
  Duration uptime{};
};

[[nodiscard]] std::vector<QueueState> queue_states(const AgentParts& parts);
[[nodiscard]] std::string dump_status(const AgentParts& parts);

}  // namespace gpuslice::bin
