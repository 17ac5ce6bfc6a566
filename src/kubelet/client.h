#pragma once

// What the agent asks of the kubelet: to register a resource, and which pods hold which devices.
//
// Nothing here blocks: an answer, or an error, comes to a function on the client's thread, which
// hands it on to T0. Each call has a deadline and a channel of its own, so that a kubelet which was
// away is tried anew at once and not when some back-off of gRPC's says so.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "ports/kubelet.h"

namespace gpuslice::kubelet {

inline constexpr Duration kRegisterDeadline = std::chrono::seconds(5);
inline constexpr Duration kPodResourcesDeadline = std::chrono::seconds(5);
// A node of 500 pods with 1,000 devices each stays far below.
inline constexpr int kMaxPodResourcesBytes = 16 * 1024 * 1024;
// Calls under way at a time; one more is refused at once with kUnavailable.
inline constexpr size_t kMaxCallsUnderWay = 32;

class Client {
 public:
  using Registered = std::function<void(Status)>;
  using Listed = std::function<void(Result<std::vector<ports::PodDevices>>)>;

  struct Registration {
    std::string resource;  // "nvidia.com/gpu"
    std::string endpoint;  // file name of the plugin's socket in the kubelet's folder
  };

  Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  // Cancels what is under way (its functions are called with kUnavailable) and joins the thread.
  ~Client();

  // `socket`: <kubelet-dir>/device-plugins/kubelet.sock. kUnavailable: nobody answers there;
  // kTimeout: not within kRegisterDeadline; kFailed: the kubelet refused, with its reason.
  void register_plugin(const std::string& socket, const Registration& registration,
                       Registered done);

  // `socket`: <kubelet-dir>/pod-resources/kubelet.sock.
  void list_pods(const std::string& socket, Listed done);

  // From one thread at a time. See PluginServer::unanswered().
  [[nodiscard]] Duration unanswered();
  // Any thread. Calls under way now, and those refused beyond kMaxCallsUnderWay.
  [[nodiscard]] size_t under_way() const;
  [[nodiscard]] uint64_t refused() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gpuslice::kubelet
