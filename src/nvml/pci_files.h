#pragma once

// What sysfs tells of a GPU's PCI function and NVML does not.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ports/nvml.h"

namespace gpuslice::nvml {

struct PciFacts {
  int64_t numa_node = -1;  // -1: none
  uint32_t device_class = 0;
  std::optional<ports::VgpuHost> vgpu;
};

// Below <root>/sys/bus/pci/devices; `bus_id` as NVML writes it ("00000000:3B:00.0"). What cannot be
// read is as if it were not there.
[[nodiscard]] PciFacts pci_facts(const std::string& root, std::string_view bus_id);

// The vendor's capability in a PCI configuration space, if it says that this is a virtual GPU: "VF"
// behind its header, then records (id, length, content); record 0 holds the host's driver version
// and branch, ten characters each. Needs all 256 bytes, which only root may read.
[[nodiscard]] std::optional<ports::VgpuHost> vgpu_of(std::string_view config);

}  // namespace gpuslice::nvml
