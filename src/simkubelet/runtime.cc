#include "simkubelet/runtime.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/text.h"
#include "sim/mig.h"
#include "sim/mounts.h"
#include "sim/visibility.h"
#include "sim/world.h"

namespace gpuslice::simkubelet {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kReportFd = 3;
constexpr Duration kStartLimit = std::chrono::seconds(20);

Duration hook_limit(const CdiHook& hook) {
  return std::chrono::seconds(hook.timeout_s == 0 ? 10 : hook.timeout_s);
}

constexpr const char* kControlNodes[] = {"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools",
                                         "nvidia-modeset"};

std::string cap(uint32_t minor) { return fmt::format("nvidia-caps/nvidia-cap{}", minor); }

void add_mig(const sim::State& state, uint32_t gpu, uint8_t gi, uint8_t ci,
             std::vector<std::string>& nodes) {
  const uint32_t minor = state.gpus[gpu].minor;
  nodes.push_back(fmt::format("nvidia{}", minor));
  nodes.push_back(cap(sim::gi_cap_minor(minor, gi)));
  nodes.push_back(cap(sim::ci_cap_minor(minor, gi, ci)));
}

bool add_one(const sim::State& state, std::string_view item, std::vector<std::string>& nodes) {
  if (item.starts_with("MIG-")) {
    const auto found = sim::find_mig_uuid(state, item);
    if (found) add_mig(state, found->gpu, found->gi, found->ci, nodes);
    return found.has_value();
  }
  const auto parts = split(item, ':');
  const auto index = parse_u64(parts[0]);
  for (uint32_t gpu = 0; gpu < state.node.gpu_count; ++gpu) {
    if (item != state.gpus[gpu].uuid && !(index && *index == gpu)) continue;
    if (parts.size() == 1) {
      nodes.push_back(fmt::format("nvidia{}", state.gpus[gpu].minor));
      return true;
    }
    const auto mig = parse_u64(parts[1]);
    const auto devices = sim::mig_devices(state, gpu);
    if (!mig || *mig >= devices.count) return false;
    add_mig(state, gpu, devices.device[*mig].gi, devices.device[*mig].ci, nodes);
    return true;
  }
  return false;
}

std::string self() {
  std::error_code ec;
  return fs::read_symlink("/proc/self/exe", ec).string();
}

// The folders of the cgroup hierarchies that pods of a node lie in: the unified one, and on hybrid
// machines pids.
std::vector<std::string> hierarchies() {
  std::vector<std::string> out;
  for (const char* at : {"/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/pids"})
    if (::access((std::string(at) + "/cgroup.procs").c_str(), W_OK) == 0) out.emplace_back(at);
  return out;
}

std::string pod_cgroup(const std::string& uid) { return "/kubepods/besteffort/pod" + uid; }

// As a kubelet with the cgroupfs driver names it. Where no hierarchy can be written, the pod has
// none.
void join_cgroup(const std::string& uid, int pid) {
  for (const std::string& at : hierarchies()) {
    const std::string folder = at + pod_cgroup(uid) + "/main";
    std::error_code ec;
    fs::create_directories(folder, ec);
    std::ofstream(folder + "/cgroup.procs") << pid << "\n";
  }
}

}  // namespace

Result<std::vector<std::string>> nodes_of(const std::string& root,
                                          const std::string& visible_devices) {
  std::vector<std::string> nodes;
  if (visible_devices.empty() || visible_devices == "void" || visible_devices == "none")
    return nodes;
  TRY_ASSIGN(const auto world, sim::World::open(root));
  const auto state = world->snapshot();
  for (const std::string_view item : split(visible_devices, ',')) {
    if (item == "all") {
      for (uint32_t gpu = 0; gpu < state->node.gpu_count; ++gpu) {
        nodes.push_back(fmt::format("nvidia{}", state->gpus[gpu].minor));
        for (const sim::MigDevice& device : sim::mig_devices(*state, gpu))
          add_mig(*state, gpu, device.gi, device.ci, nodes);
      }
    } else if (!add_one(*state, item, nodes)) {
      return fail(Code::kNotFound, "NVIDIA_VISIBLE_DEVICES={}: unknown device {}",
                  json_escape(visible_devices), json_escape(item));
    }
  }
  for (const char* node : kControlNodes) nodes.emplace_back(node);
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  return nodes;
}

