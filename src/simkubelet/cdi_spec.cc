#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"
#include "simkubelet/cdi.h"

namespace gpuslice::simkubelet {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 32;

std::unexpected<Error> wrong(const std::string& place, const std::string& why) {
  return fail(Code::kInvalidConfig, "{}: {}", place, why);
}

// A YAML document as JSON whose scalars are texts; aliases are expanded.
Result<Json> from_yaml(const YAML::Node& node, int depth, size_t& values) {
  if (depth > kMaxDepth) return wrong("the document", "nested too deeply");
  if (++values > kMaxCdiValues)
    return wrong("the document", fmt::format("more than {} values", kMaxCdiValues));
  switch (node.Type()) {
    case YAML::NodeType::Scalar:
      return Json(node.Scalar());
    case YAML::NodeType::Sequence: {
      Json out = Json::array();
      for (const YAML::Node& item : node) {
        TRY_ASSIGN(Json value, from_yaml(item, depth + 1, values));
        out.push_back(std::move(value));
      }
      return out;
    }
    case YAML::NodeType::Map: {
      Json out = Json::object();
      for (const auto& entry : node) {
        if (!entry.first.IsScalar()) return wrong("the document", "a key that is no text");
        TRY_ASSIGN(out[entry.first.Scalar()], from_yaml(entry.second, depth + 1, values));
      }
      return out;
    }
    default:
      return Json();
  }
}

Result<Json> document(const std::string& text, CdiFormat format) {
  if (text.size() > kMaxCdiFile)
    return wrong("the file", fmt::format("larger than {} bytes", kMaxCdiFile));
  if (format == CdiFormat::kJson) {
    Json json = Json::parse(text, nullptr, false);
    if (json.is_discarded()) return wrong("the file", "this is not JSON");
    return json;
  }
  try {
    size_t values = 0;
    return from_yaml(YAML::Load(text), 0, values);
  } catch (const YAML::Exception& e) {
    return fail(Code::kInvalidConfig, "line {}, column {}: {}", e.mark.line + 1, e.mark.column + 1,
                e.msg);
  }
}

std::string below(const std::string& place, const char* key) {
  return place.empty() ? std::string(key) : place + "." + key;
}

const Json* member(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

// A text without a NUL; empty where it is not there.
Result<std::string> text(const Json& json, const std::string& place, const char* key) {
  const Json* value = member(json, key);
  if (value == nullptr) return std::string();
  if (!value->is_string()) return wrong(below(place, key), "is no text");
  std::string out = value->get<std::string>();
  if (out.find('\0') != std::string::npos) return wrong(below(place, key), "a NUL in it");
  return out;
}

Result<std::string> needed(const Json& json, const std::string& place, const char* key) {
  TRY_ASSIGN(std::string out, text(json, place, key));
  if (out.empty()) return wrong(below(place, key), "is not there");
  return out;
}

// The items of a list with their places; none where it is not there.
struct Item {
  std::string place;
  const Json* json = nullptr;
};
Result<std::vector<Item>> items(const Json& json, const std::string& place, const char* key) {
  std::vector<Item> out;
  const Json* value = member(json, key);
  if (value == nullptr) return out;
  const std::string at = below(place, key);
  if (!value->is_array()) return wrong(at, "is no list");
  for (size_t i = 0; i < value->size(); ++i)
    out.push_back({fmt::format("{}[{}]", at, i), &(*value)[i]});
  return out;
}

Result<std::vector<Item>> objects(const Json& json, const std::string& place, const char* key) {
  TRY_ASSIGN(std::vector<Item> out, items(json, place, key));
  for (const Item& item : out)
    if (!item.json->is_object()) return wrong(item.place, "is no object");
  return out;
}

Result<std::vector<std::string>> texts(const Json& json, const std::string& place,
                                       const char* key) {
  std::vector<std::string> out;
  TRY_ASSIGN(const std::vector<Item> all, items(json, place, key));
  for (const Item& item : all) {
    if (!item.json->is_string()) return wrong(item.place, "is no text");
    out.push_back(item.json->get<std::string>());
    if (out.back().find('\0') != std::string::npos) return wrong(item.place, "a NUL in it");
  }
  return out;
}

Result<std::vector<std::string>> environment(const Json& json, const std::string& place) {
  TRY_ASSIGN(std::vector<std::string> env, texts(json, place, "env"));
  for (const std::string& one : env)
    if (one.find('=') == std::string::npos || one.front() == '=')
      return wrong(place + ".env", fmt::format("\"{}\" is no NAME=VALUE", json_escape(one)));
  return env;
}

Result<uint32_t> seconds(const Json& json, const std::string& place) {
  const Json* value = member(json, "timeout");
  if (value == nullptr) return 0;
  const auto n = value->is_string()            ? parse_u64(value->get<std::string>())
                 : value->is_number_unsigned() ? std::optional(value->get<uint64_t>())
                                               : std::nullopt;
  if (!n || *n > 3600) return wrong(place + ".timeout", "a whole number of seconds up to 3600");
  return static_cast<uint32_t>(*n);
}

Result<CdiHook> read_hook(const Item& item) {
  static constexpr std::string_view kNames[] = {
      "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"};
  CdiHook hook;
  TRY_ASSIGN(hook.name, needed(*item.json, item.place, "hookName"));
  if (std::find(std::begin(kNames), std::end(kNames), hook.name) == std::end(kNames))
    return wrong(item.place + ".hookName",
                 fmt::format("\"{}\" is no hook of OCI", json_escape(hook.name)));
  TRY_ASSIGN(hook.path, needed(*item.json, item.place, "path"));
  TRY_ASSIGN(hook.args, texts(*item.json, item.place, "args"));
  TRY_ASSIGN(hook.env, environment(*item.json, item.place));
  TRY_ASSIGN(hook.timeout_s, seconds(*item.json, item.place));
  return hook;
}

Result<CdiEdits> read_edits(const Json& owner, const std::string& place) {
  CdiEdits edits;
  const Json* json = member(owner, "containerEdits");
  if (json == nullptr) return edits;
  const std::string at = below(place, "containerEdits");
  if (!json->is_object()) return wrong(at, "is no object");
  TRY_ASSIGN(edits.env, environment(*json, at));
  TRY_ASSIGN(const auto nodes, objects(*json, at, "deviceNodes"));
  for (const Item& item : nodes) {
    CdiEdits::DeviceNode& node = edits.device_nodes.emplace_back();
    TRY_ASSIGN(node.path, needed(*item.json, item.place, "path"));
    TRY_ASSIGN(node.host_path, text(*item.json, item.place, "hostPath"));
    if (node.host_path.empty()) node.host_path = node.path;
  }
  TRY_ASSIGN(const auto mounts, objects(*json, at, "mounts"));
  for (const Item& item : mounts) {
    CdiEdits::Mount& mount = edits.mounts.emplace_back();
    TRY_ASSIGN(mount.host_path, needed(*item.json, item.place, "hostPath"));
    TRY_ASSIGN(mount.container_path, needed(*item.json, item.place, "containerPath"));
    TRY_ASSIGN(const auto options, texts(*item.json, item.place, "options"));
    mount.read_only = std::find(options.begin(), options.end(), "ro") != options.end();
  }
  TRY_ASSIGN(const auto hooks, objects(*json, at, "hooks"));
  for (const Item& item : hooks) {
    TRY_ASSIGN(CdiHook hook, read_hook(item));
    edits.hooks.push_back(std::move(hook));
  }
  return edits;
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_alnum(char c) { return is_letter(c) || (c >= '0' && c <= '9'); }

bool is_word(std::string_view text, std::string_view inside, bool letter_first) {
  if (text.empty() || !(letter_first ? is_letter(text.front()) : is_alnum(text.front())) ||
      !is_alnum(text.back()))
    return false;
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return is_alnum(c) || inside.find(c) != std::string_view::npos;
  });
}

bool is_kind(std::string_view kind) {
  const size_t slash = kind.find('/');
  return slash != std::string_view::npos && is_word(kind.substr(0, slash), "_-.", true) &&
         is_word(kind.substr(slash + 1), "_-.", true);
}

bool is_device(std::string_view name) { return is_word(name, "_-.:", false); }

bool is_qualified(std::string_view name) {
  const size_t equals = name.find('=');
  return equals != std::string_view::npos && is_kind(name.substr(0, equals)) &&
         is_device(name.substr(equals + 1));
}

Status check_version(const Json& json) {
  static constexpr std::string_view kVersions[] = {"0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0",
                                                   "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"};
  TRY_ASSIGN(const std::string version, text(json, "", "cdiVersion"));
  if (std::find(std::begin(kVersions), std::end(kVersions), version) == std::end(kVersions))
    return wrong("cdiVersion",
                 fmt::format("\"{}\" is no version of CDI, such as 0.6.0", json_escape(version)));
  return {};
}

}  // namespace

