#pragma once

// What NVML's return codes mean to us: one table for the driver's library and the simulated one.

#include "base/error.h"

namespace gpuslice::ports {

[[nodiscard]] constexpr Code code_of_return(int nvml_return) {
  switch (nvml_return) {
    case 2:   // INVALID_ARGUMENT
    case 5:   // ALREADY_INITIALIZED
    case 7:   // INSUFFICIENT_SIZE
    case 25:  // ARGUMENT_VERSION_MISMATCH
      return Code::kInternal;
    case 3:   // NOT_SUPPORTED
    case 13:  // FUNCTION_NOT_FOUND
    case 23:  // INSUFFICIENT_RESOURCES
    case 26:  // DEPRECATED
    case 30:  // RESET_TYPE_NOT_SUPPORTED
      return Code::kImpossible;
    case 4:  // NO_PERMISSION
      return Code::kNoPermission;
    case 6:   // NOT_FOUND
    case 28:  // GPU_NOT_FOUND
      return Code::kNotFound;
    case 1:   // UNINITIALIZED
    case 9:   // DRIVER_NOT_LOADED
    case 12:  // LIBRARY_NOT_FOUND
    case 18:  // LIB_RM_VERSION_MISMATCH
    case 27:  // NOT_READY
      return Code::kUnavailable;
    case 10:  // TIMEOUT
      return Code::kTimeout;
    case 15:  // GPU_IS_LOST
      return Code::kGpuLost;
    case 16:  // RESET_REQUIRED
      return Code::kNeedsReset;
    case 19:  // IN_USE
      return Code::kInUse;
    default:
      return Code::kFailed;
  }
}

}  // namespace gpuslice::ports
