#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "deviceplugin/api.grpc.pb.h"
#include "kubelet/acceptor.h"
#include "kubelet/client.h"
#include "kubelet/plugin_server.h"
#include "kubelet/socket_path.h"
#include "podresources/api.grpc.pb.h"

namespace gpuslice::kubelet {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::unique_ptr<v1beta1::DevicePlugin::Stub> stub_of(const std::string& path) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxSendMessageSize(-1);
  return v1beta1::DevicePlugin::NewStub(
      grpc::CreateCustomChannel(grpc_target(path), grpc::InsecureChannelCredentials(), arguments));
}

void limit(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + seconds(20));
}

int connect_raw(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return fd;
}

int listen_raw(const std::string& path) {
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
  const auto until = std::chrono::steady_clock::now() + seconds(10);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

ports::DeviceList list_of(int devices, const std::string& prefix = "GPU-0::") {
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
    fs::remove_all(dir_);
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

TEST_F(PluginServerTest, AnswersEveryCallAndCountsIt) {
  serve();
  EXPECT_TRUE(answers());
  {
    grpc::ClientContext context;
    v1beta1::AllocateRequest request;
    request.add_container_requests()->add_devices_ids("GPU-0::1");
    request.add_container_requests()->add_devices_ids("GPU-0::0");
    v1beta1::AllocateResponse response;
    ASSERT_TRUE(stub_->Allocate(&context, request, &response).ok());
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
    const grpc::Status status = stub_->Allocate(&context, request, &response);
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
    ASSERT_TRUE(stub_->GetPreferredAllocation(&context, request, &response).ok());
    ASSERT_EQ(response.container_responses_size(), 1);
    ASSERT_EQ(response.container_responses(0).deviceids_size(), 2);
    EXPECT_EQ(response.container_responses(0).deviceids(0), "c");
    EXPECT_EQ(response.container_responses(0).deviceids(1), "a");
  }
  {
    grpc::ClientContext context;
    v1beta1::PreStartContainerResponse response;
    EXPECT_TRUE(stub_->PreStartContainer(&context, {}, &response).ok());
  }
  const std::lock_guard lock(mutex_);
  EXPECT_EQ(seen_,
            (std::vector<std::string>{"GetDevicePluginOptions ok", "Allocate ok", "Allocate failed",
                                      "GetPreferredAllocation ok", "PreStartContainer ok"}));
}

TEST_F(PluginServerTest, AStreamGetsTheListAndThenEachNewerOne) {
  serve();
  grpc::ClientContext context;
  limit(context);
  const auto stream = stub_->ListAndWatch(&context, {});
  v1beta1::ListAndWatchResponse response;
  ASSERT_TRUE(stream->Read(&response));
  ASSERT_EQ(response.devices_size(), 2);
  EXPECT_EQ(response.devices(0).id(), "GPU-0::0");
  EXPECT_EQ(response.devices(0).health(), "Healthy");
  EXPECT_FALSE(response.devices(0).has_topology());

  ports::DeviceList list;
  list.devices = {{"a", false, {1, 0}}};
  server_->publish(std::make_shared<const ports::DeviceList>(list));
  ASSERT_TRUE(stream->Read(&response));
  ASSERT_EQ(response.devices_size(), 1);
  EXPECT_EQ(response.devices(0).health(), "Unhealthy");
  ASSERT_EQ(response.devices(0).topology().nodes_size(), 2);
  EXPECT_EQ(response.devices(0).topology().nodes(0).id(), 1);
  // The client has what it reads before the server has been told that it went out.
  EXPECT_TRUE(eventually([&] { return server_->lists_sent() == 2; }));
  EXPECT_EQ(server_->streams(), 1u);
}

TEST_F(PluginServerTest, ASlowReaderGetsTheNewestNotAQueueOfOldOnes) {
  serve();
  grpc::ClientContext context;
  limit(context);
  const auto stream = stub_->ListAndWatch(&context, {});
  v1beta1::ListAndWatchResponse response;
  ASSERT_TRUE(stream->Read(&response));
  constexpr int kChanges = 2000;
  for (int i = 1; i <= kChanges; ++i) {
    server_->publish(std::make_shared<const ports::DeviceList>(
        list_of(400, "change-" + std::to_string(i) + "-with-a-long-name-")));
  }
  int reads = 0;
  const std::string last = "change-" + std::to_string(kChanges) + "-with-a-long-name-0";
  do {
    ASSERT_TRUE(stream->Read(&response));
    ++reads;
  } while (response.devices(0).id() != last);
  EXPECT_LT(reads, kChanges);
}

TEST_F(PluginServerTest, AThousandStreamsOpenedAndDroppedThenAChangeArrives) {
  serve();
  grpc::ClientContext kept_context;
  limit(kept_context);
  const auto kept = stub_->ListAndWatch(&kept_context, {});
  v1beta1::ListAndWatchResponse response;
  ASSERT_TRUE(kept->Read(&response));
  for (int i = 0; i < 1000; ++i) {
    const auto other =
        i % 10 == 0 ? stub_of(path_) : nullptr;  // now and then a connection of its own
    grpc::ClientContext context;
    limit(context);
    const auto stream = (other ? other : stub_)->ListAndWatch(&context, {});
    if (i % 2 == 0) {
      ASSERT_TRUE(stream->Read(&response)) << stream->Finish().error_message();
    }
    context.TryCancel();
    // Dropped streams are reaped as they go: the limit is never met by those that are gone.
    if (i % 32 == 31) {
      ASSERT_TRUE(eventually([&] { return server_->streams() == 1; }));
    }
  }
  ASSERT_TRUE(eventually([&] { return server_->streams() == 1; }));
  server_->publish(std::make_shared<const ports::DeviceList>(list_of(7)));
  ASSERT_TRUE(kept->Read(&response));
  EXPECT_EQ(response.devices_size(), 7);
}

TEST_F(PluginServerTest, OneStreamTooManyIsRefusedAndTheOthersGoOn) {
  serve();
  struct Open {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1beta1::ListAndWatchResponse>> stream;
  };
  std::vector<std::unique_ptr<Open>> open;
  v1beta1::ListAndWatchResponse response;
  for (size_t i = 0; i < kMaxStreams; ++i) {
    auto one = std::make_unique<Open>();
    limit(one->context);
    one->stream = stub_->ListAndWatch(&one->context, {});
    ASSERT_TRUE(one->stream->Read(&response));
    open.push_back(std::move(one));
  }
  grpc::ClientContext context;
  limit(context);
  const auto stream = stub_->ListAndWatch(&context, {});
  EXPECT_FALSE(stream->Read(&response));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "64 ListAndWatch streams are open already; close one");
  EXPECT_EQ(server_->refused_streams(), 1u);
  server_->publish(std::make_shared<const ports::DeviceList>(list_of(3)));
  for (const auto& one : open) {
    ASSERT_TRUE(one->stream->Read(&response));
    EXPECT_EQ(response.devices_size(), 3);
  }
}

// Another process that connects `count` times, says `bytes` each time, and holds what it has until
// this ends. It has done so when the object is made.
class Crowd {
 public:
  Crowd(const std::string& path, int count, const std::string& bytes = {}) {
    std::array<int, 2> done{}, end{};
    EXPECT_EQ(::pipe2(done.data(), O_CLOEXEC), 0);
    EXPECT_EQ(::pipe2(end.data(), O_CLOEXEC), 0);
    child_ = ::fork();
    if (child_ == 0) {
      ::close(end[1]);
      for (int i = 0; i < count; ++i) {
        [[maybe_unused]] const ssize_t sent =
            ::send(connect_raw(path), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      }
      char byte = 0;
      [[maybe_unused]] ssize_t told = ::write(done[1], &byte, 1);
      told = ::read(end[0], &byte, 1);
      ::_exit(0);
    }
    ::close(done[1]);
    ::close(end[0]);
    char byte = 0;
    EXPECT_EQ(::read(done[0], &byte, 1), 1);
    ::close(done[0]);
    end_ = end[1];
  }
  ~Crowd() {
    ::close(end_);
    ::waitpid(child_, nullptr, 0);
  }

 private:
  pid_t child_ = 0;
  int end_ = -1;
};

size_t descriptors() {
  return static_cast<size_t>(std::distance(fs::directory_iterator("/proc/self/fd"), {}));
}

// What a client says to ask for `streams` ListAndWatch streams on one connection, byte for byte.
std::string list_and_watch(uint8_t streams) {
  const auto frame = [](uint8_t kind, uint8_t flags, uint8_t stream, const std::string& payload) {
    std::string out{0, 0, static_cast<char>(payload.size()), static_cast<char>(kind)};
    out += {static_cast<char>(flags), 0, 0, 0, static_cast<char>(stream)};
    return out + payload;
  };
  std::string headers;
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {":method", "POST"},
           {":scheme", "http"},
           {":path", "/v1beta1.DevicePlugin/ListAndWatch"},
           {":authority", "localhost"},
           {"content-type", "application/grpc"},
           {"te", "trailers"}}) {
    headers += std::string{0, static_cast<char>(name.size())} + name;
    headers += std::string{static_cast<char>(value.size())} + value;
  }
  std::string out = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, "");
  for (uint8_t i = 0; i < streams; ++i) {
    const auto stream = static_cast<uint8_t>(2 * i + 1);
    out += frame(1, 4, stream, headers) + frame(0, 1, stream, std::string(5, '\0'));
  }
  return out;
}

