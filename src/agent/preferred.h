#pragma once

// Which devices the kubelet should take: GetPreferredAllocation. Pure, deterministic, linear in the
// number of ids.
//
// `distributed`: each next device from the GPU with the fewest replicas in use; `packed`: the most.
// Of equals, the GPU that was picked least in this call, then the lowest index; on a GPU, the
// lowest replica. What must be included comes first.

#include "agent/device_table.h"
#include "base/result.h"
#include "ports/kubelet.h"

namespace gpuslice::agent {

enum class Policy : uint8_t { kDistributed, kPacked };

// kInvalidConfig for an id that is not offered or a request that asks for more than is available.
[[nodiscard]] Result<std::vector<std::string>> preferred(const ResourceTable& table,
                                                         const ports::PreferredContainer& request,
                                                         Policy policy);

}  // namespace gpuslice::agent
