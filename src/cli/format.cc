#include "cli/format.h"

#include <array>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace gpuslice::cli {
namespace {

using Json = nlohmann::ordered_json;

// Scalars of JSON are scalars of YAML.
void yaml(const Json& value, int depth, std::string& out) {
  const std::string pad(static_cast<size_t>(depth) * 2, ' ');
  if (value.is_array()) {
    if (value.empty()) out += pad + "[]\n";
    for (const Json& item : value) {
      std::string inner;
      yaml(item, depth + 1, inner);
      if (item.is_structured() && inner.size() > pad.size() + 2) inner.replace(pad.size(), 2, "- ");
      out += item.is_structured() ? inner : pad + "- " + item.dump() + "\n";
    }
    return;
  }
  for (const auto& [key, item] : value.items()) {
    if (item.is_structured() && !item.empty()) {
      out += pad + key + ":\n";
      yaml(item, depth + 1, out);
    } else {
      out += pad + key + ": " + item.dump() + "\n";
    }
  }
}

}  // namespace

Result<Format> parse_format(const std::string& text) {
  if (text == "table") return Format::kTable;
  if (text == "json") return Format::kJson;
  if (text == "yaml") return Format::kYaml;
  return fail(Code::kUsage, "-o {}: must be table, json or yaml", json_escape(text));
}

std::string print_json(std::string_view json, Format format) {
  const Json parsed = Json::parse(json);
  if (format != Format::kYaml) return parsed.dump(2) + "\n";
  std::string out;
  yaml(parsed, 0, out);
  return out;
}

Format asked_format(std::span<const std::string> args) {
  constexpr auto kNames =
      std::to_array<std::string_view>({"--output-format", "--output", "-o"});  // longest first
  Format asked = Format::kTable;
  for (size_t i = 0; i < args.size(); ++i)
    for (const std::string_view name : kNames) {
      if (!args[i].starts_with(name)) continue;
      std::string value = args[i].substr(name.size());
      if (value.starts_with("=")) value.erase(0, 1);
      if (value.empty() && i + 1 < args.size()) value = args[i + 1];
      if (const auto format = parse_format(value)) asked = *format;
      break;
    }
  return asked;
}

std::string error_json(const Error& error, Format format) {
  if (format == Format::kTable) return "";
  Json json;
  json["ok"] = false;
  json["error"] = {{"code", code_name(error.code)}, {"message", error.text()}};
  return print_json(json.dump(-1, ' ', false, Json::error_handler_t::replace), format);
}

}  // namespace gpuslice::cli