namespace {

// A path of the node as this machine has it: below the node's root, unless it names that already
// or only this machine has it. A GPU is never this machine's own.
std::string on_node(const std::string& root, const std::string& path) {
  if (root.empty() || path == root || path.starts_with(root + "/")) return path;
  std::error_code ec;
  const bool here_only = !fs::exists(fs::symlink_status(root + path, ec)) && fs::exists(path, ec);
  return here_only && !path.starts_with("/dev/nvidia") ? path : root + path;
}

// A device node: by its place below the node's dev where it keeps its name, else by a mount.
Status add_node(const std::string& root, const std::string& host, const std::string& at,
                ContainerPlan& plan) {
  const std::string source = on_node(root, host);
  std::error_code ec;
  if (!fs::exists(source, ec))
    return fail(Code::kNotFound, "failed to stat device {}: no such file or directory",
                json_escape(host));
  if (at.starts_with("/dev/nvidia") && source == root + at)
    plan.nodes.push_back(at.substr(std::strlen("/dev/")));
  else
    plan.mounts.push_back({source, at, false});
  return {};
}

void set_env(const std::vector<std::string>& words, std::map<std::string, std::string>& env) {
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    env[word.substr(0, equals)] = word.substr(equals + 1);
  }
}

// What the container may see, as NVIDIA's runtime takes it from the environment, or from the names
// of the mounts below the folder that the environment points to.
std::string visible_devices(const std::map<std::string, std::string>& env,
                            const Allocated& allocated) {
  constexpr std::string_view kByMounts = "/var/run/nvidia-container-devices";
  const auto it = env.find("NVIDIA_VISIBLE_DEVICES");
  if (it == env.end()) return "";
  if (it->second != kByMounts) return it->second;
  std::vector<std::string> names;
  for (const Allocated::Mount& mount : allocated.mounts) {
    const std::string_view at = mount.container_path;
    if (!at.starts_with(kByMounts) || at.size() <= kByMounts.size() + 1) continue;
    const std::string_view name = at.substr(kByMounts.size() + 1);
    if (!name.starts_with("imex/")) names.emplace_back(name);
  }
  return join(names, ",");
}

// One mount for each place: the last one.
void add_mount(ContainerPlan::Mount mount, ContainerPlan& plan) {
  std::erase_if(plan.mounts, [&](const auto& other) { return other.at == mount.at; });
  plan.mounts.push_back(std::move(mount));
}

Json plan_json(const ContainerPlan& plan) {
  Json mounts = Json::array();
  for (const auto& m : plan.mounts)
    mounts.push_back({{"host", m.host}, {"at", m.at}, {"readOnly", m.read_only}});
  Json hooks = Json::array();
  for (const CdiHook& hook : plan.hooks)
    hooks.push_back({{"name", hook.name},
                     {"path", hook.path},
                     {"args", hook.args},
                     {"env", hook.env},
                     {"timeout", hook.timeout_s}});
  return {{"nodes", plan.nodes}, {"mounts", mounts}, {"hooks", hooks}, {"report", kReportFd}};
}

