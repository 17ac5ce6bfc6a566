#include "kubelet/plugin_server.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_posix.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <list>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "deviceplugin/api.grpc.pb.h"
#include "kubelet/acceptor.h"
#include "kubelet/beat.h"
#include "kubelet/convert.h"
#include "kubelet/socket_path.h"

namespace gpuslice::kubelet {

class BufferMemory {
 public:
  BufferMemory() { quota_.Resize(kMaxGrpcMemoryBytes); }
  [[nodiscard]] const grpc::ResourceQuota& quota() const { return quota_; }

 private:
  grpc::ResourceQuota quota_{"gpuslice"};
};

namespace {

using Service = v1beta1::DevicePlugin::AsyncService;

Duration monotonic_now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return Duration(static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec);
}

grpc::Status to_grpc(const Error& error) {
  return {static_cast<grpc::StatusCode>(grpc_status(error.code)), error.text()};
}

// What a completion queue gives back: the object that waits, and which of its operations is done.
class Waiting {
 public:
  virtual ~Waiting() = default;
  // `ok` as gRPC says it. The object may be gone when this returns.
  virtual void done(int operation, bool ok) = 0;
};

struct Tag {
  Waiting* waiting;
  int operation;
};

class GrpcPluginServer;

// Counts what may still start an operation on the queue.
class Open {
 public:
  explicit Open(std::atomic<int>& count) : count_(count) { ++count_; }
  ~Open() {
    if (--count_ == 0) count_.notify_all();
  }
  Open(const Open&) = delete;
  Open& operator=(const Open&) = delete;

 private:
  std::atomic<int>& count_;
};

// One unary call: asked for, answered, finished, gone. While it is answered the next one is asked
// for.
template <class Request, class Response>
class UnaryCall final : public Waiting {
 public:
  using Ask = void (Service::*)(grpc::ServerContext*, Request*,
                                grpc::ServerAsyncResponseWriter<Response>*, grpc::CompletionQueue*,
                                grpc::ServerCompletionQueue*, void*);
  using Make = grpc::Status (*)(ports::PluginService&, Request&, Response&);
  struct Method {
    std::string_view name;
    Ask ask;
    Make make;
  };

  static void ask_for_next(GrpcPluginServer& server, const Method& method);
  void done(int operation, bool ok) override;

 private:
  enum Operation { kAsked, kFinished };
  UnaryCall(GrpcPluginServer& server, const Method& method);

  GrpcPluginServer& server_;
  Open open_;
  Method method_;
  grpc::ServerContext context_;
  Request request_;
  grpc::ServerAsyncResponseWriter<Response> writer_{&context_};
  Tag asked_{this, kAsked};
  Tag finished_{this, kFinished};
};

// One ListAndWatch stream. Guarded by the server's mutex but for its first moments.
class Stream final : public Waiting {
 public:
  static void ask_for_next(GrpcPluginServer& server);
  void done(int operation, bool ok) override;
  // Under the server's mutex: sends the newest list now, or when the last one has gone out.
  void send();

  // Under the server's mutex: it is to end, and counts no more.
  void cancel();

  std::list<Stream*>::iterator place;
  uint64_t number = 0;  // the how manyeth stream of the server
  Acceptor::Client client;

 private:
  enum Operation { kAsked, kWritten, kGone, kFinished };
  explicit Stream(GrpcPluginServer& server);
  void started();
  void forget();
  [[nodiscard]] bool make_room(int pid);

  GrpcPluginServer& server_;
  Open open_;
  grpc::ServerContext context_;
  v1beta1::Empty request_;
  grpc::ServerAsyncWriter<v1beta1::ListAndWatchResponse> writer_{&context_};
  Tag asked_{this, kAsked};
  Tag written_{this, kWritten};
  Tag gone_{this, kGone};
  Tag finished_{this, kFinished};
  bool listed_ = false;     // counted among the live streams
  bool in_flight_ = false;  // an operation other than gone_ is under way
  bool newer_ = false;      // the list changed while a write was under way
  bool over_ = false;       // gone_ has come
};

// Says that the server's thread lives.
class BeatHeard final : public Waiting {
 public:
  void done(int, bool) override { beat.heard(); }
  Beat beat;
  Tag tag{this, 0};
};

class GrpcPluginServer final : public PluginServer {
 public:
  explicit GrpcPluginServer(Options options)
      : options_(std::move(options)), list_(std::move(options_.list)) {}