TEST_F(PluginServerTest, OneConnectionTooManyIsClosedAndTheOthersGoOn) {
  serve();
  grpc::ClientContext context;
  limit(context);
  const auto stream = stub_->ListAndWatch(&context, {});
  v1beta1::ListAndWatchResponse response;
  ASSERT_TRUE(stream->Read(&response));
  std::vector<int> held;
  for (size_t i = 1; i < kMaxConnections; ++i) held.push_back(connect_raw(path_));
  ASSERT_TRUE(eventually([&] { return server_->connections() == kMaxConnections; }));
  EXPECT_EQ(server_->refused_connections(), 0u);

  const int one_more = connect_raw(path_);
  char byte = 0;
  EXPECT_EQ(::recv(one_more, &byte, 1, 0), 0) << "closed without a word";
  ::close(one_more);
  EXPECT_EQ(server_->refused_connections(), 1u);
  EXPECT_EQ(server_->connections(), kMaxConnections);
  server_->publish(std::make_shared<const ports::DeviceList>(list_of(3)));
  ASSERT_TRUE(stream->Read(&response));

  ::close(held.back());
  held.pop_back();
  ASSERT_TRUE(eventually([&] { return server_->connections() == kMaxConnections - 1; }));
  EXPECT_TRUE(answers());
  for (const int fd : held) ::close(fd);
}

