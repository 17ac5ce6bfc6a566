#include "simkubelet/node.h"

#include <algorithm>

#include "base/text.h"

namespace gpuslice::simkubelet {
namespace {

bool is_label(std::string_view text) {
  const auto alnum = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  if (text.empty() || text.size() > 63 || !alnum(text.front()) || !alnum(text.back())) return false;
  return std::all_of(text.begin(), text.end(),
                     [&](char c) { return alnum(c) || c == '-' || c == '_' || c == '.'; });
}

// An extended resource: a domain, which is not Kubernetes' own, and a name.
bool is_extended_resource(std::string_view name) {
  const size_t slash = name.find('/');
  if (slash == std::string_view::npos || slash == 0 ||
      name.find('/', slash + 1) != std::string_view::npos)
    return false;
  const std::string_view domain = name.substr(0, slash);
  if (domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") ||
      name.starts_with("requests."))
    return false;
  return is_label(domain) && is_label(name.substr(slash + 1));
}

}  // namespace

Status check_registration(const RegisterCall& call) {
  if (call.version != "v1beta1")
    return fail(Code::kInvalidConfig,
                "requested API version \"{}\" is not supported by kubelet. Supported version is "
                "\"v1beta1\"",
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

Result<uint64_t> Node::registered(const RegisterCall& call) {
  TRY(check_registration(call));
  const std::lock_guard lock(mutex_);
  if (!resources_.contains(call.resource) && resources_.size() >= kMaxResources)
    return fail(Code::kFailed, "{} resources are registered: at most {}", resources_.size(),
                kMaxResources);
  Resource& resource = resources_[call.resource];
  resource.life = next_life_++;
  resource.endpoint = call.endpoint;
  resource.preferred_available = call.preferred_available;
  resource.connected = false;
  return resource.life;
}

bool Node::devices(const std::string& resource, uint64_t life,
                   const std::vector<DeviceSeen>& devices) {
  const std::lock_guard lock(mutex_);
  const auto it = resources_.find(resource);
  if (it == resources_.end() || it->second.life != life) return false;
  it->second.connected = true;
  it->second.devices.clear();
  for (const DeviceSeen& device : devices) it->second.devices[device.id] = device.healthy;
  return true;
}

void Node::stream_ended(const std::string& resource, uint64_t life, MonotonicTime now) {
  const std::lock_guard lock(mutex_);
  const auto it = resources_.find(resource);
  if (it == resources_.end() || it->second.life != life) return;
  it->second.connected = false;
  it->second.ended = now;
}

void Node::restart() {
  const std::lock_guard lock(mutex_);
  resources_.clear();
}

void Node::forget_ended(MonotonicTime now) {
  std::erase_if(resources_, [&](const auto& entry) {
    const Resource& r = entry.second;
    return !r.connected && r.ended != MonotonicTime{} && now - r.ended >= grace_;
  });
}

Quantities Node::quantities(MonotonicTime now) {
  const std::lock_guard lock(mutex_);
  forget_ended(now);
  Quantities out;
  for (const auto& [name, resource] : resources_) {
    out.capacity[name] = resource.devices.size();
    const auto healthy = std::count_if(resource.devices.begin(), resource.devices.end(),
                                       [](const auto& d) { return d.second; });
    out.allocatable[name] = resource.connected ? static_cast<uint64_t>(healthy) : 0;
  }
  return out;
}

std::set<std::string> Node::held(const std::string& resource) const {
  std::set<std::string> out;
  for (const auto& [name, pod] : pods_)
    if (const auto it = pod.device_ids.find(resource);
        it != pod.device_ids.end() && pod.phase != "Failed" && pod.phase != "Succeeded")
      out.insert(it->second.begin(), it->second.end());
  return out;
}

Result<Node::Choice> Node::choice(const std::string& resource, uint32_t count) {
  const std::lock_guard lock(mutex_);
  const auto it = resources_.find(resource);
  if (it == resources_.end()) {
    std::vector<std::string_view> names;
    for (const auto& [name, r] : resources_) names.push_back(name);
    const auto near = nearest(resource, names);
    return fail(Code::kNotFound, "this node has no resource {}{}", resource,
                near ? fmt::format("; did you mean {}?", *near) : "");
  }
  Choice choice;
  const std::set<std::string> taken = held(resource);
  if (it->second.connected)
    for (const auto& [id, healthy] : it->second.devices)
      if (healthy && !taken.contains(id)) choice.free.push_back(id);
  if (choice.free.size() < count)
    return fail(Code::kUnavailable,
                "0/1 nodes are available: 1 Insufficient {} ({} asked for, {} free)", resource,
                count, choice.free.size());
  choice.endpoint = it->second.endpoint;
  choice.life = it->second.life;
  choice.preferred_available = it->second.preferred_available;
  return choice;
}

std::vector<std::string> Node::take(const Choice& choice, const std::vector<std::string>& preferred,
                                    uint32_t count) {
  std::vector<std::string> out;
  const auto add = [&](const std::string& id) {
    if (out.size() < count && std::binary_search(choice.free.begin(), choice.free.end(), id) &&
        std::find(out.begin(), out.end(), id) == out.end())
      out.push_back(id);
  };
  for (const std::string& id : preferred) add(id);
  for (const std::string& id : choice.free) add(id);
  return out;
}

Status Node::add_pod(const Pod& pod) {
  const std::lock_guard lock(mutex_);
  if (pods_.size() >= kMaxPods)
    return fail(Code::kFailed, "{} pods: at most {}", pods_.size(), kMaxPods);
  if (!pods_.emplace(pod.name, pod).second)
    return fail(Code::kFailed, "pod {} exists already; remove it with: gpuslice-sim pod rm {}",
                pod.name, pod.name);
  return {};
}

void Node::update_pod(const std::string& name, const std::function<void(Pod&)>& change) {
  const std::lock_guard lock(mutex_);
  if (const auto it = pods_.find(name); it != pods_.end()) change(it->second);
}

bool Node::remove_pod(const std::string& name) {
  const std::lock_guard lock(mutex_);
  return pods_.erase(name) > 0;
}

std::vector<Pod> Node::pods() const {
  const std::lock_guard lock(mutex_);
  std::vector<Pod> out;
  for (const auto& [name, pod] : pods_) out.push_back(pod);
  return out;
}

std::vector<std::string> Node::resource_names() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> out;
  for (const auto& [name, resource] : resources_) out.push_back(name);
  return out;
}

}  // namespace gpuslice::simkubelet
