#pragma once

// Files that were given where another one belongs. Not a public header.

#include <cstdint>

#include "config/reader.h"

namespace gpuslice::config {

enum class FileKind : uint8_t { kMig, kHooks };

// Whether the text is a Kubernetes manifest, a piece of one, a configuration of the device plugin,
// or the other one of the two kinds, and not `wanted`; then an error that says so, and where it
// goes.
[[nodiscard]] bool is_other_file(const MapReader& maps, const Node& root, FileKind wanted);

}  // namespace gpuslice::config
