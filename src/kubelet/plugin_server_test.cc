#include "kubelet/plugin_server.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "deviceplugin/api.grpc.pb.h"
#include "kubelet/served_plugin_for_test.h"
#include "kubelet/socket_path.h"

namespace gpuslice::kubelet {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

class PluginServerTest : public ServedPlugin {
 protected:
  [[nodiscard]] std::unique_ptr<v1beta1::DevicePlugin::Stub> stub() const {
    return v1beta1::DevicePlugin::NewStub(channel_);
  }
};

TEST_F(PluginServerTest, AnswersEveryCallAndCountsIt) {
  serve();
  EXPECT_TRUE(answers());
  {
    grpc::ClientContext context;
    v1beta1::AllocateRequest request;
    request.add_container_requests()->add_devices_ids("GPU-0::1");
    request.add_container_requests()->add_devices_ids("GPU-0::0");
    v1beta1::AllocateResponse response;
    ASSERT_TRUE(stub()->Allocate(&context, request, &response).ok());
    ASSERT_EQ(response.container_responses_size(), 2);
    EXPECT_EQ(response.container_responses(0).envs().at("NVIDIA_VISIBLE_DEVICES"), "GPU-0::1");
    EXPECT_EQ(response.container_responses(1).envs().at("NVIDIA_VISIBLE_DEVICES"), "GPU-0::0");
    const auto& first = response.container_responses(0);
    ASSERT_EQ(first.mounts_size(), 1);
    EXPECT_EQ(first.mounts(0).container_path() + first.mounts(0).host_path(), "/c/h");
    EXPECT_TRUE(first.mounts(0).read_only());
    ASSERT_EQ(first.devices_size(), 1);
    EXPECT_EQ(first.devices(0).container_path(), "/dev/nvidia0");
    EXPECT_EQ(first.devices(0).host_path(), "/root/dev/nvidia0");
    EXPECT_EQ(first.devices(0).permissions(), "rw");
    EXPECT_EQ(first.annotations().at("cdi.k8s.io/x"), "y");
    ASSERT_EQ(first.cdi_devices_size(), 1);
    EXPECT_EQ(first.cdi_devices(0).name(), "nvidia.com/gpu=0");
  }
  {
    grpc::ClientContext context;
    v1beta1::AllocateRequest request;
    request.add_container_requests()->add_devices_ids("gone");
    v1beta1::AllocateResponse response;
    const grpc::Status status = stub()->Allocate(&context, request, &response);
    EXPECT_EQ(static_cast<int>(status.error_code()), grpc_status(Code::kNotFound));
    EXPECT_EQ(status.error_message(), "device gone: it was withdrawn");
  }
  {
    grpc::ClientContext context;
    v1beta1::PreferredAllocationRequest request;
    auto& container = *request.add_container_requests();
    container.add_available_deviceids("a");
    container.add_available_deviceids("b");
    container.add_must_include_deviceids("c");
    container.set_allocation_size(2);
    v1beta1::PreferredAllocationResponse response;
    ASSERT_TRUE(stub()->GetPreferredAllocation(&context, request, &response).ok());
    ASSERT_EQ(response.container_responses_size(), 1);
    ASSERT_EQ(response.container_responses(0).deviceids_size(), 2);
    EXPECT_EQ(response.container_responses(0).deviceids(0), "c");
    EXPECT_EQ(response.container_responses(0).deviceids(1), "a");
  }
  {
    grpc::ClientContext context;
    v1beta1::PreStartContainerResponse response;
    EXPECT_TRUE(stub()->PreStartContainer(&context, {}, &response).ok());
  }
  const std::lock_guard lock(mutex_);
  EXPECT_EQ(seen_,
            (std::vector<std::string>{"GetDevicePluginOptions ok", "Allocate ok", "Allocate failed",
                                      "GetPreferredAllocation ok", "PreStartContainer ok"}));
}

TEST_F(PluginServerTest, AStreamGetsTheListAndThenEachNewerOne) {
  serve();
  Watch watch(channel_);
  ASSERT_TRUE(watch.reads());
  ASSERT_EQ(watch.list->devices_size(), 2);
  EXPECT_EQ(watch.list->devices(0).id(), "GPU-0::0");
  EXPECT_EQ(watch.list->devices(0).health(), "Healthy");
  EXPECT_FALSE(watch.list->devices(0).has_topology());

  ports::DeviceList list;
  list.devices = {{"a", false, 1}};
  server_->publish(std::make_shared<const ports::DeviceList>(list));
  ASSERT_TRUE(watch.reads());
  ASSERT_EQ(watch.list->devices_size(), 1);
  EXPECT_EQ(watch.list->devices(0).health(), "Unhealthy");
  ASSERT_EQ(watch.list->devices(0).topology().nodes_size(), 1);
  EXPECT_EQ(watch.list->devices(0).topology().nodes(0).id(), 1);
  // The client has what it reads before the server has been told that it went out.
  EXPECT_TRUE(eventually([&] { return server_->lists_sent() == 2; }));
  EXPECT_EQ(server_->streams(), 1u);
}

TEST_F(PluginServerTest, ASlowReaderGetsTheNewestNotAQueueOfOldOnes) {
  serve();
  Watch watch(channel_);
  ASSERT_TRUE(watch.reads());
  constexpr int kChanges = 2000;
  for (int i = 1; i <= kChanges; ++i) {
    server_->publish(std::make_shared<const ports::DeviceList>(
        list_of(400, "change-" + std::to_string(i) + "-with-a-long-name-")));
  }
  int reads = 0;
  const std::string last = "change-" + std::to_string(kChanges) + "-with-a-long-name-0";
  do {
    ASSERT_TRUE(watch.reads());
    ++reads;
  } while (watch.list->devices(0).id() != last);
  EXPECT_LT(reads, kChanges);
}

TEST_F(PluginServerTest, AThousandStreamsOpenedAndDroppedThenAChangeArrives) {
  serve();
  Watch kept(channel_);
  ASSERT_TRUE(kept.reads());
  for (int i = 0; i < 1000; ++i) {
    const auto other =
        i % 10 == 0 ? channel_to(path_) : nullptr;  // now and then a connection of its own
    Watch dropped(other ? other : channel_);
    if (i % 2 == 0) {
      ASSERT_TRUE(dropped.reads()) << dropped.stream->Finish().error_message();
    }
    dropped.context->TryCancel();
    // Dropped streams are reaped as they go: the limit is never met by those that are gone.
    if (i % 32 == 31) {
      ASSERT_TRUE(eventually([&] { return server_->streams() == 1; }));
    }
  }
  ASSERT_TRUE(eventually([&] { return server_->streams() == 1; }));
  server_->publish(std::make_shared<const ports::DeviceList>(list_of(7)));
  ASSERT_TRUE(kept.reads());
  EXPECT_EQ(kept.list->devices_size(), 7);
}

TEST_F(PluginServerTest, OneStreamTooManyIsRefusedAndTheOthersGoOn) {
  serve();
  std::vector<std::unique_ptr<Watch>> open;
  for (size_t i = 0; i < kMaxStreams; ++i) {
    open.push_back(std::make_unique<Watch>(channel_));
    ASSERT_TRUE(open.back()->reads());
  }
  Watch one_more(channel_);
  EXPECT_FALSE(one_more.reads());
  const grpc::Status status = one_more.stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "64 ListAndWatch streams are open already; close one");
  EXPECT_EQ(server_->refused_streams(), 1u);
  server_->publish(std::make_shared<const ports::DeviceList>(list_of(3)));
  for (const auto& one : open) {
    ASSERT_TRUE(one->reads());
    EXPECT_EQ(one->list->devices_size(), 3);
  }
}

