#include "kube/node_kube.h"

#include <map>
#include <mutex>
#include <utility>

namespace gpuslice::kube {

template <class Value>
struct NodeKube::Slot {
  std::mutex mutex;
  std::optional<Value> value;

  // True: a telling has to be posted; else one is on its way.
  bool put(Value newest) {
    const std::lock_guard lock(mutex);
    const bool empty = !value.has_value();
    value = std::move(newest);
    return empty;
  }
  Value take() {
    const std::lock_guard lock(mutex);
    Value taken = std::move(*value);
    value.reset();
    return taken;
  }
};

NodeKube::NodeKube(Options options, std::unique_ptr<Transport> transport, ports::KubeEvents& events)
    : options_(std::move(options)), events_(events), transport_(std::move(transport)) {
  transport_->post([this] {
    engine_ = std::make_unique<Engine>(*transport_, options_.node, options_.seed, counts_, told());
  });
}

NodeKube::~NodeKube() {
  transport_->stop();
  engine_.reset();
}

void NodeKube::on_t0(std::function<void()> work) {
  options_.post([alive = std::weak_ptr<Alive>(alive_), work = std::move(work)] {
    if (!alive.expired()) work();
  });
}

Engine::Told NodeKube::told() {
  using Node = std::optional<ports::NodeObject>;
  using Map = std::optional<ports::ConfigMapObject>;
  Engine::Told told;
  told.node = [this, slot = std::make_shared<Slot<Node>>()](Node node) {
    if (!slot->put(std::move(node))) return;
    on_t0([this, slot] {
      Node newest = slot->take();
      seen_.reset();
      if (newest) seen_ = NodeId{newest->name, newest->uid};
      events_.on_node(std::move(newest));
    });
  };
  using Slots = std::map<ports::ObjectName, std::shared_ptr<Slot<Map>>>;
  told.config_map = [this, slots = Slots()](const ports::ObjectName& name, Map map) mutable {
    // What is on its way keeps its own slot.
    if (slots.size() > ports::kMaxConfigMapsWatched) slots.clear();
    std::shared_ptr<Slot<Map>>& slot = slots[name];
    if (!slot) slot = std::make_shared<Slot<Map>>();
    if (!slot->put(std::move(map))) return;
    on_t0([this, name, slot] {
      Map newest = slot->take();
      if (config_maps_.contains(name)) events_.on_config_map(name, std::move(newest));
    });
  };
  told.pods = [this, slot = std::make_shared<Slot<ports::PodList>>()](ports::PodList pods) {
    if (slot->put(std::move(pods))) on_t0([this, slot] { events_.on_pods(slot->take()); });
  };
  told.reachable = [this, slot = std::make_shared<Slot<Status>>()](Status status) {
    if (slot->put(std::move(status)))
      on_t0([this, slot] { events_.on_kube_reachable(slot->take()); });
  };
  return told;
}

void NodeKube::watch_node() {
  transport_->post([this] { engine_->watch_node(); });
}

Status NodeKube::watch_config_map(const ports::ObjectName& name) {
  if (!config_maps_.contains(name) && config_maps_.size() >= ports::kMaxConfigMapsWatched)
    return fail(Code::kUnavailable, "ConfigMap {}/{}: not watched: {} are watched already",
                name.name_space, name.name, config_maps_.size());
  config_maps_.insert(name);
  transport_->post([this, name] { engine_->watch_config_map(name); });
  return {};
}

void NodeKube::unwatch_config_map(const ports::ObjectName& name) {
  if (config_maps_.erase(name) == 0) return;
  transport_->post([this, name] { engine_->unwatch_config_map(name); });
}

void NodeKube::watch_pods() {
  transport_->post([this] { engine_->watch_pods(); });
}

Result<Request> NodeKube::of_node(const std::function<Request(const NodeId& node)>& make) const {
  if (!seen_)
    return fail(Code::kUnavailable, "node {}: not changed: it was not seen yet", options_.node);
  return make(*seen_);
}

void NodeKube::change(Result<Request> request, std::string what, Answered answered) {
  Status refused;
  if (!request) refused = std::unexpected(request.error());
  if (refused && under_way_ >= ports::kMaxChangesUnderWay) {
    counts_.with([](ports::KubeCounts& counts) { ++counts.refused; });
    refused = fail(Code::kUnavailable, "{}: not changed: {} changes are under way already", what,
                   under_way_);
  }
  if (!refused) {
    on_t0([answered = std::move(answered), refused] { answered(refused); });
    return;
  }
  ++under_way_;
  const auto done = [this, answered = std::move(answered)](Status status) {
    on_t0([this, answered, status = std::move(status)] {
      --under_way_;
      answered(status);
    });
  };
  transport_->post([this, request = std::move(*request), what = std::move(what), done] {
    engine_->change({request, what, done});
  });
}

void NodeKube::apply_labels(ports::NodeLabels labels) {
  change(of_node([&labels](const NodeId& node) { return labels_request(node, labels); }),
         fmt::format("labels of node {}", options_.node),
         [this](Status status) { events_.on_labels_applied(std::move(status)); });
}

void NodeKube::patch_node(ports::NodePatch patch) {
  change(of_node([&patch](const NodeId& node) { return patch_request(node, patch); }),
         fmt::format("node {}", options_.node),
         [this](Status status) { events_.on_node_patched(std::move(status)); });
}

void NodeKube::evict(const ports::ObjectName& pod, std::string uid) {
  change(evict_request(pod, uid), fmt::format("pod {}/{}", pod.name_space, pod.name),
         [this, pod](Status status) { events_.on_evicted(pod, std::move(status)); });
}

void NodeKube::record(ports::KubeEvent event) {
  transport_->post(
      [this, event = std::move(event)]() mutable { engine_->record(std::move(event)); });
}

ports::KubeCounts NodeKube::counts() const {
  ports::KubeCounts counts = counts_.get();
  counts.changes_under_way = under_way_;
  return counts;
}

}  // namespace gpuslice::kube
