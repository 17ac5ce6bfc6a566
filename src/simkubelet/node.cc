#include "simkubelet/node.h"

#include <time.h>

#include <algorithm>

#include "base/text.h"

namespace gpuslice::simkubelet {
MonotonicTime monotonic_now() {
  timespec ts{};
  ::clock_gettime(CLOCK_MONOTONIC, &ts);
  return MonotonicTime(std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec));
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
  resource.ended.reset();
  ++registrations_[call.resource];
  return resource.life;
}

std::map<std::string, uint64_t> Node::registrations() const {
  const std::lock_guard lock(mutex_);
  return registrations_;
}

bool Node::devices(const std::string& resource, uint64_t life,
                   const std::vector<DeviceSeen>& devices) {
  const std::lock_guard lock(mutex_);
  const auto it = resources_.find(resource);
  if (it == resources_.end() || it->second.life != life) return false;
  it->second.connected = true;
  it->second.devices.clear();
  for (const DeviceSeen& device : devices) it->second.devices[device.id] = device;
  return true;
}

void Node::stream_ended(const std::string& resource, uint64_t life) {
  const std::lock_guard lock(mutex_);
  const auto it = resources_.find(resource);
  if (it == resources_.end() || it->second.life != life) return;
  it->second.connected = false;
  it->second.ended = clock_();
}

void Node::restart() {
  const std::lock_guard lock(mutex_);
  for (auto& [name, resource] : resources_) {
    resource = Resource{};
    resource.life = next_life_++;
    resource.ended = clock_();
  }
}

void Node::forget_ended() {
  const MonotonicTime now = clock_();
  std::erase_if(resources_, [&](const auto& entry) {
    const Resource& r = entry.second;
    return r.ended && now - *r.ended > grace_;
  });
}

Quantities Node::quantities() {
  const std::lock_guard lock(mutex_);
  forget_ended();
  Quantities out;
  for (const auto& [name, resource] : resources_) {
    out.capacity[name] = resource.devices.size();
    const auto healthy = std::count_if(resource.devices.begin(), resource.devices.end(),
                                       [](const auto& d) { return d.second.healthy; });
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
    for (const auto& [id, device] : it->second.devices)
      if (device.healthy && !taken.contains(id)) choice.free.push_back(id);
  if (choice.free.size() < count)
    return fail(Code::kUnavailable,
                "0/1 nodes are available: 1 Insufficient {} ({} asked for, {} free)", resource,
                count, choice.free.size());
  choice.endpoint = it->second.endpoint;
  choice.life = it->second.life;
  choice.preferred_available = it->second.preferred_available;
  return choice;
}

std::vector<std::string> Node::take(const Choice& choice,
                                    const std::vector<std::string>& must_include,
                                    const std::vector<std::string>& preferred, uint32_t count) {
  std::vector<std::string> out = must_include;
  if (out.size() > count) out.resize(count);
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

std::map<std::string, std::vector<DeviceSeen>> Node::healthy() const {
  const std::lock_guard lock(mutex_);
  std::map<std::string, std::vector<DeviceSeen>> out;
  for (const auto& [name, resource] : resources_) {
    if (!resource.connected) continue;
    std::vector<DeviceSeen>& devices = out[name];
    for (const auto& [id, device] : resource.devices)
      if (device.healthy) devices.push_back(device);
  }
  return out;
}

std::vector<DeviceSeen> Node::seen(const std::string& resource,
                                   const std::vector<std::string>& ids) const {
  const std::lock_guard lock(mutex_);
  const auto found = resources_.find(resource);
  std::vector<DeviceSeen> out;
  for (const std::string& id : ids) {
    DeviceSeen device{id, true};
    if (found != resources_.end())
      if (const auto it = found->second.devices.find(id); it != found->second.devices.end())
        device = it->second;
    out.push_back(std::move(device));
  }
  return out;
}

}  // namespace gpuslice::simkubelet
