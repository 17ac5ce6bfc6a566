#include "agent/config_key.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/text.h"

namespace gpuslice::agent {
namespace {

bool has(const std::vector<std::string>& keys, std::string_view key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

std::string there_is(const std::vector<std::string>& keys) {
  return keys.empty() ? "there is none" : fmt::format("there is {}", fmt::join(keys, ", "));
}

Result<std::string> named(const std::vector<std::string>& keys, const std::string& key,
                          const std::string& who) {
  if (has(keys, key)) return key;
  const std::vector<std::string_view> candidates(keys.begin(), keys.end());
  const auto near = nearest(key, candidates);
  return fail(Code::kInvalidConfig, "{} names the key {}, which is not there; {}{}", who, key,
              near ? fmt::format("did you mean {}? ", *near) : "", there_is(keys));
}

}  // namespace

Result<Fallbacks> parse_fallbacks(std::string_view text) {
  Fallbacks out;
  for (const std::string_view part : split(text, ',')) {
    const std::string_view word = trim(part);
    if (word.empty()) continue;
    if (word == "named")
      out.push_back(Fallback::kNamed);
    else if (word == "single")
      out.push_back(Fallback::kSingle);
    else if (word == "empty")
      out.push_back(Fallback::kEmpty);
    else
      return fail(Code::kUsage, "FALLBACK_STRATEGIES: \"{}\" is none of named, single and empty",
                  json_escape(word.substr(0, 40)));
  }
  return out.empty() ? kUsualFallbacks : out;
}

Result<std::string> choose_key(const std::vector<std::string>& keys, const std::string& label,
                               const std::string& by_default, const Fallbacks& fallbacks) {
  if (!label.empty()) return named(keys, label, fmt::format("the node's label {}", kConfigLabel));
  if (!by_default.empty()) return named(keys, by_default, "--default-config");
  for (const Fallback fallback : fallbacks) {
    if (fallback == Fallback::kNamed && has(keys, "default")) return "default";
    if (fallback == Fallback::kSingle && keys.size() == 1) return keys.front();
    if (fallback == Fallback::kEmpty) return std::string(kEmptyConfig);
  }
  return fail(Code::kInvalidConfig,
              "which key counts is not known: {}; set the node's label {}, call one default, or "
              "name one with --default-config",
              there_is(keys), kConfigLabel);
}

}  // namespace gpuslice::agent
