// The release binary under everything at once for a while: sockets that come and go, calls, edits
// of the configuration, labels of MIG, scrapes. At the end nothing of it may have stayed: neither
// memory nor descriptors, and the node serves what is configured.
//
//   agent_soak GPUSLICE ROOT SECONDS EVENTS     (on a node of A100s, all roles)
//
// Prints a row of a markdown table; exits with 1 and says why where anything has grown, fewer
// events happened, or the agent does not serve.

#include <fmt/core.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "agent_outside.h"
#include "podresources/api.grpc.pb.h"

namespace gpuslice::bench {
namespace {

namespace fs = std::filesystem;

// Told apart, so that a report says what there was.
struct Events {
  std::atomic<uint64_t> calls = 0, streams = 0, garbage = 0, edits = 0, labels = 0, scrapes = 0,
                        restarts = 0;
  [[nodiscard]] uint64_t sum() const {
    return calls + streams + garbage + edits + labels + scrapes + restarts;
  }
};

// A kubelet that names no pod: what was given out has ended.
class NoPods final : public v1::PodResourcesLister::Service {
 public:
  explicit NoPods(const std::string& socket) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    if (!server_) die("cannot serve " + socket);
  }
  ~NoPods() override { server_->Shutdown(std::chrono::system_clock::now()); }
  grpc::Status List(grpc::ServerContext*, const v1::ListPodResourcesRequest*,
                    v1::ListPodResourcesResponse*) override {
    return grpc::Status::OK;
  }

 private:
  std::unique_ptr<grpc::Server> server_;
};

class Soak {
 public:
  explicit Soak(Place place) : place_(std::move(place)) {}
  void run(double seconds, uint64_t events);

 private:
  struct Sample {
    double anonymous_kib = 0;
    int descriptors = 0;
    double threads = 0;
  };

  [[nodiscard]] bool over() const { return stop_; }
  // Sleeps so that `done` of `share` of all events are reached evenly.
  void pace(uint64_t done, double share) const;
  [[nodiscard]] std::string any_socket(std::mt19937_64& random);
  void calls(uint64_t seed, double share);
  void strangers(double share);
  void edits();
  void labels();
  void restarts();
  [[nodiscard]] Sample phase(double seconds, uint64_t events);
  void choose_gpu();
  void settle();
  void judge(const Sample& early, const Sample& late, double seconds, uint64_t wanted) const;

  Place place_;
  std::string mig_gpu_;
  double seconds_ = 0;          // of the phase
  uint64_t wanted_ = 0;         // likewise
  uint64_t registrations_ = 0;  // of kubelets that are gone
  std::unique_ptr<Registration> kubelet_;
  std::unique_ptr<Agent> agent_;
  Events events_;
  std::atomic<bool> stop_ = false;
  Clock::time_point start_;
};

void Soak::pace(uint64_t done, double share) const {
  const double due = static_cast<double>(done) / (share * static_cast<double>(wanted_)) * seconds_;
  const auto at = start_ + std::chrono::duration_cast<Clock::duration>(
                               std::chrono::duration<double>(due * 0.95));
  while (!stop_ && Clock::now() < at)
    std::this_thread::sleep_until(std::min(at, Clock::now() + std::chrono::milliseconds(50)));
}

// "" while there is none.
std::string Soak::any_socket(std::mt19937_64& random) {
  std::vector<std::string> found;
  std::error_code gone;
  for (const auto& file : fs::directory_iterator(place_.kubelet() + "/device-plugins", gone))
    if (file.path().filename().string().starts_with("nvidia"))
      found.push_back(file.path().string());
  return found.empty() ? "" : found[random() % found.size()];
}

// A kubelet's calls: a stream is opened and read once, a device is asked for and given, the stream
// is dropped. What is withdrawn meanwhile is refused, which is right.
void Soak::calls(uint64_t seed, double share) {
  std::mt19937_64 random(seed);
  uint64_t mine = 0;
  while (!over()) {
    const std::string socket = any_socket(random);
    if (socket.empty()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      continue;
    }
    const auto stub = v1beta1::DevicePlugin::NewStub(channel_to(socket));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    const auto stream = stub->ListAndWatch(&context, {});
    v1beta1::ListAndWatchResponse list;
    const bool read = stream->Read(&list);
    ++events_.streams;
    ++mine;
    for (int i = 0; read && list.devices_size() > 0 && i < 8 && !over(); ++i) {
      grpc::ClientContext call;
      call.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
      const auto pick = static_cast<int>(random() % static_cast<uint64_t>(list.devices_size()));
      const std::string& id = list.devices(pick).id();
      if (random() % 2 == 0 && id.starts_with("GPU-") && !id.starts_with(mig_gpu_)) {
        v1beta1::AllocateRequest request;
        request.add_container_requests()->add_devices_ids(id);
        v1beta1::AllocateResponse response;
        (void)stub->Allocate(&call, request, &response);
      } else {
        v1beta1::PreferredAllocationRequest request;
        auto& container = *request.add_container_requests();
        for (const auto& device : list.devices()) container.add_available_deviceids(device.id());
        container.set_allocation_size(1);
        v1beta1::PreferredAllocationResponse response;
        (void)stub->GetPreferredAllocation(&call, request, &response);
      }
      ++events_.calls;
      ++mine;
    }
    if (random() % 2 == 0) context.TryCancel();  // else the channel goes with it
    pace(mine, share);
  }
}

// Connections that say nothing, or nothing that is right, and go; and a scraper.
void Soak::strangers(double share) {
  std::mt19937_64 random(7);
  uint64_t mine = 0;
  while (!over()) {
    const std::string socket = any_socket(random);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (!socket.empty() && socket.size() < sizeof address.sun_path) {
      socket.copy(address.sun_path, socket.size());
      const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
          random() % 2 == 0) {
        const std::string noise = random() % 2 == 0 ? "GET / HTTP/1.1\r\n\r\n"
                                                    : "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x01\x02";
        (void)::send(fd, noise.data(), noise.size(), MSG_NOSIGNAL);
      }
      ::close(fd);
      ++events_.garbage;
      ++mine;
    }
    if (mine % 20 == 0) {
      if (!scrape(place_.port).empty()) ++events_.scrapes;
      ++mine;
    }
    pace(mine, share);
  }
}

