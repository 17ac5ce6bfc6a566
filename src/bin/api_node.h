#pragma once

// The own Node in the API server, both ways: hears it and hands each part of the agent what is
// meant for it; writes what they have to say. T0.

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "base/log.h"
#include "bin/node_evictor.h"
#include "bin/node_labels.h"
#include "bin/node_mig.h"
#include "bin/node_patches.h"
#include "ports/kube.h"
#include "ports/timers.h"

namespace gpuslice::bin {

class ApiNode final : public ports::KubeEvents {
 public:
  // What is said to the agent.
  struct Told {
    std::function<void(const Status&)> labels_applied;
    // See NodeMig; null: the node's labels choose no layout, and none is told.
    std::function<void(std::optional<std::string>)> mig_label;
    std::function<void()> mig_asked_again;  // with mig_label: see NodeMig
    // See NodeEvictor; null: no pod is put out.
    NodeEvictor::Failed not_evicted;
    // The label that chooses the device plugin's configuration, likewise; null: nobody asks.
    std::function<void(std::optional<std::string>)> config_label;
  };
  ApiNode(ports::Timers& timers, Log& log, Told told);

  // `kube` is asked until end().
  void begin(ports::KubeApi& kube);
  void end();

  // An Event of the Node; forgotten before begin() and after end().
  void record(ports::KubeEvent event);
  [[nodiscard]] NodeLabels& labels() { return labels_; }
  // Null where the node's labels choose no layout.
  [[nodiscard]] ports::MigStatusBoard* mig_board() { return mig_ ? &*mig_ : nullptr; }
  // Null where pods are not put out.
  [[nodiscard]] ports::Evictor* evictor() { return evictor_ ? &*evictor_ : nullptr; }

  // Whether the Node was seen, and why the API server does not answer; "" while it does.
  [[nodiscard]] bool seen() const { return seen_; }
  [[nodiscard]] const std::string& trouble() const { return trouble_; }

  void on_node(std::optional<ports::NodeObject> node) override;
  void on_config_map(const ports::ObjectName&, std::optional<ports::ConfigMapObject>) override {}
  void on_pods(ports::PodList pods) override {
    if (evictor_) evictor_->on_pods(std::move(pods));
  }
  void on_kube_reachable(Status status) override;
  void on_labels_applied(Status status) override { labels_.on_labels_applied(status); }
  void on_node_patched(Status status) override { patches_.on_patched(status); }
  void on_evicted(const ports::ObjectName& pod, Status status) override {
    if (evictor_) evictor_->on_evicted(pod, status);
  }

 private:
  Log& log_;
  ports::KubeApi* kube_ = nullptr;  // while it may be asked
  NodeLabels labels_;
  NodePatches patches_;
  std::optional<NodeMig> mig_;
  std::optional<NodeEvictor> evictor_;
  std::function<void(std::optional<std::string>)> config_label_;
  bool seen_ = false;  // the node, once
  std::string trouble_ = "it has not answered yet";
  std::optional<std::string> config_label_said_;
};

}  // namespace gpuslice::bin
