#pragma once

// Faults that were injected, as rows in the State. faults.h says which strikes a call.

#include <cstdint>

namespace gpuslice::sim {

inline constexpr uint32_t kMaxFaults = 64;
inline constexpr uint32_t kFaultCallName = 72;  // the longest NVML name has 62 characters

enum class FaultKind : uint8_t {
  kFail = 0,     // the call answers `ret` and does nothing
  kLatency = 1,  // the call takes `latency_ns` longer
  kHang = 2,     // the call does not return before the faults are cleared, whatever its time-out
};

struct Fault {
  uint8_t used = 0;
  FaultKind kind = FaultKind::kFail;
  uint8_t gpu = 0xff;  // 0xff: any
  uint8_t pad_ = 0;
  int32_t ret = 0;     // NVML's return code
  int32_t pid = 0;     // 0: any process
  uint32_t after = 0;  // so many calls pass unharmed first
  uint32_t times = 0;  // strikes so often, then it is over; 0: for ever
  uint32_t seen = 0;   // calls that matched
  uint32_t struck = 0;
  uint32_t pad2_ = 0;
  int64_t latency_ns = 0;
  char call[kFaultCallName] = {};  // "nvmlGpuInstanceDestroy"; "*" or a prefix with '*': any such
};

struct FaultTable {
  uint32_t count = 0;  // rows in use: 0 means that no call need look
  uint32_t pad_ = 0;
  Fault rows[kMaxFaults];
};

}  // namespace gpuslice::sim
