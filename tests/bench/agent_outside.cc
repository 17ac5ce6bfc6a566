#include "agent_outside.h"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

extern char** environ;

namespace gpuslice::bench {

namespace fs = std::filesystem;

namespace {
pid_t g_agent = 0;  // dies with us, whatever goes wrong
}  // namespace

void die(const std::string& why) {
  if (g_agent > 0) kill(g_agent, SIGKILL);
  fmt::print(stderr, "{}\n", why);
  std::_Exit(1);
}

double since_ms(Clock::time_point start) { return Milliseconds(Clock::now() - start).count(); }

Registration::Registration(const std::string& socket) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  if (!server_) die("cannot serve " + socket);
}

Registration::~Registration() { server_->Shutdown(std::chrono::system_clock::now()); }

grpc::Status Registration::Register(grpc::ServerContext*, const v1beta1::RegisterRequest* request,
                                    v1beta1::Empty*) {
  const std::lock_guard lock(mutex_);
  endpoint_ = endpoints_[request->resource_name()] = request->endpoint();
  ++count_;
  when_ = Clock::now();
  changed_.notify_all();
  return grpc::Status::OK;
}

std::pair<std::string, Clock::time_point> Registration::wait() {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, kPatience, [&] { return endpoint_.has_value(); })) {
    die("the agent did not register");
  }
  const std::string endpoint = *endpoint_;
  endpoint_.reset();
  return {endpoint, when_};
}

std::map<std::string, std::string> Registration::endpoints() {
  const std::lock_guard lock(mutex_);
  return endpoints_;
}

uint64_t Registration::count() {
  const std::lock_guard lock(mutex_);
  return count_;
}

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

std::string scrape(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
  std::string text;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
    char buffer[65536];
    ssize_t got = 0;
    while ((got = recv(fd, buffer, sizeof buffer, 0)) > 0) {
      text.append(buffer, static_cast<size_t>(got));
    }
  }
  close(fd);
  return text;
}

double series(const std::string& text, const std::string& start) {
  const size_t at = text.find("\n" + start);
  return at == std::string::npos ? 0 : std::stod(text.substr(at + 1 + start.size()));
}

void Place::write_config(int count) const {
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

void Place::write_label(const std::string& label) const {
  std::ofstream(dir + "/label.next") << label << "\n";
  fs::rename(dir + "/label.next", dir + "/label");
}

void Place::all_roles(const std::string& mig_gpu) {
  std::ofstream(dir + "/mig.yaml")
      << "version: v1\nmig-configs:\n  off:\n    - {devices: all, mig-enabled: false}\n  \"on\":\n"
         "    - {devices: ["
      << mig_gpu << "], mig-enabled: true, mig-devices: {1g.5gb: 7}}\n";
  write_label("off");
  more = {"--mig-config",   dir + "/mig.yaml", "--mig-label-file", dir + "/label",
          "--mig-strategy", "mixed",           "--labels-to",      "nfd-file"};
}

Agent::Agent(const Place& place) {
  std::vector<std::string> args = {place.gpuslice,  "agent",
                                   "--root",        place.root,
                                   "--kubelet-dir", place.kubelet(),
                                   "--config",      place.config(),
                                   "--state-dir",   place.dir + "/state",
                                   "--run-dir",     place.dir + "/run",
                                   "--listen",      fmt::format("127.0.0.1:{}", place.port),
                                   "--log-level",   "warning",
                                   "--no-kube"};
  args.insert(args.end(), place.more.begin(), place.more.end());
  std::vector<char*> argv;
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  started = Clock::now();
  if (posix_spawn(&pid, args[0].c_str(), nullptr, nullptr, argv.data(), environ) != 0) {
    die("cannot start " + args[0]);
  }
  g_agent = pid;
}

double Agent::stop() {
  if (pid == 0) return 0;
  const auto start = Clock::now();
  kill(pid, SIGTERM);
  waitpid(pid, nullptr, 0);
  pid = g_agent = 0;
  return since_ms(start);
}

bool Agent::runs() const { return pid != 0 && waitpid(pid, nullptr, WNOHANG) == 0; }

double Agent::status(const std::string& key) const {
  std::ifstream in(fmt::format("/proc/{}/status", pid));
  std::string line;
  while (std::getline(in, line)) {
    if (line.starts_with(key + ":")) return std::stod(line.substr(key.size() + 1));
  }
  return 0;
}

int Agent::descriptors() const {
  std::error_code gone;
  const fs::directory_iterator all(fmt::format("/proc/{}/fd", pid), gone);
  return gone ? 0 : static_cast<int>(std::distance(all, fs::directory_iterator()));
}

double Agent::wakeups() const {
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

std::shared_ptr<grpc::Channel> channel_to(const std::string& socket) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace gpuslice::bench
