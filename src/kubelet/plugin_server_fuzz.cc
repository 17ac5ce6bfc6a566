// Arbitrary bytes at a plugin's socket, by a real connection: frames of HTTP/2 that are none, and
// calls of the protocol that are, some of which nobody hangs up after. The server's thread lives
// on within its limits, and a kubelet that comes next is served.

#include <grpcpp/grpcpp.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/stranger_for_test.h"
#include "base/unix_address.h"
#include "deviceplugin/api.grpc.pb.h"
#include "kubelet/plugin_server.h"
#include "kubelet/socket_path.h"

namespace {

using namespace gpuslice;

constexpr int kQuietMs = 5;
constexpr Duration kDeadAfter = std::chrono::seconds(20);
constexpr uint64_t kLookEvery = 64;
constexpr size_t kGuests = kubelet::kMaxConnections + 16;  // that nobody hangs up

class Service final : public ports::PluginService {
 public:
  Result<ports::PreferredAnswer> preferred(const ports::PreferredRequest& request) override {
    ports::PreferredAnswer answer;
    for (const ports::PreferredContainer& container : request.containers)
      answer.containers.emplace_back(container.available.begin(), container.available.end());
    return answer;
  }
  Result<ports::AllocateAnswer> allocate(const ports::AllocateRequest& request) override {
    ports::AllocateAnswer answer;
    for (const auto& ids : request.containers) {
      if (ids.empty()) return fail(Code::kNotFound, "no device");
      answer.containers.emplace_back().envs["NVIDIA_VISIBLE_DEVICES"] = ids.front();
    }
    return answer;
  }
};

// Served for the whole run, in a folder of its own that the end removes.
class Door {
 public:
  Door() {
    CHECK(::mkdtemp(folder_.data()) != nullptr, "no folder for the socket");
    kubelet::PluginServer::Options options;
    options.socket_path = path();
    options.service = &service_;
    options.list = list_of(0);
    options.unique = "fuzz";
    auto server = kubelet::PluginServer::serve(std::move(options));
    CHECK(server.has_value(), "{}", server.error().text());
    server_ = std::move(*server);
  }
  ~Door() {
    server_.reset();
    ::rmdir(folder_.c_str());
  }
  Door(const Door&) = delete;
  Door& operator=(const Door&) = delete;

  [[nodiscard]] UniqueFd connect() const {
    const auto address = unix_address(path());
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) == 0,
          "the plugin does not listen any more");
    return fd;
  }

  void look() {
    server_->publish(list_of(++lists_));
    CHECK(server_->unanswered() < kDeadAfter, "the server's thread does not answer");
    CHECK(server_->connections() <= kubelet::kMaxConnections, "{} connections",
          server_->connections());
    CHECK(server_->streams() <= kubelet::kMaxStreams, "{} streams", server_->streams());
    const auto stub = v1beta1::DevicePlugin::NewStub(
        grpc::CreateChannel(kubelet::grpc_target(path()), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    const auto stream = stub->ListAndWatch(&context, {});
    v1beta1::ListAndWatchResponse list;
    CHECK(stream->Read(&list), "a kubelet that comes now gets no list");
    CHECK(list.devices_size() == 1 + lists_ % 2, "{} devices", list.devices_size());
    context.TryCancel();
    (void)stream->Finish();
  }

 private:
  [[nodiscard]] std::string path() const { return folder_ + "/plugin.sock"; }

  // One device, or two.
  [[nodiscard]] static std::shared_ptr<const ports::DeviceList> list_of(int number) {
    auto list = std::make_shared<ports::DeviceList>();
    list->devices = {{"GPU-0::0", true, 0}};
    if (number % 2 != 0) list->devices.push_back({"GPU-0::1", false, {}});
    return list;
  }

  int lists_ = 0;
  std::string folder_ = "/tmp/gpuslice-fuzz-XXXXXX";
  Service service_;
  std::unique_ptr<kubelet::PluginServer> server_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Door door;
  static std::deque<UniqueFd> guests;
  const Stranger stranger({reinterpret_cast<const char*>(data), size});
  UniqueFd connection = door.connect();
  (void)stranger.talk(connection, kQuietMs);
  if (stranger.stays) guests.push_back(std::move(connection));
  if (guests.size() > kGuests) guests.pop_front();
  static uint64_t inputs = 0;
  if (++inputs % kLookEvery == 0) door.look();
  return 0;
}
