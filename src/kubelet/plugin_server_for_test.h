#pragma once

// What tests of the plugin server have in common. Only for tests.

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "deviceplugin/api.grpc.pb.h"
#include "kubelet/plugin_server.h"
#include "kubelet/socket_path.h"

namespace gpuslice::kubelet {

inline std::unique_ptr<v1beta1::DevicePlugin::Stub> stub_of(const std::string& path) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxSendMessageSize(-1);
  return v1beta1::DevicePlugin::NewStub(
      grpc::CreateCustomChannel(grpc_target(path), grpc::InsecureChannelCredentials(), arguments));
}

inline void limit(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
}

// A ListAndWatch stream as a kubelet holds one, and the list that it read last.
struct Watch {
  explicit Watch(v1beta1::DevicePlugin::Stub& stub) {
    limit(context);
    stream = stub.ListAndWatch(&context, {});
  }
  [[nodiscard]] bool reads() { return stream->Read(&list); }

  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1beta1::ListAndWatchResponse>> stream;
  v1beta1::ListAndWatchResponse list;
};

inline int connect_raw(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return fd;
}

inline int listen_raw(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(fd, 4), 0);
  return fd;
}

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
      for (const std::string& id : container.available) {
        if (ids.size() < container.size) ids.push_back(id);
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

class PluginServerTest : public ::testing::Test {
 protected:
  PluginServerTest() {
    std::string pattern = ::testing::TempDir() + "gs k%20 XXXXXX";  // a blank and a percent sign
    dir_ = ::mkdtemp(pattern.data());
    path_ = dir_ + "/nvidia-gpu.sock";
  }
  ~PluginServerTest() override {
    server_.reset();
    std::filesystem::remove_all(dir_);
  }

  Result<std::unique_ptr<PluginServer>> try_serve() {
    PluginServer::Options options;
    options.socket_path = path_;
    options.service = &service_;
    options.list = std::make_shared<const ports::DeviceList>(list_of(2));
    options.seen = [this](const CallSeen& seen) {
      const std::lock_guard lock(mutex_);
      seen_.push_back(std::string(seen.method) + (seen.ok ? " ok" : " failed"));
    };
    options.unique = "test.0";
    return PluginServer::serve(std::move(options));
  }
  void serve() {
    auto server = try_serve();
    ASSERT_TRUE(server.has_value()) << server.error().text();
    server_ = std::move(*server);
    stub_ = stub_of(path_);
  }
  bool answers() {
    const auto stub = stub_of(path_);
    grpc::ClientContext context;
    limit(context);
    v1beta1::DevicePluginOptions options;
    return stub->GetDevicePluginOptions(&context, {}, &options).ok() &&
           options.get_preferred_allocation_available() && !options.pre_start_required();
  }

  std::string dir_;
  std::string path_;
  FakeService service_;
  std::mutex mutex_;
  std::vector<std::string> seen_;
  std::unique_ptr<PluginServer> server_;
  std::unique_ptr<v1beta1::DevicePlugin::Stub> stub_;
};

}  // namespace gpuslice::kubelet
