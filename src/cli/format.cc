#include "cli/format.h"

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

std::string error_json(const Error& error) {
  Json json;
  json["ok"] = false;
  json["error"] = {{"code", code_name(error.code)}, {"message", error.text()}};
  return json.dump(2) + "\n";
}

}  // namespace gpuslice::cli
