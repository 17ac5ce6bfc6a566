#pragma once

// The stand-in's picture of a node, as a kubelet's device manager keeps it: plugins that
// registered, their devices, pods and what they hold. Pure bookkeeping under one mutex; time is
// given in. The rules are the kubelet's (1.34, device manager):
//   * registering again replaces: the old stream counts no more;
//   * a stream that ends: allocatable 0 at once, capacity kept for the grace, then the resource is
//   gone;
//   * an unhealthy device leaves allocatable and stays in capacity;
//   * a pod that was admitted keeps its devices whatever happens to the plugin.

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace gpuslice::simkubelet {

inline constexpr Duration kEndpointGrace = std::chrono::minutes(5);
inline constexpr size_t kMaxResources = 64;
inline constexpr size_t kMaxDevices = 200'000;
inline constexpr size_t kMaxPods = 4096;

struct DeviceSeen {
  std::string id;
  bool healthy = true;
};

struct RegisterCall {
  std::string version;
  std::string endpoint;
  std::string resource;
  bool preferred_available = false;
};
// The kubelet's checks: version, an extended resource's name, an endpoint that is a plain file
// name.
[[nodiscard]] Status check_registration(const RegisterCall& call);
// The checks of a ListAndWatch message: bounded, no empty id, no id twice.
[[nodiscard]] Status check_devices(const std::vector<DeviceSeen>& devices);

struct Pod {
  std::string name;
  std::string uid;
  std::string phase = "Pending";  // Running, Failed, Succeeded
  std::string reason;
  std::string message;
  std::map<std::string, uint32_t> resources;
  std::map<std::string, std::vector<std::string>> device_ids;  // by resource
  std::map<std::string, std::string> env;
  int pid = 0;
};

struct Quantities {
  std::map<std::string, uint64_t> capacity, allocatable;
};

class Node {
 public:
  explicit Node(Duration grace = kEndpointGrace) : grace_(grace) {}

  // A plugin registered; its life number names this registration from now on.
  [[nodiscard]] Result<uint64_t> registered(const RegisterCall& call);
  // False when that life was replaced meanwhile: its stream should end.
  bool devices(const std::string& resource, uint64_t life, const std::vector<DeviceSeen>& devices);
  void stream_ended(const std::string& resource, uint64_t life, MonotonicTime now);
  // The kubelet restarts: plugins are forgotten, pods and what they hold are not (its checkpoint).
  void restart();

  [[nodiscard]] Quantities quantities(MonotonicTime now);

  // Healthy devices of a resource that no pod holds, sorted; kUnavailable with the kubelet's words.
  struct Choice {
    std::vector<std::string> free;
    std::string endpoint;
    uint64_t life = 0;
    bool preferred_available = false;
  };
  [[nodiscard]] Result<Choice> choice(const std::string& resource, uint32_t count);
  // Of `preferred` those that are free come first, then the lowest free ids: what the kubelet
  // takes.
  [[nodiscard]] static std::vector<std::string> take(const Choice& choice,
                                                     const std::vector<std::string>& preferred,
                                                     uint32_t count);

  [[nodiscard]] Status add_pod(const Pod& pod);
  void update_pod(const std::string& name, const std::function<void(Pod&)>& change);
  bool remove_pod(const std::string& name);
  [[nodiscard]] std::vector<Pod> pods() const;
  [[nodiscard]] std::vector<std::string> resource_names() const;

 private:
  struct Resource {
    uint64_t life = 0;
    std::string endpoint;
    bool preferred_available = false;
    bool connected = false;
    MonotonicTime ended{};
    std::map<std::string, bool> devices;  // id -> healthy
  };
  void forget_ended(MonotonicTime now);
  [[nodiscard]] std::set<std::string> held(const std::string& resource) const;

  Duration grace_;
  mutable std::mutex mutex_;
  uint64_t next_life_ = 1;
  std::map<std::string, Resource> resources_;
  std::map<std::string, Pod> pods_;
};

}  // namespace gpuslice::simkubelet