  ~GrpcPluginServer() override {
    if (!server_) return;
    // Nobody comes any more: gRPC takes no connection while its server ends.
    options_.acceptor->close(door_);
    // Cancels what is under way and waits until its connections are gone; their calls may outlive
    // them. The queue is shut when these are gone too: gRPC aborts when an operation is started on
    // a queue that was shut, such as the write of a newer list after the one under way.
    server_->Shutdown(std::chrono::system_clock::now());
    for (int open = open_.load(); open != 0; open = open_.load()) open_.wait(open);
    queue_->Shutdown();
    thread_.join();
    if (in_place()) ::unlink(options_.socket_path.c_str());
  }

  Status open();
  // Undoes what open() began.
  Status give_up(const std::string& why);

  void publish(std::shared_ptr<const ports::DeviceList> list) override {
    const std::lock_guard lock(mutex_);
    list_ = std::move(list);
    for (Stream* stream : streams_) stream->send();
  }
  [[nodiscard]] Duration unanswered() override {
    return beat_.beat.unanswered(*queue_, &beat_.tag);
  }
  [[nodiscard]] size_t streams() const override {
    const std::lock_guard lock(mutex_);
    return streams_.size();
  }
  [[nodiscard]] uint64_t streams_begun() const override {
    const std::lock_guard lock(mutex_);
    return begun_;
  }
  [[nodiscard]] bool watched_since(uint64_t begun) const override;
  [[nodiscard]] uint64_t refused_streams() const override {
    return refused_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] size_t connections() const override {
    return options_.acceptor->counts(door_).connections;
  }
  [[nodiscard]] uint64_t refused_connections() const override {
    return options_.acceptor->counts(door_).refused;
  }
  [[nodiscard]] uint64_t lists_sent() const override {
    return sent_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] bool in_place() const override {
    struct stat info{};
    return ::stat(options_.socket_path.c_str(), &info) == 0 && info.st_dev == device_ &&
           info.st_ino == inode_;
  }

 private:
  template <class Request, class Response>
  friend class UnaryCall;
  friend class Stream;

  void run();
  void seen(std::string_view method, Duration since, bool ok) const {
    if (options_.seen) options_.seen({method, monotonic_now() - since, ok});
  }

  Options options_;
  mutable std::mutex mutex_;
  std::shared_ptr<const ports::DeviceList> list_;  // under mutex_
  std::list<Stream*> streams_;  // under mutex_; they own themselves; the newest last
  uint64_t begun_ = 0;          // under mutex_
  std::atomic<uint64_t> refused_{0};
  std::atomic<uint64_t> sent_{0};
  std::atomic<int> open_{0};  // calls and streams, asked for or under way

