#pragma once

#include <string_view>

namespace gpuslice::bin {

inline constexpr std::string_view kVersion = GPUSLICE_VERSION;  // of the build (CMake's project)

}  // namespace gpuslice::bin