TEST_F(PluginServerTest, AConnectionThatEndsOnEitherSideIsForgotten) {
  serve();
  const size_t before = descriptors();
  const int leaves = connect_raw(path_);
  ASSERT_TRUE(eventually([&] { return server_->connections() == 1; }));
  ::close(leaves);
  ASSERT_TRUE(eventually([&] { return server_->connections() == 0; }));

  const int babbles = connect_raw(path_);  // gRPC closes it
  const std::string garbage(100, 'x');
  ASSERT_EQ(::send(babbles, garbage.data(), garbage.size(), MSG_NOSIGNAL), 100);
  EXPECT_TRUE(eventually([&] {
    std::array<char, 256> bytes{};
    return ::recv(babbles, bytes.data(), bytes.size(), 0) <= 0;
  }));
  EXPECT_TRUE(eventually([&] { return server_->connections() == 0; }));
  ::close(babbles);
  EXPECT_TRUE(eventually([&] { return descriptors() == before; }));
  EXPECT_EQ(server_->refused_connections(), 0u);
}

TEST_F(PluginServerTest, AKubeletGetsInAmongTheConnectionsOfAnother) {
  serve();
  grpc::ClientContext context;
  limit(context);
  const auto stream = stub_->ListAndWatch(&context, {});
  v1beta1::ListAndWatchResponse response;
  ASSERT_TRUE(stream->Read(&response));
  const size_t before = descriptors();
  {
    const Crowd crowd(path_, 1000);
    EXPECT_TRUE(
        eventually([&] { return server_->refused_connections() >= 1001 - kMaxConnections; }));
    EXPECT_EQ(server_->connections(), kMaxConnections);
    // gRPC's descriptor and ours of each.
    EXPECT_LE(descriptors(), before + 2 * kMaxConnections + 4);
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(answers()) << i;
    server_->publish(std::make_shared<const ports::DeviceList>(list_of(3)));
    ASSERT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.devices_size(), 3);
  }
  EXPECT_TRUE(eventually([&] { return server_->connections() == 1 && descriptors() <= before; }));
}

