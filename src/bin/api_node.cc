#include "bin/api_node.h"

#include <fmt/format.h>

#include <utility>

#include "agent/config_key.h"

namespace gpuslice::bin {

ApiNode::ApiNode(ports::Timers& timers, Log& log, Told told)
    : log_(log),
      labels_(timers, std::move(told.labels_applied)),
      patches_(timers, log),
      config_label_(std::move(told.config_label)) {
  if (told.mig_label)
    mig_.emplace(patches_, log, std::move(told.mig_label), std::move(told.mig_asked_again));
  if (told.not_evicted) evictor_.emplace(timers, std::move(told.not_evicted));
}

void ApiNode::begin(ports::KubeApi& kube) {
  kube_ = &kube;
  labels_.begin(kube);
  patches_.begin(kube);
  if (mig_) mig_->begin(kube);
  if (evictor_) evictor_->begin(kube);
  kube.watch_node();
}

void ApiNode::end() {
  kube_ = nullptr;
  labels_.end();
  patches_.end();
  if (mig_) mig_->end();
  if (evictor_) evictor_->end();
}

void ApiNode::record(ports::KubeEvent event) {
  if (kube_ != nullptr) kube_->record(std::move(event));
}

void ApiNode::on_node(std::optional<ports::NodeObject> node) {
  patches_.on_node(node);
  if (mig_) mig_->on_node(node);
  const bool first = node && !std::exchange(seen_, true);
  if (node && config_label_) {
    std::optional<std::string> label;
    if (const auto found = node->labels.find(std::string(agent::kConfigLabel));
        found != node->labels.end())
      label = found->second;
    if (first || config_label_said_ != label) {
      config_label_said_ = label;
      config_label_(label);
    }
  }
  labels_.on_node(std::move(node));
}

void ApiNode::on_kube_reachable(Status status) {
  trouble_ = status ? "" : status.error().message;
  if (status) {
    log_.over("kube");
    patches_.on_reachable();
    return;
  }
  log_.once(Level::kWarning, "kube",
            fmt::format("API server: {}; what was seen last stays true", status.error().message));
}

}  // namespace gpuslice::bin
