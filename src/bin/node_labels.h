#pragma once

// Keeps the own Node's labels in the API server as the agent wants them: once the node was seen,
// again when somebody changed one of them or the node is another one, and again after a failure.
// T0.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "ports/kube.h"
#include "ports/timers.h"

namespace gpuslice::bin {

// Between two applies of the same labels: somebody else who wants them otherwise is not raced.
inline constexpr Duration kLabelsPause = std::chrono::seconds(30);

class NodeLabels {
 public:
  using Labels = std::map<std::string, std::string>;
  // `applied`: what became of it, also of what was done again.
  NodeLabels(ports::Timers& timers, std::function<void(const Status&)> applied)
      : applied_(std::move(applied)), pause_(timers.timer()) {}

  // `kube` is asked until end().
  void begin(ports::KubeApi& kube) { kube_ = &kube; }
  void end() {
    kube_ = nullptr;
    pause_->cancel();
  }
  void want(const Labels& labels);

  void on_node(std::optional<ports::NodeObject> node);
  void on_labels_applied(const Status& status);

 private:
  void go();
  [[nodiscard]] bool shown() const;

  std::function<void(const Status&)> applied_;
  ports::KubeApi* kube_ = nullptr;
  std::optional<Labels> wanted_;
  std::optional<Labels> sent_;  // last applied, or under way; nothing: has to be sent
  bool under_way_ = false;
  std::optional<ports::NodeObject> node_;
  std::unique_ptr<ports::Timer> pause_;
};

}  // namespace gpuslice::bin
