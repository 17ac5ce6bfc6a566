#pragma once

// Which devices the kubelet should take: GetPreferredAllocation. Pure, deterministic; linear in the
// number of ids for replicas and MIG devices.
//
// Whole GPUs: the set that is nearest together (agent/closeness.h), whatever the policy. Replicas
// and MIG devices, one after the other: `distributed` takes from the board with the fewest devices
// in use, `packed` from the one with the most, `spread` from the one that was taken from least in
// this call, then as `distributed`. On a board the device goes by the same rule, of equals the one
// that was picked least in this call, then the lowest index, then the lowest replica. What must be
// included comes first.

#include "agent/device_table.h"
#include "base/result.h"
#include "ports/kubelet.h"

namespace gpuslice::agent {

enum class Policy : uint8_t { kDistributed, kPacked, kSpread };

// An id that is not offered (it was withdrawn a moment ago) is taken last: Allocate tells of it,
// and no pod fails here. kInvalidConfig for a request that asks for more than is available.
[[nodiscard]] Result<std::vector<std::string>> preferred(const ResourceTable& table,
                                                         const ports::PreferredContainer& request,
                                                         Policy policy);

}  // namespace gpuslice::agent
