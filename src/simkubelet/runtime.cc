#include "simkubelet/runtime.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "sim/mig.h"
#include "sim/mounts.h"
#include "sim/visibility.h"
#include "sim/world.h"

namespace gpuslice::simkubelet {
namespace {

namespace fs = std::filesystem;

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

Result<int> launch(const Launch& launch) {
  std::vector<std::string> nodes;
  if (!launch.root.empty()) {
    const auto it = launch.allocated.envs.find("NVIDIA_VISIBLE_DEVICES");
    TRY_ASSIGN(nodes, nodes_of(launch.root, it == launch.allocated.envs.end() ? "" : it->second));
  }
  for (const std::string& node : launch.allocated.device_nodes)
    if (node.starts_with("/dev/nvidia")) nodes.push_back(node.substr(5));
  std::vector<std::string> words = {self(), "container", "--root", launch.root};
  for (const std::string& node : nodes) {
    words.emplace_back("--node");
    words.push_back(node);
  }
  for (const Allocated::Mount& mount : launch.allocated.mounts) {
    words.emplace_back("--mount");
    words.push_back(mount.host_path + ":" + mount.container_path + (mount.read_only ? ":ro" : ""));
  }
  words.emplace_back("--");
  words.insert(words.end(), launch.command.begin(), launch.command.end());
  std::map<std::string, std::string> env = {
      {"PATH",
       launch.root + "/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
      {"HOME", "/"},
      {"GPUSLICE_SIM_ROOT", launch.root},
      {"LD_LIBRARY_PATH", launch.root + "/usr/lib/x86_64-linux-gnu"}};
  for (const auto& [name, value] : launch.allocated.envs) env[name] = value;
  std::vector<std::string> env_words;
  for (const auto& [name, value] : env) env_words.push_back(name + "=" + value);
  const auto pointers = [](std::vector<std::string>& list) {
    std::vector<char*> out;
    for (std::string& word : list) out.push_back(word.data());
    out.push_back(nullptr);
    return out;
  };
  std::vector<char*> argv = pointers(words);
  std::vector<char*> envp = pointers(env_words);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  pid_t pid = 0;
  const int error = ::posix_spawn(&pid, argv[0], nullptr, &attributes, argv.data(), envp.data());
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return fail(Code::kFailed, "{}: {}", words[0], std::strerror(error));
  join_cgroup(launch.uid, pid);
  return pid;
}

Error become_container(const Container& container) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() == 1) return {Code::kUnavailable, "container: the kubelet is gone", {}};
  if (!container.root.empty()) {
    const Status view =
        sim::enter_view({.root = container.root, .nodes = container.nodes, .system_paths = true});
    if (!view) return view.error();
    // Entering a user namespace clears the death signal.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  }
  for (const std::string& mount : container.mounts) {
    const auto parts = split(mount, ':');
    if (parts.size() < 2) continue;
    const std::string host(parts[0]);
    const std::string at(parts[1]);
    std::error_code ec;
    if (fs::is_directory(host, ec)) {
      fs::create_directories(at, ec);
    } else if (!fs::exists(at, ec)) {
      fs::create_directories(fs::path(at).parent_path(), ec);
      std::ofstream(at).flush();
    }
    if (::mount(host.c_str(), at.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0)
      return {Code::kFailed,
              fmt::format("container: cannot mount {} at {}: {}", host, at, std::strerror(errno)),
              {}};
  }
  if (container.command.empty()) return {Code::kUsage, "container: no command", {}};
  std::vector<char*> argv;
  for (const std::string& word : container.command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  return {Code::kNotFound,
          fmt::format("container: {}: {}", container.command[0], std::strerror(errno)),
          {}};
}

void remove_cgroups(const std::string& uid) {
  for (const std::string& at : hierarchies()) {
    ::rmdir((at + pod_cgroup(uid) + "/main").c_str());
    ::rmdir((at + pod_cgroup(uid)).c_str());
  }
}

}  // namespace gpuslice::simkubelet
