#include "nvml/library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <array>

#include "base/text.h"

namespace gpuslice::nvml {
namespace {

constexpr const char* kSoname = "libnvidia-ml.so.1";

#if defined(__aarch64__)
#define GPUSLICE_MULTIARCH "aarch64-linux-gnu"
#else
#define GPUSLICE_MULTIARCH "x86_64-linux-gnu"
#endif
constexpr auto kFolders = std::to_array<std::string_view>(
    {"usr/lib/" GPUSLICE_MULTIARCH, "usr/lib64", "lib64", "lib/" GPUSLICE_MULTIARCH, "usr/lib",
     "lib", "usr/lib/" GPUSLICE_MULTIARCH "/nvidia/current"});

std::string last_error() {
  const char* error = ::dlerror();
  return error == nullptr ? "unknown" : error;
}

}  // namespace

std::vector<std::string> library_candidates(std::string_view root) {
  while (root.ends_with('/')) root.remove_suffix(1);
  std::vector<std::string> candidates;
  if (root.empty()) candidates.emplace_back(kSoname);
  for (const std::string_view folder : kFolders) {
    candidates.push_back(fmt::format("{}/{}/{}", root, folder, kSoname));
  }
  return candidates;
}

Result<std::unique_ptr<Library>> Library::load(std::string_view root) {
  std::string broken;
  for (const std::string& path : library_candidates(root)) {
    const bool searched = path.find('/') == std::string::npos;
    if (!searched && ::access(path.c_str(), F_OK) != 0) continue;
    if (void* handle = ::dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL)) {
      return std::unique_ptr<Library>(new Library(handle, path));
    }
    const std::string error = last_error();
    if (!searched && broken.empty()) broken = error;
  }
  if (!broken.empty()) {
    return fail(Code::kUnavailable, "NVIDIA driver: {} cannot be loaded: {}", kSoname, broken);
  }
  return fail(
      Code::kUnavailable,
      "NVIDIA driver: {} is not there (looked below {} in {}, …); install the driver, or say "
      "where it is with --root",
      kSoname, root.empty() ? "/" : root, kFolders[0]);
}

Library::~Library() { ::dlclose(handle_); }

void* Library::symbol(const char* name) const { return ::dlsym(handle_, name); }

}  // namespace gpuslice::nvml