TEST_F(PluginServerTest, GarbageAndSilenceOnTheSocketHarmNobody) {
  serve();
  Random random(11);
  std::vector<int> silent;
  silent.reserve(20);
  for (int i = 0; i < 20; ++i) silent.push_back(connect_raw(path_));
  for (int i = 0; i < 200; ++i) {
    std::string bytes = random.chance(1, 2) ? "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" : "";
    const size_t length = random.below(600);
    while (bytes.size() < length) bytes += static_cast<char>(random.below(256));
    const int fd = connect_raw(path_);
    [[maybe_unused]] const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    ::close(fd);
  }
  EXPECT_TRUE(answers());
  for (const int fd : silent) ::close(fd);
}

TEST_F(PluginServerTest, AMessageBeyondTheLimitIsRefused) {
  serve();
  grpc::ClientContext context;
  limit(context);
  v1beta1::AllocateRequest request;
  auto& container = *request.add_container_requests();
  for (int i = 0; i < 5; ++i) container.add_devices_ids(std::string(1 << 20, 'x'));
  v1beta1::AllocateResponse response;
  EXPECT_EQ(stub()->Allocate(&context, request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(answers());
}

TEST_F(PluginServerTest, AThreadThatHangsIsSilentAndOneThatLivesIsNot) {
  serve();
  for (int i = 0; i < 20; ++i) {
    EXPECT_LT(server_->unanswered(), seconds(1));
    std::this_thread::sleep_for(milliseconds(2));
  }
  std::thread caller([this] {
    grpc::ClientContext context;
    limit(context);
    v1beta1::AllocateRequest request;
    request.add_container_requests()->add_devices_ids("hangs");
    v1beta1::AllocateResponse response;
    EXPECT_TRUE(stub()->Allocate(&context, request, &response).ok());
  });
  EXPECT_TRUE(eventually([this] { return server_->unanswered() > milliseconds(300); }));
  service_.hang.set_value();
  caller.join();
  EXPECT_TRUE(eventually([this] { return server_->unanswered() == Duration::zero(); }));
  (void)server_->unanswered();
  server_.reset();  // with a beat under way
}

TEST_F(PluginServerTest, EndsWithABeatUnderWay) {
  for (int i = 0; i < 300; ++i) {
    serve();
    (void)server_->unanswered();
    server_.reset();
  }
}

TEST_F(PluginServerTest, EndsAtOnceWithStreamsOpenAndTakesItsSocketAlong) {
  serve();
  Watch watch(channel_);
  ASSERT_TRUE(watch.reads());
  const auto start = std::chrono::steady_clock::now();
  server_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(1));
  EXPECT_FALSE(watch.reads());
  EXPECT_FALSE(fs::exists(path_));
}

TEST_F(PluginServerTest, ServedAgainAHundredTimesWhileClientsCall) {
  std::atomic<bool> stop{false};
  std::thread client([&] {
    while (!stop.load()) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + seconds(2));
      v1beta1::AllocateRequest request;
      request.add_container_requests()->add_devices_ids("GPU-0::1");
      v1beta1::AllocateResponse response;
      [[maybe_unused]] const grpc::Status status =
          v1beta1::DevicePlugin::NewStub(channel_to(path_))->Allocate(&context, request, &response);
      grpc::ClientContext stream_context;
      stream_context.set_deadline(std::chrono::system_clock::now() + seconds(2));
      const auto stream =
          v1beta1::DevicePlugin::NewStub(channel_to(path_))->ListAndWatch(&stream_context, {});
      v1beta1::ListAndWatchResponse list;
      stream->Read(&list);
      stream_context.TryCancel();
    }
  });
  for (int i = 0; i < 100; ++i) {
    serve();
    // So that there is a newer list when the write under way is done, whenever that is.
    for (int k = 0; k < 20; ++k) {
      server_->publish(std::make_shared<const ports::DeviceList>(list_of(200 + k)));
    }
    const auto start = std::chrono::steady_clock::now();
    server_.reset();
    EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(1));
  }
  stop.store(true);
  client.join();
  serve();
  EXPECT_TRUE(answers());
}

