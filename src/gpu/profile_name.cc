#include "gpu/profile_name.h"

#include <algorithm>
#include <optional>
#include <span>

#include "base/text.h"

namespace gpuslice::gpu {
namespace {

constexpr size_t kLongestName = 64;

// Takes "<number><unit>" from the front of `text`: a number of 1..3 digits without leading zero.
std::optional<uint32_t> take(std::string_view& text, std::string_view unit) {
  size_t n = 0;
  while (n < text.size() && text[n] >= '0' && text[n] <= '9') ++n;
  if (n == 0 || n > 3 || (n > 1 && text[0] == '0') || !text.substr(n).starts_with(unit))
    return std::nullopt;
  const auto value = static_cast<uint32_t>(*parse_u64(text.substr(0, n)));
  text.remove_prefix(n + unit.size());
  return value;
}

bool is_attribute(std::string_view text) {
  if (text.empty() || (text[0] >= '0' && text[0] <= '9')) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.';
  });
}

// Attributes of "a,b"; nothing if one is malformed or stands twice.
std::optional<std::vector<std::string>> attributes(std::string_view text) {
  std::vector<std::string> out;
  for (const std::string_view part : split(text, ',')) {
    if (!is_attribute(part)) return std::nullopt;
    out.emplace_back(part);
  }
  std::sort(out.begin(), out.end());
  if (std::adjacent_find(out.begin(), out.end()) != out.end()) return std::nullopt;
  return out;
}

std::string with_attributes(std::string text, const ProfileName& name) {
  if (!name.plus.empty()) text += "+" + join(name.plus, ",");
  if (!name.minus.empty()) text += "-" + join(name.minus, ",");
  return text;
}

}  // namespace

std::string ProfileName::gi_text() const {
  return with_attributes(fmt::format("{}g.{}gb", g, gb), *this);
}

std::string ProfileName::text() const {
  return c == g ? gi_text() : with_attributes(fmt::format("{}c.{}g.{}gb", c, g, gb), *this);
}

Result<ProfileName> parse_profile_name(std::string_view text) {
  const std::string_view whole = text;
  const auto bad = [&](std::string_view what) {
    return fail(
        Code::kInvalidConfig,
        "\"{}\" is no MIG profile: {}; a profile looks like 1g.5gb, 1c.3g.20gb or 1g.10gb+me",
        json_escape(whole.substr(0, kLongestName)), what);
  };
  if (text.size() > kLongestName) return bad("it is too long");
  if (text.starts_with("MIG ")) text.remove_prefix(4);
  ProfileName name;
  const auto c = take(text, "c.");
  const auto g = take(text, "g.");
  if (!g || *g == 0) return bad("the compute slices (1g.) are missing");
  const auto gb = take(text, "gb");
  if (!gb) return bad("the memory (.5gb) is missing");
  name.g = *g;
  name.gb = *gb;
  name.c = c.value_or(*g);
  if (name.c == 0 || name.c > name.g)
    return bad("its compute instance is larger than its GPU instance");
  if (text.empty()) return name;
  const char sign = text[0];
  if (sign != '+' && sign != '-') return bad("something follows the memory");
  auto list = attributes(text.substr(1));
  if (!list) return bad("its attributes are malformed or stand twice");
  (sign == '+' ? name.plus : name.minus) = std::move(*list);
  return name;
}

bool same_but_for_a_gigabyte(const ProfileName& a, const ProfileName& b) {
  const auto [less, more] = std::minmax(a.gb, b.gb);
  return a.g == b.g && a.plus == b.plus && a.minus == b.minus &&
         (less == more || (more - less == 1 && less >= kLeastDriftingGigabytes));
}

}  // namespace gpuslice::gpu
