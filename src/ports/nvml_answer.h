#pragma once

// What the driver said, out of an error of the ports Nvml and Mig: their messages end with NVML's
// words and code, "GPU 0: nvmlDeviceCreateGpuInstance: Insufficient Resources (23)".

#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/text.h"

namespace gpuslice::ports {

struct NvmlAnswer {
  int code = 0;
  std::string words;
};

// Nothing for an error that no call of the driver gave.
[[nodiscard]] inline std::optional<NvmlAnswer> nvml_answer_of(const Error& error) {
  const std::string_view text = error.message;
  const size_t open = text.rfind(" (");
  if (open == std::string_view::npos || !text.ends_with(')')) return std::nullopt;
  const auto code = parse_u64(text.substr(open + 2, text.size() - open - 3));
  if (!code || *code == 0 || *code > 999) return std::nullopt;
  const size_t colon = text.rfind(": ", open);
  const size_t begin = colon == std::string_view::npos ? 0 : colon + 2;
  return NvmlAnswer{static_cast<int>(*code), std::string(text.substr(begin, open - begin))};
}

}  // namespace gpuslice::ports
