#pragma once

// Who holds a GPU's instances, from what the kubelet and the ledger of Allocate name: device ids
// made into instances. Pure.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "mig/gpu_state.h"
#include "ports/kubelet.h"

namespace gpuslice::mig {

// Those of the kubelet's pod-resources that concern this GPU.
[[nodiscard]] std::vector<Holder> pod_holders(const GpuState& state,
                                              const std::vector<ports::PodDevices>& pods);
// Ids that were given out: "GPU-…", "GPU-…::3", "MIG-…".
[[nodiscard]] std::vector<Holder> ledger_holders(const GpuState& state,
                                                 const std::vector<std::string>& ids);
// NVML's processes with the pod of each, where one alone holds the same; `in_pod`: whether the
// process of this PID belongs to any.
[[nodiscard]] std::vector<Holder> with_pods(std::vector<Holder> processes,
                                            const std::vector<Holder>& pods,
                                            const std::function<bool(uint32_t pid)>& in_pod);
// All of them, each device once: what an earlier list names with more is not told again.
[[nodiscard]] std::vector<Holder> merged(std::vector<Holder> first,
                                         const std::vector<std::vector<Holder>>& others);

}  // namespace gpuslice::mig
