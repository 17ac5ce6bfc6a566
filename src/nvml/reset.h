#pragma once

// The port GpuReset. NVML has no call for it: on hardware the driver's own nvidia-smi does it, on a
// simulated node a function of the simulated library.

#include <string>

#include "ports/mig.h"

namespace gpuslice::nvml {

// A reset takes seconds; one that takes longer than this is given up.
inline constexpr int kResetSeconds = 120;

class NodeReset final : public ports::GpuReset {
 public:
  // `root`: where the driver's files lie; its usr/bin/nvidia-smi is run, else that of PATH.
  explicit NodeReset(std::string root);
  [[nodiscard]] Status reset(const std::string& bus_id) override;

 private:
  std::string root_;
};

}  // namespace gpuslice::nvml
