#pragma once

// The fixed node of this folder's tests: a GPU with MIG devices, one without MIG, one that cannot
// say much, one that does not answer. Only for tests.

#include "cli/node_view.h"

namespace gpuslice::cli {

inline constexpr uint64_t kMib = 1024 * 1024;

[[nodiscard]] ports::Gpu a100_with_mig();  // two MIG devices
[[nodiscard]] ports::Gpu l40s();
// With MIG waiting for a reset; nothing else is told.
[[nodiscard]] ports::Gpu a30_pending();
[[nodiscard]] NodeView node();

}  // namespace gpuslice::cli
