#pragma once

// An API server that keeps what it is asked for, and answers when the test does.

#include <string>
#include <utility>
#include <vector>

#include "ports/kube.h"

namespace gpuslice::ports {

class KubeForTest final : public KubeApi {
 public:
  void watch_node() override { watches_node = true; }
  Status watch_config_map(const ObjectName&) override { return {}; }
  void unwatch_config_map(const ObjectName&) override {}
  void watch_pods() override { watches_pods = true; }
  void apply_labels(NodeLabels labels) override { applied.push_back(std::move(labels.labels)); }
  void patch_node(NodePatch patch) override { patches.push_back(std::move(patch)); }
  void evict(const ObjectName& pod, std::string uid) override {
    evicted.push_back(pod.name_space + "/" + pod.name + " " + uid);
  }
  void record(KubeEvent event) override { events.push_back(std::move(event)); }
  KubeCounts counts() const override { return {}; }

  bool watches_node = false, watches_pods = false;
  std::vector<std::map<std::string, std::string>> applied;
  std::vector<NodePatch> patches;
  std::vector<std::string> evicted;  // "ml/train-0 UID"
  std::vector<KubeEvent> events;
};

}  // namespace gpuslice::ports
