#pragma once

// Is a State that came out of a file one that the code may index into? Pure.

#include "base/result.h"
#include "sim/state.h"

namespace gpuslice::sim {

// Every index, count and string within its bounds. The message is the cause alone: "GPU 3: board
// number 77 of 12". What holds between instances (no overlap) is checked too.
[[nodiscard]] Status validate(const State& state);

}  // namespace gpuslice::sim
