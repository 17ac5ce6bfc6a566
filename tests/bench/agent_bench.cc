// Measures the agent from outside, as a kubelet sees it: starts the real program on a simulated
// node, plays the kubelet's registration service, and times what comes back. Prints rows of a
// markdown table.
//
//   agent_bench GPUSLICE ROOT GPUS REPLICAS     (REPLICAS 1: whole GPUs, no configuration file)

#include <arpa/inet.h>
#include <fmt/core.h>
#include <grpcpp/grpcpp.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "deviceplugin/api.grpc.pb.h"

extern char** environ;

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::duration<double, std::milli>;

constexpr auto kPatience = std::chrono::seconds(20);

pid_t g_agent = 0;  // dies with us, whatever goes wrong

[[noreturn]] void die(const std::string& why) {
  if (g_agent > 0) kill(g_agent, SIGKILL);
  fmt::print(stderr, "agent_bench: {}\n", why);
  std::exit(1);
}

double since_ms(Clock::time_point start) { return Milliseconds(Clock::now() - start).count(); }

struct Spread {
  double median = 0, p99 = 0, worst = 0;
};
Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double q) {
    return values[std::min(values.size() - 1,
                           static_cast<size_t>(q * static_cast<double>(values.size())))];
  };
  return {at(0.5), at(0.99), values.back()};
}

void row(const std::string& what, const std::string& budget, const std::string& measured) {
  fmt::print("| {} | {} | {} |\n", what, budget, measured);
  std::fflush(stdout);
}

// The kubelet's side of registration.
class Registration final : public v1beta1::Registration::Service {
 public:
  explicit Registration(const std::string& socket) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    if (!server_) die("cannot serve " + socket);
  }
  grpc::Status Register(grpc::ServerContext*, const v1beta1::RegisterRequest* request,
                        v1beta1::Empty*) override {
    const std::lock_guard lock(mutex_);
    endpoint_ = request->endpoint();
    when_ = Clock::now();
    changed_.notify_all();
    return grpc::Status::OK;
  }
  // The next registration: its endpoint and when it came.
  std::pair<std::string, Clock::time_point> wait() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kPatience, [&] { return endpoint_.has_value(); })) {
      die("the agent did not register");
    }
    const std::string endpoint = *endpoint_;
    endpoint_.reset();
    return {endpoint, when_};
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<std::string> endpoint_;
  Clock::time_point when_;
  std::unique_ptr<grpc::Server> server_;
};

// A port of this machine that is free now.
int free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    die("no free port");
  }
  close(fd);
  return ntohs(address.sin_port);
}

// The agent's own metrics.
std::string scrape(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("no metrics");
  const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
  if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) < 0) die("no metrics");
  std::string text;
  char buffer[65536];
  ssize_t got = 0;
  while ((got = recv(fd, buffer, sizeof buffer, 0)) > 0) {
    text.append(buffer, static_cast<size_t>(got));
  }
  close(fd);
  return text;
}

// The value of a series, by the start of its line.
double series(const std::string& text, const std::string& start) {
  const size_t at = text.find("\n" + start);
  return at == std::string::npos ? 0 : std::stod(text.substr(at + 1 + start.size()));
}

struct Handler {
  double seconds = 0, calls = 0;
};
Handler handler_of(int port, const std::string& method) {
  const std::string text = scrape(port);
  const std::string labels = "{resource=\"nvidia.com/gpu\",method=\"" + method + "\"}";
  return {series(text, "gpuslice_kubelet_rpc_duration_seconds_sum" + labels),
          series(text, "gpuslice_kubelet_rpc_duration_seconds_count" + labels)};
}

struct Place {
  std::string gpuslice, root, dir;
  int gpus = 0, replicas = 0;
  int port = 0;

  [[nodiscard]] std::string kubelet() const { return dir + "/kubelet"; }
  [[nodiscard]] std::string config() const { return dir + "/config.yaml"; }
  void write_config(int count) const {
    const std::string next = config() + ".next";
    std::ofstream out(next);
    out << "version: v1\n";
    if (count > 1) {
      out << "sharing:\n  timeSlicing:\n    resources:\n      - name: nvidia.com/gpu\n"
             "        replicas: "
          << count << "\n";
    }
    out.close();
    fs::rename(next, config());
  }
};