TEST_F(PluginServerTest, AKubeletGetsItsStreamAmongThoseOfAnother) {
  serve();
  const Crowd crowd(path_, 1, list_and_watch(90));
  ASSERT_TRUE(eventually([&] { return server_->streams() == kMaxStreams; }));
  grpc::ClientContext context;
  limit(context);
  const auto stream = stub_->ListAndWatch(&context, {});
  v1beta1::ListAndWatchResponse response;
  ASSERT_TRUE(stream->Read(&response)) << stream->Finish().error_message();
  EXPECT_EQ(server_->streams(), kMaxStreams);
  // What has a stream goes as well, when all of another process do.
  const Crowd more(path_, 100, list_and_watch(1));
  ASSERT_TRUE(eventually([&] { return server_->connections() == kMaxConnections; }));
  EXPECT_TRUE(answers());
  server_->publish(std::make_shared<const ports::DeviceList>(list_of(3)));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.devices_size(), 3);
}

TEST_F(PluginServerTest, WhoComesAndGoesWithoutEndKeepsNobodyOut) {
  serve();
  const size_t before = descriptors();
  size_t most = 0;
  for (int i = 0; i < 5000; ++i) {
    ::close(connect_raw(path_));
    if (i % 100 == 0) most = std::max(most, descriptors());
    if (i % 1000 == 0) {
      EXPECT_TRUE(answers());
    }
  }
  EXPECT_TRUE(answers());
  EXPECT_LE(most, before + 2 * kMaxConnections + 16);
}

TEST(WhoGoes, IsOfTheProcessThatHasMost) {
  const auto goes = [](std::vector<Guest> guests, int pid) {
    const std::optional<size_t> place = who_goes(guests, pid);
    return place ? static_cast<int>(*place) : -1;
  };
  // The new one, if its process has as many as any.
  EXPECT_EQ(goes({{1, false}, {2, false}, {2, false}}, 2), -1);
  EXPECT_EQ(goes({{1, false}, {2, false}}, 2), -1);
  // Else the oldest of the process that has most, without a stream if there is one.
  EXPECT_EQ(goes({{1, false}, {2, true}, {2, false}, {2, false}}, 1), 2);
  EXPECT_EQ(goes({{1, false}, {2, true}, {2, true}}, 3), 1);
  EXPECT_EQ(goes({{1, false}, {2, false}}, 3), 0);
  // One of several that stream is not missed as the only one is.
  EXPECT_EQ(goes({{1, true}, {2, true}}, 3), -1);
  // Of those that cannot be told apart none that streams goes, and the newest comes in.
  EXPECT_EQ(goes({{0, true}, {0, false}, {0, false}}, 0), 1);
  EXPECT_EQ(goes({{0, true}, {0, true}, {3, true}}, 4), -1);
  EXPECT_EQ(goes({{0, true}, {0, true}}, 0), -1);
  EXPECT_EQ(goes({{0, true}, {3, true}, {3, true}}, 0), 1);
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
  EXPECT_EQ(stub_->Allocate(&context, request, &response).error_code(),
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
    EXPECT_TRUE(stub_->Allocate(&context, request, &response).ok());
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
  grpc::ClientContext context;
  limit(context);
  const auto stream = stub_->ListAndWatch(&context, {});
  v1beta1::ListAndWatchResponse response;
  ASSERT_TRUE(stream->Read(&response));
  const auto start = std::chrono::steady_clock::now();
  server_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(1));
  EXPECT_FALSE(stream->Read(&response));
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
          stub_of(path_)->Allocate(&context, request, &response);
      grpc::ClientContext stream_context;
      stream_context.set_deadline(std::chrono::system_clock::now() + seconds(2));
      const auto stream = stub_of(path_)->ListAndWatch(&stream_context, {});
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

// --- what we ask of the kubelet
// --------------------------------------------------------------------

class FakeKubelet final : public v1beta1::Registration::Service,
                          public v1::PodResourcesLister::Service {
 public:
  explicit FakeKubelet(const std::string& path) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(grpc_target(path), grpc::InsecureServerCredentials());
    builder.RegisterService(static_cast<v1beta1::Registration::Service*>(this));
    builder.RegisterService(static_cast<v1::PodResourcesLister::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  grpc::Status Register(grpc::ServerContext*, const v1beta1::RegisterRequest* request,
                        v1beta1::Empty*) override {
    said = request->version() + " " + request->endpoint() + " " + request->resource_name() +
           (request->options().get_preferred_allocation_available() ? " preferred" : "");
    if (request->resource_name() == "bad") {
      return {grpc::StatusCode::INVALID_ARGUMENT, "the ResourceName \"bad\" is invalid"};
    }
    return grpc::Status::OK;
  }
  grpc::Status List(grpc::ServerContext*, const v1::ListPodResourcesRequest*,
                    v1::ListPodResourcesResponse* response) override {
    auto& pod = *response->add_pod_resources();
    pod.set_name("pod-1");
    pod.set_namespace_("default");
    auto& container = *pod.add_containers();
    container.set_name("main");
    auto& devices = *container.add_devices();
    devices.set_resource_name("nvidia.com/gpu");
    devices.add_device_ids("GPU-0::1");
    auto& more = *container.add_devices();  // a kubelet may send one entry for each NUMA node
    more.set_resource_name("nvidia.com/gpu");
    more.add_device_ids("GPU-0::3");
    return grpc::Status::OK;
  }
  std::string said;

 private:
  std::unique_ptr<grpc::Server> server_;
};

class ClientTest : public PluginServerTest {
 protected:
  Status register_and_wait(const std::string& resource) {
    std::promise<Status> answer;
    client_.register_plugin(path_, {resource, "nvidia-gpu.sock"},
                            [&](Status status) { answer.set_value(std::move(status)); });
    return answer.get_future().get();
  }
  Client client_;
};

TEST_F(ClientTest, Registers) {
  FakeKubelet kubelet(path_);
  EXPECT_TRUE(register_and_wait("nvidia.com/gpu").has_value());
  EXPECT_EQ(kubelet.said, "v1beta1 nvidia-gpu.sock nvidia.com/gpu preferred");
  EXPECT_EQ(register_and_wait("bad").error(),
            (Error{Code::kFailed,
                   path_ + ": registering bad: the kubelet refused: the ResourceName \"bad\" is "
                           "invalid",
                   {}}));
}

TEST_F(ClientTest, AKubeletThatWasAwayIsTriedAnewAtOnce) {
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(register_and_wait("nvidia.com/gpu").error().code, Code::kUnavailable);
  }
  FakeKubelet kubelet(path_);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(register_and_wait("nvidia.com/gpu").has_value());
  EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(500));
}