  BeatHeard beat_;
  Service service_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::unique_ptr<grpc::Server> server_;
  uint32_t door_ = 0;  // the acceptor's
  dev_t device_ = 0;
  ino_t inode_ = 0;
  std::thread thread_;
};

// --- unary calls
// -----------------------------------------------------------------------------------

template <class Request, class Response>
void UnaryCall<Request, Response>::ask_for_next(GrpcPluginServer& server, const Method& method) {
  new UnaryCall(server, method);  // deletes itself in done()
}

template <class Request, class Response>
UnaryCall<Request, Response>::UnaryCall(GrpcPluginServer& server, const Method& method)
    : server_(server), open_(server.open_), method_(method) {
  (server_.service_.*method_.ask)(&context_, &request_, &writer_, server_.queue_.get(),
                                  server_.queue_.get(), &asked_);
}

template <class Request, class Response>
void UnaryCall<Request, Response>::done(int operation, bool ok) {
  if (operation == kFinished || !ok) {
    delete this;
    return;
  }
  ask_for_next(server_, method_);
  const Duration since = monotonic_now();
  Response response;
  const grpc::Status status = method_.make(*server_.options_.service, request_, response);
  server_.seen(method_.name, since, status.ok());
  if (status.ok()) {
    writer_.Finish(response, status, &finished_);
  } else {
    writer_.FinishWithError(status, &finished_);
  }
}

using OptionsCall = UnaryCall<v1beta1::Empty, v1beta1::DevicePluginOptions>;
using PreferredCall =
    UnaryCall<v1beta1::PreferredAllocationRequest, v1beta1::PreferredAllocationResponse>;
using AllocateCall = UnaryCall<v1beta1::AllocateRequest, v1beta1::AllocateResponse>;
using PreStartCall =
    UnaryCall<v1beta1::PreStartContainerRequest, v1beta1::PreStartContainerResponse>;

const OptionsCall::Method kOptions = {
    "GetDevicePluginOptions", &Service::RequestGetDevicePluginOptions,
    [](ports::PluginService&, v1beta1::Empty&, v1beta1::DevicePluginOptions& response) {
      response.set_get_preferred_allocation_available(true);
      return grpc::Status::OK;
    }};

const PreferredCall::Method kPreferred = {
    "GetPreferredAllocation", &Service::RequestGetPreferredAllocation,
    [](ports::PluginService& service, v1beta1::PreferredAllocationRequest& request,
       v1beta1::PreferredAllocationResponse& response) {
      const auto answer = service.preferred(from_proto(request));
      if (!answer) return to_grpc(answer.error());
      to_proto(*answer, response);
      return grpc::Status(grpc::Status::OK);
    }};

const AllocateCall::Method kAllocate = {
    "Allocate", &Service::RequestAllocate,
    [](ports::PluginService& service, v1beta1::AllocateRequest& request,
       v1beta1::AllocateResponse& response) {
      const auto answer = service.allocate(from_proto(request));
      if (!answer) return to_grpc(answer.error());
      to_proto(*answer, response);
      return grpc::Status(grpc::Status::OK);
    }};

// Not asked for in our options; a kubelet that calls it all the same gets its empty answer.
const PreStartCall::Method kPreStart = {
    "PreStartContainer", &Service::RequestPreStartContainer,
    [](ports::PluginService&, v1beta1::PreStartContainerRequest&,
       v1beta1::PreStartContainerResponse&) { return grpc::Status(grpc::Status::OK); }};

// --- streams
// ---------------------------------------------------------------------------------------

void Stream::ask_for_next(GrpcPluginServer& server) {
  new Stream(server);  // deletes itself in done()
}

Stream::Stream(GrpcPluginServer& server) : server_(server), open_(server.open_) {
  context_.AsyncNotifyWhenDone(&gone_);
  server_.service_.RequestListAndWatch(&context_, &request_, &writer_, server_.queue_.get(),
                                       server_.queue_.get(), &asked_);
}

void Stream::done(int operation, bool ok) {
  if (operation == kAsked && !ok) {
    delete this;  // the server is closing; gone_ never comes for a call that never was
    return;
  }
  std::unique_lock lock(server_.mutex_);
  switch (operation) {
    case kAsked:
      started();
      break;
    case kWritten:
      in_flight_ = false;
      if (ok) server_.sent_.fetch_add(1, std::memory_order_relaxed);
      if (ok && newer_ && !over_) send();
      break;
    case kGone:
      over_ = true;
      forget();
      break;
    default:  // kFinished
      in_flight_ = false;
  }
  const bool end = over_ && !in_flight_;
  lock.unlock();
  if (end) delete this;
}

void Stream::started() {
  ask_for_next(server_);
  client = server_.options_.acceptor->stream_begun(server_.door_, context_.peer());
  listed_ = make_room(client.pid);
  if (!listed_) {
    server_.options_.acceptor->stream_ended(server_.door_, client);
    in_flight_ = true;
    writer_.Finish(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                fmt::format("{} ListAndWatch streams are open already; close one",
                                            kMaxStreams)),
                   &finished_);
    return;
  }
  number = ++server_.begun_;
  server_.streams_.push_back(this);
  place = std::prev(server_.streams_.end());
  send();
}

bool Stream::make_room(int pid) {
  if (server_.streams_.size() < kMaxStreams) return true;
  server_.refused_.fetch_add(1, std::memory_order_relaxed);
  std::vector<Guest> guests;
  guests.reserve(server_.streams_.size());
  for (const Stream* stream : server_.streams_) guests.push_back({stream->client.pid, true});
  const std::optional<size_t> goes = who_goes(guests, pid, server_.options_.acceptor->kubelet());
  if (!goes) return false;
  (*std::next(server_.streams_.begin(), static_cast<std::ptrdiff_t>(*goes)))->cancel();
  return true;
}

