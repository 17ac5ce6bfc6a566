#include "kubelet/client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "deviceplugin/api.grpc.pb.h"
#include "kubelet/beat.h"
#include "kubelet/convert.h"
#include "kubelet/socket_path.h"
#include "podresources/api.grpc.pb.h"

namespace gpuslice::kubelet {
namespace {

std::shared_ptr<grpc::Channel> open_channel(const std::string& socket, int max_bytes) {
  grpc::ChannelArguments arguments;
  // A shared subchannel would carry its back-off from one try to the next.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_CHANNELZ, 0);
  arguments.SetMaxReceiveMessageSize(max_bytes);
  // Environment variables such as http_proxy are not for sockets of this machine.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(grpc_target(socket), grpc::InsecureChannelCredentials(),
                                   arguments);
}

Error to_error(const grpc::Status& status, const std::string& socket, std::string_view action) {
  switch (status.error_code()) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return {
          Code::kTimeout,
          fmt::format("{}: {}: the kubelet did not answer in time; trying again", socket, action),
          {}};
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::CANCELLED:
      return {
          Code::kUnavailable, fmt::format("{}: {}: no kubelet answers there", socket, action), {}};
    default:
      return {
          Code::kFailed,
          fmt::format("{}: {}: the kubelet refused: {}", socket, action, status.error_message()),
          {}};
  }
}

// One call under way; deleted by the thread when its answer has been handed on.
class Call {
 public:
  virtual ~Call() = default;
  virtual void finished() = 0;
  grpc::ClientContext context;
  grpc::Status status;
};

class RegisterCall final : public Call {
 public:
  RegisterCall(const std::string& socket, const Client::Registration& registration,
               Client::Registered done, grpc::CompletionQueue& queue)
      : socket_(socket), resource_(registration.resource), done_(std::move(done)) {
    context.set_deadline(std::chrono::system_clock::now() + kRegisterDeadline);
    v1beta1::RegisterRequest request;
    request.set_version("v1beta1");
    request.set_endpoint(registration.endpoint);
    request.set_resource_name(registration.resource);
    request.mutable_options()->set_get_preferred_allocation_available(true);
    stub_ = v1beta1::Registration::NewStub(open_channel(socket, 64 * 1024));
    reader_ = stub_->AsyncRegister(&context, request, &queue);
    reader_->Finish(&response_, &status, this);
  }

  void finished() override {
    if (status.ok()) {
      done_({});
    } else {
      done_(std::unexpected(to_error(status, socket_, "registering " + resource_)));
    }
  }

 private:
  std::string socket_;
  std::string resource_;
  Client::Registered done_;
  std::unique_ptr<v1beta1::Registration::Stub> stub_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<v1beta1::Empty>> reader_;
  v1beta1::Empty response_;
};

class ListCall final : public Call {
 public:
  ListCall(const std::string& socket, Client::Listed done, grpc::CompletionQueue& queue)
      : socket_(socket), done_(std::move(done)) {
    context.set_deadline(std::chrono::system_clock::now() + kPodResourcesDeadline);
    stub_ = v1::PodResourcesLister::NewStub(open_channel(socket, kMaxPodResourcesBytes));
    reader_ = stub_->AsyncList(&context, {}, &queue);
    reader_->Finish(&response_, &status, this);
  }

  void finished() override {
    if (status.ok()) {
      done_(from_proto(response_));
    } else {
      done_(std::unexpected(to_error(status, socket_, "asking for the pods' devices")));
    }
  }

 private:
  std::string socket_;
  Client::Listed done_;
  std::unique_ptr<v1::PodResourcesLister::Stub> stub_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<v1::ListPodResourcesResponse>> reader_;
  v1::ListPodResourcesResponse response_;
};

}  // namespace

class Client::Impl {
 public:
  Impl() : thread_([this] { run(); }) {}

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
      for (Call* call : calls_) call->context.TryCancel();
      // Calls under way finish on the queue before it says that it is empty.
      queue_.Shutdown();
    }
    thread_.join();
  }

  // Makes the call, or returns false when too many are under way.
  template <class Make>
  bool start(Make make) {
    const std::lock_guard lock(mutex_);
    if (closing_) return false;
    if (calls_.size() >= kMaxCallsUnderWay) {
      ++refused_;
      return false;
    }
    calls_.insert(make(queue_));
    return true;
  }

  Duration unanswered() { return beat_.unanswered(queue_, &beat_); }
  size_t under_way() const {
    const std::lock_guard lock(mutex_);
    return calls_.size();
  }
  uint64_t refused() const {
    const std::lock_guard lock(mutex_);
    return refused_;
  }

 private:
  void run() {
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
      if (tag == &beat_) {
        beat_.heard();
        continue;
      }
      Call* call = static_cast<Call*>(tag);
      {
        const std::lock_guard lock(mutex_);
        calls_.erase(call);
      }
      call->finished();
      delete call;
    }
  }

  mutable std::mutex mutex_;
  std::set<Call*> calls_;
  uint64_t refused_ = 0;
  bool closing_ = false;
  Beat beat_;
  grpc::CompletionQueue queue_;
  std::thread thread_;
};

Client::Client() : impl_(std::make_unique<Impl>()) {}
Client::~Client() = default;

Duration Client::unanswered() { return impl_->unanswered(); }
size_t Client::under_way() const { return impl_->under_way(); }
uint64_t Client::refused() const { return impl_->refused(); }

void Client::register_plugin(const std::string& socket, const Registration& registration,
                             Registered done) {
  const bool started = impl_->start([&](grpc::CompletionQueue& queue) {
    return new RegisterCall(socket, registration, done, queue);
  });
  if (!started) {
    done(fail(Code::kUnavailable, "{}: registering {}: {} calls are under way already", socket,
              registration.resource, kMaxCallsUnderWay));
  }
}

void Client::list_pods(const std::string& socket, Listed done) {
  const bool started =
      impl_->start([&](grpc::CompletionQueue& queue) { return new ListCall(socket, done, queue); });
  if (!started) {
    done(fail(Code::kUnavailable,
              "{}: asking for the pods' devices: {} calls are under way already", socket,
              kMaxCallsUnderWay));
  }
}

}  // namespace gpuslice::kubelet
