#include "kubelet/served_plugin_for_test.h"

#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <utility>

#include "base/unix_address.h"
#include "deviceplugin/api.grpc.pb.h"
#include "kubelet/socket_path.h"

namespace gpuslice::kubelet {

std::shared_ptr<grpc::Channel> channel_to(const std::string& path) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxSendMessageSize(-1);
  return grpc::CreateCustomChannel(grpc_target(path), grpc::InsecureChannelCredentials(),
                                   arguments);
}

void limit(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
}

Watch::Watch(const std::shared_ptr<grpc::Channel>& channel)
    : context(std::make_unique<grpc::ClientContext>()),
      list(std::make_unique<v1beta1::ListAndWatchResponse>()) {
  limit(*context);
  stream = v1beta1::DevicePlugin::NewStub(channel)->ListAndWatch(context.get(), {});
}

Watch::~Watch() = default;

bool Watch::reads() { return stream->Read(list.get()); }

int connect_raw(const std::string& path) {
  const sockaddr_un address = unix_address(path).value();
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  return fd;
}

int listen_raw(const std::string& path) {
  const sockaddr_un address = unix_address(path).value();
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(fd, 4), 0);
  return fd;
}

ServedPlugin::ServedPlugin() {
  std::string pattern = ::testing::TempDir() + "gs k%20 XXXXXX";  // a blank and a percent sign
  dir_ = ::mkdtemp(pattern.data());
  path_ = dir_ + "/nvidia-gpu.sock";
}

ServedPlugin::~ServedPlugin() {
  server_.reset();
  std::filesystem::remove_all(dir_);
}

Result<std::unique_ptr<PluginServer>> ServedPlugin::try_serve() {
  PluginServer::Options options;
  options.socket_path = path_;
  options.service = &service_;
  options.list = std::make_shared<const ports::DeviceList>(list_of(2));
  options.seen = [this](const CallSeen& seen) {
    const std::lock_guard lock(mutex_);
    seen_.push_back(std::string(seen.method) + (seen.ok ? " ok" : " failed"));
  };
  options.unique = "test.0";
  options.acceptor = acceptor_;
  return PluginServer::serve(std::move(options));
}

void ServedPlugin::serve() {
  auto server = try_serve();
  ASSERT_TRUE(server.has_value()) << server.error().text();
  server_ = std::move(*server);
  channel_ = channel_to(path_);
}

bool ServedPlugin::answers() {
  const auto stub = v1beta1::DevicePlugin::NewStub(channel_to(path_));
  grpc::ClientContext context;
  limit(context);
  v1beta1::DevicePluginOptions options;
  return stub->GetDevicePluginOptions(&context, {}, &options).ok() &&
         options.get_preferred_allocation_available() && !options.pre_start_required();
}

}  // namespace gpuslice::kubelet