class Agent {
 public:
  explicit Agent(const Place& place) {
    const std::vector<std::string> args = {place.gpuslice,  "agent",
                                           "--root",        place.root,
                                           "--kubelet-dir", place.kubelet(),
                                           "--config",      place.config(),
                                           "--state-dir",   place.dir + "/state",
                                           "--run-dir",     place.dir + "/run",
                                           "--listen",      fmt::format("127.0.0.1:{}", place.port),
                                           "--log-level",   "warning",
                                           "--no-kube"};
    std::vector<char*> argv;
    for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
    argv.push_back(nullptr);
    started = Clock::now();
    if (posix_spawn(&pid, args[0].c_str(), nullptr, nullptr, argv.data(), environ) != 0) {
      die("cannot start " + args[0]);
    }
    g_agent = pid;
  }
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;
  ~Agent() { stop(); }

  double stop() {
    if (pid == 0) return 0;
    const auto start = Clock::now();
    kill(pid, SIGTERM);
    waitpid(pid, nullptr, 0);
    pid = g_agent = 0;
    return since_ms(start);
  }
  // A number of /proc/<pid>/status.
  [[nodiscard]] double status(const std::string& key) const {
    std::ifstream in(fmt::format("/proc/{}/status", pid));
    std::string line;
    while (std::getline(in, line)) {
      if (line.starts_with(key + ":")) return std::stod(line.substr(key.size() + 1));
    }
    return 0;
  }
  // Times that any thread went to sleep of its own will: each is a wake-up to come.
  [[nodiscard]] double wakeups() const {
    double sum = 0;
    for (const auto& task : fs::directory_iterator(fmt::format("/proc/{}/task", pid))) {
      std::ifstream in(task.path() / "status");
      std::string line;
      while (std::getline(in, line)) {
        if (line.starts_with("voluntary_ctxt_switches:")) sum += std::stod(line.substr(24));
      }
    }
    return sum;
  }

  pid_t pid = 0;
  Clock::time_point started;
};

std::shared_ptr<grpc::Channel> channel_to(const std::string& socket) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments);
}

void measure_start(const Place& place, Registration& registration) {
  std::vector<double> times;
  for (int i = 0; i < 20; ++i) {
    Agent agent(place);
    times.push_back(Milliseconds(registration.wait().second - agent.started).count());
  }
  const Spread spread = spread_of(times);
  row(fmt::format("exec → registered, {} GPUs × {}", place.gpus, place.replicas), "≤ 10 ms",
      fmt::format("median {:.1f} ms, worst of 20 {:.1f} ms", spread.median, spread.worst));
}

void measure_allocate(const Place& place, v1beta1::DevicePlugin::Stub& stub,
                      const std::vector<std::string>& ids) {
  std::vector<double> times;
  for (size_t i = 0; i < 5000; ++i) {
    grpc::ClientContext context;
    v1beta1::AllocateRequest request;
    request.add_container_requests()->add_devices_ids(ids[i % ids.size()]);
    v1beta1::AllocateResponse response;
    const auto start = Clock::now();
    const grpc::Status status = stub.Allocate(&context, request, &response);
    times.push_back(since_ms(start));
    if (!status.ok()) die("Allocate: " + status.error_message());
  }
  const Spread spread = spread_of(times);
  row(fmt::format("Allocate over the socket, {} GPUs × {}", place.gpus, place.replicas),
      "p99 ≤ 1 ms", fmt::format("median {:.3f} ms, p99 {:.3f} ms", spread.median, spread.p99));
}

void measure_preferred(const Place& place, v1beta1::DevicePlugin::Stub& stub,
                       const std::vector<std::string>& ids, int size) {
  std::vector<double> times;
  const Handler before = handler_of(place.port, "GetPreferredAllocation");
  for (int i = 0; i < 500; ++i) {
    grpc::ClientContext context;
    v1beta1::PreferredAllocationRequest request;
    auto& container = *request.add_container_requests();
    for (const std::string& id : ids) container.add_available_deviceids(id);
    container.set_allocation_size(size);
    v1beta1::PreferredAllocationResponse response;
    const auto start = Clock::now();
    const grpc::Status status = stub.GetPreferredAllocation(&context, request, &response);
    times.push_back(since_ms(start));
    if (!status.ok()) die("GetPreferredAllocation: " + status.error_message());
    if (response.container_responses(0).deviceids_size() != size) die("a wrong number of devices");
  }
  const Spread spread = spread_of(times);
  row(fmt::format("GetPreferredAllocation of {} over the socket, {} GPUs × {}", size, place.gpus,
                  place.replicas),
      "p99 ≤ 5 ms", fmt::format("median {:.3f} ms, p99 {:.3f} ms", spread.median, spread.p99));
  const Handler after = handler_of(place.port, "GetPreferredAllocation");
  row(fmt::format("… of which in the handler, {} GPUs × {}", place.gpus, place.replicas),
      place.gpus > 8 ? "≤ 5 ms" : "≤ 1 ms",
      fmt::format("mean of {:.0f} calls {:.3f} ms", after.calls - before.calls,
                  1000 * (after.seconds - before.seconds) / (after.calls - before.calls)));
}

