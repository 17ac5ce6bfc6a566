#include "simkubelet/plugins.h"

#include <grpcpp/grpcpp.h>
#include <time.h>

#include <filesystem>
#include <list>
#include <mutex>
#include <set>
#include <thread>

#include "deviceplugin/api.grpc.pb.h"
#include "podresources/api.grpc.pb.h"
#include "simkubelet/messages.h"

namespace gpuslice::simkubelet {
namespace {

namespace fs = std::filesystem;

constexpr auto kCallDeadline = std::chrono::seconds(10);

// As Go's gRPC prints a status.
std::string words(const grpc::Status& status) {
  static constexpr const char* kNames[] = {
      "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
      "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
      "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
      "DataLoss", "Unauthenticated"};
  const auto code = static_cast<size_t>(status.error_code());
  return fmt::format("rpc error: code = {} desc = {}",
                     code < std::size(kNames) ? kNames[code] : std::to_string(code).c_str(),
                     status.error_message());
}

void wait(Duration d) {
  if (d.count() <= 0) return;
  timespec left{static_cast<time_t>(d.count() / 1'000'000'000),
                static_cast<long>(d.count() % 1'000'000'000)};
  while (::nanosleep(&left, &left) != 0) {
  }
}

using Stub = std::shared_ptr<v1beta1::DevicePlugin::StubInterface>;

// One plugin's connection: a thread that reads its ListAndWatch stream until it ends or is
// replaced. Its other calls go over it as well, whatever becomes of the socket's name.
class Stream {
 public:
  Stream(const std::string& folder, std::string endpoint, std::string resource, uint64_t life,
         Node& node)
      : node_(node), endpoint_(std::move(endpoint)), resource_(std::move(resource)), life_(life) {
    grpc::ChannelArguments args;
    args.SetMaxReceiveMessageSize(4 * 1024 * 1024);
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = v1beta1::DevicePlugin::NewStub(grpc::CreateCustomChannel(
        "unix://" + folder + "/" + endpoint_, grpc::InsecureChannelCredentials(), args));
    thread_ = std::thread([this] { read(); });
  }
  ~Stream() {
    context_.TryCancel();
    thread_.join();
  }
  [[nodiscard]] const std::string& resource() const { return resource_; }
  [[nodiscard]] const std::string& endpoint() const { return endpoint_; }
  [[nodiscard]] Stub stub() const { return stub_; }

 private:
  void read() {
    context_.set_wait_for_ready(false);
    const auto reader = stub_->ListAndWatch(&context_, v1beta1::Empty());
    v1beta1::ListAndWatchResponse message;
    while (reader->Read(&message)) {
      const auto devices = simkubelet::read(message);
      if (!devices) continue;
      if (!node_.devices(resource_, life_, *devices)) break;
    }
    context_.TryCancel();
    (void)reader->Finish();
    node_.stream_ended(resource_, life_);
  }

  Node& node_;
  std::string endpoint_;
  std::string resource_;
  uint64_t life_;
  Stub stub_;
  grpc::ClientContext context_;
  std::thread thread_;
};

class GrpcPlugins final : public Plugins,
                          v1beta1::Registration::Service,
                          v1::PodResourcesLister::Service {
 public:
  GrpcPlugins(Options options, Node& node) : options_(std::move(options)), node_(node) {}
  ~GrpcPlugins() override { stop(); }

  Status serve() {
    std::error_code ec;
    for (const char* folder : {"/device-plugins", "/pod-resources"}) {
      fs::create_directories(options_.dir + folder, ec);
      if (ec)
        return fail(Code::kNoPermission, "{}{}: cannot make the folder: {}", options_.dir, folder,
                    ec.message());
    }
    // A kubelet removes every socket in its folder when it starts, and nothing else.
    for (const auto& entry : fs::directory_iterator(options_.dir + "/device-plugins", ec))
      if (entry.is_socket(ec)) fs::remove(entry.path(), ec);
    fs::remove(pods_socket(), ec);
    if (registration_socket().size() > 107)
      return fail(Code::kUsage,
                  "--dir {}: too long: a socket's path has at most 107 characters, and {} has {}",
                  options_.dir, registration_socket(), registration_socket().size());
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(16 * 1024 * 1024);
    builder.AddListeningPort("unix://" + registration_socket(), grpc::InsecureServerCredentials());
    builder.AddListeningPort("unix://" + pods_socket(), grpc::InsecureServerCredentials());
    builder.RegisterService(static_cast<v1beta1::Registration::Service*>(this));
    builder.RegisterService(static_cast<v1::PodResourcesLister::Service*>(this));
    server_ = builder.BuildAndStart();
    if (!server_) return fail(Code::kFailed, "{}: cannot serve on the sockets there", options_.dir);
    return {};
  }

  Status restart() override {
    stop();
    node_.restart();
    return serve();
  }

  Result<std::vector<std::string>> preferred(const std::string& endpoint, const Ask& ask) override {
    v1beta1::PreferredAllocationRequest request;
    auto* container = request.add_container_requests();
    for (const std::string& id : ask.available) container->add_available_deviceids(id);
    for (const std::string& id : ask.must_include) container->add_must_include_deviceids(id);
    container->set_allocation_size(static_cast<int32_t>(ask.count));
    v1beta1::PreferredAllocationResponse response;
    wait(options_.latency);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kCallDeadline);
    const grpc::Status status =
        connected(endpoint)->GetPreferredAllocation(&context, request, &response);
    if (!status.ok())
      return fail(Code::kFailed, "device plugin GetPreferredAllocation rpc failed with err: {}",
                  words(status));
    return read(response);
  }

  Result<Allocated> allocate(const std::string& endpoint,
                             const std::vector<std::string>& ids) override {
    v1beta1::AllocateRequest request;
    auto* container = request.add_container_requests();
    for (const std::string& id : ids) container->add_devices_ids(id);
    v1beta1::AllocateResponse response;
    wait(options_.latency);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kCallDeadline);
    const grpc::Status status = connected(endpoint)->Allocate(&context, request, &response);
    if (!status.ok()) return fail(Code::kFailed, "{}", words(status));
    return read(response);
  }

 private:
  std::string registration_socket() const { return options_.dir + "/device-plugins/kubelet.sock"; }
  std::string pods_socket() const { return options_.dir + "/pod-resources/kubelet.sock"; }

  Stub connected(const std::string& endpoint) {
    {
      const std::lock_guard lock(mutex_);
      for (const auto& stream : streams_)
        if (stream->endpoint() == endpoint) return stream->stub();
    }
    return stub(endpoint);
  }

  Stub stub(const std::string& endpoint) {
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
    return v1beta1::DevicePlugin::NewStub(
        grpc::CreateCustomChannel("unix://" + options_.dir + "/device-plugins/" + endpoint,
                                  grpc::InsecureChannelCredentials(), args));
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      for (grpc::ClientContext* context : connecting_) context->TryCancel();
    }
    if (server_) {
      server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
      server_->Wait();
      server_.reset();
    }
    std::list<std::unique_ptr<Stream>> streams;
    {
      const std::lock_guard lock(mutex_);
      streams.swap(streams_);
      stopping_ = false;
    }
    streams.clear();
  }

  grpc::Status Register(grpc::ServerContext*, const v1beta1::RegisterRequest* request,
                        v1beta1::Empty*) override {
    wait(options_.latency);
    auto call = read(*request);
    if (!call) return {grpc::StatusCode::UNKNOWN, call.error().message};
    if (const Status connected = connect(*call); !connected)
      return {grpc::StatusCode::UNKNOWN, connected.error().message};
    const auto life = node_.registered(*call);
    if (!life) return {grpc::StatusCode::UNKNOWN, life.error().message};
    std::list<std::unique_ptr<Stream>> old;
    const std::lock_guard lock(mutex_);
    for (auto it = streams_.begin(); it != streams_.end();) {
      const auto next = std::next(it);
      if ((*it)->resource() == request->resource_name()) old.splice(old.end(), streams_, it);
      it = next;
    }
    streams_.push_back(std::make_unique<Stream>(options_.dir + "/device-plugins",
                                                request->endpoint(), request->resource_name(),
                                                *life, node_));
    return grpc::Status::OK;
  }

  // A kubelet asks the plugin for its options before it answers Register, waits for a socket that
  // nobody serves yet, and believes them rather than the ones that came with Register.
  Status connect(RegisterCall& call) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::ceil<std::chrono::milliseconds>(options_.patience));
    context.set_wait_for_ready(true);
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return fail(Code::kUnavailable, "the kubelet ends");
      connecting_.insert(&context);
    }
    v1beta1::DevicePluginOptions options;
    const grpc::Status status =
        stub(call.endpoint)->GetDevicePluginOptions(&context, v1beta1::Empty(), &options);
    const std::lock_guard lock(mutex_);
    connecting_.erase(&context);
    if (!status.ok())
      return fail(Code::kFailed, "failed to get device plugin options: {}", words(status));
    call.preferred_available = options.get_preferred_allocation_available();
    return {};
  }

  grpc::Status List(grpc::ServerContext*, const v1::ListPodResourcesRequest*,
                    v1::ListPodResourcesResponse* response) override {
    for (const Pod& pod : node_.pods())
      if (pod.phase == "Running" || (pod.phase == "Pending" && !pod.device_ids.empty()))
        fill(pod, *response->add_pod_resources());
    return grpc::Status::OK;
  }
  grpc::Status Get(grpc::ServerContext*, const v1::GetPodResourcesRequest* request,
                   v1::GetPodResourcesResponse* response) override {
    for (const Pod& pod : node_.pods()) {
      if (pod.name != request->pod_name() || request->pod_namespace() != "default") continue;
      fill(pod, *response->mutable_pod_resources());
      return grpc::Status::OK;
    }
    return {grpc::StatusCode::UNKNOWN, fmt::format("pod {} in namespace {} not found",
                                                   request->pod_name(), request->pod_namespace())};
  }
  grpc::Status GetAllocatableResources(grpc::ServerContext*, const v1::AllocatableResourcesRequest*,
                                       v1::AllocatableResourcesResponse* response) override {
    for (const auto& [name, devices] : node_.healthy())
      for (const DeviceSeen& device : devices) fill(name, device, *response->add_devices());
    return grpc::Status::OK;
  }

  // The kubelet tells each device by itself, with its topology.
  static void fill(const std::string& resource, const DeviceSeen& device,
                   v1::ContainerDevices& out) {
    out.set_resource_name(resource);
    out.add_device_ids(device.id);
    for (const int64_t numa : device.numa) out.mutable_topology()->add_nodes()->set_id(numa);
  }

  static void fill(const Pod& pod, v1::PodResources& out) {
    out.set_name(pod.name);
    out.set_namespace_("default");
    auto* container = out.add_containers();
    container->set_name("main");
    for (const auto& [resource, devices] : pod.listed)
      for (const DeviceSeen& device : devices) fill(resource, device, *container->add_devices());
  }

  Options options_;
  Node& node_;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  std::list<std::unique_ptr<Stream>> streams_;
  std::set<grpc::ClientContext*> connecting_;  // Registers under way
  bool stopping_ = false;
};

}  // namespace

Result<std::unique_ptr<Plugins>> Plugins::start(const Options& options, Node& node) {
  auto plugins = std::make_unique<GrpcPlugins>(options, node);
  TRY(plugins->serve());
  return std::unique_ptr<Plugins>(std::move(plugins));
}

}  // namespace gpuslice::simkubelet
