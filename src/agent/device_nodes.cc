#include "agent/device_nodes.h"

#include <fmt/format.h>

#include "base/text.h"

namespace gpuslice::agent {
namespace {

// "gpu12" of "gpu" is 12.
std::optional<uint32_t> numbered(std::string_view text, std::string_view word) {
  if (!text.starts_with(word)) return std::nullopt;
  const auto n = parse_u64(text.substr(word.size()));
  if (!n || *n > UINT32_MAX) return std::nullopt;
  return static_cast<uint32_t>(*n);
}

std::string cap_node(uint32_t minor) { return fmt::format("/dev/nvidia-caps/nvidia-cap{}", minor); }

}  // namespace

CapMinors CapMinors::parse(std::string_view mig_minors) {
  CapMinors out;
  for (const std::string_view line : split(mig_minors, '\n')) {
    const auto words = split(trim(line), ' ');
    if (words.size() != 2) continue;
    const auto minor = numbered(words[1], "");
    const auto path = split(words[0], '/');
    if (!minor || path.size() < 3 || path.size() > 4 || path.back() != "access") continue;
    const auto gpu = numbered(path[0], "gpu");
    const auto gi = numbered(path[1], "gi");
    const auto ci = path.size() == 4 ? numbered(path[2], "ci") : std::optional<uint32_t>(0);
    if (!gpu || !gi || !ci) continue;
    out.minors_[{{*gpu, *gi}, path.size() == 4 ? *ci + 1 : 0}] = *minor;
  }
  return out;
}

uint32_t CapMinors::gi(GpuMinor gpu, GiId gi) const {
  const auto it = minors_.find({{gpu.value, gi.value}, 0});
  return it != minors_.end() ? it->second : 3 + 135 * gpu.value + 9 * gi.value;
}

uint32_t CapMinors::ci(GpuMinor gpu, GiId gi_id, CiId ci) const {
  const auto it = minors_.find({{gpu.value, gi_id.value}, ci.value + 1});
  return it != minors_.end() ? it->second : gi(gpu, gi_id) + 1 + ci.value;
}

std::string gpu_node(GpuMinor gpu) { return fmt::format("/dev/nvidia{}", gpu.value); }

std::vector<std::string> mig_nodes(GpuMinor gpu, GiId gi, CiId ci, const CapMinors& caps) {
  return {gpu_node(gpu), cap_node(caps.gi(gpu, gi)), cap_node(caps.ci(gpu, gi, ci))};
}

std::string imex_node(std::string_view channel) {
  return fmt::format("/dev/nvidia-caps-imex-channels/channel{}", channel);
}

}  // namespace gpuslice::agent
