#pragma once

// `gpuslice agent status` for people: what the JSON document says (docs/formats.md), in short.

#include <string>
#include <string_view>

#include "base/result.h"

namespace gpuslice::cli {

// kCorrupt: it is no such document.
[[nodiscard]] Result<std::string> agent_status_text(std::string_view json);

}  // namespace gpuslice::cli
