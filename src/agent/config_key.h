#pragma once

// Which file of a mounted ConfigMap is the device plugin's configuration on this node: as NVIDIA's
// config-manager chooses, with its fallbacks: `named` and `single` unless others are said, as its
// Helm chart has it.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gpuslice::agent {

inline constexpr std::string_view kConfigLabel = "nvidia.com/device-plugin.config";
// What the fallback `empty` chooses: a configuration with nothing in it.
inline constexpr std::string_view kEmptyConfig = "/dev/null";

// kNamed: the key "default"; kSingle: the only one; kEmpty: none.
enum class Fallback : uint8_t { kNamed, kSingle, kEmpty };
using Fallbacks = std::vector<Fallback>;
inline const Fallbacks kUsualFallbacks = {Fallback::kNamed, Fallback::kSingle};
// "named,single,empty"; kUsage. An empty text is the usual ones.
[[nodiscard]] Result<Fallbacks> parse_fallbacks(std::string_view text);

// `keys`: sorted. `label`: the value of kConfigLabel, "" for none; `by_default`: what
// --default-config says, "" for nothing. The label's key; else the default's; else that of the
// first fallback that has one (kEmptyConfig is no key). kInvalidConfig, with what there is: what
// was named is not there, or nothing is named and none of several stands out.
[[nodiscard]] Result<std::string> choose_key(const std::vector<std::string>& keys,
                                             const std::string& label,
                                             const std::string& by_default,
                                             const Fallbacks& fallbacks = kUsualFallbacks);

}  // namespace gpuslice::agent
