#include "bin/node_labels.h"

#include <utility>

namespace gpuslice::bin {

void NodeLabels::want(const Labels& labels) {
  wanted_ = labels;
  go();
}

bool NodeLabels::shown() const {
  for (const auto& [key, value] : *wanted_) {
    const auto found = node_->labels.find(key);
    if (found == node_->labels.end() || found->second != value) return false;
  }
  return true;
}

void NodeLabels::go() {
  if (kube_ == nullptr || !wanted_ || !node_ || under_way_) return;
  if (sent_ == wanted_) {
    if (shown() || pause_->active()) return;
    // Applied, and not there: taken by somebody, or the node's news is older than our change.
    pause_->after(kLabelsPause, [this] {
      if (wanted_ && node_ && !shown()) sent_.reset();
      go();
    });
    return;
  }
  under_way_ = true;
  sent_ = wanted_;
  kube_->apply_labels({*wanted_, true});
}

void NodeLabels::on_node(std::optional<ports::NodeObject> node) {
  // Another node of this name knows nothing of us.
  if (!node || (node_ && node_->uid != node->uid)) sent_.reset();
  node_ = std::move(node);
  go();
}

void NodeLabels::on_labels_applied(const Status& status) {
  under_way_ = false;
  applied_(status);
  if (status) return go();
  sent_.reset();
  pause_->after(kLabelsPause, [this] { go(); });
}

}  // namespace gpuslice::bin
