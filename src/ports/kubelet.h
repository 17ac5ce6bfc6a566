#pragma once

// What the agent and the kubelet say to each other, as values, and the seams to whoever carries
// them.
//
// All of Kubelet is called on thread T0 and never blocks: answers arrive later as calls of
// KubeletEvents on T0. A PluginService is called on the thread of the plugin's server, possibly
// while T0 runs.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gpuslice::ports {

struct Device {
  std::string id;  // "GPU-…" or "GPU-…::3"
  bool healthy = true;
  std::optional<int64_t> numa_node;  // none: no topology
  friend bool operator==(const Device&, const Device&) = default;
};

// What ListAndWatch sends: sorted by id, unique ids.
struct DeviceList {
  std::vector<Device> devices;
  friend bool operator==(const DeviceList&, const DeviceList&) = default;
};

// GetPreferredAllocation.
struct PreferredContainer {
  // Thousands on a node that shares much: the asker's, not copied.
  std::vector<std::string_view> available;
  std::vector<std::string> must_include;  // part of `available`
  uint32_t size = 0;
};
struct PreferredRequest {
  std::vector<PreferredContainer> containers;
};
struct PreferredAnswer {
  std::vector<std::vector<std::string>> containers;  // ids, one list for each container asked for
};

// Allocate.
struct AllocateRequest {
  std::vector<std::vector<std::string>> containers;  // ids
};
struct Mount {
  std::string container_path;
  std::string host_path;
  bool read_only = true;
  friend bool operator==(const Mount&, const Mount&) = default;
};
struct DeviceNode {
  std::string container_path;
  std::string host_path;
  std::string permissions;  // "rw"
  friend bool operator==(const DeviceNode&, const DeviceNode&) = default;
};
struct ContainerAnswer {
  std::map<std::string, std::string> envs;
  std::vector<Mount> mounts;
  std::vector<DeviceNode> devices;
  std::map<std::string, std::string> annotations;
  std::vector<std::string> cdi_devices;
  friend bool operator==(const ContainerAnswer&, const ContainerAnswer&) = default;
};
struct AllocateAnswer {
  std::vector<ContainerAnswer> containers;
};

// One resource's side of the device-plugin protocol. Thread-safe; calls neither NVML nor T0, and
// answers in microseconds.
class PluginService {
 public:
  virtual ~PluginService() = default;
  [[nodiscard]] virtual Result<PreferredAnswer> preferred(const PreferredRequest& request) = 0;
  [[nodiscard]] virtual Result<AllocateAnswer> allocate(const AllocateRequest& request) = 0;
};

// Who holds what, as the kubelet's pod-resources service tells.
struct PodDevices {
  std::string pod_namespace;
  std::string pod;
  std::string container;
  std::string resource;
  std::vector<std::string> ids;
  friend bool operator==(const PodDevices&, const PodDevices&) = default;
};

// The kubelet of this node and our sockets in its folder.
class Kubelet {
 public:
  virtual ~Kubelet() = default;

  // Serves `resource` ("nvidia.com/gpu") on its own socket from the moment it returns; does not
  // register. `service` outlives the serving. kInUse: another program answers on that socket, which
  // is left alone. kInvalidConfig: the path is too long. kUnavailable: the folder is not there
  // (yet). kNoPermission, kFailed.
  [[nodiscard]] virtual Status serve(const std::string& resource, PluginService& service,
                                     std::shared_ptr<const DeviceList> list) = 0;
  // A new list for every live stream of a resource that is served.
  virtual void publish(const std::string& resource, std::shared_ptr<const DeviceList> list) = 0;
  // Ends the streams and removes the socket. Nothing happens if it is not served.
  virtual void stop(const std::string& resource) = 0;
  // Is the socket of a served resource still where it was made?
  [[nodiscard]] virtual bool socket_in_place(const std::string& resource) const = 0;
  // Does anybody hold a ListAndWatch stream of it that began after register_plugin() was last
  // called? A kubelet whose stream broke does not come back by itself, and streams of kubelets that
  // were there before it may linger.
  [[nodiscard]] virtual bool watched(const std::string& resource) const = 0;

  // Asks the kubelet to register a served resource; on_registered() follows. Asked again before it
  // came, it comes once, and tells of the last time.
  virtual void register_plugin(const std::string& resource) = 0;
  // Asks which pods hold devices; on_pods() follows, always.
  virtual void list_pods() = 0;
  // What names the kubelet's socket as it stands now (device, inode, time of birth), or "" when
  // there is none: another name is another kubelet life.
  [[nodiscard]] virtual std::string kubelet_socket() const = 0;
};

// What comes back, on T0.
class KubeletEvents {
 public:
  virtual ~KubeletEvents() = default;
  virtual void on_registered(const std::string& resource, Status status) = 0;
  virtual void on_pods(Result<std::vector<PodDevices>> pods) = 0;
  // Something changed in the kubelet's folder: its socket came or went, or one of ours did.
  virtual void on_kubelet_folder_changed() = 0;
};

}  // namespace gpuslice::ports
