// The agent as a process, seen from outside: its sockets, its page, its log, its exit. The driver
// is the one that src/nvml tests with (two GPUs that answer, one that fell off the bus); the
// kubelet is a registration service.

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/text.h"
#include "deviceplugin/api.grpc.pb.h"

extern char** environ;

namespace gpuslice::bin {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;
using SteadyClock = std::chrono::steady_clock;

std::string slurp(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

template <class Holds>
bool eventually(Holds holds, SteadyClock::duration limit = seconds(10)) {
  const auto until = SteadyClock::now() + limit;
  while (!holds()) {
    if (SteadyClock::now() > until) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

int unix_socket(const std::string& path, bool listens) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto* to = reinterpret_cast<const sockaddr*>(&address);
  EXPECT_EQ(listens ? ::bind(fd, to, sizeof address) : ::connect(fd, to, sizeof address), 0);
  if (listens) {
    EXPECT_EQ(::listen(fd, 16), 0);
  }
  const timeval limit{10, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  return fd;
}
int connect_to(const std::string& path) { return unix_socket(path, false); }
int listen_on(const std::string& path) { return unix_socket(path, true); }

// Whether somebody has connected to a TCP socket that listens and accepts nobody.
int backlog_of(int fd) {
  pollfd one{fd, POLLIN, 0};
  return ::poll(&one, 1, 0);
}

// The answer to GET `path` on this port, whole; "" when nobody answers.
std::string http_get(int port, const std::string& path) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string all;
  const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
  if (::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0 &&
      ::send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
    char buffer[4096];
    ssize_t got = 0;
    while ((got = ::recv(fd, buffer, sizeof buffer, 0)) > 0)
      all.append(buffer, static_cast<size_t>(got));
  }
  ::close(fd);
  return all;
}

class Registrations final : public v1beta1::Registration::Service {
 public:
  explicit Registrations(const std::string& socket) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  grpc::Status Register(grpc::ServerContext*, const v1beta1::RegisterRequest* request,
                        v1beta1::Empty*) override {
    const std::lock_guard lock(mutex_);
    seen_.push_back(request->resource_name() + " " + request->endpoint());
    changed_.notify_all();
    return grpc::Status::OK;
  }
  // All registrations so far, once there are at least `count`.
  std::vector<std::string> wait(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, seconds(10), [&] { return seen_.size() >= count; });
    return seen_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> seen_;
  std::unique_ptr<grpc::Server> server_;
};

// A ListAndWatch stream, read on a thread of its own.
class Watcher {
 public:
  explicit Watcher(const std::string& socket) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = v1beta1::DevicePlugin::NewStub(
        grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments));
    stream_ = stub_->ListAndWatch(&context_, {});
    thread_ = std::thread([this] {
      v1beta1::ListAndWatchResponse list;
      while (stream_->Read(&list)) {
        const std::lock_guard lock(mutex_);
        ++lists_;
        devices_ = list.devices_size();
        changed_.notify_all();
      }
      const std::lock_guard lock(mutex_);
      ended_ = true;
      changed_.notify_all();
    });
  }
  ~Watcher() {
    context_.TryCancel();
    thread_.join();
  }
  bool wait_for_devices(int count, SteadyClock::duration limit = seconds(10)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, limit, [&] { return devices_ == count; });
  }
  bool wait_for_end() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, seconds(10), [&] { return ended_; });
  }
  int lists() {
    const std::lock_guard lock(mutex_);
    return lists_;
  }
  bool ended() {
    const std::lock_guard lock(mutex_);
    return ended_;
  }
  v1beta1::DevicePlugin::Stub& stub() { return *stub_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int devices_ = -1;
  int lists_ = 0;
  bool ended_ = false;
  grpc::ClientContext context_;
  std::unique_ptr<v1beta1::DevicePlugin::Stub> stub_;
  std::unique_ptr<grpc::ClientReader<v1beta1::ListAndWatchResponse>> stream_;
  std::thread thread_;
};

