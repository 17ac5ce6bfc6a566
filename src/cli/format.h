#pragma once

// Output for people and for programs, of every verb that has `-o`.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace gpuslice::cli {

enum class Format : uint8_t { kTable, kJson, kYaml };
[[nodiscard]] Result<Format> parse_format(const std::string& text);

// A JSON text, indented, or the same as YAML.
[[nodiscard]] std::string print_json(std::string_view json, Format format);

// What a verb with `-o json` prints when it ends with an error before it has anything to print.
[[nodiscard]] std::string error_json(const Error& error);

}  // namespace gpuslice::cli
