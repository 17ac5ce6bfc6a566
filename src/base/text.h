#pragma once

// Small pure text functions that more than one folder needs.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gpuslice {

// `text` as the inside of a JSON string: quotes, backslashes and control characters escaped; bytes
// that are not UTF-8 become U+FFFD, so the result is always valid JSON.
[[nodiscard]] std::string json_escape(std::string_view text);

// Splits at every `separator`; "a,,b" gives three parts, "" gives one empty part.
[[nodiscard]] std::vector<std::string_view> split(std::string_view text, char separator);

// Without blanks, tabs and line ends at both ends.
[[nodiscard]] std::string_view trim(std::string_view text);

[[nodiscard]] std::string join(std::span<const std::string> parts, std::string_view separator);

// The whole of `text` as a decimal number without sign, or nothing: no blanks, no "0x", no
// overflow.
[[nodiscard]] std::optional<uint64_t> parse_u64(std::string_view text);

// FNV-1a: names a text by 64 bits. No protection against anybody.
[[nodiscard]] uint64_t fnv1a(std::string_view text);

// Letters turned to lower case, ASCII only.
[[nodiscard]] std::string to_lower(std::string_view text);

// Levenshtein distance with neighbouring swaps counted as one, ASCII case ignored.
[[nodiscard]] size_t edit_distance(std::string_view a, std::string_view b);

// The candidate nearest to `word`, if it is near enough to have been meant (distance at most a
// third of its length, at least 1); the first of equals. "What was probably meant."
[[nodiscard]] std::optional<std::string_view> nearest(std::string_view word,
                                                      std::span<const std::string_view> candidates);

// "1.5Gi", "300Mi", "512Ki", "1G", "42" (bytes) as bytes, as Kubernetes reads quantities of memory;
// nothing if it is not one.
[[nodiscard]] std::optional<uint64_t> parse_bytes(std::string_view text);

// "500ms", "10s", "1.5m", "2h" as nanoseconds; nothing if it is not one.
[[nodiscard]] std::optional<int64_t> parse_duration_ns(std::string_view text);

}  // namespace gpuslice
