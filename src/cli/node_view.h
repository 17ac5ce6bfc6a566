#pragma once

// What the verbs show: the node as NVML tells it, read once.

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "ports/nvml.h"

namespace gpuslice::cli {

struct SilentGpu {
  uint32_t index = 0;
  Error error;
};

struct NodeView {
  ports::DriverInfo driver;
  std::vector<ports::Gpu> gpus;   // that answered, by index
  std::vector<SilentGpu> silent;  // that did not
  // Why some that answered are not healthy, by UUID: what an agent has learnt.
  std::map<std::string, std::string> unhealthy;
};

// Opens, reads, closes. kUnavailable with the next step when there is no driver.
[[nodiscard]] Result<NodeView> read_node(ports::Nvml& nvml, ports::Detail detail);

}  // namespace gpuslice::cli
