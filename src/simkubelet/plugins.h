#pragma once

// The gRPC side of the stand-in: the Registration and pod-resources services, and a connection to
// each plugin.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "simkubelet/node.h"

namespace gpuslice::simkubelet {

// What a plugin answered to Allocate, of one container.
struct Allocated {
  std::map<std::string, std::string> envs;
  struct Mount {
    std::string container_path, host_path;
    bool read_only = false;
  };
  std::vector<Mount> mounts;
  struct DeviceNode {
    std::string container_path, host_path;
  };
  std::vector<DeviceNode> device_nodes;
  std::map<std::string, std::string> annotations;
  std::vector<std::string> cdi_devices;

  // Another resource of the same container: what is there already stays, as a kubelet merges.
  void add(const Allocated& more);
};

class Plugins {
 public:
  struct Options {
    std::string dir;     // laid out like /var/lib/kubelet
    Duration latency{};  // added to each call of ours
    // How long Register waits for a plugin that does not serve; the kubelet's own.
    Duration patience = std::chrono::seconds(10);
  };
  // Makes the folders, removes the sockets that lie there (as a kubelet does at start), and serves.
  [[nodiscard]] static Result<std::unique_ptr<Plugins>> start(const Options& options, Node& node);
  virtual ~Plugins() = default;
  Plugins(const Plugins&) = delete;
  Plugins& operator=(const Plugins&) = delete;

  // Ends all streams, wipes the socket folder and serves anew; pods stay.
  [[nodiscard]] virtual Status restart() = 0;
  // What one container would best get of `available`, which contains `must_include`.
  struct Ask {
    std::vector<std::string> available, must_include;
    uint32_t count = 0;
  };
  [[nodiscard]] virtual Result<std::vector<std::string>> preferred(const std::string& endpoint,
                                                                   const Ask& ask) = 0;
  [[nodiscard]] virtual Result<Allocated> allocate(const std::string& endpoint,
                                                   const std::vector<std::string>& ids) = 0;

 protected:
  Plugins() = default;
};

}  // namespace gpuslice::simkubelet
