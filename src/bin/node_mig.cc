#include "bin/node_mig.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace gpuslice::bin {
namespace {

constexpr std::string_view kDeploy = "nvidia.com/gpu.deploy.";
constexpr std::string_view kPaused = "paused-for-mig-change";
constexpr auto kPausable = std::to_array<std::string_view>(
    {"client", "dcgm", "dcgm-exporter", "device-plugin", "gpu-feature-discovery", "nvsm"});

std::string value_of(const std::map<std::string, std::string>& values, std::string_view key) {
  const auto found = values.find(std::string(key));
  return found == values.end() ? std::string() : found->second;
}

std::string request_text(const ports::MigStatus& status) {
  return status.label.empty() ? "" : status.label + " " + status.request;
}

}  // namespace

std::vector<std::string> paused_labels(const std::map<std::string, std::string>& labels) {
  std::vector<std::string> found;
  for (const std::string_view what : kPausable) {
    std::string key = fmt::format("{}{}", kDeploy, what);
    if (value_of(labels, key) == kPaused) found.push_back(std::move(key));
  }
  return found;
}

void NodeMig::show(const ports::MigStatus& status) {
  status_ = status;
  write();
  tell();
}

void NodeMig::on_node(const std::optional<ports::NodeObject>& node) {
  if (!node) {
    uid_.clear();
    return;
  }
  // It showed what it should, and now nothing.
  const std::string shown = value_of(node->labels, kMigStateLabel);
  const std::string before = std::exchange(shown_, shown);
  const bool taken_away =
      shown.empty() && !before.empty() && node->uid == uid_ && status_ && status_->state == before;
  if (node->uid != uid_) {
    uid_ = node->uid;
    set_free(*node);
    write();
    if (!told_)
      told_ = Ended(value_of(node->labels, kMigStateLabel),
                    value_of(node->annotations, kMigRequestNote));
    tell();
  }
  std::optional<std::string> label;
  if (const auto found = node->labels.find(std::string(kMigConfigLabel));
      found != node->labels.end() && !found->second.empty())
    label = found->second;
  if (std::exchange(seen_, true) && said_ == label) {
    if (taken_away && label) {
      log_.info("node {}: label {} was taken away: {}={} is made again", node->name, kMigStateLabel,
                kMigConfigLabel, *label);
      patches_.forget({std::string(kMigStateLabel)});
      again_();
      write();
    }
    return;
  }
  said_ = label;
  label_(label);
}

void NodeMig::write() {
  if (!status_) return;
  const auto some = [](std::string text) {
    return text.empty() ? std::optional<std::string>() : std::optional(std::move(text));
  };
  const std::string since = status_->state.empty() ? "" : format_utc(status_->since);
  patches_.want({{std::string(kMigStateLabel), some(status_->state)}},
                {{std::string(kMigReasonNote), some(status_->reason.substr(0, kMaxMigReasonBytes))},
                 {std::string(kMigRequestNote), some(request_text(*status_))},
                 {std::string(kMigSinceNote), some(since)}});
}

void NodeMig::tell() {
  if (kube_ == nullptr || !told_ || !status_) return;
  Ended now(status_->state, request_text(*status_));
  if (now == told_) return;
  told_ = std::move(now);
  const bool failed = status_->state == "failed";
  if (!failed && status_->state != "success") return;
  ports::KubeEvent event;
  event.warning = failed;
  event.reason = failed ? "MigChangeFailed" : "MigChanged";
  event.message = fmt::format("MIG layout {}: {}{}{}", status_->label, status_->state,
                              status_->reason.empty() ? "" : ": ", status_->reason);
  event.at = status_->since;
  kube_->record(std::move(event));
}

// Once for a node: afterwards such a label is somebody's who is at work.
void NodeMig::set_free(const ports::NodeObject& node) {
  NodePatches::Values labels;
  for (const std::string& key : paused_labels(node.labels)) {
    log_.warning(
        "node {}: label {}={}: a MIG manager left it so, and this agent changes MIG here "
        "now; set back to true",
        node.name, key, kPaused);
    labels[key] = "true";
  }
  if (!labels.empty()) patches_.want(labels, {});
}

}  // namespace gpuslice::bin
