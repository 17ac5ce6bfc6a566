#include "agent/device_nodes.h"

#include <fmt/format.h>

namespace gpuslice::agent {
namespace {

std::string cap_node(uint32_t minor) { return fmt::format("/dev/nvidia-caps/nvidia-cap{}", minor); }

}  // namespace

uint32_t CapMinors::gi(GpuMinor gpu, GiId gi) const {
  return minors_.access(gpu, gi).value_or(3 + 135 * gpu.value + 9 * gi.value);
}

uint32_t CapMinors::ci(GpuMinor gpu, GiId gi_id, CiId ci) const {
  return minors_.access(gpu, gi_id, ci).value_or(gi(gpu, gi_id) + 1 + ci.value);
}

std::string gpu_node(GpuMinor gpu) { return fmt::format("/dev/nvidia{}", gpu.value); }

std::vector<std::string> mig_nodes(GpuMinor gpu, GiId gi, CiId ci, const CapMinors& caps) {
  return {gpu_node(gpu), cap_node(caps.gi(gpu, gi)), cap_node(caps.ci(gpu, gi, ci))};
}

std::string imex_node(std::string_view channel) {
  return fmt::format("/dev/nvidia-caps-imex-channels/channel{}", channel);
}

}  // namespace gpuslice::agent
