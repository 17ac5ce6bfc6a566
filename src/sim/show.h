#pragma once

// The world as JSON: the oracle that tests compare everything else with (`gpuslice-sim show -o
// json`). The same State and the same liveness give the same bytes. The form is documented in
// docs/formats.md.

#include <cstdint>
#include <functional>
#include <string>

#include "sim/world.h"

namespace gpuslice::sim {

// Whether the asker sees GPU `index` through its device nodes. Empty: all are visible.
using Visible = std::function<bool(const State& state, uint32_t index)>;

// The newest world, without the dead; ends with a newline.
[[nodiscard]] std::string show_json(const World& world, const Visible& visible = {});

}  // namespace gpuslice::sim