class AgentProcess : public ::testing::Test {
 protected:
  AgentProcess() {
    std::string pattern = "/tmp/gpuslice-agent-XXXXXX";
    dir_ = ::mkdtemp(pattern.data());
    fs::create_directories(plugins());
    fs::create_directories(dir_ + "/node/lib64");
  }
  ~AgentProcess() override {
    stop(SIGKILL);
    kubelet_.reset();
    if (!HasFailure()) fs::remove_all(dir_);
  }

  [[nodiscard]] std::string plugins() const { return dir_ + "/kubelet/device-plugins"; }
  [[nodiscard]] std::string socket() const { return plugins() + "/nvidia-gpu.sock"; }
  [[nodiscard]] std::string log() const { return slurp(dir_ + "/log"); }
  [[nodiscard]] bool said(const std::string& text) const {
    return log().find(text) != std::string::npos;
  }
  void install_driver() const {
    fs::copy_file(FAKE_NVML, dir_ + "/node/lib64/libnvidia-ml.so.1.new");
    fs::rename(dir_ + "/node/lib64/libnvidia-ml.so.1.new", dir_ + "/node/lib64/libnvidia-ml.so.1");
  }
  static std::string sharing(int replicas) {
    return fmt::format(
        "version: v1\nsharing:\n  timeSlicing:\n    resources:\n      - name: nvidia.com/gpu\n"
        "        replicas: {}\n",
        replicas);
  }
  void configure(const std::string& text) const {
    std::ofstream(dir_ + "/config.next") << text;
    fs::rename(dir_ + "/config.next", dir_ + "/config.yaml");
  }
  void start_kubelet() { kubelet_ = std::make_unique<Registrations>(plugins() + "/kubelet.sock"); }

  void start(std::vector<std::string> more = {}, std::vector<std::string> before = {}) {
    std::vector<std::string> args = std::move(before);
    args.insert(args.end(), {GPUSLICE, "agent", "--root", dir_ + "/node", "--kubelet-dir",
                             dir_ + "/kubelet", "--config", dir_ + "/config.yaml", "--state-dir",
                             dir_ + "/state", "--run-dir", dir_ + "/run"});
    if (!with_kube_) args.emplace_back("--no-kube");
    if (more.empty() || more[0] != "--listen") args.insert(args.end(), {"--listen", ""});
    args.insert(args.end(), more.begin(), more.end());
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    const std::string log_path = dir_ + "/log";
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, log_path.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0666);
    ASSERT_EQ(posix_spawnp(&pid_, argv[0], &files, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&files);
  }
  // The exit status, or -1 when it was killed.
  int stop(int signal) {
    if (pid_ == 0) return -1;
    ::kill(pid_, signal);
    return wait_for_exit();
  }
  int wait_for_exit() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  std::string dir_;
  pid_t pid_ = 0;
  bool with_kube_ = false;
  std::unique_ptr<Registrations> kubelet_;
};

TEST_F(AgentProcess, EditsChangeTheListAndNothingElse) {
  install_driver();
  configure("version: v1\n");
  start_kubelet();
  start();
  ASSERT_EQ(kubelet_->wait(1), (std::vector<std::string>{"nvidia.com/gpu nvidia-gpu.sock"}));
  Watcher watcher(socket());
  ASSERT_TRUE(watcher.wait_for_devices(2));
  configure(sharing(4));
  ASSERT_TRUE(watcher.wait_for_devices(8, seconds(1)));
  // The same text again, then a wrong one: nothing is sent, and the place of the mistake is said.
  configure(sharing(4));
  configure(
      "version: v1\nsharing:\n  timeSlicing:\n    resources:\n      - name: nvidia.com/gpu\n"
      "        replicsa: 9\n");
  ASSERT_TRUE(eventually([&] { return said("config.yaml:6:9"); })) << log();
  EXPECT_EQ(watcher.lists(), 2);
  configure(sharing(10));
  ASSERT_TRUE(watcher.wait_for_devices(20, seconds(1)));
  EXPECT_EQ(watcher.lists(), 3);
  EXPECT_FALSE(watcher.ended());
  EXPECT_EQ(kubelet_->wait(1).size(), 1u);

  grpc::ClientContext context;
  v1beta1::AllocateRequest request;
  request.add_container_requests()->add_devices_ids("GPU-0001::7");
  v1beta1::AllocateResponse response;
  ASSERT_TRUE(watcher.stub().Allocate(&context, request, &response).ok());
  EXPECT_EQ(response.container_responses(0).envs().at("NVIDIA_VISIBLE_DEVICES"), "GPU-0001");
}