ContainerPlan plan_of(const Json& json) {
  ContainerPlan plan;
  plan.nodes = json.at("nodes").get<std::vector<std::string>>();
  for (const Json& m : json.at("mounts"))
    plan.mounts.push_back({m.at("host"), m.at("at"), m.at("readOnly")});
  for (const Json& h : json.at("hooks"))
    plan.hooks.push_back({h.at("name"), h.at("path"), h.at("args"), h.at("env"), h.at("timeout")});
  return plan;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

// Waits until `pid` ended, at most so long; its wait status, or nothing.
std::optional<int> wait_for(pid_t pid, Duration limit) {
  const timespec pause{0, 2'000'000};
  for (Duration waited{}; waited < limit; waited += std::chrono::milliseconds(2)) {
    int status = 0;
    if (::waitpid(pid, &status, WNOHANG) == pid) return status;
    ::nanosleep(&pause, nullptr);
  }
  return std::nullopt;
}

std::string ended(int status) {
  return WIFEXITED(status) ? fmt::format("exit status {}", WEXITSTATUS(status))
                           : fmt::format("ended by signal {}", WTERMSIG(status));
}

// What the process says before it becomes the command: nothing, or why it cannot.
Result<std::string> last_words(int fd, Duration limit) {
  std::string said;
  const int64_t until = monotonic_now().time_since_epoch().count() + limit.count();
  for (;;) {
    const int64_t left = until - monotonic_now().time_since_epoch().count();
    pollfd ready{fd, POLLIN, 0};
    if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left / 1'000'000) + 1) < 0)
      if (left <= 0 || errno != EINTR) return fail(Code::kFailed, "container: not started in time");
    if ((ready.revents & (POLLIN | POLLHUP)) == 0) continue;
    char buffer[4096];
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return said;
    said.append(buffer, static_cast<size_t>(n));
  }
}

}  // namespace

Result<ContainerPlan> plan_container(const Launch& launch) {
  const Allocated& allocated = launch.allocated;
  ContainerPlan plan;
  plan.env = allocated.envs;
  TRY_ASSIGN(const std::vector<std::string> names, cdi_names(allocated));
  CdiEdits edits;
  if (!names.empty()) {
    TRY_ASSIGN(edits, CdiSpecs::of_node(launch.root).resolve(names));
  }
  set_env(edits.env, plan.env);
  if (launch.root.empty()) {
    for (const Allocated::Mount& mount : allocated.mounts)
      add_mount({mount.host_path, mount.container_path, mount.read_only}, plan);
    return plan;
  }
  TRY_ASSIGN(plan.nodes, nodes_of(launch.root, visible_devices(plan.env, allocated)));
  for (const Allocated::DeviceNode& node : allocated.device_nodes)
    TRY(add_node(launch.root, node.host_path, node.container_path, plan));
  for (const CdiEdits::DeviceNode& node : edits.device_nodes)
    TRY(add_node(launch.root, node.host_path, node.path, plan));
  std::sort(plan.nodes.begin(), plan.nodes.end());
  plan.nodes.erase(std::unique(plan.nodes.begin(), plan.nodes.end()), plan.nodes.end());
  // The mounts that only name devices are taken out, as NVIDIA's runtime does.
  for (const Allocated::Mount& mount : allocated.mounts)
    if (!mount.container_path.starts_with("/var/run/nvidia-container-devices/"))
      add_mount({on_node(launch.root, mount.host_path), mount.container_path, mount.read_only},
                plan);
  for (const CdiEdits::Mount& mount : edits.mounts)
    add_mount({on_node(launch.root, mount.host_path), mount.container_path, mount.read_only}, plan);
  for (CdiHook& hook : edits.hooks)
    if (hook.name == "createContainer") plan.hooks.push_back(std::move(hook));
  return plan;
}

