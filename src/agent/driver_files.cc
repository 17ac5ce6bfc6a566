#include "agent/driver_files.h"

#include <algorithm>
#include <set>
#include <string_view>

namespace gpuslice::agent {
namespace {

// Of both architectures that there are drivers for, as distributions lay them out.
constexpr std::string_view kLibraryFolders[] = {
    "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib",
    "/lib64",     "/lib/x86_64-linux-gnu",     "/lib/aarch64-linux-gnu"};
constexpr std::string_view kBelowThem[] = {"", "/vdpau", "/nvidia/current"};
constexpr std::string_view kProgramFolders[] = {"/usr/bin", "/usr/sbin", "/bin", "/sbin",
                                                "/usr/local/bin"};
constexpr std::string_view kPrograms[] = {"nvidia-smi",
                                          "nvidia-debugdump",
                                          "nvidia-persistenced",
                                          "nvidia-cuda-mps-control",
                                          "nvidia-cuda-mps-server",
                                          "nvidia-imex",
                                          "nvidia-imex-ctl"};
constexpr std::string_view kSockets[] = {"/run/nvidia-persistenced/socket",
                                         "/run/nvidia-fabricmanager/socket", "/tmp/nvidia-mps"};
constexpr size_t kMostFiles = 512;  // of one kind: a driver has some fifty libraries

// "libcuda.so" and "libcuda.so.1" beside "libcuda.so.580.65.06": the shorter one points at the
// longer one, as a driver's installer makes them.
void add_links(const std::string& folder, const std::string& library, std::string_view version,
               const std::vector<std::string>& names, DriverFiles& out) {
  const std::string stem = library.substr(0, library.size() - version.size() - 1);  // "libcuda.so"
  const auto is_there = [&](const std::string& name) {
    return std::binary_search(names.begin(), names.end(), name);
  };
  std::string target = library;
  for (const char* number : {".1", ".2", ".0"}) {
    const std::string soname = stem + number;
    if (!is_there(soname)) continue;
    out.links.push_back({folder + "/" + soname, library});
    target = soname;
    break;
  }
  if (is_there(stem)) out.links.push_back({folder + "/" + stem, target});
}

void find_libraries(ports::HostFiles& files, const std::string& root, const std::string& version,
                    DriverFiles& out) {
  const std::string ending = ".so." + version;
  std::set<std::string> seen;  // /lib is /usr/lib on many systems: the first place counts
  for (const std::string_view parent : kLibraryFolders) {
    for (const std::string_view below : kBelowThem) {
      const std::string folder = std::string(parent) + std::string(below);
      const auto names = files.list(root + folder);
      if (!names) continue;
      bool any = false;
      for (const std::string& name : *names) {
        if (!name.starts_with("lib") || !name.ends_with(ending)) continue;
        if (out.libraries.size() >= kMostFiles || !seen.insert(name).second) continue;
        out.libraries.push_back(folder + "/" + name);
        add_links(folder, name, version, *names, out);
        any = true;
      }
      if (any) out.library_folders.push_back(folder);
    }
  }
}

}  // namespace

DriverFiles find_driver_files(ports::HostFiles& files, const std::string& root,
                              const std::string& version) {
  DriverFiles out;
  if (version.empty()) return out;
  find_libraries(files, root, version, out);
  for (const std::string_view program : kPrograms) {
    for (const std::string_view folder : kProgramFolders) {
      const std::string path = std::string(folder) + "/" + std::string(program);
      if (!files.exists(root + path)) continue;
      out.programs.push_back(path);
      break;
    }
  }
  for (const std::string_view socket : kSockets)
    if (files.exists(root + std::string(socket))) out.sockets.emplace_back(socket);
  const std::string firmware = "/lib/firmware/nvidia/" + version;
  if (const auto names = files.list(root + firmware))
    for (const std::string& name : *names)
      if (name.starts_with("gsp") && name.ends_with(".bin") && out.firmware.size() < kMostFiles)
        out.firmware.push_back(firmware + "/" + name);
  return out;
}

}  // namespace gpuslice::agent