TEST_F(AgentProcess, AConfigMapThatSwapsItsDataIsSeen) {
  install_driver();
  fs::create_directories(dir_ + "/map/..1");
  std::ofstream(dir_ + "/map/..1/config") << sharing(2);
  fs::create_directory_symlink("..1", dir_ + "/map/..data");
  fs::create_symlink("..data/config", dir_ + "/map/config");
  fs::create_symlink(dir_ + "/map/config", dir_ + "/config.yaml");
  start_kubelet();
  start();
  ASSERT_EQ(kubelet_->wait(1).size(), 1u);
  Watcher watcher(socket());
  ASSERT_TRUE(watcher.wait_for_devices(4));
  for (int i = 2; i < 6; ++i) {
    const std::string next = dir_ + "/map/.." + std::to_string(i);
    fs::create_directories(next);
    std::ofstream(next + "/config") << sharing(i + 1);
    fs::create_directory_symlink(".." + std::to_string(i), dir_ + "/map/..data_tmp");
    fs::rename(dir_ + "/map/..data_tmp", dir_ + "/map/..data");
    ASSERT_TRUE(watcher.wait_for_devices(2 * (i + 1), seconds(1))) << log();
    fs::remove_all(dir_ + "/map/.." + std::to_string(i - 1));
  }
}

TEST_F(AgentProcess, AfterARestartWithABrokenFileTheLastGoodOneIsServed) {
  install_driver();
  configure(sharing(3));
  start_kubelet();
  start();
  ASSERT_EQ(kubelet_->wait(1).size(), 1u);
  ASSERT_EQ(stop(SIGTERM), 0);
  configure("version: v9\n");
  start();
  ASSERT_EQ(kubelet_->wait(2).size(), 2u);
  Watcher watcher(socket());
  EXPECT_TRUE(watcher.wait_for_devices(6)) << log();
}

TEST_F(AgentProcess, WaitsForDriverAndKubelet) {
  configure(sharing(2));
  fs::remove_all(plugins());
  start();
  ASSERT_TRUE(eventually([&] { return said("libnvidia-ml.so.1 is not there"); }));
  install_driver();
  ASSERT_TRUE(eventually([&] { return said("the kubelet makes this folder when it starts"); }))
      << log();
  fs::create_directories(plugins());
  ASSERT_TRUE(eventually([&] { return fs::exists(socket()); })) << log();
  start_kubelet();
  ASSERT_EQ(kubelet_->wait(1).size(), 1u) << log();
  Watcher watcher(socket());
  EXPECT_TRUE(watcher.wait_for_devices(4));
}

TEST_F(AgentProcess, RegistersAgainWithinHalfASecondOfANewKubelet) {
  install_driver();
  configure(sharing(2));
  start_kubelet();
  start();
  ASSERT_EQ(kubelet_->wait(1).size(), 1u);
  for (int round = 0; round < 5; ++round) {
    kubelet_.reset();  // takes its socket along
    if (round % 2 == 1) {
      for (const auto& entry : fs::directory_iterator(plugins())) fs::remove(entry.path());
    }
    start_kubelet();
    const auto begun = SteadyClock::now();
    ASSERT_EQ(kubelet_->wait(1).size(), 1u) << log();
    EXPECT_LT(SteadyClock::now() - begun, milliseconds(500)) << "round " << round;
    Watcher watcher(socket());
    EXPECT_TRUE(watcher.wait_for_devices(4));
  }
}

TEST_F(AgentProcess, ItsOwnSocketIsMadeAgainWhenItIsRemoved) {
  install_driver();
  configure(sharing(2));
  start_kubelet();
  start();
  ASSERT_EQ(kubelet_->wait(1).size(), 1u);
  fs::remove(socket());
  ASSERT_EQ(kubelet_->wait(2).size(), 2u) << log();
  Watcher watcher(socket());
  EXPECT_TRUE(watcher.wait_for_devices(4));
}

