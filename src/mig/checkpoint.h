#pragma once

// mig-parted's checkpoint (JSON): what is there, exactly, for a restore by UUID.

#include <string>
#include <string_view>
#include <vector>

#include "mig/wish.h"

namespace gpuslice::mig {

struct SavedGpu {
  std::string uuid;
  Wish wish;  // by `saved`
};
inline constexpr size_t kMaxCheckpointBytes = 1024 * 1024;

// mig-parted's format, with the placements of compute instances and the profiles' names beside,
// which it ignores.
[[nodiscard]] std::string format_checkpoint(const std::vector<GpuState>& gpus);
// Ours and mig-parted's. kInvalidConfig with what is wrong.
[[nodiscard]] Result<std::vector<SavedGpu>> parse_checkpoint(std::string_view text);

}  // namespace gpuslice::mig