Result<Launched> launch(const Launch& launch) {
  TRY_ASSIGN(const ContainerPlan plan, plan_container(launch));
  std::vector<std::string> words = {
      self(),   "container",
      "--root", launch.root,
      "--plan", plan_json(plan).dump(-1, ' ', false, Json::error_handler_t::replace),
      "--"};
  words.insert(words.end(), launch.command.begin(), launch.command.end());
  std::map<std::string, std::string> env = {
      {"PATH",
       launch.root + "/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
      {"HOME", "/"},
      {"GPUSLICE_SIM_ROOT", launch.root},
      {"LD_LIBRARY_PATH", launch.root + "/usr/lib/x86_64-linux-gnu"}};
  for (const auto& [name, value] : plan.env) env[name] = value;
  std::vector<std::string> env_words;
  for (const auto& [name, value] : env) env_words.push_back(name + "=" + value);
  std::vector<char*> argv = pointers(words);
  std::vector<char*> envp = pointers(env_words);
  int report[2] = {-1, -1};
  if (::pipe2(report, O_CLOEXEC) != 0) return fail(Code::kFailed, "pipe: {}", std::strerror(errno));
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, report[1], kReportFd);
  pid_t pid = 0;
  const int error = ::posix_spawn(&pid, argv[0], &files, &attributes, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  ::close(report[1]);
  if (error != 0) {
    ::close(report[0]);
    return fail(Code::kFailed, "{}: {}", words[0], std::strerror(error));
  }
  join_cgroup(launch.uid, pid);
  Duration limit = kStartLimit;
  for (const CdiHook& hook : plan.hooks) limit += hook_limit(hook);
  Result<std::string> said = last_words(report[0], limit);
  ::close(report[0]);
  if (said && said->empty()) return Launched{pid, plan.env};
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  remove_cgroups(launch.uid);
  if (!said) return std::unexpected(said.error());
  return fail(Code::kFailed, "{}", *said);
}

Status run_hook(const CdiHook& hook, const std::string& root, const std::string& state) {
  const std::string path = on_node(root, hook.path);
  if (!path.starts_with(root + "/") || ::access(path.c_str(), X_OK) != 0) return {};
  int input[2] = {-1, -1};
  // A pipe holds a state of some hundred bytes, whether the hook reads it or not.
  if (::pipe2(input, O_CLOEXEC) != 0 ||
      ::write(input[1], state.data(), state.size()) != static_cast<ssize_t>(state.size()))
    return fail(Code::kFailed, "hook {}: no pipe: {}", hook.path, std::strerror(errno));
  ::close(input[1]);
  std::vector<std::string> args = hook.args.empty() ? std::vector{hook.path} : hook.args;
  std::vector<std::string> env = hook.env;
  std::vector<char*> argv = pointers(args);
  std::vector<char*> envp = pointers(env);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, input[0], STDIN_FILENO);
  pid_t pid = 0;
  const int error = ::posix_spawn(&pid, path.c_str(), &files, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&files);
  ::close(input[0]);
  if (error != 0) return fail(Code::kFailed, "hook {}: {}", hook.path, std::strerror(error));
  const std::optional<int> status = wait_for(pid, hook_limit(hook));
  if (!status) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return fail(Code::kFailed, "hook {}: not done within {} s", hook.path,
                std::chrono::duration_cast<std::chrono::seconds>(hook_limit(hook)).count());
  }
  if (*status != 0) return fail(Code::kFailed, "hook {}: {}", hook.path, ended(*status));
  return {};
}

