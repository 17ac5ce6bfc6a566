#include "simkubelet/messages.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/text.h"
#include "deviceplugin/api.pb.h"

namespace gpuslice::simkubelet {
namespace {

using Json = nlohmann::json;

bool is_alnum(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
bool is_lower_alnum(char c) { return is_alnum(c) && !(c >= 'A' && c <= 'Z'); }

bool is_name(std::string_view text) {
  if (text.empty() || text.size() > 63 || !is_alnum(text.front()) || !is_alnum(text.back()))
    return false;
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return is_alnum(c) || c == '-' || c == '_' || c == '.'; });
}

// An RFC 1123 subdomain; with "requests." before it, at most 253 characters.
bool is_domain(std::string_view text) {
  if (text.size() > 253 - std::string_view("requests.").size()) return false;
  for (const std::string_view part : split(text, '.')) {
    if (part.empty() || !is_lower_alnum(part.front()) || !is_lower_alnum(part.back())) return false;
    if (!std::all_of(part.begin(), part.end(),
                     [](char c) { return is_lower_alnum(c) || c == '-'; }))
      return false;
  }
  return true;
}

// An extended resource: a domain, which is not Kubernetes' own, and a name.
bool is_extended_resource(std::string_view name) {
  const size_t slash = name.find('/');
  if (slash == std::string_view::npos) return false;
  const std::string_view domain = name.substr(0, slash);
  if (domain.ends_with("kubernetes.io") || domain.starts_with("requests.")) return false;
  return is_domain(domain) && is_name(name.substr(slash + 1));
}

}  // namespace

Status check_registration(const RegisterCall& call) {
  if (call.version != "v1beta1")
    return fail(Code::kInvalidConfig,
                "requested API version \"{}\" is not supported by kubelet. Supported version is "
                "[\"v1beta1\"]",
                json_escape(call.version.substr(0, 64)));
  if (!is_extended_resource(call.resource))
    return fail(Code::kInvalidConfig, "the ResourceName \"{}\" is invalid",
                json_escape(call.resource.substr(0, 128)));
  if (call.endpoint.empty() || call.endpoint.find('/') != std::string::npos ||
      call.endpoint == "." || call.endpoint == ".." || call.endpoint.size() > 200 ||
      call.endpoint.find('\0') != std::string::npos)
    return fail(Code::kInvalidConfig, "the endpoint \"{}\" is no file name",
                json_escape(call.endpoint.substr(0, 128)));
  return {};
}

Status check_devices(const std::vector<DeviceSeen>& devices) {
  if (devices.size() > kMaxDevices)
    return fail(Code::kInvalidConfig, "{} devices: at most {}", devices.size(), kMaxDevices);
  std::set<std::string_view> ids;
  for (const DeviceSeen& device : devices) {
    if (device.id.empty()) return fail(Code::kInvalidConfig, "a device without an id");
    if (!ids.insert(device.id).second)
      return fail(Code::kInvalidConfig, "device {} is listed twice",
                  json_escape(device.id.substr(0, 128)));
  }
  return {};
}

Result<RegisterCall> read(const v1beta1::RegisterRequest& request) {
  RegisterCall call{request.version(), request.endpoint(), request.resource_name(),
                    request.options().get_preferred_allocation_available()};
  TRY(check_registration(call));
  return call;
}

Result<std::vector<DeviceSeen>> read(const v1beta1::ListAndWatchResponse& response) {
  std::vector<DeviceSeen> devices;
  devices.reserve(static_cast<size_t>(response.devices_size()));
  for (const v1beta1::Device& device : response.devices()) {
    DeviceSeen seen{device.id(), device.health() == "Healthy"};
    for (const auto& node : device.topology().nodes()) seen.numa.push_back(node.id());
    devices.push_back(std::move(seen));
  }
  TRY(check_devices(devices));
  return devices;
}

Result<Allocated> read(const v1beta1::AllocateResponse& response) {
  if (response.container_responses().empty())
    return fail(Code::kFailed, "no containers return in allocation response");
  const v1beta1::ContainerAllocateResponse& answer = response.container_responses(0);
  Allocated out;
  out.envs.insert(answer.envs().begin(), answer.envs().end());
  out.annotations.insert(answer.annotations().begin(), answer.annotations().end());
  for (const auto& mount : answer.mounts())
    out.mounts.push_back({mount.container_path(), mount.host_path(), mount.read_only()});
  for (const auto& device : answer.devices())
    out.device_nodes.push_back({device.container_path(), device.host_path()});
  for (const auto& cdi : answer.cdi_devices()) out.cdi_devices.push_back(cdi.name());
  return out;
}

std::vector<std::string> read(const v1beta1::PreferredAllocationResponse& response) {
  if (response.container_responses().empty()) return {};
  const auto& ids = response.container_responses(0).deviceids();
  return {ids.begin(), ids.end()};
}

