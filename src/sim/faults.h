#pragma once

// Injected faults: which strikes a call. A call first asks might_strike() on its snapshot (cheap:
// no row, no cost); only if a row matches does it write to the world, where strike() counts it and
// says what to do.

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "sim/ret.h"
#include "sim/state.h"

namespace gpuslice::sim {

inline constexpr uint32_t kAnyGpu = 0xff;

struct CallSite {
  std::string_view call;   // "nvmlDeviceGetName"
  uint32_t gpu = kAnyGpu;  // the GPU it is about; kAnyGpu: none in particular
  int32_t pid = 0;
};

struct Strike {
  FaultKind kind = FaultKind::kFail;
  Ret ret = Ret::kSuccess;
  int64_t latency_ns = 0;
};

[[nodiscard]] bool might_strike(const State& state, const CallSite& site);
// Counts the call in every row that matches; what the first that strikes does to it.
[[nodiscard]] std::optional<Strike> strike(State& state, const CallSite& site);

// kFailed when kMaxFaults rows are taken, kUsage for a name that is too long.
Status add_fault(State& state, const Fault& fault, std::string_view call);
void clear_faults(State& state);
// A call that hangs does so until this is false: until the faults are cleared.
[[nodiscard]] bool hangs_last(const State& state);

}  // namespace gpuslice::sim