void CdiEdits::add(const CdiEdits& more) {
  env.insert(env.end(), more.env.begin(), more.env.end());
  device_nodes.insert(device_nodes.end(), more.device_nodes.begin(), more.device_nodes.end());
  mounts.insert(mounts.end(), more.mounts.begin(), more.mounts.end());
  hooks.insert(hooks.end(), more.hooks.begin(), more.hooks.end());
}

Result<CdiSpec> parse_cdi_spec(const std::string& text_of_file, CdiFormat format) {
  TRY_ASSIGN(const Json json, document(text_of_file, format));
  if (!json.is_object()) return wrong("the file", "holds no object");
  TRY(check_version(json));
  CdiSpec spec;
  TRY_ASSIGN(spec.kind, text(json, "", "kind"));
  if (!is_kind(spec.kind))
    return wrong("kind", fmt::format("\"{}\" is no VENDOR/CLASS", json_escape(spec.kind)));
  TRY_ASSIGN(spec.edits, read_edits(json, ""));
  TRY_ASSIGN(const auto devices, objects(json, "", "devices"));
  for (const Item& item : devices) {
    TRY_ASSIGN(const std::string name, text(*item.json, item.place, "name"));
    if (!is_device(name))
      return wrong(item.place + ".name",
                   fmt::format("\"{}\" is no device name", json_escape(name)));
    TRY_ASSIGN(CdiEdits edits, read_edits(*item.json, item.place));
    if (edits.empty()) return wrong(item.place, "device " + name + " has no containerEdits");
    if (!spec.devices.emplace(name, std::move(edits)).second)
      return wrong(item.place, "device " + name + " stands there twice");
  }
  return spec;
}

Result<std::vector<std::string>> cdi_names(const Allocated& allocated) {
  std::vector<std::string> names;
  const auto add = [&](std::string_view name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.emplace_back(name);
  };
  for (const std::string& name : allocated.cdi_devices) add(name);
  for (const auto& [key, value] : allocated.annotations) {
    if (!key.starts_with("cdi.k8s.io/")) continue;
    for (const std::string_view name : split(value, ',')) {
      if (!is_qualified(name))
        return fail(Code::kInvalidConfig,
                    "failed to parse CDI device annotations: {}: invalid CDI device name \"{}\"",
                    json_escape(key), json_escape(name));
      add(name);
    }
  }
  return names;
}

}  // namespace gpuslice::simkubelet