void Allocated::add(const Allocated& more) {
  envs.insert(more.envs.begin(), more.envs.end());
  annotations.insert(more.annotations.begin(), more.annotations.end());
  const auto has = [](const auto& list, const std::string& path) {
    return std::any_of(list.begin(), list.end(),
                       [&](const auto& one) { return one.container_path == path; });
  };
  for (const Mount& mount : more.mounts)
    if (!has(mounts, mount.container_path)) mounts.push_back(mount);
  for (const DeviceNode& node : more.device_nodes)
    if (!has(device_nodes, node.container_path)) device_nodes.push_back(node);
  for (const std::string& name : more.cdi_devices)
    if (std::find(cdi_devices.begin(), cdi_devices.end(), name) == cdi_devices.end())
      cdi_devices.push_back(name);
}

namespace {

std::optional<PodCall::Verb> verb_of(const std::string& name) {
  static constexpr std::array<std::pair<std::string_view, PodCall::Verb>, 5> kVerbs = {
      {{"run", PodCall::Verb::kRun},
       {"node", PodCall::Verb::kNode},
       {"ls", PodCall::Verb::kList},
       {"rm", PodCall::Verb::kRemove},
       {"restart", PodCall::Verb::kRestart}}};
  for (const auto& [word, verb] : kVerbs)
    if (word == name) return verb;
  return std::nullopt;
}

std::unexpected<Error> malformed(const std::string& why) {
  return fail(Code::kUsage, "malformed request: {}", why);
}

// The member `key`, or what stands in for it; null is none.
const Json* member(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

Result<std::string> text(const Json& json, const char* key) {
  const Json* value = member(json, key);
  if (value == nullptr) return std::string();
  if (!value->is_string()) return malformed(fmt::format("{} is no text", key));
  return value->get<std::string>();
}

Result<std::vector<std::string>> texts(const Json& json, const char* key) {
  std::vector<std::string> out;
  const Json* value = member(json, key);
  if (value == nullptr) return out;
  if (!value->is_array()) return malformed(fmt::format("{} is no list", key));
  for (const Json& item : *value) {
    if (!item.is_string()) return malformed(fmt::format("{} is no list of texts", key));
    out.push_back(item.get<std::string>());
  }
  return out;
}

Result<std::map<std::string, uint32_t>> counts(const Json& json, const char* key) {
  std::map<std::string, uint32_t> out;
  const Json* value = member(json, key);
  if (value == nullptr) return out;
  if (!value->is_object()) return malformed(fmt::format("{} is no object", key));
  for (const auto& [name, count] : value->items()) {
    const uint64_t n = count.is_number_unsigned() ? count.get<uint64_t>() : 0;
    if (n == 0 || n > kMaxRequest)
      return malformed(fmt::format("{} of {}: a whole number from 1 to {}", key, json_escape(name),
                                   kMaxRequest));
    out[name] = static_cast<uint32_t>(n);
  }
  return out;
}

Status read_run(const Json& json, PodCall& call) {
  TRY_ASSIGN(call.name, text(json, "name"));
  if (call.name.empty() || call.name.size() > 253)
    return fail(Code::kUsage, "a pod's name has 1 to 253 characters");
  TRY_ASSIGN(call.request, counts(json, "request"));
  TRY_ASSIGN(call.init, counts(json, "init"));
  TRY_ASSIGN(call.work, text(json, "work"));
  TRY_ASSIGN(call.command, texts(json, "command"));
  for (const std::string& word : call.command)
    if (word.find('\0') != std::string::npos) return malformed("command: a NUL in it");
  return {};
}

}  // namespace

Result<PodCall> read_call(const std::string& line) {
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return malformed("no JSON object");
  PodCall call;
  TRY_ASSIGN(const std::string name, text(json, "verb"));
  const auto verb = verb_of(name);
  if (!verb) return fail(Code::kUsage, "unknown verb \"{}\"", json_escape(name));
  call.verb = *verb;
  if (call.verb == PodCall::Verb::kRun) TRY(read_run(json, call));
  if (const Json* times = member(json, "times");
      times != nullptr && call.verb == PodCall::Verb::kRestart) {
    const uint64_t n = times->is_number_unsigned() ? times->get<uint64_t>() : 0;
    if (n == 0 || n > kMaxRestarts)
      return malformed(fmt::format("times: a whole number from 1 to {}", kMaxRestarts));
    call.times = static_cast<uint32_t>(n);
  }
  if (call.verb != PodCall::Verb::kRemove) return call;
  TRY_ASSIGN(call.names, texts(json, "names"));
  const Json* all = member(json, "all");
  if (all != nullptr && !all->is_boolean()) return malformed("all is neither true nor false");
  call.all = all != nullptr && all->get<bool>();
  return call;
}

}  // namespace gpuslice::simkubelet
