#include "sim/visibility.h"

#include <fmt/format.h>
#include <unistd.h>

namespace gpuslice::sim {

bool Visibility::readable(const std::string& path) const {
  return ::access((root_ + path).c_str(), R_OK) == 0;
}

bool Visibility::gpu(uint32_t minor) const { return readable(fmt::format("/dev/nvidia{}", minor)); }
bool Visibility::control() const { return readable("/dev/nvidiactl"); }

bool Visibility::gi(uint32_t minor, uint8_t gi) const {
  return readable(fmt::format("/dev/nvidia-caps/nvidia-cap{}", gi_cap_minor(minor, gi)));
}

bool Visibility::ci(uint32_t minor, uint8_t gi, uint8_t ci) const {
  return readable(fmt::format("/dev/nvidia-caps/nvidia-cap{}", ci_cap_minor(minor, gi, ci)));
}

bool Visibility::mig_config() const {
  return readable(fmt::format("/dev/nvidia-caps/nvidia-cap{}", kMigConfigMinor));
}
bool Visibility::mig_monitor() const {
  return readable(fmt::format("/dev/nvidia-caps/nvidia-cap{}", kMigMonitorMinor));
}

}  // namespace gpuslice::sim
