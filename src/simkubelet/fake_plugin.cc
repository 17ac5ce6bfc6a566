#include "simkubelet/fake_plugin.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "deviceplugin/api.grpc.pb.h"

namespace gpuslice::simkubelet {

struct FakePlugin::Impl final : v1beta1::DevicePlugin::Service {
  explicit Impl(FakePlugin& o) : owner(o) {}

  grpc::Status GetDevicePluginOptions(grpc::ServerContext*, const v1beta1::Empty*,
                                      v1beta1::DevicePluginOptions* response) override {
    response->set_get_preferred_allocation_available(owner.preferred_available);
    return grpc::Status::OK;
  }

  grpc::Status ListAndWatch(grpc::ServerContext* context, const v1beta1::Empty*,
                            grpc::ServerWriter<v1beta1::ListAndWatchResponse>* writer) override {
    std::unique_lock lock(mutex);
    const int round = ends;
    int said = 0;
    ++streams;
    while (round == ends && !context->IsCancelled()) {
      if (said != version) {
        said = version;
        v1beta1::ListAndWatchResponse response;
        for (const DeviceSeen& device : devices) {
          v1beta1::Device* one = response.add_devices();
          one->set_id(device.id);
          one->set_health(device.healthy ? "Healthy" : "Unhealthy");
        }
        writer->Write(response);
      }
      changed.wait_for(lock, std::chrono::milliseconds(5));
    }
    --streams;
    return grpc::Status::OK;
  }
  grpc::Status GetPreferredAllocation(grpc::ServerContext*,
                                      const v1beta1::PreferredAllocationRequest* request,
                                      v1beta1::PreferredAllocationResponse* response) override {
    const std::lock_guard lock(mutex);
    for (const auto& one : request->container_requests())
      asks.push_back({{one.available_deviceids().begin(), one.available_deviceids().end()},
                      {one.must_include_deviceids().begin(), one.must_include_deviceids().end()},
                      static_cast<uint32_t>(one.allocation_size())});
    if (!owner.preferred_error.empty()) return {grpc::StatusCode::UNKNOWN, owner.preferred_error};
    if (owner.answer_no_container) return grpc::Status::OK;
    auto* answer = response->add_container_responses();
    for (const std::string& id : owner.preferred) answer->add_deviceids(id);
    return grpc::Status::OK;
  }
  grpc::Status Allocate(grpc::ServerContext*, const v1beta1::AllocateRequest* request,
                        v1beta1::AllocateResponse* response) override {
    const std::lock_guard lock(mutex);
    for (const auto& one : request->container_requests())
      allocations.emplace_back(one.devices_ids().begin(), one.devices_ids().end());
    if (!owner.allocate_error.empty()) return {grpc::StatusCode::UNKNOWN, owner.allocate_error};
    if (owner.answer_no_container) return grpc::Status::OK;
    auto* answer = response->add_container_responses();
    for (const auto& [name, value] : owner.allocated.envs) (*answer->mutable_envs())[name] = value;
    for (const auto& [name, value] : owner.allocated.annotations)
      (*answer->mutable_annotations())[name] = value;
    for (const std::string& name : owner.allocated.cdi_devices)
      answer->add_cdi_devices()->set_name(name);
    return grpc::Status::OK;
  }

  FakePlugin& owner;
  mutable std::mutex mutex;
  std::condition_variable changed;
  int version = 0, ends = 0, streams = 0;
  std::vector<DeviceSeen> devices;
  std::vector<Plugins::Ask> asks;
  std::vector<std::vector<std::string>> allocations;
  std::unique_ptr<grpc::Server> server;
};

FakePlugin::FakePlugin() : impl_(std::make_unique<Impl>(*this)) {}
FakePlugin::~FakePlugin() { stop(); }

void FakePlugin::serve(const std::string& dir, const std::string& endpoint) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix://" + dir + "/device-plugins/" + endpoint,
                           grpc::InsecureServerCredentials());
  builder.RegisterService(impl_.get());
  impl_->server = builder.BuildAndStart();
}

void FakePlugin::stop() {
  end_streams();
  if (!impl_->server) return;
  impl_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  impl_->server->Wait();
  impl_->server.reset();
}

void FakePlugin::list(const std::vector<DeviceSeen>& devices) {
  const std::lock_guard lock(impl_->mutex);
  impl_->devices = devices;
  ++impl_->version;
  impl_->changed.notify_all();
}

void FakePlugin::end_streams() {
  const std::lock_guard lock(impl_->mutex);
  ++impl_->ends;
  impl_->changed.notify_all();
}

int FakePlugin::streams() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->streams;
}

std::vector<Plugins::Ask> FakePlugin::asks() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->asks;
}

std::vector<std::vector<std::string>> FakePlugin::allocations() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->allocations;
}

std::string register_plugin(const std::string& dir, const RegisterCall& call) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto stub = v1beta1::Registration::NewStub(grpc::CreateCustomChannel(
      "unix://" + dir + "/device-plugins/kubelet.sock", grpc::InsecureChannelCredentials(), args));
  v1beta1::RegisterRequest request;
  request.set_version(call.version);
  request.set_endpoint(call.endpoint);
  request.set_resource_name(call.resource);
  request.mutable_options()->set_get_preferred_allocation_available(call.preferred_available);
  v1beta1::Empty answer;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  return stub->Register(&context, request, &answer).error_message();
}

}  // namespace gpuslice::simkubelet
