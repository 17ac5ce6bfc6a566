#include "sim/trees.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

#include "base/text.h"
#include "sim/abort_point.h"
#include "sim/mig.h"
#include "sim/visibility.h"

namespace gpuslice::sim {
namespace {

namespace fs = std::filesystem;

using Kind = TreeEntry::Kind;

// The folders below the root that belong to the driver alone: what is not in the tree is removed
// there.
// Stands in the node's real dev and in no private view of it.
constexpr const char* kNodeMark = "dev/.gpuslice-node";

constexpr const char* kOwned[] = {"dev", "proc", "sys/bus/pci/devices", "sys/devices"};

TreeEntry file(std::string text, uint32_t mode = 0444) {
  return {Kind::kFile, std::move(text), 0, 0, mode};
}
TreeEntry link(std::string target) { return {Kind::kLink, std::move(target), 0, 0, 0777}; }
TreeEntry node(uint32_t major, uint32_t minor) { return {Kind::kNode, "", major, minor, 0666}; }

std::string bdf(const Gpu& gpu) {
  return fmt::format("{:04x}:{:02x}:{:02x}.0", gpu.pci_domain, gpu.pci_bus, gpu.pci_device);
}

std::string capability(uint32_t minor, uint32_t mode) {
  return fmt::format("DeviceFileMinor: {}\nDeviceFileMode: {}\nDeviceFileModify: 1\n", minor, mode);
}

// All minors that can ever be, as the driver lists them, whatever is there.
std::string mig_minors() {
  std::string out = "config 1\nmonitor 2\n";
  for (uint32_t gpu = 0; gpu < kMaxGpus; ++gpu)
    for (uint32_t gi = 0; gi < kMaxGis; ++gi) {
      out += fmt::format("gpu{}/gi{}/access {}\n", gpu, gi, gi_cap_minor(gpu, gi));
      for (uint32_t ci = 0; ci < kMaxCis; ++ci)
        out += fmt::format("gpu{}/gi{}/ci{}/access {}\n", gpu, gi, ci, ci_cap_minor(gpu, gi, ci));
    }
  return out;
}

std::string_view driver_of(const State& state) {
  return {state.node.driver, strnlen(state.node.driver, kDriverName)};
}

void add_pci(const State& state, uint32_t index, Tree& tree) {
  const Gpu& gpu = state.gpus[index];
  const gpu::Board& board = board_of(state, index);
  const std::string device = fmt::format("sys/devices/pci{:04x}:{:02x}/{}/", gpu.pci_domain,
                                         gpu.pci_bus & 0xf0U, bdf(gpu));
  tree["sys/bus/pci/devices/" + bdf(gpu)] = link("../../../" + device.substr(4, device.size() - 5));
  const auto hex = [](uint32_t value) { return fmt::format("0x{:04x}\n", value); };
  tree[device + "vendor"] = file(hex(board.pci_device_id & 0xffff));
  tree[device + "device"] = file(hex(board.pci_device_id >> 16));
  tree[device + "subsystem_vendor"] = file(hex(board.pci_subsystem_id & 0xffff));
  tree[device + "subsystem_device"] = file(hex(board.pci_subsystem_id >> 16));
  tree[device + "class"] = file(fmt::format("0x{:06x}\n", board.pci_class));
  tree[device + "revision"] = file("0xa1\n");
  tree[device + "numa_node"] = file(fmt::format("{}\n", gpu.numa_node));
  tree[device + "local_cpulist"] = file("0-15\n");
  tree[device + "enable"] = file("1\n");
  tree[device + "irq"] = file(fmt::format("{}\n", 40 + index));
  tree[device + "max_link_speed"] = file(board.links.pcie_generation >= 5   ? "32.0 GT/s PCIe\n"
                                         : board.links.pcie_generation == 4 ? "16.0 GT/s PCIe\n"
                                                                            : "8.0 GT/s PCIe\n");
  tree[device + "max_link_width"] = file(fmt::format("{}\n", board.links.pcie_width));
  if (board.mode_change == gpu::ModeChange::kReset) tree[device + "reset"] = file("", 0200);
  // Six BARs, a ROM and six more rows, as the kernel prints them: start, end, flags.
  const uint64_t bar0 = 0xd0000000ULL + index * 0x2000000ULL;
  const uint64_t bar1 = 0x20000000000ULL + index * (uint64_t{board.bar1_mib} << 20) * 2;
  std::string resource =
      fmt::format("0x{:016x} 0x{:016x} 0x{:016x}\n", bar0, bar0 + 0xffffff, 0x40200);
  resource += fmt::format("0x{:016x} 0x{:016x} 0x{:016x}\n", bar1,
                          bar1 + (uint64_t{board.bar1_mib} << 20) - 1, 0x14220c);
  for (int row = 2; row < 13; ++row)
    resource += fmt::format("0x{:016x} 0x{:016x} 0x{:016x}\n", 0, 0, 0);
  tree[device + "resource"] = file(resource);
  std::string config(64, '\0');
  const auto put = [&](size_t at, uint32_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) config[at + i] = static_cast<char>(value >> (8 * i));
  };
  put(0, board.pci_device_id & 0xffff, 2);
  put(2, board.pci_device_id >> 16, 2);
  put(8, 0xa1, 1);
  put(9, board.pci_class, 3);
  put(0x2c, board.pci_subsystem_id & 0xffff, 2);
  put(0x2e, board.pci_subsystem_id >> 16, 2);
  tree[device + "config"] = file(config);
  tree[device + "driver"] = link("../../../bus/pci/drivers/nvidia");
}

void add_gpu(const State& state, uint32_t index, Tree& tree) {
  const Gpu& gpu = state.gpus[index];
  const gpu::Board& board = board_of(state, index);
  add_pci(state, index, tree);
  if (state.node.driver_loaded == 0) return;
  tree[fmt::format("dev/nvidia{}", gpu.minor)] = node(kNvidiaMajor, gpu.minor);
  tree[fmt::format("proc/driver/nvidia/gpus/{}/information", bdf(gpu))] = file(
      fmt::format("Model: \t\t {}\nIRQ:   \t\t {}\nGPU UUID: \t {}\nVideo BIOS: \t {}\nBus "
                  "Type: \t PCIe\nDMA Size: \t 47 bits\nDMA Mask: \t 0x7fffffffffff\nBus "
                  "Location: \t {}\nDevice Minor: \t {}\nGPU Excluded:\t No\n",
                  board.name, irq_of(index), gpu.uuid, to_lower(board.vbios), bdf(gpu), gpu.minor));
  if (!board.mig()) return;
  const std::string mig = fmt::format("proc/driver/nvidia/capabilities/gpu{}/mig/", gpu.minor);
  tree[mig + ".keep"] = file("");
  for (uint32_t gi = 0; gi < kMaxGis; ++gi) {
    if (gpu.gis[gi].live == 0) continue;
    const uint32_t gi_minor = gi_cap_minor(gpu.minor, gi);
    tree[fmt::format("{}gi{}/access", mig, gi)] = file(capability(gi_minor, 292));
    tree[fmt::format("dev/nvidia-caps/nvidia-cap{}", gi_minor)] = {Kind::kNode, "", kCapsMajor,
                                                                   gi_minor, 0444};
    for (uint32_t ci = 0; ci < kMaxCis; ++ci) {
      if (gpu.gis[gi].cis[ci].live == 0) continue;
      const uint32_t ci_minor = ci_cap_minor(gpu.minor, gi, ci);
      tree[fmt::format("{}gi{}/ci{}/access", mig, gi, ci)] = file(capability(ci_minor, 292));
      tree[fmt::format("dev/nvidia-caps/nvidia-cap{}", ci_minor)] = {Kind::kNode, "", kCapsMajor,
                                                                     ci_minor, 0444};
    }
  }
}

void add_driver(const State& state, Tree& tree) {
  const std::string_view driver = driver_of(state);
  tree["dev/nvidiactl"] = node(kNvidiaMajor, 255);
  tree["dev/nvidia-modeset"] = node(kNvidiaMajor, 254);
  tree["dev/nvidia-uvm"] = node(kUvmMajor, 0);
  tree["dev/nvidia-uvm-tools"] = node(kUvmMajor, 1);
  tree["dev/nvidia-caps/nvidia-cap1"] = {Kind::kNode, "", kCapsMajor, kMigConfigMinor, 0400};
  tree["dev/nvidia-caps/nvidia-cap2"] = {Kind::kNode, "", kCapsMajor, kMigMonitorMinor, 0444};
  tree["proc/driver/nvidia/version"] =
      file(fmt::format("NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  (simulated)\nGCC "
                       "version:  gcc version 12.2.0 (Debian 12.2.0-14)\n",
                       driver));
  tree["proc/driver/nvidia/params"] =
      file("ModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438\n");
  tree["proc/driver/nvidia/capabilities/mig/config"] = file(capability(kMigConfigMinor, 256), 0400);
  tree["proc/driver/nvidia/capabilities/mig/monitor"] = file(capability(kMigMonitorMinor, 292));
  tree["proc/driver/nvidia/capabilities/fabric-imex-mgmt"] =
      file(capability(kFabricImexMinor, 256), 0400);
  static const std::string kMinors = mig_minors();
  tree["proc/driver/nvidia-caps/mig-minors"] = file(kMinors);
  tree["proc/driver/nvidia-caps/nvlink-minors"] = file("fabric-mgmt 0\n");
  tree["proc/driver/nvidia-caps/sys-minors"] =
      file(fmt::format("fabric-imex-mgmt {}\n", kFabricImexMinor));
  tree["proc/devices"] = file(
      fmt::format("Character devices:\n  1 mem\n  5 /dev/tty\n{} nvidia\n{} nvidia-modeset\n{} "
                  "nvidia-caps\n{} nvidia-uvm\n\nBlock devices:\n259 blkext\n",
                  kNvidiaMajor, kNvidiaMajor, kCapsMajor, kUvmMajor));
  tree["proc/modules"] = file(
      "nvidia_uvm 4943872 0 - Live 0x0000000000000000 (O)\nnvidia_modeset 1544192 0 - Live "
      "0x0000000000000000 (O)\nnvidia 103989248 2 nvidia_uvm,nvidia_modeset, Live "
      "0x0000000000000000 (O)\n");
}

std::string boot_id_text(const State& state) {
  std::string out;
  for (size_t i = 0; i < sizeof(state.node.boot_id); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += fmt::format("{:02x}", state.node.boot_id[i]);
  }
  return out + "\n";
}

// --- making it so
// ------------------------------------------------------------------------------------------------

// May we make character devices with NVIDIA's numbers here? Not without root, not in a user
// namespace, and never where this machine has a real driver: there 195:0 is a GPU.
bool may_make_nodes() {
  static const bool kMay = [] {
    if (::geteuid() != 0 || ::access("/proc/driver/nvidia/version", F_OK) == 0) return false;
    std::ifstream map("/proc/self/uid_map");
    uint64_t inside = 1, outside = 1, count = 0;
    map >> inside >> outside >> count;
    return inside == 0 && outside == 0 && count == 4294967295ULL;
  }();
  return kMay;
}

Status os_error(const std::string& path, const char* what) {
  const int error = errno;
  const Code code =
      error == EPERM || error == EACCES || error == EROFS ? Code::kNoPermission : Code::kFailed;
  return fail(code, "{}: cannot {}: {}", path, what, std::strerror(error));
}

// A file of the right size that cannot be read is taken to say what it should.
bool says(const std::string& path, std::string_view text) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return true;
  char part[16 * 1024];
  bool same = true;
  while (same && !text.empty()) {
    const ssize_t n = ::read(fd, part, std::min(sizeof part, text.size()));
    if (n <= 0) break;
    const auto got = static_cast<size_t>(n);
    same = text.substr(0, got) == std::string_view(part, got);
    text.remove_prefix(got);
  }
  ::close(fd);
  return same;
}

