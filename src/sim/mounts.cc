#include "sim/mounts.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace gpuslice::sim {
namespace {

namespace fs = std::filesystem;

Status os_error(const std::string& what) {
  const int error = errno;
  return fail(error == EPERM || error == EACCES ? Code::kNoPermission : Code::kFailed,
              "private view: cannot {}: {}", what, std::strerror(error));
}

Status write_text(const char* path, const std::string& text) {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return os_error(std::string("open ") + path);
  const ssize_t n = ::write(fd, text.data(), text.size());
  ::close(fd);
  if (n != static_cast<ssize_t>(text.size())) return os_error(std::string("write ") + path);
  return {};
}

Status new_namespace() {
  const uid_t uid = ::geteuid();
  const gid_t gid = ::getegid();
  if (::unshare(CLONE_NEWNS) != 0) {
    if (errno != EPERM || ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
      return fail(Code::kNoPermission,
                  "private view: this kernel gives neither a mount namespace nor a user namespace "
                  "({}); run it as root",
                  std::strerror(errno));
    if (::access("/proc/self/setgroups", F_OK) == 0)  // kernels before 3.19 have none
      TRY(write_text("/proc/self/setgroups", "deny"));
    TRY(write_text("/proc/self/uid_map", fmt::format("{} {} 1\n", uid, uid)));
    TRY(write_text("/proc/self/gid_map", fmt::format("{} {} 1\n", gid, gid)));
  }
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return os_error("make mounts private");
  return {};
}

Status tmpfs(const std::string& at) {
  if (::mount("tmpfs", at.c_str(), "tmpfs", MS_NOSUID, "mode=0755,size=4m") != 0)
    return os_error("mount a tmpfs on " + at);
  return {};
}

Status bind_mount(const std::string& from, const std::string& at, bool recursive) {
  if (::mount(from.c_str(), at.c_str(), nullptr,
              MS_BIND | (recursive ? static_cast<unsigned long>(MS_REC) : 0UL), nullptr) != 0)
    return os_error("bind " + from + " over " + at);
  return {};
}

// The device nodes of the node, below its dev: "nvidia0", "nvidia-caps/nvidia-cap1" …
std::vector<std::string> all_nodes(const std::string& dev) {
  std::vector<std::string> out;
  std::error_code ec;
  for (const auto& entry : fs::recursive_directory_iterator(dev, ec)) {
    const std::string name = fs::relative(entry.path(), dev, ec).string();
    if (!entry.is_directory(ec) && name.starts_with("nvidia")) out.push_back(name);
  }
  std::sort(out.begin(), out.end());
  return out;
}

Status bind_nodes(const std::string& from, const std::vector<std::string>& nodes,
                  const std::string& at) {
  for (const std::string& node : nodes) {
    const std::string target = at + "/" + node;
    std::error_code ec;
    if (!fs::exists(from + "/" + node, ec)) continue;
    fs::create_directories(fs::path(target).parent_path(), ec);
    const int fd = ::open(target.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0) return os_error("make " + target);
    ::close(fd);
    TRY(bind_mount(from + "/" + node, target, false));
  }
  return {};
}

// Covers `folder` by a tmpfs that has links to everything that was there, but for names that start
// with `but`.
Status cover(const std::string& folder, const std::string& hidden, std::string_view but) {
  std::error_code ec;
  fs::create_directories(hidden, ec);
  TRY(bind_mount(folder, hidden, true));
  TRY(tmpfs(folder));
  for (const auto& entry : fs::directory_iterator(hidden, ec)) {
    const std::string name = entry.path().filename().string();
    if (!but.empty() && name.starts_with(but)) continue;
    if (::symlink((hidden + "/" + name).c_str(), (folder + "/" + name).c_str()) != 0)
      return os_error("link " + folder + "/" + name);
  }
  return {};
}

bool is_folder(const std::string& path) {
  std::error_code ec;
  return fs::is_directory(path, ec);
}

struct Place {
  std::string system;
  std::string what;
};

Status system_paths(const View& view, const std::string& work,
                    const std::vector<std::string>& nodes, std::vector<std::string>& left_out) {
  TRY(cover("/dev", work + "/dev", "nvidia"));
  TRY(bind_nodes(view.root + "/dev", nodes, "/dev"));
  if (is_folder("/proc/driver")) {
    TRY(cover("/proc/driver", work + "/proc-driver", "nvidia"));
    for (const char* name : {"nvidia", "nvidia-caps"}) {
      std::error_code ec;
      fs::create_directory(std::string("/proc/driver/") + name, ec);
      if (is_folder(view.root + "/proc/driver/" + name))
        TRY(bind_mount(view.root + "/proc/driver/" + name, std::string("/proc/driver/") + name,
                       true));
    }
  } else {
    left_out.emplace_back("/proc/driver");
  }
  for (const char* file : {"/proc/devices", "/proc/modules"}) {
    if (::access(file, F_OK) == 0 && ::access((view.root + file).c_str(), F_OK) == 0)
      TRY(bind_mount(view.root + file, file, false));
    else
      left_out.emplace_back(file);
  }
  if (!is_folder("/sys/bus/pci/devices")) {
    left_out.emplace_back("/sys/bus/pci/devices");
    return {};
  }
  TRY(cover("/sys/bus/pci/devices", work + "/pci", ""));
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(view.root + "/sys/bus/pci/devices", ec)) {
    const std::string target = fs::canonical(entry.path(), ec).string();
    const std::string at = "/sys/bus/pci/devices/" + entry.path().filename().string();
    ::unlink(at.c_str());
    if (!target.empty() && ::symlink(target.c_str(), at.c_str()) != 0)
      return os_error("link " + at);
  }
  return {};
}

}  // namespace

Status enter_view(const View& view, std::vector<std::string>* left_out) {
  TRY(new_namespace());
  // What is covered stays reachable here; this namespace alone sees it.
  const std::string work = view.root + "/world/view";
  std::error_code ec;
  fs::create_directories(work, ec);
  TRY(tmpfs(work));
  const std::string dev = view.root + "/dev";
  const std::vector<std::string> nodes = view.nodes.value_or(all_nodes(dev));
  std::vector<std::string> ignored;
  // The system's places first: they are bound from the node's own dev, which is covered last.
  if (view.system_paths)
    TRY(system_paths(view, work, nodes, left_out != nullptr ? *left_out : ignored));
  if (!view.nodes) return {};
  const std::string original = work + "/node-dev";
  fs::create_directories(original, ec);
  TRY(bind_mount(dev, original, true));
  TRY(tmpfs(dev));
  return bind_nodes(original, nodes, dev);
}

}  // namespace gpuslice::sim
