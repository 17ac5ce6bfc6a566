#pragma once

// The port KubeApi of a real node. T0's half: remembers what was seen of the node, hands calls to
// the transport's thread, and takes what is told back to T0.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "kube/engine.h"
#include "kube/requests.h"
#include "kube/transport.h"
#include "ports/kube.h"

namespace gpuslice::kube {

class NodeKube final : public ports::KubeApi {
 public:
  struct Options {
    std::string node;  // the own Node's name
    // Takes work to T0. Must not refuse: at most one telling for each watch and one answer for each
    // of kMaxChangesUnderWay changes are under way.
    std::function<void(std::function<void()>)> post;
    uint64_t seed = 1;  // of the jitter
  };
  // `events` is called on T0 only, and not after the end of this object.
  NodeKube(Options options, std::unique_ptr<Transport> transport, ports::KubeEvents& events);
  NodeKube(const NodeKube&) = delete;
  NodeKube& operator=(const NodeKube&) = delete;
  // Drops what is under way and joins the transport's thread.
  ~NodeKube() override;

  void watch_node() override;
  [[nodiscard]] Status watch_config_map(const ports::ObjectName& name) override;
  void unwatch_config_map(const ports::ObjectName& name) override;
  void watch_pods() override;
  void apply_labels(ports::NodeLabels labels) override;
  void patch_node(ports::NodePatch patch) override;
  void evict(const ports::ObjectName& pod, std::string uid) override;
  void record(ports::KubeEvent event) override;
  [[nodiscard]] ports::KubeCounts counts() const override;

 private:
  struct Alive {};
  // The newest value on its way to T0; one that was not yet taken is replaced.
  template <class Value>
  struct Slot;
  using Answered = std::function<void(Status)>;

  [[nodiscard]] Engine::Told told();
  // Runs on T0 later, unless this object is gone by then.
  void on_t0(std::function<void()> work);
  void change(Result<Request> request, std::string what, Answered answered);
  [[nodiscard]] Result<Request> of_node(
      const std::function<Request(const NodeId& node)>& make) const;

  Options options_;
  ports::KubeEvents& events_;
  std::unique_ptr<Transport> transport_;
  std::shared_ptr<Alive> alive_ = std::make_shared<Alive>();
  Counts counts_;
  std::unique_ptr<Engine> engine_;  // the transport's thread

  // T0:
  std::optional<NodeId> seen_;
  std::set<ports::ObjectName> config_maps_;
  size_t under_way_ = 0;
};

}  // namespace gpuslice::kube
