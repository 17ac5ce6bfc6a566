#include "simkubelet/verbs.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "base/unique_fd.h"
#include "base/unix_address.h"
#include "sim/world.h"
#include "simkubelet/messages.h"
#include "simkubelet/node.h"
#include "simkubelet/plugins.h"
#include "simkubelet/service.h"

namespace gpuslice::simkubelet {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxLine = 16 * 1024 * 1024;
constexpr int kLookEveryMs = 200;

std::string control_path(const std::string& dir) { return dir + "/gpuslice-sim.sock"; }

Result<sockaddr_un> address(const std::string& path) {
  if (const std::optional<sockaddr_un> out = unix_address(path)) return *out;
  return fail(Code::kUsage, "{}: too long for a socket: at most {} characters", path,
              sizeof sockaddr_un{}.sun_path - 1);
}

// One line; empty when the peer is gone or says more than kMaxLine.
std::string read_line(int fd) {
  std::string line;
  char buffer[65536];
  while (line.size() < kMaxLine) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return "";
    line.append(buffer, static_cast<size_t>(n));
    if (line.back() == '\n') {
      line.pop_back();
      return line;
    }
  }
  return "";
}

void write_line(int fd, std::string line) {
  line += '\n';
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t n = ::send(fd, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    rest.remove_prefix(static_cast<size_t>(n));
  }
}

Result<Json> ask(const std::string& dir, const Json& request) {
  TRY_ASSIGN(const sockaddr_un to, address(control_path(dir)));
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid() || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0)
    return fail(Code::kUnavailable,
                "{}: no kubelet stand-in runs there; start one with: gpuslice-sim kubelet --root "
                "ROOT --dir {}",
                dir, dir);
  write_line(fd.get(), request.dump(-1, ' ', false, Json::error_handler_t::replace));
  const std::string line = read_line(fd.get());
  Json answer = Json::parse(line, nullptr, false);
  if (answer.is_discarded())
    return fail(Code::kFailed, "{}: the kubelet stand-in ended while it was asked", dir);
  if (answer.contains("error"))
    return fail(Code::kFailed, "{}", answer["error"].get<std::string>());
  return answer;
}

Result<UniqueFd> listen_at(const std::string& path) {
  TRY_ASSIGN(const sockaddr_un at, address(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0)
    return fail(Code::kInUse, "{}: a kubelet stand-in runs there already; take another --dir",
                path);
  ::unlink(path.c_str());
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 ||
      ::listen(fd.get(), 64) != 0)
    return fail(Code::kNoPermission, "{}: cannot serve there: {}", path, std::strerror(errno));
  return fd;
}

void serve_one(int listener, Service& service) {
  const UniqueFd peer(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  if (!peer.valid()) return;
  const timeval limit{5, 0};  // a peer that says nothing does not hold the others up for long
  ::setsockopt(peer.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(peer.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  const std::string request = read_line(peer.get());
  if (!request.empty()) write_line(peer.get(), service.answer(request));
}

int64_t now_ms() {
  timespec ts{};
  ::clock_gettime(CLOCK_MONOTONIC, &ts);
  return int64_t{ts.tv_sec} * 1000 + ts.tv_nsec / 1'000'000;
}

}  // namespace

Result<int> run_kubelet(const KubeletCommand& command) {
  if (!command.root.empty() && !sim::World::open(command.root))
    return fail(
        Code::kNotFound,
        "--root {}: there is no simulated node; make one with: gpuslice-sim create --root {}",
        command.root, command.root);
  std::error_code ec;
  std::filesystem::create_directories(command.dir, ec);
  if (ec)
    return fail(Code::kNoPermission, "--dir {}: cannot make the folder: {}", command.dir,
                ec.message());
  sigset_t ends;
  sigemptyset(&ends);
  for (const int s : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&ends, s);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);  // before any thread is started
  const UniqueFd signals(::signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK));
  TRY_ASSIGN(const UniqueFd listener, listen_at(control_path(command.dir)));
  Node node(command.grace);
  TRY_ASSIGN(const auto plugins,
             Plugins::start({.dir = command.dir, .latency = command.socket_latency}, node));
  Service service(command, node, *plugins);
  fmt::print("kubelet stand-in: {}/device-plugins/kubelet.sock\n", command.dir);
  std::fflush(stdout);
  const int64_t every = command.restart_every.count() / 1'000'000;
  int64_t next_restart = now_ms() + every;
  for (;;) {
    pollfd fds[2] = {{signals.get(), POLLIN, 0}, {listener.get(), POLLIN, 0}};
    (void)::poll(fds, 2, kLookEveryMs);
    if ((fds[0].revents & POLLIN) != 0) {
      signalfd_siginfo info{};
      bool end = false;
      while (::read(signals.get(), &info, sizeof info) == sizeof info)
        end = end || info.ssi_signo != SIGCHLD;
      if (end) break;
    }
    if ((fds[1].revents & POLLIN) != 0) serve_one(listener.get(), service);
    service.look_at_pods();
    if (every > 0 && now_ms() >= next_restart) {
      TRY(plugins->restart());
      next_restart = now_ms() + every;
    }
  }
  ::unlink(control_path(command.dir).c_str());
  return 0;
}

Result<std::pair<std::string, uint32_t>> parse_request(const std::string& text) {
  const size_t equals = text.rfind('=');
  const auto count = equals == std::string::npos
                         ? std::nullopt
                         : parse_u64(std::string_view(text).substr(equals + 1));
  if (equals == 0 || !count || *count == 0 || *count > kMaxRequest)
    return fail(Code::kUsage,
                "--request {}: a resource and a whole number, such as nvidia.com/gpu=1", text);
  return std::pair(text.substr(0, equals), static_cast<uint32_t>(*count));
}

