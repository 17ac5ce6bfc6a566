#include "config/reader.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace gpuslice::config {

std::string path_of(std::string_view parent, std::string_view key) {
  return parent.empty() ? std::string(key) : fmt::format("{}.{}", parent, key);
}

std::string shown(std::string_view text) {
  constexpr size_t kMost = 60;
  return text.size() <= kMost ? json_escape(text) : json_escape(text.substr(0, kMost)) + "…";
}

namespace {

std::string_view place_name(std::string_view parent) {
  return parent.empty() ? "the file's top" : parent;
}

std::string listed(std::span<const std::string_view> keys) {
  std::string out;
  for (const std::string_view key : keys) out += (out.empty() ? "" : ", ") + std::string(key);
  return out;
}

}  // namespace

void MapReader::ignorable(Mistake mistake, Place place, const std::string& message) const {
  if (tolerant_)
    problems_.warning(Mistake::kIgnored, place,
                      message + " (NVIDIA's plugin ignores it, and so does this one)");
  else
    problems_.error(mistake, place, message);
}

void MapReader::wrong_type(const Node& node, std::string_view path, std::string_view wanted) const {
  const bool show = node.kind == NodeKind::kScalar;
  problems_.error(Mistake::kWrongType, node.place,
                  show ? fmt::format("{} must be {}, not {}\"{}\"", path, wanted,
                                     node.quoted ? "the text " : "", shown(node.text))
                       : fmt::format("{} must be {}, not {}", path, wanted, kind_name(node)));
}

void MapReader::unknown_key(const Entry& entry, const MapRules& rules) const {
  const std::string_view here = place_name(rules.parent);
  for (const KnownKey& known : known_) {
    if (known.key != entry.key || known.parent == rules.parent) continue;
    ignorable(Mistake::kMisplacedKey, entry.place,
              fmt::format("{} does not belong under {}: it belongs under {}", entry.key, here,
                          place_name(known.parent)));
    return;
  }
  if (const auto near = nearest(entry.key, rules.keys)) {
    ignorable(Mistake::kUnknownKey, entry.place,
              fmt::format("unknown key \"{}\" under {}; did you mean {}?", shown(entry.key), here,
                          *near));
    return;
  }
  std::vector<std::string_view> elsewhere;
  for (const KnownKey& known : known_) elsewhere.push_back(known.key);
  if (const auto near = nearest(entry.key, elsewhere)) {
    const auto it = std::find_if(known_.begin(), known_.end(),
                                 [&](const KnownKey& k) { return k.key == *near; });
    ignorable(Mistake::kUnknownKey, entry.place,
              fmt::format("unknown key \"{}\" under {}; did you mean {}, which belongs under {}?",
                          shown(entry.key), here, *near, place_name(it->parent)));
    return;
  }
  ignorable(Mistake::kUnknownKey, entry.place,
            fmt::format("unknown key \"{}\" under {}; the keys here are {}", shown(entry.key), here,
                        listed(rules.keys)));
}

std::optional<std::vector<MapReader::Field>> MapReader::fields(const Node& node,
                                                               const MapRules& rules) const {
  if (node.kind == NodeKind::kNull) return std::vector<Field>{};
  if (node.kind != NodeKind::kMap) {
    wrong_type(node, place_name(rules.parent), "a map of keys");
    return std::nullopt;
  }
  std::vector<Field> out;
  std::vector<bool> merged;
  for (const Entry& entry : node.entries) {
    const auto same_case = std::find(rules.keys.begin(), rules.keys.end(), entry.key);
    auto match = same_case;
    if (match == rules.keys.end() && rules.any_case)
      match = std::find_if(rules.keys.begin(), rules.keys.end(),
                           [&](std::string_view k) { return to_lower(k) == to_lower(entry.key); });
    if (match == rules.keys.end()) {
      unknown_key(entry, rules);
      continue;
    }
    if (same_case == rules.keys.end())
      problems_.warning(Mistake::kSpelling, entry.place,
                        fmt::format("{} is usually written {}", entry.key, *match));
    const auto before =
        std::find_if(out.begin(), out.end(), [&](const Field& f) { return f.key == *match; });
    if (before == out.end()) {
      out.push_back({*match, &document_.value(entry), entry.place});
      merged.push_back(entry.merged);
      continue;
    }
    if (!merged[static_cast<size_t>(before - out.begin())]) {
      const std::string message = fmt::format("{} stands twice; it stood in line {} already",
                                              path_of(rules.parent, *match), before->place.line);
      if (tolerant_)
        problems_.warning(Mistake::kIgnored, entry.place, message + "; the last one counts");
      else
        problems_.error(Mistake::kDuplicateKey, entry.place, message);
    }
    *before = {*match, &document_.value(entry), entry.place};
    merged[static_cast<size_t>(before - out.begin())] = entry.merged;
  }
  return out;
}

std::optional<bool> MapReader::boolean(const Node& node, std::string_view path) const {
  if (node.kind == NodeKind::kScalar && !node.quoted) {
    if (node.text == "true" || node.text == "false") return node.text == "true";
    // YAML 1.1's other words for it, which NVIDIA's reader takes.
    const std::string word = to_lower(node.text);
    const bool yes = word == "yes" || word == "on" || word == "true" || word == "y";
    const bool no = word == "no" || word == "off" || word == "false" || word == "n";
    if (tolerant_ && (yes || no)) {
      problems_.warning(
          Mistake::kSpelling, node.place,
          fmt::format("{}: {} is usually written {}", path, node.text, yes ? "true" : "false"));
      return yes;
    }
  }
  wrong_type(node, path, "true or false");
  return std::nullopt;
}

std::optional<int64_t> MapReader::integer(const Node& node, std::string_view path) const {
  if (node.kind == NodeKind::kScalar && !node.quoted) {
    std::string_view digits = node.text;
    const bool negative = digits.starts_with("-");
    if (negative) digits.remove_prefix(1);
    const auto value = parse_u64(digits);
    const bool leading_zero = digits.size() > 1 && digits[0] == '0';
    if (value && *value <= INT32_MAX && !leading_zero)
      return negative ? -static_cast<int64_t>(*value) : static_cast<int64_t>(*value);
    if (value && leading_zero && *value <= INT32_MAX) {
      problems_.error(Mistake::kWrongType, node.place,
                      fmt::format("{} must be a whole number without leading zero, not {}: some "
                                  "readers take it as octal",
                                  path, shown(node.text)));
      return std::nullopt;
    }
  }
  wrong_type(node, path, "a whole number");
  return std::nullopt;
}

std::optional<std::string> MapReader::text(const Node& node, std::string_view path) const {
  if (node.kind == NodeKind::kScalar) {
    const bool looks_typed = !node.quoted && kind_name(node) != "a text";
    if (!looks_typed) return node.text;
  }
  wrong_type(node, path, "a text");
  return std::nullopt;
}

}  // namespace gpuslice::config
