#pragma once

// What the caller may see: a GPU whose node stands in its <root>/dev, a MIG device whose capability
// nodes do. Containers see what their mount namespace shows them; so does this. Looked up anew at
// each question (a stat each).

#include <cstdint>
#include <string>

#include "sim/state.h"

namespace gpuslice::sim {

class Visibility {
 public:
  // `root`: the node's root as this process sees it.
  explicit Visibility(std::string root) : root_(std::move(root)) {}

  [[nodiscard]] bool gpu(uint32_t minor) const;
  [[nodiscard]] bool control() const;  // /dev/nvidiactl
  // The capability nodes of a GPU instance and a compute instance can be opened for reading.
  [[nodiscard]] bool gi(uint32_t minor, uint8_t gi) const;
  [[nodiscard]] bool ci(uint32_t minor, uint8_t gi, uint8_t ci) const;
  // mig/config and mig/monitor.
  [[nodiscard]] bool mig_config() const;
  [[nodiscard]] bool mig_monitor() const;

 private:
  [[nodiscard]] bool readable(const std::string& path) const;
  std::string root_;
};

// Minors of /dev/nvidia-caps (open kernel modules, nv-caps: a static table): config 1, monitor 2,
// then by GPU minor, GPU instance and compute instance.
inline constexpr uint32_t kMigConfigMinor = 1;
inline constexpr uint32_t kMigMonitorMinor = 2;
inline constexpr uint32_t kFabricImexMinor = 4323;
[[nodiscard]] constexpr uint32_t gi_cap_minor(uint32_t gpu_minor, uint32_t gi) {
  return 3 + 135 * gpu_minor + 9 * gi;
}
[[nodiscard]] constexpr uint32_t ci_cap_minor(uint32_t gpu_minor, uint32_t gi, uint32_t ci) {
  return gi_cap_minor(gpu_minor, gi) + 1 + ci;
}

}  // namespace gpuslice::sim