bool is_as_wanted(const std::string& path, const TreeEntry& entry) {
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0) return false;
  switch (entry.kind) {
    case Kind::kLink: {
      char target[512];
      const ssize_t n = ::readlink(path.c_str(), target, sizeof target);
      return n >= 0 && std::string_view(target, static_cast<size_t>(n)) == entry.text;
    }
    case Kind::kNode:
      if (S_ISCHR(st.st_mode))
        return st.st_rdev == makedev(entry.major, entry.minor) && (st.st_mode & 0777) == entry.mode;
      return S_ISREG(st.st_mode) && !may_make_nodes() && (st.st_mode & 0777) == entry.mode;
    case Kind::kFile: {
      if (!S_ISREG(st.st_mode) || static_cast<size_t>(st.st_size) != entry.text.size() ||
          (st.st_mode & 0777) != entry.mode)
        return false;
      return says(path, entry.text);
    }
  }
  return false;
}

Status make_entry(const std::string& path, const TreeEntry& entry) {
  const std::string fresh = path + ".new";
  abort_point("tree entry");
  ::unlink(fresh.c_str());
  if (entry.kind == Kind::kLink) {
    if (::symlink(entry.text.c_str(), fresh.c_str()) != 0) return os_error(fresh, "make the link");
  } else if (entry.kind == Kind::kNode && may_make_nodes()) {
    if (::mknod(fresh.c_str(), S_IFCHR | entry.mode, makedev(entry.major, entry.minor)) != 0)
      return os_error(fresh, "make the device node");
    if (::chmod(fresh.c_str(), entry.mode) != 0) return os_error(fresh, "set the mode");
  } else {
    const int fd = ::open(fresh.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) return os_error(fresh, "make the file");
    const ssize_t n = ::write(fd, entry.text.data(), entry.text.size());
    const bool whole =
        n == static_cast<ssize_t>(entry.text.size()) && ::fchmod(fd, entry.mode) == 0;
    ::close(fd);
    if (!whole) return os_error(fresh, "write the file");
  }
  abort_point("tree rename");
  if (::rename(fresh.c_str(), path.c_str()) != 0) return os_error(path, "put in place");
  return {};
}