TEST_F(AgentProcess, AnotherPluginOnTheSocketIsSaidAndNotFought) {
  install_driver();
  configure(sharing(2));
  start_kubelet();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket().data(), socket().size());
  const int other = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(::bind(other, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(other, 16), 0);
  start();
  ASSERT_TRUE(eventually([&] {
    return said(fmt::format(
        "agent_process_t (PID {}) is serving there; remove NVIDIA's device plugin", ::getpid()));
  })) << log();
  EXPECT_TRUE(kubelet_->wait(0).empty());
  ::close(other);
  EXPECT_EQ(kubelet_->wait(1).size(), 1u) << log();
}

TEST_F(AgentProcess, LeavesCleanlyWithinTwoSecondsAndTakesItsSocketAlong) {
  install_driver();
  configure(sharing(2));
  start_kubelet();
  for (const int signal : {SIGTERM, SIGINT}) {
    start();
    ASSERT_TRUE(eventually([&] { return fs::exists(socket()); }));
    Watcher watcher(socket());
    ASSERT_TRUE(watcher.wait_for_devices(4));
    const auto begun = SteadyClock::now();
    EXPECT_EQ(stop(signal), 0);
    EXPECT_LT(SteadyClock::now() - begun, seconds(2));
    EXPECT_TRUE(watcher.wait_for_end());
    EXPECT_FALSE(fs::exists(socket()));
  }
}

TEST_F(AgentProcess, ADriverThatHangsHoldsUpNeitherTheKubeletNorTheEnd) {
  install_driver();
  configure(sharing(2));
  start_kubelet();
  ASSERT_EQ(::setenv("FAKE_NVML_HANGS", "1", 1), 0);
  start();
  ::unsetenv("FAKE_NVML_HANGS");
  ASSERT_TRUE(eventually([&] { return said("serves"); }));
  // Nothing is in force before the hardware is seen, and what is wrong is told all the same.
  configure("version: v9\n");
  ASSERT_TRUE(eventually([&] { return said("unknown version \"v9\""); })) << log();
  const auto begun = SteadyClock::now();
  EXPECT_EQ(stop(SIGTERM), 0);
  EXPECT_LT(SteadyClock::now() - begun, seconds(2));
  EXPECT_TRUE(said("the driver does not answer; leaving without waiting for it"));
}

// The answer of the agent's own socket to one line, whole.
std::string local_answer(int fd) {
  std::string all;
  char buffer[64 * 1024];
  while (!all.ends_with('\n')) {
    const ssize_t got = ::recv(fd, buffer, sizeof buffer, 0);
    if (got <= 0) break;
    all.append(buffer, static_cast<size_t>(got));
  }
  return all;
}

TEST_F(AgentProcess, AnIdThatAnotherProgramTakesAwayIsGivenToNobodyWhileThatLives) {
  install_driver();
  configure("version: v1\n");
  start_kubelet();
  start();
  ASSERT_EQ(kubelet_->wait(1).size(), 1u);
  Watcher watcher(socket());
  ASSERT_TRUE(watcher.wait_for_devices(2));
  const auto allocate = [&](const char* id) {
    grpc::ClientContext context;
    v1beta1::AllocateRequest request;
    request.add_container_requests()->add_devices_ids(id);
    v1beta1::AllocateResponse response;
    return watcher.stub().Allocate(&context, request, &response);
  };
  // Somebody asks for it all the time, as a kubelet that has not heard yet.
  std::atomic<bool> withdrawn{false}, stop{false};
  std::atomic<int> given{0}, late{0}, refused{0};
  std::thread pods([&] {
    while (!stop) {
      const bool before = withdrawn;
      if (!allocate("GPU-0001").ok())
        ++refused;
      else
        ++(before && withdrawn ? late : given);
    }
  });
  const int tries = 20;
  for (int i = 0; i < tries; ++i) {
    const int fd = connect_to(dir_ + "/run/agent.sock");
    const std::string ask = "{\"ask\": \"withdraw\", \"gpus\": {\"GPU-0001\": [\"GPU-0001\"]}}\n";
    ASSERT_EQ(::send(fd, ask.data(), ask.size(), MSG_NOSIGNAL), static_cast<ssize_t>(ask.size()));
    ASSERT_EQ(local_answer(fd), "{\"withdrawn\":true}\n");
    const int before = refused;
    withdrawn = true;
    // It is listed for whoever has it, and its ledger is asked for by who wants to know.
    EXPECT_TRUE(eventually([&] { return refused >= before + 2; }));
    EXPECT_TRUE(allocate("GPU-0000").ok()) << "the other one is served";
    withdrawn = false;
    ::close(fd);
    const int again = given;
    EXPECT_TRUE(eventually([&] { return given > again; })) << log();
  }
  stop = true;
  pods.join();
  EXPECT_EQ(late, 0) << "given out after the agent had said that it is withdrawn";
  const int fd = connect_to(dir_ + "/run/agent.sock");
  ASSERT_EQ(::send(fd, "{\"ask\": \"ledger\"}\n", 18, MSG_NOSIGNAL), 18);
  EXPECT_NE(local_answer(fd).find("{\"id\":\"GPU-0001\",\"unlisted\":true}"), std::string::npos);
  ::close(fd);
}

