#pragma once

// Which file of a mounted ConfigMap is the device plugin's configuration on this node: as NVIDIA's
// config-manager chooses, with its fallbacks `named` and `single`.

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gpuslice::agent {

inline constexpr std::string_view kConfigLabel = "nvidia.com/device-plugin.config";

// `keys`: sorted. `label`: the value of kConfigLabel, "" for none; `by_default`: what
// --default-config says, "" for nothing. The label's key; else the default's; else the key
// "default"; else the only one. kInvalidConfig, with what there is: what was named is not there, or
// nothing is named and none of several stands out.
[[nodiscard]] Result<std::string> choose_key(const std::vector<std::string>& keys,
                                             const std::string& label,
                                             const std::string& by_default);

}  // namespace gpuslice::agent
