#pragma once

// `gpuslice agent status` for people: what the JSON document says (docs/formats.md), in short.

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/list.h"

namespace gpuslice::cli {

// kCorrupt: it is no such document.
[[nodiscard]] Result<std::string> agent_status_text(std::string_view json);

// What the agent offers to the kubelet, by the same document.
struct OfferedRows {
  std::vector<DeviceRow> rows;
  uint64_t left_out = 0;  // of a list too long for the document
};
[[nodiscard]] Result<OfferedRows> offered_rows(std::string_view json);

}  // namespace gpuslice::cli
