// The kubelet and its pods.

#include <fmt/format.h>

#include <algorithm>

#include "node_model.h"

namespace gpuslice::dst {
namespace {

using std::chrono::milliseconds;

// A list in a line of the trace.
std::string shown(const ports::DeviceList& list) {
  std::string out = std::to_string(list.devices.size());
  for (const ports::Device& d : list.devices) out += (d.healthy ? " " : " !") + d.id.substr(32);
  return out;
}

}  // namespace

Status NodeModel::serve(const std::string& resource, ports::PluginService& service,
                        std::shared_ptr<const ports::DeviceList> list) {
  port_call();
  note(fmt::format("serve {} {}", resource, shown(*list)));
  served_[resource] = {&service, true};
  published_[resource] = std::move(list);
  return {};
}

void NodeModel::publish(const std::string& resource,
                        std::shared_ptr<const ports::DeviceList> list) {
  port_call();
  note(fmt::format("publish {} {}", resource, shown(*list)));
  published_[resource] = std::move(list);
  after_for_agent(milliseconds(1 + random_.below(5)), [this, resource] { deliver(resource); });
}

void NodeModel::stop(const std::string& resource) {
  if (killing_) return;
  port_call();
  served_.erase(resource);
  published_.erase(resource);
  drop_stream(resource);
}

bool NodeModel::socket_in_place(const std::string& resource) const {
  const auto it = served_.find(resource);
  return it != served_.end() && it->second.socket;
}

bool NodeModel::watched(const std::string& resource) const {
  const auto it = views_.find(resource);
  return it != views_.end() && it->second.connected;
}

void NodeModel::deliver(const std::string& resource) {
  const auto view = views_.find(resource);
  const auto list = published_.find(resource);
  if (view == views_.end() || !view->second.connected || list == published_.end()) return;
  view->second.list = list->second;
}

void NodeModel::drop_stream(const std::string& resource) {
  if (const auto it = views_.find(resource); it != views_.end()) it->second.connected = false;
}

void NodeModel::register_plugin(const std::string& resource) {
  port_call();
  const uint64_t turn = ++turns_;
  asked_[resource] = turn;
  after_for_agent(
      milliseconds(1 + random_.below(30)), [this, resource, turn, life = kubelet_life_] {
        if (asked_[resource] != turn) return;
        if (!kubelet_up_ || life != kubelet_life_)
          return agent_->on_registered(resource,
                                       fail(Code::kUnavailable, "kubelet: connection refused"));
        if (refuse_ > 0) {
          --refuse_;
          return agent_->on_registered(resource, fail(Code::kFailed, "kubelet: internal error"));
        }
        agent_->on_registered(resource, {});
        views_[resource].connected = served_.contains(resource);
        deliver(resource);
      });
}

void NodeModel::list_pods() {
  port_call();
  after_for_agent(milliseconds(1 + random_.below(20)), [this] {
    if (kubelet_up_ && pods_unknown_ > 0) {
      --pods_unknown_;
      return agent_->on_pods(fail(Code::kTimeout, "pod-resources: no answer within 5 s"));
    }
    if (!kubelet_up_) {
      return agent_->on_pods(fail(Code::kUnavailable, "pod-resources: connection refused"));
    }
    std::vector<ports::PodDevices> out;
    for (const Pod& pod : pods_)
      out.push_back({"default", fmt::format("pod-{}", pod.number), "main", pod.resource, pod.ids});
    pods_known_ = true;
    agent_->on_pods(std::move(out));
  });
}

std::string NodeModel::kubelet_socket() const {
  return kubelet_up_ ? fmt::format("life {}", kubelet_life_) : "";
}

void NodeModel::folder_changed() {
  after_for_agent(milliseconds(1), [this] { agent_->on_kubelet_folder_changed(); });
}

std::string NodeModel::some_resource() {
  if (served_.empty()) return "";
  auto it = served_.begin();
  std::advance(it, static_cast<std::ptrdiff_t>(random_.below(served_.size())));
  return it->first;
}

void NodeModel::kubelet_fault(Fault fault) {
  if (fault == Fault::kPodsUnknown) {
    strike(fault);
    pods_unknown_ += static_cast<int>(1 + random_.below(3));
    return;
  }
  if (fault == Fault::kOurSocketRemoved || fault == Fault::kStreamDrop) {
    const std::string name = some_resource();
    if (name.empty()) return;
    strike(fault);
    if (fault == Fault::kStreamDrop) return drop_stream(name);
    served_[name].socket = false;
    return folder_changed();
  }
  strike(fault);
  for (auto& [name, view] : views_) view.connected = false;
  if (fault == Fault::kRegistrationRefused) {
    refuse_ += static_cast<int>(1 + random_.below(3));
    ++kubelet_life_;
    return folder_changed();
  }
  kubelet_up_ = false;
  if (fault == Fault::kFolderWiped)
    for (auto& [name, served] : served_) served.socket = false;
  folder_changed();
  time_.after(milliseconds(random_.between(5, 4000)), [this] {
    kubelet_up_ = true;
    ++kubelet_life_;
    views_.clear();
    folder_changed();
  });
}

void NodeModel::pod_comes() {
  std::vector<std::string> names;
  for (const auto& [name, view] : views_)
    if (view.connected && view.list && served_.contains(name)) names.push_back(name);
  if (names.empty() || !kubelet_up_) return;
  const std::string& resource = names[random_.below(names.size())];
  std::set<std::string> taken;
  for (const Pod& pod : pods_)
    if (pod.resource == resource) taken.insert(pod.ids.begin(), pod.ids.end());
  ports::PreferredContainer container;
  for (const ports::Device& device : views_[resource].list->devices)
    if (device.healthy && !taken.contains(device.id)) container.available.push_back(device.id);
  container.size = static_cast<uint32_t>(1 + random_.below(2));
  if (container.available.size() < container.size) return;
  ports::PluginService& service = *served_[resource].service;
  std::vector<std::string> ids(container.available.begin(),
                               container.available.begin() + container.size);
  if (const auto answer = service.preferred({{container}}); answer) ids = answer->containers.at(0);
  const auto allocated = service.allocate({{ids}});
  note(fmt::format("pod {} {}", resource, allocated ? "admitted" : "refused"));
  // A device that another program has just destroyed: the container cannot be started.
  const std::set<std::string>& uuids = hardware_.uuids();
  const bool there = std::all_of(ids.begin(), ids.end(), [&](const std::string& id) {
    return uuids.contains(id.substr(0, id.find("::")));
  });
  if (allocated && there) {
    Pod pod;
    pod.number = next_pod_++;
    pod.resource = resource;
    pod.ids = ids;
    // Not every pod computes: of the others the kubelet alone knows.
    const bool works = random_.chance(2, 3);
    for (const std::string& id : ids) {
      const std::string device = id.substr(0, id.find("::"));
      if (device.starts_with("MIG-")) pod.generations[device] = hardware_.generation(device);
      if (!works) continue;
      if (const auto client = hardware_.work(device)) pod.clients.push_back(*client);
    }
    pods_.push_back(std::move(pod));
  }
  run_agent();
}

void NodeModel::pod_ends() {
  if (pods_.empty()) return;
  const size_t which = random_.below(pods_.size());
  note(fmt::format("pod {} ends", pods_[which].number));
  hardware_.end_work(pods_[which].clients);
  for (const std::string& id : pods_[which].ids) withdrawals_.released(pods_[which].resource, id);
  pods_.erase(pods_.begin() + static_cast<std::ptrdiff_t>(which));
}

}  // namespace gpuslice::dst
