#include "kubelet/convert.h"

#include <algorithm>
#include <iterator>

#include "deviceplugin/api.pb.h"
#include "podresources/api.pb.h"

namespace gpuslice::kubelet {

ports::PreferredRequest from_proto(const v1beta1::PreferredAllocationRequest& request) {
  ports::PreferredRequest out;
  for (const auto& container : request.container_requests()) {
    const auto& available = container.available_deviceids();
    const auto& must_include = container.must_include_deviceids();
    out.containers.push_back({{available.begin(), available.end()},
                              {must_include.begin(), must_include.end()},
                              static_cast<uint32_t>(std::max(container.allocation_size(), 0))});
  }
  return out;
}

ports::AllocateRequest from_proto(const v1beta1::AllocateRequest& request) {
  ports::AllocateRequest out;
  for (const auto& container : request.container_requests()) {
    out.containers.emplace_back(container.devices_ids().begin(), container.devices_ids().end());
  }
  return out;
}

std::vector<ports::PodDevices> from_proto(const v1::ListPodResourcesResponse& response) {
  std::vector<ports::PodDevices> out;
  for (const auto& pod : response.pod_resources()) {
    for (const auto& container : pod.containers()) {
      const auto first = static_cast<ptrdiff_t>(out.size());
      for (const auto& devices : container.devices()) {
        auto entry = std::find_if(out.begin() + first, out.end(), [&](const auto& known) {
          return known.resource == devices.resource_name();
        });
        if (entry == out.end()) {
          out.push_back(
              {pod.namespace_(), pod.name(), container.name(), devices.resource_name(), {}});
          entry = std::prev(out.end());
        }
        entry->ids.insert(entry->ids.end(), devices.device_ids().begin(),
                          devices.device_ids().end());
      }
    }
  }
  return out;
}

void to_proto(const ports::DeviceList& list, v1beta1::ListAndWatchResponse& response) {
  response.mutable_devices()->Reserve(static_cast<int>(list.devices.size()));
  for (const ports::Device& device : list.devices) {
    v1beta1::Device& out = *response.add_devices();
    out.set_id(device.id);
    out.set_health(device.healthy ? "Healthy" : "Unhealthy");
    if (device.numa_node) out.mutable_topology()->add_nodes()->set_id(*device.numa_node);
  }
}

void to_proto(const ports::PreferredAnswer& answer,
              v1beta1::PreferredAllocationResponse& response) {
  for (const auto& ids : answer.containers) {
    auto& out = *response.add_container_responses();
    for (const std::string& id : ids) out.add_deviceids(id);
  }
}

void to_proto(const ports::AllocateAnswer& answer, v1beta1::AllocateResponse& response) {
  for (const ports::ContainerAnswer& container : answer.containers) {
    auto& out = *response.add_container_responses();
    for (const auto& [name, value] : container.envs) (*out.mutable_envs())[name] = value;
    for (const ports::Mount& mount : container.mounts) {
      v1beta1::Mount& one = *out.add_mounts();
      one.set_container_path(mount.container_path);
      one.set_host_path(mount.host_path);
      one.set_read_only(mount.read_only);
    }
    for (const ports::DeviceNode& node : container.devices) {
      v1beta1::DeviceSpec& one = *out.add_devices();
      one.set_container_path(node.container_path);
      one.set_host_path(node.host_path);
      one.set_permissions(node.permissions);
    }
    for (const auto& [name, value] : container.annotations) {
      (*out.mutable_annotations())[name] = value;
    }
    for (const std::string& name : container.cdi_devices) out.add_cdi_devices()->set_name(name);
  }
}

}  // namespace gpuslice::kubelet
