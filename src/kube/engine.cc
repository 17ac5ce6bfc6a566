#include "kube/engine.h"

#include <algorithm>
#include <utility>

namespace gpuslice::kube {

class Engine::OneWatch : public Watcher::Sink {
 public:
  OneWatch(Engine& engine, Source source)
      : engine_(engine),
        what_(source.what),
        watcher_(engine.transport_, std::move(source), engine.random_.next(), *this,
                 engine.seen()) {}
  void start() { watcher_.start(); }
  void on_reachable(Status status) override { engine_.reachable(what_, std::move(status)); }
  [[nodiscard]] const std::string& what() const { return what_; }

 protected:
  Engine& engine_;
  std::string what_;

 private:
  Watcher watcher_;
};

class Engine::NodeWatch final : public OneWatch {
 public:
  NodeWatch(Engine& engine, const std::string& node) : OneWatch(engine, node_source(node)) {}
  void on_list_begins() override { found_ = false; }
  void on_listed(ApiObject object) override {
    // A server that ignores the selector must not hand us another's node.
    if (object.name != engine_.node_) return;
    found_ = true;
    on_changed(std::move(object));
  }
  void on_list_ends() override {
    if (!found_) gone();
  }
  void on_changed(ApiObject object) override {
    if (object.name != engine_.node_) return;
    engine_.book_.set_node_uid(object.uid);
    engine_.send_events();
    engine_.told_.node(node_of(std::move(object)));
  }
  void on_deleted(ApiObject object) override {
    if (object.name == engine_.node_) gone();
  }

 private:
  void gone() { engine_.told_.node(std::nullopt); }
  bool found_ = false;
};

class Engine::ConfigMapWatch final : public OneWatch {
 public:
  ConfigMapWatch(Engine& engine, const ports::ObjectName& name)
      : OneWatch(engine, config_map_source(name)), name_(name) {}
  void on_list_begins() override { found_ = false; }
  void on_listed(ApiObject object) override {
    if (object.name != name_.name) return;
    found_ = true;
    on_changed(std::move(object));
  }
  void on_list_ends() override {
    if (!found_) engine_.told_.config_map(name_, std::nullopt);
  }
  void on_changed(ApiObject object) override {
    if (object.name == name_.name)
      engine_.told_.config_map(name_, config_map_of(std::move(object)));
  }
  void on_deleted(ApiObject object) override {
    if (object.name == name_.name) engine_.told_.config_map(name_, std::nullopt);
  }

 private:
  ports::ObjectName name_;
  bool found_ = false;
};

class Engine::PodsWatch final : public OneWatch {
 public:
  PodsWatch(Engine& engine, const std::string& node)
      : OneWatch(engine, pods_source(node)), timer_(engine.transport_.timer()) {}
  void on_list_begins() override { listing_.clear(); }
  void on_listed(ApiObject object) override { keep(listing_, std::move(object)); }
  void on_list_ends() override {
    pods_ = std::move(listing_);
    listing_.clear();
    soon();
  }
  void on_changed(ApiObject object) override {
    keep(pods_, std::move(object));
    soon();
  }
  void on_deleted(ApiObject object) override {
    pods_.erase({object.name_space, object.name});
    soon();
  }

 private:
  using Pods = std::map<ports::ObjectName, ports::PodObject>;

  void keep(Pods& pods, ApiObject object) {
    ports::PodObject pod = pod_of(std::move(object));
    if (pods.size() >= kMaxPodsKept && !pods.contains(pod.name)) {
      engine_.reachable(what_, fail(Code::kFailed, "{}: more than {}; the rest is not looked at",
                                    what_, kMaxPodsKept));
      return;
    }
    pods[pod.name] = std::move(pod);
  }
  void soon() {
    if (waiting_) return;
    waiting_ = true;
    timer_->after(kPodsPause, [this] { tell(); });
  }
  void tell() {
    waiting_ = false;
    auto list = std::make_shared<std::vector<ports::PodObject>>();
    list->reserve(pods_.size());
    for (const auto& [name, pod] : pods_) list->push_back(pod);
    engine_.told_.pods(std::move(list));
  }

  std::unique_ptr<Timer> timer_;
  Pods pods_;
  Pods listing_;
  bool waiting_ = false;
};

Engine::Engine(Transport& transport, std::string node, uint64_t seed, Counts& counts, Told told)
    : transport_(transport),
      node_(std::move(node)),
      random_(seed),
      counts_(counts),
      told_(std::move(told)),
      changes_(transport, random_.next(), {seen().answered, seen().retried}),
      event_sender_(transport, random_.next(), {seen().answered, seen().retried}),
      book_(node_, random_.next()),
      event_timer_(transport.timer()) {}

Engine::~Engine() = default;

Watcher::Seen Engine::seen() {
  const auto add = [this](uint64_t ports::KubeCounts::* count) {
    counts_.with([count](ports::KubeCounts& counts) { ++(counts.*count); });
  };
  return {[this](std::string_view verb, int status) {
            counts_.with([&](ports::KubeCounts& counts) {
              ++counts.requests[status == 0 ? fmt::format("{} error", verb)
                                            : fmt::format("{} {}", verb, status)];
            });
          },
          [add] { add(&ports::KubeCounts::relists); },
          [add] { add(&ports::KubeCounts::watch_events); },
          [add] { add(&ports::KubeCounts::retries); }};
}

void Engine::watch_node() {
  if (node_watch_) return;
  node_watch_ = std::make_unique<NodeWatch>(*this, node_);
  node_watch_->start();
}

void Engine::watch_config_map(const ports::ObjectName& name) {
  std::unique_ptr<ConfigMapWatch>& watch = config_map_watches_[name];
  if (watch) return;
  watch = std::make_unique<ConfigMapWatch>(*this, name);
  watch->start();
}

void Engine::unwatch_config_map(const ports::ObjectName& name) {
  const auto watch = config_map_watches_.find(name);
  if (watch == config_map_watches_.end()) return;
  const std::string what = watch->second->what();
  config_map_watches_.erase(watch);
  states_.erase(what);
  tell_reachable();
}

void Engine::watch_pods() {
  if (pods_watch_) return;
  pods_watch_ = std::make_unique<PodsWatch>(*this, node_);
  pods_watch_->start();
}

void Engine::reachable(const std::string& what, Status status) {
  states_[what] = std::move(status);
  tell_reachable();
}

void Engine::tell_reachable() {
  if (states_.empty()) return;
  const auto bad =
      std::find_if(states_.begin(), states_.end(), [](const auto& one) { return !one.second; });
  Status state = bad == states_.end() ? Status() : bad->second;
  if (told_state_ == state) return;
  told_state_ = state;
  told_.reachable(std::move(state));
}

void Engine::record(ports::KubeEvent event) {
  if (!book_.record(std::move(event), transport_.now()))
    counts_.with([](ports::KubeCounts& counts) { ++counts.events_dropped; });
  send_events();
}

void Engine::send_events() {
  if (event_under_way_) return;
  const MonotonicTime now = transport_.now();
  std::optional<Request> request = book_.next(now);
  if (!request) {
    if (const std::optional<MonotonicTime> due = book_.due(now))
      event_timer_->after(*due - now, [this] { send_events(); });
    return;
  }
  event_under_way_ = true;
  event_sender_.add(
      {std::move(*request), "Event", [this](const Status& status) {
         event_under_way_ = false;
         const uint64_t written = book_.done(status, transport_.now());
         counts_.with([written](ports::KubeCounts& counts) { counts.events_recorded += written; });
         send_events();
       }});
}

}  // namespace gpuslice::kube
