#pragma once

// Maps whose keys people choose: labels, profiles, environment variables. Not a public header.

#include <string_view>
#include <vector>

#include "config/reader.h"

namespace gpuslice::config {

// The entries of `map`, each key once, in the order of the file. A key that stands twice is an
// error ("<prefix><key> stands twice …"); what came in by YAML's merge key gives way silently.
[[nodiscard]] std::vector<const Entry*> open_entries(const MapReader& maps, const Node& map,
                                                     std::string_view prefix);

}  // namespace gpuslice::config