namespace {

Result<Json> find_pod(const std::string& dir, const std::string& name) {
  TRY_ASSIGN(const Json answer, ask(dir, {{"verb", "ls"}}));
  for (const Json& pod : answer["pods"])
    if (pod["name"] == name) return pod;
  return fail(Code::kNotFound, "there is no pod {}", name);
}

Status wait_running(const PodRunCommand& command, const std::string& name) {
  const int64_t until = now_ms() + command.patience.count() / 1'000'000;
  for (;;) {
    TRY_ASSIGN(const Json pod, find_pod(command.dir, name));
    const std::string phase = pod["phase"];
    if (phase == "Running" || phase == "Succeeded") {
      fmt::print("pod {}: {} {}\n", name, phase, pod["deviceIds"].dump());
      return {};
    }
    if (phase == "Failed")
      return fail(Code::kFailed, "pod {}: Failed: {}: {}", name, pod["reason"].get<std::string>(),
                  pod["message"].get<std::string>());
    if (now_ms() >= until)
      return fail(Code::kFailed, "pod {}: still Pending: {}", name,
                  pod["message"].get<std::string>());
    const timespec pause{0, 20'000'000};
    ::nanosleep(&pause, nullptr);
  }
}

}  // namespace

Result<int> run_pod_run(const PodRunCommand& command) {
  std::vector<std::string> names;
  for (uint32_t i = 0; i < command.count; ++i)
    names.push_back(command.count == 1 ? command.name : fmt::format("{}-{}", command.name, i));
  for (const std::string& name : names) {
    Json request = {
        {"verb", "run"}, {"name", name}, {"request", command.request}, {"work", command.work}};
    if (!command.command.empty()) request["command"] = command.command;
    TRY_ASSIGN(const Json done, ask(command.dir, request));
  }
  for (const std::string& name : names) TRY(wait_running(command, name));
  return 0;
}

Result<int> run_pod_rm(const std::string& dir, const std::vector<std::string>& names, bool all) {
  if (names.empty() && !all) return fail(Code::kUsage, "pod rm: which pod? NAME… or --all");
  TRY_ASSIGN(const Json done, ask(dir, {{"verb", "rm"}, {"names", names}, {"all", all}}));
  return 0;
}

Result<int> run_pod_ls(const std::string& dir, const std::string& output) {
  TRY_ASSIGN(const Json answer, ask(dir, {{"verb", "ls"}}));
  if (output == "json") {
    fmt::print("{}\n", answer["pods"].dump(2));
    return 0;
  }
  fmt::print("{:<28} {:<10} {:<28} {}\n", "NAME", "PHASE", "REASON", "DEVICES");
  for (const Json& pod : answer["pods"])
    fmt::print("{:<28} {:<10} {:<28} {}\n", pod["name"].get<std::string>(),
               pod["phase"].get<std::string>(), pod["reason"].get<std::string>(),
               pod["deviceIds"].dump());
  return 0;
}

Result<int> run_pod_exec(const std::string& dir, const std::string& name,
                         const std::vector<std::string>& command) {
  TRY_ASSIGN(const Json pod, find_pod(dir, name));
  const int pid = pod["pid"];
  if (pod["phase"] != "Running" || pid <= 0)
    return fail(Code::kFailed, "pod {}: it does not run", name);
  if (command.empty())
    return fail(Code::kUsage, "pod exec: which command? gpuslice-sim pod --dir {} exec {} -- CMD…",
                dir, name);
  // The pod's environment, mount namespace and (where it has one) user namespace.
  std::vector<std::string> words = {"nsenter", "--target", std::to_string(pid), "--mount"};
  std::error_code ec;
  if (std::filesystem::read_symlink(fmt::format("/proc/{}/ns/user", pid), ec) !=
      std::filesystem::read_symlink("/proc/self/ns/user", ec)) {
    words.emplace_back("--user");
    words.emplace_back("--preserve-credentials");
  }
  words.emplace_back("--");
  words.insert(words.end(), command.begin(), command.end());
  std::string env;
  if (FILE* file = std::fopen(fmt::format("/proc/{}/environ", pid).c_str(), "r"); file != nullptr) {
    char buffer[65536];
    env.assign(buffer, std::fread(buffer, 1, sizeof buffer, file));
    std::fclose(file);
  }
  std::vector<std::string> env_words;
  for (const std::string_view word : split(env, '\0'))
    if (!word.empty()) env_words.emplace_back(word);
  std::vector<char*> argv, envp;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  for (std::string& word : env_words) envp.push_back(word.data());
  envp.push_back(nullptr);
  ::execvpe(argv[0], argv.data(), envp.data());
  return fail(Code::kNotFound, "nsenter: {}; install util-linux", std::strerror(errno));
}

Result<int> run_node(const std::string& dir, const std::string& output) {
  TRY_ASSIGN(const Json answer, ask(dir, {{"verb", "node"}}));
  if (output == "json") {
    fmt::print("{}\n", answer.dump());
    return 0;
  }
  fmt::print("{:<40} {:>10} {:>12}\n", "RESOURCE", "CAPACITY", "ALLOCATABLE");
  for (const auto& [name, value] : answer["capacity"].items())
    fmt::print("{:<40} {:>10} {:>12}\n", name, value.get<std::string>(),
               answer["allocatable"][name].get<std::string>());
  return 0;
}

Result<int> run_kubelet_restart(const std::string& dir, uint32_t times) {
  TRY_ASSIGN(const Json done, ask(dir, {{"verb", "restart"}, {"times", times}}));
  return 0;
}

}  // namespace gpuslice::simkubelet
