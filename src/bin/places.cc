#include "bin/places.h"

#include <filesystem>
#include <system_error>

namespace gpuslice::bin {
namespace {
namespace fs = std::filesystem;
}

Places places_below(const std::string& root, const std::string& state_dir,
                    const std::string& run_dir) {
  std::error_code ec;
  const std::string base = fs::exists(root + "/world/state", ec) ? root : "";
  const auto absolute = [](const std::string& path) { return fs::absolute(path).string(); };
  return {absolute(state_dir.empty() ? base + "/var/lib/gpuslice" : state_dir),
          absolute(run_dir.empty() ? base + "/run/gpuslice" : run_dir)};
}

}  // namespace gpuslice::bin
