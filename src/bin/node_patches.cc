#include "bin/node_patches.h"

#include <fmt/format.h>

#include <utility>

namespace gpuslice::bin {

void NodePatches::Kind::drop_what_is_there() {
  std::erase_if(wanted, [this](const auto& one) {
    const auto& [key, value] = one;
    if (unsure.contains(key)) return false;
    if (const auto ours = written.find(key); ours != written.end()) return ours->second == value;
    const auto there = shown.find(key);
    return value ? there != shown.end() && there->second == *value : there == shown.end();
  });
}

void NodePatches::Kind::answered(bool ok) {
  for (auto& [key, value] : sent) {
    if (ok) {
      written[key] = value;
      unsure.erase(key);
    } else {
      unsure.insert(key);
      wanted.try_emplace(key, value);  // unless it is wanted otherwise by now
    }
  }
  sent.clear();
}

void NodePatches::want(const Values& labels, const Values& annotations) {
  for (const auto& [key, value] : labels) labels_.wanted[key] = value;
  for (const auto& [key, value] : annotations) annotations_.wanted[key] = value;
  go();
}

void NodePatches::on_node(const std::optional<ports::NodeObject>& node) {
  const std::string uid = node ? node->uid : "";
  if (uid != uid_) {
    labels_.unsure.clear();
    annotations_.unsure.clear();
    labels_.written.clear();
    annotations_.written.clear();
  }
  uid_ = uid;
  labels_.shown = node ? node->labels : std::map<std::string, std::string>();
  annotations_.shown = node ? node->annotations : std::map<std::string, std::string>();
  if (!pause_->active()) go();
}

void NodePatches::go() {
  if (kube_ == nullptr || uid_.empty() || under_way_) return;
  labels_.drop_what_is_there();
  annotations_.drop_what_is_there();
  if (labels_.wanted.empty() && annotations_.wanted.empty()) return;
  pause_->cancel();
  under_way_ = true;
  sent_to_ = uid_;
  labels_.sent = std::exchange(labels_.wanted, {});
  annotations_.sent = std::exchange(annotations_.wanted, {});
  kube_->patch_node({labels_.sent, annotations_.sent, ""});
}

void NodePatches::on_patched(const Status& status) {
  under_way_ = false;
  const bool here = sent_to_ == uid_;  // else it was another node of this name
  labels_.answered(status.has_value() && here);
  annotations_.answered(status.has_value() && here);
  if (status || !here) {
    log_.over("node-patch");
    return go();
  }
  log_.once(Level::kWarning, "node-patch",
            fmt::format("labels and annotations of the node: {}; they are set again in {} s",
                        status.error().message,
                        std::chrono::duration_cast<std::chrono::seconds>(kPatchPause).count()));
  pause_->after(kPatchPause, [this] { go(); });
}

}  // namespace gpuslice::bin
