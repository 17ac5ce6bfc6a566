#pragma once

// MIG by the labels of NVIDIA's MIG manager: what the own Node's label nvidia.com/mig.config asks
// for goes in, what became of it comes out as nvidia.com/mig.config.state, with annotations for
// what that label has no room for, and as an Event when it ended. T0.

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "bin/node_patches.h"
#include "ports/kube.h"
#include "ports/mig_status.h"

namespace gpuslice::bin {

inline constexpr std::string_view kMigConfigLabel = "nvidia.com/mig.config";
inline constexpr std::string_view kMigStateLabel = "nvidia.com/mig.config.state";
inline constexpr std::string_view kMigReasonNote = "gpuslice/mig.reason";    // why; absent: success
inline constexpr std::string_view kMigRequestNote = "gpuslice/mig.request";  // "all-1g.5gb 51c0…"
inline constexpr std::string_view kMigSinceNote = "gpuslice/mig.since";      // RFC 3339
// A sentence of the API server's or the driver's may be long; the node should not.
inline constexpr size_t kMaxMigReasonBytes = 1024;

// Labels of the GPU operator's that a MIG manager has paused for a change: those that it never set
// free again when it crashed. `labels`: the node's.
[[nodiscard]] std::vector<std::string> paused_labels(
    const std::map<std::string, std::string>& labels);

class NodeMig final : public ports::MigStatusBoard {
 public:
  // `label`: called at the first sight of the node, and each time that it then says something else;
  // nothing: the node has no such label.
  // `again`: somebody took the label of the state away, which asks for the same once more: the API
  // server tells nobody of a label that is set to what it was.
  NodeMig(NodePatches& patches, Log& log, std::function<void(std::optional<std::string>)> label,
          std::function<void()> again)
      : patches_(patches), log_(log), label_(std::move(label)), again_(std::move(again)) {}

  void begin(ports::KubeApi& kube) { kube_ = &kube; }
  void end() { kube_ = nullptr; }

  void show(const ports::MigStatus& status) override;
  void on_node(const std::optional<ports::NodeObject>& node);

 private:
  using Ended = std::pair<std::string, std::string>;  // state, request
  void write();
  void tell();
  void set_free(const ports::NodeObject& node);

  NodePatches& patches_;
  Log& log_;
  std::function<void(std::optional<std::string>)> label_;
  std::function<void()> again_;
  ports::KubeApi* kube_ = nullptr;
  bool seen_ = false;                // the node, once
  std::optional<std::string> said_;  // by it
  std::string uid_;
  std::string shown_;  // the label of the state as it was seen last
  std::optional<ports::MigStatus> status_;
  std::optional<Ended> told_;  // last; at first what the node shows: an earlier life told it
};

}  // namespace gpuslice::bin