TEST_F(AgentProcess, ADriverThatDoesNotAnswerForTooLongIsNoLife) {
  install_driver();
  configure(sharing(2));
  start_kubelet();
  const std::string hang = dir_ + "/hang";
  ASSERT_EQ(::setenv("FAKE_NVML_HANGS_WHILE", hang.c_str(), 1), 0);
  start({"--listen", "127.0.0.1:0", "--driver-patience", "1s"});
  ::unsetenv("FAKE_NVML_HANGS_WHILE");
  ASSERT_EQ(kubelet_->wait(1).size(), 1u) << log();
  const std::string text = log();
  const size_t at = text.find("http://127.0.0.1:");
  ASSERT_NE(at, std::string::npos) << text;
  const int port = std::stoi(text.substr(at + 17));
  EXPECT_NE(http_get(port, "/healthz").find("\r\n\r\nok\n"), std::string::npos);
  std::ofstream(hang) << "x";
  EXPECT_TRUE(eventually(
      [&] {
        return http_get(port, "/healthz").find("the driver has not answered for") !=
               std::string::npos;
      },
      seconds(15)));
  EXPECT_NE(http_get(port, "/readyz").find(" 200 "), std::string::npos) << "it serves all the same";
  fs::remove(hang);
  EXPECT_TRUE(eventually(
      [&] { return http_get(port, "/healthz").find("\r\n\r\nok\n") != std::string::npos; }));
  std::ofstream(hang) << "x";
  std::this_thread::sleep_for(seconds(6));  // the next look at the hardware hangs
  const auto begun = SteadyClock::now();
  EXPECT_EQ(stop(SIGTERM), 0);
  EXPECT_LT(SteadyClock::now() - begun, seconds(2));
}

TEST_F(AgentProcess, LeavesInTimeWhileTheKubeletDoesNotAnswer) {
  install_driver();
  configure(sharing(2));
  start_kubelet();
  // Pod-resources that take the call and say nothing.
  fs::create_directories(dir_ + "/kubelet/pod-resources");
  const int silent = listen_on(dir_ + "/kubelet/pod-resources/kubelet.sock");
  start();
  ASSERT_EQ(kubelet_->wait(1).size(), 1u) << log();
  const auto begun = SteadyClock::now();
  EXPECT_EQ(stop(SIGTERM), 0);
  EXPECT_LT(SteadyClock::now() - begun, seconds(2));
  ::close(silent);
}