void measure_idle(const Place& place, const Agent& agent) {
  constexpr int kSeconds = 10;
  std::this_thread::sleep_for(std::chrono::seconds(3));
  const double before = agent.wakeups();
  std::this_thread::sleep_for(std::chrono::seconds(kSeconds));
  const double after = agent.wakeups();
  row(fmt::format("wake-ups, idle, {} GPUs × {}", place.gpus, place.replicas), "≤ 10 a second",
      fmt::format("{:.1f} a second", (after - before) / kSeconds));
  row(fmt::format("resident memory, idle, {} GPUs × {}", place.gpus, place.replicas),
      place.replicas <= 10 ? "≤ 15 MiB" : "—",
      fmt::format("{:.1f} MiB, of which {:.1f} MiB its own pages (the rest is the program file)",
                  agent.status("VmRSS") / 1024, agent.status("RssAnon") / 1024));
}

void measure_edit(const Place& place, grpc::ClientReader<v1beta1::ListAndWatchResponse>& stream) {
  std::vector<double> times;
  v1beta1::ListAndWatchResponse list;
  for (int i = 0; i < 20; ++i) {
    const int replicas = i % 2 == 0 ? place.replicas + 1 : place.replicas;
    const auto start = Clock::now();
    place.write_config(replicas);
    do {
      if (!stream.Read(&list)) die("the stream ended at an edit");
    } while (list.devices_size() != place.gpus * replicas);
    times.push_back(since_ms(start));
  }
  const Spread spread = spread_of(times);
  row(fmt::format("configuration edit → kubelet sees, {} GPUs × {}", place.gpus, place.replicas),
      "≤ 1 s", fmt::format("median {:.0f} ms, worst of 20 {:.0f} ms", spread.median, spread.worst));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) die("usage: agent_bench GPUSLICE ROOT GPUS REPLICAS");
  Place place;
  place.gpuslice = argv[1];
  place.root = argv[2];
  place.gpus = std::atoi(argv[3]);
  place.replicas = std::atoi(argv[4]);
  place.port = free_port();
  std::string pattern = "/tmp/gpuslice-bench-XXXXXX";
  place.dir = mkdtemp(pattern.data());
  fs::create_directories(place.kubelet() + "/device-plugins");
  place.write_config(place.replicas);
  {
    Registration registration(place.kubelet() + "/device-plugins/kubelet.sock");
    measure_start(place, registration);
    Agent agent(place);
    const std::string endpoint = registration.wait().first;
    const auto stub =
        v1beta1::DevicePlugin::NewStub(channel_to(place.kubelet() + "/device-plugins/" + endpoint));
    grpc::ClientContext context;
    const auto stream = stub->ListAndWatch(&context, {});
    v1beta1::ListAndWatchResponse list;
    if (!stream->Read(&list)) die("no list came: " + stream->Finish().error_message());
    std::vector<std::string> ids;
    for (const auto& device : list.devices()) ids.push_back(device.id());
    if (static_cast<int>(ids.size()) != place.gpus * place.replicas) {
      die(fmt::format("{} devices were listed", ids.size()));
    }
    measure_idle(place, agent);
    measure_allocate(place, *stub, ids);
    measure_preferred(place, *stub, ids, 1);
    measure_preferred(place, *stub, ids, place.gpus / 2);
    if (place.replicas > 1) measure_edit(place, *stream);
    context.TryCancel();
    row(fmt::format("SIGTERM → gone, {} GPUs × {}", place.gpus, place.replicas), "≤ 2 s",
        fmt::format("{:.0f} ms", agent.stop()));
  }
  fs::remove_all(place.dir);
  return 0;
}
