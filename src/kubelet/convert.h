#pragma once

// The kubelet's messages as the agent's values, and back. Pure.

#include <vector>

#include "ports/kubelet.h"

namespace v1beta1 {
class AllocateRequest;
class AllocateResponse;
class ListAndWatchResponse;
class PreferredAllocationRequest;
class PreferredAllocationResponse;
}  // namespace v1beta1
namespace v1 {
class ListPodResourcesResponse;
}  // namespace v1

namespace gpuslice::kubelet {

// The ids that are available stay those of `request`: eight thousand are not copied.
[[nodiscard]] ports::PreferredRequest from_proto(
    const v1beta1::PreferredAllocationRequest& request);
[[nodiscard]] ports::AllocateRequest from_proto(const v1beta1::AllocateRequest& request);
// One entry for each container and resource, whatever pieces the kubelet sends it in.
[[nodiscard]] std::vector<ports::PodDevices> from_proto(
    const v1::ListPodResourcesResponse& response);

void to_proto(const ports::DeviceList& list, v1beta1::ListAndWatchResponse& response);
void to_proto(const ports::PreferredAnswer& answer, v1beta1::PreferredAllocationResponse& response);
void to_proto(const ports::AllocateAnswer& answer, v1beta1::AllocateResponse& response);

}  // namespace gpuslice::kubelet