void Soak::edits() {
  for (int i = 0; !over(); ++i) {
    if (i % 7 == 6) {
      std::ofstream(place_.config() + ".bad") << "version: v1\nsharing: {timeSlicng: {}}\n";
      fs::rename(place_.config() + ".bad", place_.config());
    } else {
      place_.write_config(1 + i % 8);
    }
    ++events_.edits;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

void Soak::labels() {
  for (int i = 0; !over(); ++i) {
    place_.write_label(i % 2 == 0 ? "on" : "off");
    ++events_.labels;
    for (int wait = 0; wait < 15 && !over(); ++wait)
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

// The kubelet's socket made again, or one of ours removed.
void Soak::restarts() {
  std::mt19937_64 random(9);
  const std::string folder = place_.kubelet() + "/device-plugins";
  for (int i = 0; !over(); ++i) {
    if (i % 2 == 0) {
      registrations_ += kubelet_->count();
      kubelet_.reset();
      ::unlink((folder + "/kubelet.sock").c_str());
      kubelet_ = std::make_unique<Registration>(folder + "/kubelet.sock");
    } else if (const std::string socket = any_socket(random); !socket.empty()) {
      ::unlink(socket.c_str());
    }
    ++events_.restarts;
    for (int wait = 0; wait < 5 && !over(); ++wait)
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

// One configuration, no MIG; until the kubelet's view is that one's.
void Soak::settle() {
  place_.write_config(4);
  place_.write_label("off");
  const auto end = Clock::now() + std::chrono::seconds(60);
  for (;;) {
    if (!agent_->runs()) die("the agent ended");
    for (const auto& [resource, endpoint] : kubelet_->endpoints()) {
      if (resource != "nvidia.com/gpu") continue;
      const auto stub = v1beta1::DevicePlugin::NewStub(
          channel_to(place_.kubelet() + "/device-plugins/" + endpoint));
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
      const auto stream = stub->ListAndWatch(&context, {});
      v1beta1::ListAndWatchResponse list;
      if (stream->Read(&list) && list.devices_size() == place_.gpus * 4) return;
    }
    if (Clock::now() > end) die("in the end the agent does not serve what is configured");
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

void Soak::judge(const Sample& early, const Sample& late, double seconds, uint64_t wanted) const {
  const uint64_t events = events_.sum();
  const double changes = series(scrape(place_.port), "gpuslice_mig_changes_total{end=\"done\"}");
  fmt::print(
      "| {} events in {:.0f} s, 8 GPUs × 1 to 8, all roles: {} calls, {} streams opened and "
      "dropped, "
      "{} bad connections, {} scrapes, {} edits, {} labels ({:.0f} changes of MIG), {} sockets "
      "removed or made again ({} registrations) | nothing grows | own pages {:.1f} → {:.1f} MiB, "
      "descriptors {} → {}, threads {:.0f} → {:.0f}, from a third of the time to its end |\n",
      events, seconds, events_.calls.load(), events_.streams.load(), events_.garbage.load(),
      events_.scrapes.load(), events_.edits.load(), events_.labels.load(), changes,
      events_.restarts.load(), registrations_ + kubelet_->count(), early.anonymous_kib / 1024,
      late.anonymous_kib / 1024, early.descriptors, late.descriptors, early.threads, late.threads);
  std::fflush(stdout);
  if (events < wanted) die(fmt::format("{} events happened, not {}", events, wanted));
  if (changes < static_cast<double>(events_.labels) / 4) die("MIG was hardly changed");
  constexpr double kMostGrowth = 1.15;
  constexpr double kMostGrowthKib = 1024;
  if (late.anonymous_kib > early.anonymous_kib * kMostGrowth &&
      late.anonymous_kib > early.anonymous_kib + kMostGrowthKib)
    die("the agent's memory has grown");
  if (late.descriptors > early.descriptors + 2) die("the agent's descriptors have grown");
  constexpr double kPool = 6;  // gRPC's own come and go
  if (late.threads > early.threads + kPool) die("the agent's threads have grown");
}

// All of it at once for so long, then a calm node.
Soak::Sample Soak::phase(double seconds, uint64_t events) {
  seconds_ = seconds;
  wanted_ = events;
  stop_ = false;
  start_ = Clock::now();
  std::vector<std::thread> threads;
  threads.emplace_back([this] { calls(1, 0.35); });
  threads.emplace_back([this] { calls(2, 0.35); });
  threads.emplace_back([this] { strangers(0.25); });
  threads.emplace_back([this] { edits(); });
  threads.emplace_back([this] { labels(); });
  threads.emplace_back([this] { restarts(); });
  std::this_thread::sleep_until(
      start_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)));
  stop_ = true;
  for (std::thread& thread : threads) thread.join();
  settle();
  return {agent_->status("RssAnon"), agent_->descriptors(), agent_->status("Threads")};
}

// The GPU that MIG is for: nobody is given it, so that nothing is in the way.
void Soak::choose_gpu() {
  const auto stub = v1beta1::DevicePlugin::NewStub(
      channel_to(place_.kubelet() + "/device-plugins/" + kubelet_->wait().first));
  grpc::ClientContext context;
  const auto stream = stub->ListAndWatch(&context, {});
  v1beta1::ListAndWatchResponse list;
  if (!stream->Read(&list) || list.devices_size() == 0) die("no list came");
  const std::string id = list.devices(0).id();
  mig_gpu_ = id.substr(0, id.find("::"));
  context.TryCancel();
}

void Soak::run(double seconds, uint64_t events) {
  const Clock::time_point began = Clock::now();
  fs::create_directories(place_.kubelet() + "/device-plugins");
  fs::create_directories(place_.kubelet() + "/pod-resources");
  place_.write_config(4);
  kubelet_ = std::make_unique<Registration>(place_.kubelet() + "/device-plugins/kubelet.sock");
  const NoPods pods(place_.kubelet() + "/pod-resources/kubelet.sock");
  {
    const Agent first(place_);
    choose_gpu();
  }
  place_.all_roles(mig_gpu_);
  agent_ = std::make_unique<Agent>(place_);
  // What is made once, and what an allocator keeps of a peak, is there after the first third.
  const Sample early = phase(seconds / 3, events / 3);
  const Sample late = phase(seconds * 2 / 3, events - events / 3);
  judge(early, late, std::chrono::duration<double>(Clock::now() - began).count(), events);
}

}  // namespace
}  // namespace gpuslice::bench

int main(int argc, char** argv) {
  using namespace gpuslice::bench;
  if (argc != 5) die("usage: agent_soak GPUSLICE ROOT SECONDS EVENTS");
  Place place;
  place.gpuslice = argv[1];
  place.root = argv[2];
  place.gpus = 8;
  place.port = free_port();
  std::string pattern = "/tmp/gpuslice-soak-XXXXXX";
  place.dir = mkdtemp(pattern.data());
  Soak(place).run(std::atof(argv[3]), std::strtoull(argv[4], nullptr, 10));
  std::filesystem::remove_all(place.dir);
  return 0;
}
