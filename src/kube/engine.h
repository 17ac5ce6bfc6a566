#pragma once

// What of the API server's client lives on the transport's thread: the watches with what they have
// seen, and the two queues of changes. Tells by functions; who owns it takes that to T0.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kube/event_book.h"
#include "kube/sender.h"
#include "kube/transport.h"
#include "kube/watcher.h"
#include "ports/kube.h"

namespace gpuslice::kube {

// A node has a few hundred pods; what is beyond is not kept, and said.
inline constexpr size_t kMaxPodsKept = 10000;
// Changes of pods come in bursts; they are told together.
inline constexpr Duration kPodsPause = std::chrono::milliseconds(100);

// Written on the transport's thread, read on any.
class Counts {
 public:
  template <class Change>
  void with(Change change) {
    const std::lock_guard lock(mutex_);
    change(counts_);
  }
  [[nodiscard]] ports::KubeCounts get() const {
    const std::lock_guard lock(mutex_);
    return counts_;
  }

 private:
  mutable std::mutex mutex_;
  ports::KubeCounts counts_;
};

class Engine {
 public:
  struct Told {
    std::function<void(std::optional<ports::NodeObject>)> node;
    std::function<void(const ports::ObjectName&, std::optional<ports::ConfigMapObject>)> config_map;
    std::function<void(ports::PodList)> pods;
    std::function<void(Status)> reachable;
  };

  Engine(Transport& transport, std::string node, uint64_t seed, Counts& counts, Told told);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine();

  void watch_node();
  void watch_config_map(const ports::ObjectName& name);
  void unwatch_config_map(const ports::ObjectName& name);
  void watch_pods();
  void change(Sender::Change change) { changes_.add(std::move(change)); }
  void record(ports::KubeEvent event);

 private:
  class OneWatch;
  class NodeWatch;
  class ConfigMapWatch;
  class PodsWatch;

  [[nodiscard]] Watcher::Seen seen();
  void reachable(const std::string& what, Status status);
  void tell_reachable();
  void send_events();

  Transport& transport_;
  std::string node_;
  Random random_;
  Counts& counts_;
  Told told_;
  std::map<std::string, Status> states_;  // by what is watched
  std::optional<Status> told_state_;
  Sender changes_;
  Sender event_sender_;
  EventBook book_;
  bool event_under_way_ = false;
  std::unique_ptr<Timer> event_timer_;
  std::unique_ptr<NodeWatch> node_watch_;
  std::unique_ptr<PodsWatch> pods_watch_;
  std::map<ports::ObjectName, std::unique_ptr<ConfigMapWatch>> config_map_watches_;
};

}  // namespace gpuslice::kube
