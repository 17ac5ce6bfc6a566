#include "base/text.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

namespace gpuslice {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// Length of the valid UTF-8 sequence at the start of `text`, 0 if there is none.
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  size_t n = 0;
  uint32_t value = 0;
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) {
    n = 2;
    value = first & 0x1fU;
  } else if (first >= 0xe0 && first <= 0xef) {
    n = 3;
    value = first & 0x0fU;
  } else if (first >= 0xf0 && first <= 0xf4) {
    n = 4;
    value = first & 0x07U;
  } else {
    return 0;
  }
  if (text.size() < n) return 0;
  for (size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xc0U) != 0x80U) return 0;
    value = (value << 6) | (byte(i) & 0x3fU);
  }
  if (n == 3 && (value < 0x800 || (value >= 0xd800 && value <= 0xdfff))) return 0;
  if (n == 4 && (value < 0x10000 || value > 0x10ffff)) return 0;
  return n;
}

// Splits "1.5Gi" into 1.5 and "Gi".
std::optional<std::pair<double, std::string_view>> number_and_unit(std::string_view text) {
  size_t n = 0;
  bool dot = false;
  while (n < text.size() && ((text[n] >= '0' && text[n] <= '9') || (text[n] == '.' && !dot))) {
    dot = dot || text[n] == '.';
    ++n;
  }
  if (n == 0 || text[0] == '.' || text[n - 1] == '.' || n > 20) return std::nullopt;
  double value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + n, value);
  if (ec != std::errc{} || end != text.data() + n) return std::nullopt;
  return std::pair{value, text.substr(n)};
}

struct Unit {
  std::string_view name;
  double factor;
};

template <size_t N>
std::optional<double> scaled(std::string_view text, const std::array<Unit, N>& units) {
  const auto parts = number_and_unit(text);
  if (!parts) return std::nullopt;
  for (const Unit& unit : units)
    if (unit.name == parts->second) return parts->first * unit.factor;
  return std::nullopt;
}

}  // namespace

std::string json_escape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const char c = text[0];
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
      text.remove_prefix(1);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      switch (c) {
        case '\n':
          out += "\\n";
          break;
        case '\r':
          out += "\\r";
          break;
        case '\t':
          out += "\\t";
          break;
        default:
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
      }
      text.remove_prefix(1);
    } else if (const size_t n = utf8_length(text); n > 0) {
      out += text.substr(0, n);
      text.remove_prefix(n);
    } else {
      out += "\xef\xbf\xbd";
      text.remove_prefix(1);
    }
  }
  return out;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

std::string join(std::span<const std::string> parts, std::string_view separator) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += separator;
    out += parts[i];
  }
  return out;
}

std::optional<uint64_t> parse_u64(std::string_view text) {
  uint64_t value = 0;
  if (text.empty() || text[0] < '0' || text[0] > '9') return std::nullopt;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 1469598103934665603ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return hash;
}

std::string to_lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), lower);
  return out;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  // Three rows of the optimal-string-alignment table.
  std::vector<size_t> before(b.size() + 1), previous(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1;
      row[j] = std::min({previous[j] + 1, row[j - 1] + 1, previous[j - 1] + change});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
          lower(a[i - 2]) == lower(b[j - 1]))
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, previous);
    std::swap(previous, row);
  }
  return previous[b.size()];
}

std::optional<std::string_view> nearest(std::string_view word,
                                        std::span<const std::string_view> candidates) {
  constexpr size_t kLongestWord = 128;  // the table is quadratic
  if (word.size() > kLongestWord) return std::nullopt;
  std::optional<std::string_view> best;
  size_t best_distance = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string_view candidate : candidates) {
    if (candidate.size() > kLongestWord) continue;
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::optional<uint64_t> parse_bytes(std::string_view text) {
  static constexpr std::array<Unit, 11> kUnits = {{{"", 1},
                                                   {"k", 1e3},
                                                   {"M", 1e6},
                                                   {"G", 1e9},
                                                   {"T", 1e12},
                                                   {"Ki", 1024.0},
                                                   {"Mi", 1048576.0},
                                                   {"Gi", 1073741824.0},
                                                   {"Ti", 1099511627776.0},
                                                   {"P", 1e15},
                                                   {"Pi", 1125899906842624.0}}};
  const auto value = scaled(text, kUnits);
  if (!value || *value >= 9.2e18) return std::nullopt;
  return static_cast<uint64_t>(std::llround(*value));
}

std::optional<int64_t> parse_duration_ns(std::string_view text) {
  static constexpr std::array<Unit, 6> kUnits = {
      {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}}};
  const auto value = scaled(text, kUnits);
  if (!value || *value >= 9.2e18) return std::nullopt;
  return std::llround(*value);
}

}  // namespace gpuslice