TEST_F(PluginServerTest, AStaleSocketIsRemovedALiveOneIsNot) {
  int other = listen_raw(path_);
  const auto refused = try_serve();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error(),
            (Error{Code::kInUse,
                   fmt::format("{}: kubelet_test (PID {}) is serving there; remove NVIDIA's device "
                               "plugin (or the other gpuslice) from this node, gpuslice takes the "
                               "socket when it is free",
                               path_, ::getpid()),
                   {}}));
  EXPECT_TRUE(fs::exists(path_));
  ::close(other);  // the file stays, as after a kill
  EXPECT_TRUE(fs::exists(path_));
  serve();
  EXPECT_TRUE(answers());
}

TEST_F(PluginServerTest, AnotherSocketInItsPlaceIsSeenAndLeftAlone) {
  serve();
  EXPECT_TRUE(server_->in_place());
  fs::remove(path_);
  EXPECT_FALSE(server_->in_place());
  const int other = listen_raw(path_);
  EXPECT_FALSE(server_->in_place());
  server_.reset();
  EXPECT_TRUE(fs::exists(path_));
  ::close(other);
}

TEST_F(PluginServerTest, SaysWhyItCannotServe) {
  path_ = dir_ + "/not there/nvidia-gpu.sock";
  const auto missing = try_serve();
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error(),
            (Error{Code::kUnavailable,
                   fmt::format("{}: the socket cannot be made: {}/not there: No such file or "
                               "directory; the kubelet makes this folder when it starts (see "
                               "--kubelet-dir)",
                               path_, dir_),
                   {}}));
  const std::string deep = dir_ + "/" + std::string(120 - dir_.size(), 'd');
  const auto path = plugin_socket_path(deep, "nvidia.com/gpu");
  ASSERT_FALSE(path.has_value());
  EXPECT_EQ(path.error().message,
            fmt::format("nvidia.com/gpu: cannot be served: the path of its socket, "
                        "{0}/nvidia-gpu.sock, has 137 characters and Linux allows 107; shorten the "
                        "resource's name or the folder (--kubelet-dir)",
                        deep));
  EXPECT_EQ(*plugin_socket_path("/var/lib/kubelet/device-plugins", "nvidia.com/mig-1g.5gb.shared"),
            "/var/lib/kubelet/device-plugins/nvidia-mig-1g.5gb.shared.sock");
}

// A kubelet that starts removes what lies in its folder, also while we make our socket there.
TEST_F(PluginServerTest, AFolderThatIsWipedWhileTheSocketIsMadeIsAnErrorAndNoMore) {
  const std::string folder = path_.substr(0, path_.find_last_of('/'));
  std::atomic<bool> stop{false};
  std::thread wiper([&] {
    while (!stop) {
      std::error_code gone;
      for (const auto& entry : fs::directory_iterator(folder, gone)) fs::remove(entry.path(), gone);
    }
  });
  int made = 0, refused = 0;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while ((made < 50 || refused < 50) && std::chrono::steady_clock::now() < until) {
    const auto served = try_serve();
    ++(served ? made : refused);
    if (served) continue;
    EXPECT_NE(served.error().message.find("the socket cannot be made"), std::string::npos);
  }
  stop = true;
  wiper.join();
  EXPECT_GE(made, 1);
  EXPECT_GE(refused, 1);
}

}  // namespace
}  // namespace gpuslice::kubelet