TEST_F(ClientTest, ListsThePodsDevices) {
  FakeKubelet kubelet(path_);
  std::promise<Result<std::vector<ports::PodDevices>>> answer;
  client_.list_pods(path_, [&](Result<std::vector<ports::PodDevices>> pods) {
    answer.set_value(std::move(pods));
  });
  const auto pods = answer.get_future().get();
  ASSERT_TRUE(pods.has_value());
  ASSERT_EQ(pods->size(), 1u);
  EXPECT_EQ(
      (*pods)[0],
      (ports::PodDevices{"default", "pod-1", "main", "nvidia.com/gpu", {"GPU-0::1", "GPU-0::3"}}));
}

TEST_F(ClientTest, ItsThreadLivesUnlessAnAnswerHoldsIt) {
  std::promise<void> hang;
  std::promise<void> done;
  client_.list_pods(dir_ + "/nobody.sock", [&](const Result<std::vector<ports::PodDevices>>&) {
    hang.get_future().wait();
    done.set_value();
  });
  EXPECT_TRUE(eventually([this] { return client_.unanswered() > milliseconds(300); }));
  hang.set_value();
  done.get_future().wait();
  EXPECT_TRUE(eventually([this] { return client_.unanswered() == Duration::zero(); }));
}

TEST(ClientEnd, AnswersWhatIsUnderWay) {
  std::string pattern = ::testing::TempDir() + "gsXXXXXX";
  const std::string dir = ::mkdtemp(pattern.data());
  const int fd = listen_raw(dir + "/kubelet.sock");  // takes connections and says nothing
  Status answer;
  {
    Client client;
    client.register_plugin(dir + "/kubelet.sock", {"r", "e"},
                           [&](Status status) { answer = status; });
  }
  ASSERT_FALSE(answer.has_value());
  EXPECT_EQ(answer.error().code, Code::kUnavailable);
  ::close(fd);
  fs::remove_all(dir);
}

}  // namespace
}  // namespace gpuslice::kubelet