TEST_F(AgentProcess, LeavesInTimeWhileTheApiServerDoesNotAnswer) {
  install_driver();
  configure(sharing(2));
  start_kubelet();
  const int silent = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(silent, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(silent, 16), 0);
  socklen_t length = sizeof address;
  ASSERT_EQ(::getsockname(silent, reinterpret_cast<sockaddr*>(&address), &length), 0);
  std::ofstream(dir_ + "/kubeconfig") << fmt::format(
      "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
      "clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{}'}}}}]\n"
      "users: [{{name: u, user: {{token: t}}}}]\n"
      "contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
      ntohs(address.sin_port));
  with_kube_ = true;
  start({"--labels-to", "node", "--node-name", "n", "--kubeconfig", dir_ + "/kubeconfig"});
  ASSERT_EQ(kubelet_->wait(1).size(), 1u) << log();
  ASSERT_TRUE(eventually([&] { return backlog_of(silent) > 0; })) << "it does not ask";
  const auto begun = SteadyClock::now();
  EXPECT_EQ(stop(SIGTERM), 0);
  EXPECT_LT(SteadyClock::now() - begun, seconds(2));
  ::close(silent);
}

TEST_F(AgentProcess, HangupReadsTheConfigurationAgain) {
  install_driver();
  configure(sharing(2));
  start_kubelet();
  start();
  ASSERT_EQ(kubelet_->wait(1).size(), 1u);
  ASSERT_EQ(::kill(pid_, SIGHUP), 0);
  EXPECT_TRUE(eventually([&] { return said("SIGHUP: reading the configuration again"); }));
  EXPECT_EQ(stop(SIGTERM), 0);
}

TEST_F(AgentProcess, SaysWhatIsWrongWithHowItWasStarted) {
  configure(sharing(2));
  start({"--mig-strategy", "some"});
  EXPECT_EQ(wait_for_exit(), 2);
  EXPECT_TRUE(said("--mig-strategy")) << log();
  start({"--mig-stratgy", "none"});
  EXPECT_EQ(wait_for_exit(), 2);
  EXPECT_TRUE(said("agent: unknown flag '--mig-stratgy'; did you mean --mig-strategy?\n")) << log();
  start({"--listen", "nonsense"});
  EXPECT_EQ(wait_for_exit(), 2);
  EXPECT_TRUE(said("listen address 'nonsense': not understood")) << log();
  start({"--roles", "labels"});
  EXPECT_EQ(wait_for_exit(), 2);
  EXPECT_TRUE(said("write --roles plugin,labels, or leave --roles out")) << log();

  const int taken = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(taken, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(taken, 1), 0);
  socklen_t length = sizeof address;
  ASSERT_EQ(::getsockname(taken, reinterpret_cast<sockaddr*>(&address), &length), 0);
  const std::string where = fmt::format("127.0.0.1:{}", ntohs(address.sin_port));
  start({"--listen", where});
  EXPECT_EQ(wait_for_exit(), 7);
  EXPECT_TRUE(said(where + ": cannot be listened on: another program has this port")) << log();
  // Also when a driver that hangs, which was asked first, leaves no way to end but at once.
  fs::remove(dir_ + "/log");
  install_driver();
  ASSERT_EQ(::setenv("FAKE_NVML_HANGS", "1", 1), 0);
  start({"--listen", where});
  ::unsetenv("FAKE_NVML_HANGS");
  EXPECT_EQ(wait_for_exit(), 7);
  EXPECT_TRUE(said(where + ": cannot be listened on: another program has this port")) << log();
  ::close(taken);
}

TEST_F(AgentProcess, WorksWithoutRootWhereTheFolderAllowsIt) {
  if (::geteuid() != 0) GTEST_SKIP() << "this user is not root already";
  install_driver();
  configure(sharing(2));
  start_kubelet();
  ASSERT_EQ(::chmod(dir_.c_str(), 0777), 0);
  const std::vector<std::string> as_nobody = {"setpriv", "--reuid=65534", "--regid=65534",
                                              "--clear-groups"};
  start({}, as_nobody);
  ASSERT_TRUE(eventually([&] {
    return said(plugins() +
                ": Permission denied; run as root, or give write access to this folder");
  })) << log();
  ASSERT_EQ(::chown(plugins().c_str(), 65534, 65534), 0);
  ASSERT_EQ(::chmod((plugins() + "/kubelet.sock").c_str(), 0777), 0);
  EXPECT_EQ(kubelet_->wait(1).size(), 1u) << log();
  EXPECT_EQ(stop(SIGTERM), 0);
}

}  // namespace
}  // namespace gpuslice::bin
