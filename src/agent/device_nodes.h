#pragma once

// The device nodes below /dev that a GPU or a MIG device is reached by. Pure.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "gpu/mig_minors.h"

namespace gpuslice::agent {

// Of every container that sees any GPU, in NVIDIA's order; the device's own nodes follow.
inline constexpr std::string_view kControlNodes[] = {
    "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"};

inline constexpr std::string_view kMigMinorsFile = "/proc/driver/nvidia-caps/mig-minors";

// Which /dev/nvidia-caps/nvidia-cap<N> opens a GPU or compute instance: by the driver's mig-minors
// file, and for what it does not name by the scheme that every driver so far has followed
// (nv-caps: 3 + 135 * GPU minor + 9 * GPU instance, then 1 + compute instance).
class CapMinors {
 public:
  CapMinors() = default;
  explicit CapMinors(gpu::MigMinors minors) : minors_(std::move(minors)) {}

  [[nodiscard]] uint32_t gi(GpuMinor gpu, GiId gi) const;
  [[nodiscard]] uint32_t ci(GpuMinor gpu, GiId gi, CiId ci) const;

 private:
  gpu::MigMinors minors_;
};

// "/dev/nvidia0"
[[nodiscard]] std::string gpu_node(GpuMinor gpu);
// The node of the parent and the two capabilities: "/dev/nvidia0",
// "/dev/nvidia-caps/nvidia-cap66", "/dev/nvidia-caps/nvidia-cap67".
[[nodiscard]] std::vector<std::string> mig_nodes(GpuMinor gpu, GiId gi, CiId ci,
                                                 const CapMinors& caps);
// "/dev/nvidia-caps-imex-channels/channel0"
[[nodiscard]] std::string imex_node(std::string_view channel);

}  // namespace gpuslice::agent