// Everything below `folder` that is not wanted; folders last.
void find_strays(const std::string& root, const std::string& folder, const Tree& tree,
                 const std::set<std::string>& folders, std::vector<std::string>& strays) {
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(root + "/" + folder, ec)) {
    const std::string path = folder + "/" + entry.path().filename().string();
    if (entry.symlink_status(ec).type() == fs::file_type::directory) {
      find_strays(root, path, tree, folders, strays);
      if (!folders.contains(path)) strays.push_back(path);
    } else if (!tree.contains(path)) {
      strays.push_back(path);
    }
  }
}

}  // namespace

Tree tree_of(const State& state) {
  Tree tree;
  if (state.node.driver_loaded != 0) add_driver(state, tree);
  for (uint32_t gpu = 0; gpu < state.node.gpu_count; ++gpu) add_gpu(state, gpu, tree);
  tree[kNodeMark] = file("");
  tree["proc/sys/kernel/random/boot_id"] = file(boot_id_text(state));
  return tree;
}

uint64_t tree_key(const State& state) {
  uint64_t h = 1469598103934665603ULL;
  const auto mix = [&](uint64_t value) { h = (h ^ value) * 1099511628211ULL; };
  mix(state.node.driver_loaded);
  mix(state.node.boot_count);
  mix(state.node.gpu_count);
  for (uint32_t gpu = 0; gpu < state.node.gpu_count; ++gpu) {
    mix(state.gpus[gpu].minor);
    for (const Gi& gi : state.gpus[gpu].gis) {
      mix(gi.live);
      for (const Ci& ci : gi.cis) mix(ci.live);
    }
  }
  return h;
}

