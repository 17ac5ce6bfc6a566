#pragma once

// /proc/driver/nvidia-caps/mig-minors: which character device /dev/nvidia-caps/nvidia-cap<minor>
// opens which MIG instance. The driver writes one line for each instance that could ever be:
//
//   config 1
//   monitor 2
//   gpu0/gi0/access 3
//   gpu0/gi0/ci0/access 4
//
// GPUs stand there by their device minor (N of /dev/nvidiaN), not by NVML's index. A real file has
// 4,322 lines: 32 GPUs, 15 GPU instances each, 8 compute instances in each.

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <tuple>

#include "base/ids.h"
#include "base/result.h"

namespace gpuslice::gpu {

inline constexpr size_t kMaxMigMinorsBytes = 1024 * 1024;
inline constexpr size_t kMaxMigMinors = 65536;
inline constexpr uint32_t kMaxCapMinor = (1U << 20) - 1;  // what a Linux device number holds

class MigMinors {
 public:
  // The minor of a GPU instance's device; nothing where the driver knows no such instance.
  [[nodiscard]] std::optional<uint32_t> access(GpuMinor gpu, GiId gi) const;
  // That of a compute instance.
  [[nodiscard]] std::optional<uint32_t> access(GpuMinor gpu, GiId gi, CiId ci) const;
  [[nodiscard]] std::optional<uint32_t> config() const { return config_; }
  [[nodiscard]] std::optional<uint32_t> monitor() const { return monitor_; }
  // Instances of both kinds.
  [[nodiscard]] size_t size() const { return gis_.size() + cis_.size(); }

 private:
  friend Result<MigMinors> parse_mig_minors(std::string_view text);
  friend struct MigMinorsReader;
  std::optional<uint32_t> config_, monitor_;
  std::map<std::tuple<GpuMinor, GiId>, uint32_t> gis_;
  std::map<std::tuple<GpuMinor, GiId, CiId>, uint32_t> cis_;
};

// kCorrupt with the line that is wrong: one that is not "<name> <minor>", an instance that is
// malformed, a name or a minor that stands twice, too much of it. Names that do not begin with
// "gpu" and are not known are passed over: a newer driver may have more.
[[nodiscard]] Result<MigMinors> parse_mig_minors(std::string_view text);

}  // namespace gpuslice::gpu
