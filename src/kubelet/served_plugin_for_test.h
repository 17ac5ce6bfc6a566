#pragma once

// What the tests of this folder have in common: a plugin that is served, and clients of it. Only
// for tests.

#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kubelet/acceptor.h"
#include "kubelet/plugin_server.h"

namespace grpc {
class Channel;
class ClientContext;
template <class Response>
class ClientReader;
}  // namespace grpc
namespace v1beta1 {
class ListAndWatchResponse;
}

namespace gpuslice::kubelet {

// A connection of its own to the plugin at `path`.
[[nodiscard]] std::shared_ptr<grpc::Channel> channel_to(const std::string& path);
// Twenty seconds for a call: nothing here takes as long.
void limit(grpc::ClientContext& context);

// A ListAndWatch stream as a kubelet holds one, and the list that it read last.
struct Watch {
  explicit Watch(const std::shared_ptr<grpc::Channel>& channel);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  [[nodiscard]] bool reads();

  std::unique_ptr<grpc::ClientContext> context;
  std::unique_ptr<grpc::ClientReader<v1beta1::ListAndWatchResponse>> stream;
  std::unique_ptr<v1beta1::ListAndWatchResponse> list;
};

// A client that speaks no gRPC, and a server that says nothing.
[[nodiscard]] int connect_raw(const std::string& path);
[[nodiscard]] int listen_raw(const std::string& path);

// Waits until `holds` does, at most ten seconds.
template <class Holds>
bool eventually(Holds holds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

inline ports::DeviceList list_of(int devices, const std::string& prefix = "GPU-0::") {
  ports::DeviceList list;
  for (int i = 0; i < devices; ++i) {
    list.devices.push_back({prefix + std::to_string(i), true, {}});
  }
  return list;
}

class FakeService final : public ports::PluginService {
 public:
  std::promise<void> hang;  // an Allocate of "hangs" ends when it is kept
  Result<ports::PreferredAnswer> preferred(const ports::PreferredRequest& request) override {
    ports::PreferredAnswer answer;
    for (const ports::PreferredContainer& container : request.containers) {
      std::vector<std::string>& ids = answer.containers.emplace_back(container.must_include);
      for (const std::string_view id : container.available) {
        if (ids.size() < container.size) ids.emplace_back(id);
      }
    }
    return answer;
  }
  Result<ports::AllocateAnswer> allocate(const ports::AllocateRequest& request) override {
    ports::AllocateAnswer answer;
    for (const auto& ids : request.containers) {
      if (ids.at(0) == "gone") return fail(Code::kNotFound, "device gone: it was withdrawn");
      if (ids.at(0) == "hangs") hang.get_future().wait();
      ports::ContainerAnswer& one = answer.containers.emplace_back();
      one.envs["NVIDIA_VISIBLE_DEVICES"] = ids.at(0);
      one.mounts = {{"/c", "/h", true}};
      one.devices = {{"/dev/nvidia0", "/root/dev/nvidia0", "rw"}};
      one.annotations["cdi.k8s.io/x"] = "y";
      one.cdi_devices = {"nvidia.com/gpu=0"};
    }
    return answer;
  }
};

class ServedPlugin : public ::testing::Test {
 protected:
  ServedPlugin();
  ~ServedPlugin() override;

  [[nodiscard]] Result<std::unique_ptr<PluginServer>> try_serve();
  void serve();
  // Whether a client that comes now is answered.
  [[nodiscard]] bool answers();

  std::string dir_;
  std::string path_;
  FakeService service_;
  std::mutex mutex_;
  std::vector<std::string> seen_;
  std::shared_ptr<Acceptor> acceptor_ = std::make_shared<Acceptor>();
  std::unique_ptr<PluginServer> server_;
  std::shared_ptr<grpc::Channel> channel_;  // of the plugin served last
};

}  // namespace gpuslice::kubelet
