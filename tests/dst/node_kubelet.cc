// The kubelet.

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
      out.push_back({"default", pod.name, "main", pod.resource, pod.ids});
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

}  // namespace gpuslice::dst