namespace {

// New names in a folder of this machine are made in the view alone: an overlay, whose changes lie
// below `work` and end with the view. Once for each folder.
Status overlay(const std::string& folder, const std::string& work, std::set<std::string>& done) {
  if (!done.insert(folder).second) return {};
  const std::string at = fmt::format("{}/overlay-{}", work, done.size());
  std::error_code ec;
  fs::create_directories(at + "/upper", ec);
  fs::create_directories(at + "/work", ec);
  const std::string options =
      fmt::format("lowerdir={},upperdir={}/upper,workdir={}/work", folder, at, at);
  if (::mount("overlay", folder.c_str(), "overlay", 0, options.c_str()) != 0)
    return fail(Code::kFailed,
                "cannot let a container have files of its own in {}: an overlay of it: {}", folder,
                std::strerror(errno));
  return {};
}

// The nearest folder above a place that is not there yet.
std::string nearest_folder(const std::string& at) {
  std::error_code ec;
  fs::path folder = fs::path(at).parent_path();
  while (folder != "/" && !fs::is_directory(folder, ec)) folder = folder.parent_path();
  return folder.string();
}

Status make_place(const std::string& host, const std::string& at, const std::string& root,
                  std::set<std::string>& overlaid) {
  std::error_code ec;
  // What the node's own folder lies in is left as it is: an overlay would hide its mounts.
  if (const std::string folder = nearest_folder(at); !fs::exists(at, ec) && !root.empty() &&
                                                     folder != "/" && !at.starts_with(root + "/") &&
                                                     !root.starts_with(folder + "/"))
    TRY(overlay(folder, root + "/world/view", overlaid));
  if (fs::is_directory(host, ec)) {
    fs::create_directories(at, ec);
  } else if (!fs::exists(at, ec)) {
    fs::create_directories(fs::path(at).parent_path(), ec);
    std::ofstream(at).flush();
  }
  if (!fs::exists(at, ec)) return fail(Code::kFailed, "cannot make the place {} for {}", at, host);
  return {};
}

Status bind_mount(const ContainerPlan::Mount& mount, const std::string& root,
                  std::set<std::string>& overlaid) {
  TRY(make_place(mount.host, mount.at, root, overlaid));
  if (::mount(mount.host.c_str(), mount.at.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0)
    return fail(Code::kFailed, "cannot mount {} at {}: {}", mount.host, mount.at,
                std::strerror(errno));
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  if (mount.read_only &&
      ::mount_setattr(-1, mount.at.c_str(), 0, &attributes, sizeof attributes) != 0)
    return fail(Code::kFailed, "cannot make {} read-only: {}", mount.at, std::strerror(errno));
  return {};
}

// The bundle that a hook may ask for: this process's view is the container's root.
Status run_hooks(const ContainerPlan& plan, const std::string& root) {
  if (plan.hooks.empty()) return {};
  const std::string bundle = root + "/world/view/bundle";
  std::error_code ec;
  fs::create_directories(bundle, ec);
  std::ofstream(bundle + "/config.json")
      << Json{{"ociVersion", "1.0.2"}, {"root", {{"path", "/"}}}}.dump() << "\n";
  const std::string state = Json{
      {"ociVersion", "1.0.2"},
      {"id", "main"},
      {"status", "creating"},
      {"pid", ::getpid()},
      {"bundle", bundle}}.dump();
  for (const CdiHook& hook : plan.hooks) TRY(run_hook(hook, root, state));
  return {};
}

Status enter(const Container& container, const ContainerPlan& plan) {
  if (!container.root.empty()) {
    TRY(sim::enter_view({.root = container.root, .nodes = plan.nodes, .system_paths = true}));
    // Entering a user namespace clears the death signal.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  }
  std::set<std::string> overlaid;
  for (const ContainerPlan::Mount& mount : plan.mounts)
    TRY(bind_mount(mount, container.root, overlaid));
  return run_hooks(plan, container.root);
}

Error become(const Container& container, const ContainerPlan& plan) {
  if (::getppid() == 1) return {Code::kUnavailable, "the kubelet is gone", {}};
  if (const Status entered = enter(container, plan); !entered) return entered.error();
  if (container.command.empty()) return {Code::kUsage, "no command", {}};
  std::vector<std::string> words = container.command;
  std::vector<char*> argv = pointers(words);
  ::execvp(argv[0], argv.data());
  return {Code::kNotFound, fmt::format("{}: {}", words[0], std::strerror(errno)), {}};
}

}  // namespace

Error become_container(const Container& container) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  int report = -1;
  Error error;
  try {
    const Json json = Json::parse(container.plan);
    report = json.at("report");
    ::fcntl(report, F_SETFD, FD_CLOEXEC);
    error = become(container, plan_of(json));
  } catch (const Json::exception& e) {
    error = {Code::kUsage, std::string("--plan: ") + e.what(), {}};
  }
  error.message = "container: " + error.message;
  if (report >= 0) (void)!::write(report, error.message.data(), error.message.size());
  return error;
}

void remove_cgroups(const std::string& uid) {
  for (const std::string& at : hierarchies()) {
    ::rmdir((at + pod_cgroup(uid) + "/main").c_str());
    ::rmdir((at + pod_cgroup(uid)).c_str());
  }
}

}  // namespace gpuslice::simkubelet
