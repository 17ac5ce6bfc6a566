#pragma once

// Texts of an API server's answers.

#include <fmt/format.h>

#include <string>

namespace gpuslice::dst {

// An event of a watch.
[[nodiscard]] inline std::string event_text(const char* type, const std::string& object) {
  return fmt::format("{{\"type\":\"{}\",\"object\":{}}}\n", type, object);
}

// A Status that refuses something; with `field`, the cause.
[[nodiscard]] inline std::string status_text(int status, const std::string& reason,
                                             const std::string& field) {
  const std::string details =
      field.empty() ? ""
                    : fmt::format(R"(,"details":{{"causes":[{{"reason":"{}","field":"{}"}}]}})",
                                  reason, field);
  return fmt::format(R"({{"kind":"Status","code":{},"reason":"{}","message":"as seeded"{}}})",
                     status, reason, details);
}

}  // namespace gpuslice::dst
