#pragma once

// Words of the controller of MIG layouts: the states of the label protocol, and a GPU's MIG.

#include <string>

#include "ports/nvml.h"

namespace gpuslice::agent {

inline constexpr const char* kPending = "pending";
inline constexpr const char* kSuccess = "success";
inline constexpr const char* kFailed = "failed";
inline constexpr const char* kRebooting = "rebooting";

// In one line: what another program would change.
[[nodiscard]] std::string mig_text(const ports::Gpu& gpu);

}  // namespace gpuslice::agent