void Stream::cancel() {
  forget();
  context_.TryCancel();  // gone_ comes
}

void Stream::forget() {
  if (!listed_) return;
  listed_ = false;
  server_.streams_.erase(place);
  server_.options_.acceptor->stream_ended(server_.door_, client);
}

void Stream::send() {
  if (in_flight_) {
    newer_ = true;
    return;
  }
  newer_ = false;
  in_flight_ = true;
  v1beta1::ListAndWatchResponse response;
  to_proto(*server_.list_, response);
  writer_.Write(response, &written_);
}

// --- the server
// ------------------------------------------------------------------------------------

bool GrpcPluginServer::watched_since(uint64_t begun) const {
  const std::lock_guard lock(mutex_);
  return !streams_.empty() && streams_.back()->number > begun;
}

Status GrpcPluginServer::open() {
  const std::string& path = options_.socket_path;
  if (path.size() > kMaxSocketPathBytes) {
    return fail(Code::kInvalidConfig, "{}: a socket's path may have {} characters, this has {}",
                path, kMaxSocketPathBytes, path.size());
  }
  if (const auto who = who_serves(path)) {
    return fail(
        Code::kInUse,
        "{}: {} is serving there; remove NVIDIA's device plugin (or the other gpuslice) from "
        "this node, gpuslice takes the socket when it is free",
        path, *who);
  }
  const std::string folder = path.substr(0, path.find_last_of('/'));
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    const bool missing = errno == ENOENT;
    return fail(missing ? Code::kUnavailable : Code::kNoPermission,
                "{}: the socket cannot be made: {}: {}; {}", path, folder, std::strerror(errno),
                missing ? "the kubelet makes this folder when it starts (see --kubelet-dir)"
                        : "run as root, or give write access to this folder");
  }
  grpc::ServerBuilder builder;
  builder.RegisterService(&service_);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxCallsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
  if (!options_.memory) options_.memory = make_buffer_memory();
  if (!options_.acceptor) options_.acceptor = std::make_shared<Acceptor>();
  builder.SetResourceQuota(options_.memory->quota());
  queue_ = builder.AddCompletionQueue();
  server_ = builder.BuildAndStart();
  if (!server_) return give_up("gRPC does not start");
  auto listener = listen_at(path, fmt::format("{}/.{}", folder, options_.unique), kBacklog);
  if (!listener) return give_up(std::strerror(listener.error()));
  device_ = listener->device;
  inode_ = listener->inode;
  const auto door = options_.acceptor->open(
      std::move(listener->fd), [server = server_.get()](UniqueFd connection) {
        grpc::AddInsecureChannelFromFd(server, connection.release());
      });
  if (!door) {
    if (in_place()) ::unlink(path.c_str());
    return give_up(door.error().message);
  }
  door_ = *door;
  OptionsCall::ask_for_next(*this, kOptions);
  PreferredCall::ask_for_next(*this, kPreferred);
  AllocateCall::ask_for_next(*this, kAllocate);
  PreStartCall::ask_for_next(*this, kPreStart);
  Stream::ask_for_next(*this);
  thread_ = std::thread([this] { run(); });
  return {};
}

Status GrpcPluginServer::give_up(const std::string& why) {
  if (server_) server_->Shutdown(std::chrono::system_clock::now());
  queue_->Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
  }
  server_.reset();  // what comes from the queue is still the server's
  return fail(Code::kFailed, "{}: the socket cannot be made: {}", options_.socket_path, why);
}

void GrpcPluginServer::run() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
    const Tag& done = *static_cast<Tag*>(tag);
    done.waiting->done(done.operation, ok);
  }
}

}  // namespace

std::shared_ptr<const BufferMemory> make_buffer_memory() {
  return std::make_shared<const BufferMemory>();
}

Result<std::unique_ptr<PluginServer>> PluginServer::serve(Options options) {
  auto server = std::make_unique<GrpcPluginServer>(std::move(options));
  TRY(server->open());
  return server;
}

}  // namespace gpuslice::kubelet