Status sync_trees(const std::string& root, const State& state) {
  // A private view of the node has another folder bound over dev: what is written there is not the
  // node's.
  if (::access((root + "/" + kNodeMark).c_str(), F_OK) != 0)
    return fail(Code::kNoPermission, "{}: the node's own /dev is not seen from here", root);
  const Tree tree = tree_of(state);
  std::set<std::string> folders;
  for (const char* owned : kOwned) folders.insert(owned);
  for (const auto& [path, entry] : tree)
    for (size_t slash = path.find('/'); slash != std::string::npos;
         slash = path.find('/', slash + 1))
      folders.insert(path.substr(0, slash));
  for (const std::string& folder : folders) {
    if (::mkdir((root + "/" + folder).c_str(), 0755) != 0 && errno != EEXIST)
      return os_error(root + "/" + folder, "make the folder");
  }
  for (const auto& [path, entry] : tree) {
    const std::string full = root + "/" + path;
    if (!is_as_wanted(full, entry)) TRY(make_entry(full, entry));
  }
  std::vector<std::string> strays;
  for (const char* owned : kOwned) find_strays(root, owned, tree, folders, strays);
  for (const std::string& stray : strays) {
    abort_point("tree removal");
    const std::string full = root + "/" + stray;
    if (::remove(full.c_str()) != 0 && errno != ENOENT && errno != ENOTEMPTY)
      return os_error(full, "remove");
  }
  return {};
}

Status lay_driver_files(const std::string& root, const std::string& driver,
                        const std::string& library, const std::string& program) {
  std::error_code ec;
  const fs::path lib = fs::path(root) / "usr/lib/x86_64-linux-gnu";
  const fs::path bin = fs::path(root) / "usr/bin";
  fs::create_directories(lib, ec);
  fs::create_directories(bin, ec);
  fs::create_directories(fs::path(root) / "sys/bus/pci/drivers/nvidia", ec);
  fs::create_directories(fs::path(root) / "dev", ec);
  std::ofstream(fs::path(root) / kNodeMark).flush();
  const auto copy = [&](const std::string& from, const fs::path& to) -> Status {
    std::error_code error;
    fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
    if (error)
      return fail(Code::kFailed, "{}: cannot be copied to {}: {}", from, to.string(),
                  error.message());
    fs::permissions(to, fs::perms(0755), error);
    return {};
  };
  const auto link_to = [&](const fs::path& at, const std::string& target) {
    fs::remove(at, ec);
    fs::create_symlink(target, at, ec);
  };
  TRY(copy(library, lib / ("libnvidia-ml.so." + driver)));
  link_to(lib / "libnvidia-ml.so.1", "libnvidia-ml.so." + driver);
  link_to(lib / "libnvidia-ml.so", "libnvidia-ml.so.1");
  // A driver's other library that tools look for by name; nothing calls into it here.
  TRY(copy(library, lib / ("libcuda.so." + driver)));
  link_to(lib / "libcuda.so.1", "libcuda.so." + driver);
  link_to(lib / "libcuda.so", "libcuda.so.1");
  if (!program.empty()) TRY(copy(program, bin / "nvidia-smi"));
  return {};
}

}  // namespace gpuslice::sim
