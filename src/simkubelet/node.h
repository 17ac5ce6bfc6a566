#pragma once

// The stand-in's picture of a node, as a kubelet's device manager keeps it: plugins that
// registered, their devices, pods and what they hold. Pure bookkeeping under one mutex; time comes
// from the clock that it is given. The rules are the kubelet's (1.34, device manager):
//   * Register is answered once the plugin told its options; registering again replaces: the old
//   stream counts no more;
//   * a stream that ends: allocatable 0 at once, capacity kept for the grace, then the resource is
//   gone;
//   * an unhealthy device leaves allocatable and stays in capacity;
//   * a kubelet that starts knows from its checkpoint which resources there were: they have no
//   devices until their plugin registers again, and are gone after the grace;
//   * a pod that was admitted keeps its devices whatever happens to the plugin.

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace gpuslice::simkubelet {

inline constexpr Duration kEndpointGrace = std::chrono::minutes(5);
inline constexpr size_t kMaxResources = 64;
inline constexpr size_t kMaxDevices = 200'000;
inline constexpr size_t kMaxPods = 4096;

using Clock = std::function<MonotonicTime()>;
[[nodiscard]] MonotonicTime monotonic_now();

struct DeviceSeen {
  std::string id;
  bool healthy = true;
  std::vector<int64_t> numa = {};  // its NUMA nodes; empty: no topology
  friend bool operator==(const DeviceSeen&, const DeviceSeen&) = default;
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
  std::map<std::string, uint32_t> init_resources;              // of an init container
  std::map<std::string, std::vector<std::string>> device_ids;  // by resource
  // What pod-resources tells of it: the container's devices, not those that only an init container
  // had, with the topology that they had at admission.
  std::map<std::string, std::vector<DeviceSeen>> listed;
  std::map<std::string, std::string> env;
  int pid = 0;
};

struct Quantities {
  std::map<std::string, uint64_t> capacity, allocatable;
};

class Node {
 public:
  explicit Node(Duration grace = kEndpointGrace, Clock clock = monotonic_now)
      : grace_(grace), clock_(std::move(clock)) {}

  // A plugin registered; its life number names this registration from now on.
  [[nodiscard]] Result<uint64_t> registered(const RegisterCall& call);
  // False when that life was replaced meanwhile: its stream should end.
  bool devices(const std::string& resource, uint64_t life, const std::vector<DeviceSeen>& devices);
  void stream_ended(const std::string& resource, uint64_t life);
  // The kubelet restarts: plugins and devices are forgotten; the resources' names, pods and what
  // they hold are not (its checkpoint).
  void restart();

  [[nodiscard]] Quantities quantities();
  // How often a plugin registered each resource, over all lives of this kubelet.
  [[nodiscard]] std::map<std::string, uint64_t> registrations() const;
  // All healthy devices by resource, held or not: what GetAllocatableResources answers.
  [[nodiscard]] std::map<std::string, std::vector<DeviceSeen>> healthy() const;
  // Devices of a resource as its plugin listed them; one that is not listed has no topology.
  [[nodiscard]] std::vector<DeviceSeen> seen(const std::string& resource,
                                             const std::vector<std::string>& ids) const;

  // Healthy devices of a resource that no pod holds, sorted; kUnavailable with the kubelet's words.
  struct Choice {
    std::vector<std::string> free;
    std::string endpoint;
    uint64_t life = 0;
    bool preferred_available = false;
  };
  [[nodiscard]] Result<Choice> choice(const std::string& resource, uint32_t count);
  // `must_include` (what an init container has), then of `preferred` those that are free, then the
  // lowest free ids: what the kubelet takes.
  [[nodiscard]] static std::vector<std::string> take(const Choice& choice,
                                                     const std::vector<std::string>& must_include,
                                                     const std::vector<std::string>& preferred,
                                                     uint32_t count);

  [[nodiscard]] Status add_pod(const Pod& pod);
  void update_pod(const std::string& name, const std::function<void(Pod&)>& change);
  bool remove_pod(const std::string& name);
  [[nodiscard]] std::vector<Pod> pods() const;

 private:
  struct Resource {
    uint64_t life = 0;
    std::string endpoint;
    bool preferred_available = false;
    bool connected = false;
    std::optional<MonotonicTime> ended;  // the stream; empty from Register to its end
    std::map<std::string, DeviceSeen> devices;
  };
  void forget_ended();
  [[nodiscard]] std::set<std::string> held(const std::string& resource) const;

  Duration grace_;
  Clock clock_;
  mutable std::mutex mutex_;
  uint64_t next_life_ = 1;
  std::map<std::string, Resource> resources_;
  std::map<std::string, uint64_t> registrations_;
  std::map<std::string, Pod> pods_;
};

}  // namespace gpuslice::simkubelet
