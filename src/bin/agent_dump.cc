#include "bin/agent_dump.h"

#include <unistd.h>

#include <algorithm>

#include "bin/agent_status.h"
#include "bin/version.h"
#include "mig/change.h"

namespace gpuslice::bin {
namespace {

const char* labels_name(agent::LabelsTo to) {
  switch (to) {
    case agent::LabelsTo::kNode:
      return "node";
    case agent::LabelsTo::kNfdFile:
      return "nfd-file";
    case agent::LabelsTo::kStdout:
      return "stdout";
    case agent::LabelsTo::kNowhere:
      return "nowhere";
  }
  return "nowhere";
}

}  // namespace

std::vector<QueueState> queue_states(const AgentParts& parts) {
  const agent::AgentDetails details = parts.agent.details();
  const std::shared_ptr<const agent::AgentStatus> status = parts.agent.status();
  std::vector<QueueState> out = {
      {"event_loop", parts.loop.posted(), host::EventLoop::kMaxPosted, parts.loop.posted_dropped()},
      {"driver", parts.driver.waiting(), host::Worker::kMaxWaiting, parts.driver.refused()},
      {"kubelet_calls", parts.kubelet.calls().under_way(), kubelet::kMaxCallsUnderWay,
       parts.kubelet.calls().refused()},
      {"ledger", details.ledger, agent::AllocationDesk::kMaxLedger, status->ledger_forgotten},
      {"withdrawals", details.withdrawals.size(), agent::kMaxWithdrawals,
       status->withdrawals_refused},
  };
  for (const auto& [resource, counts] : parts.kubelet.counts()) {
    out.push_back(
        {"streams " + resource, counts.streams, kubelet::kMaxStreams, counts.refused_streams});
    out.push_back({"connections " + resource, counts.connections, kubelet::kMaxConnections,
                   counts.refused_connections});
  }
  if (parts.web != nullptr)
    out.push_back({"http_connections", parts.web->connections(), http::Limits{}.connections,
                   parts.web->refused_connections()});
  if (parts.door != nullptr) {
    const host::LocalCounts counts = parts.door->counts();
    out.push_back({"local_connections", counts.connections, host::kMaxLocalConnections,
                   counts.refused + counts.cut});
  }
  if (parts.kube != nullptr) {
    const ports::KubeCounts counts = parts.kube->counts();
    out.push_back(
        {"kube_changes", counts.changes_under_way, ports::kMaxChangesUnderWay, counts.refused});
  }
  return out;
}

std::string dump_status(const AgentParts& parts) {
  const std::shared_ptr<const agent::AgentStatus> status = parts.agent.status();
  const agent::AgentDetails details = parts.agent.details();
  const std::vector<QueueState> queues = queue_states(parts);
  const auto plugins = parts.kubelet.counts();
  StatusView view{.version = std::string(kVersion),
                  .pid = ::getpid(),
                  .uptime = parts.uptime,
                  .status = *status,
                  .details = details,
                  .places = parts.setup.places,
                  .journals = {},
                  .plugins = plugins,
                  .queues = queues,
                  .driver_busy = parts.driver.busy_for(),
                  .config_key = {},
                  .labels_to = labels_name(parts.setup.labels_to),
                  .kube = std::nullopt,
                  .without_kube = parts.setup.without_kube};
  if (auto left = mig::journals_left(parts.files, parts.setup.places.journals()))
    view.journals = std::move(*left);
  if (parts.setup.config_folder)
    view.config_key = details.config_file.substr(details.config_file.rfind('/') + 1);
  if (parts.kube != nullptr && parts.api_node != nullptr)
    view.kube = KubeView{parts.setup.node, parts.api_node->seen(), parts.api_node->trouble(),
                         parts.kube->counts()};
  return status_json(view);
}

}  // namespace gpuslice::bin
