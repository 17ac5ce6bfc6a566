#pragma once

// What must hold on a node whatever happens to it. ARCHITECTURE.md says the same in words.

#include <string>

#include "node_model.h"

namespace gpuslice::dst {

// After every event. "" or the sentence of the invariant that is broken, with what was seen.
[[nodiscard]] std::string broken_now(NodeModel& node);

// After the last fault and a bounded time of calm.
[[nodiscard]] std::string broken_in_the_end(NodeModel& node);

}  // namespace gpuslice::dst
