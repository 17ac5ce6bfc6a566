#pragma once

// Output for people and for programs, of every verb that has `-o`.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace gpuslice::cli {

enum class Format : uint8_t { kTable, kJson, kYaml };
[[nodiscard]] Result<Format> parse_format(const std::string& text);

// A JSON text, indented, or the same as YAML.
[[nodiscard]] std::string print_json(std::string_view json, Format format);

// What a command line asks for with -o, --output or --output-format, whether it is right otherwise
// or not; kTable where it says nothing of that.
[[nodiscard]] Format asked_format(std::span<const std::string> args);

// What a verb with `-o json` or `-o yaml` prints when it ends with an error before it has anything
// to print; "" for kTable.
[[nodiscard]] std::string error_json(const Error& error, Format format);

}  // namespace gpuslice::cli
