#include "sim/faults.h"

#include <algorithm>
#include <cstring>

namespace gpuslice::sim {
namespace {

bool name_matches(const Fault& fault, std::string_view call) {
  const std::string_view pattern(fault.call, strnlen(fault.call, kFaultCallName));
  if (pattern.ends_with("*")) return call.starts_with(pattern.substr(0, pattern.size() - 1));
  return pattern == call;
}

bool matches(const Fault& fault, const CallSite& site) {
  if (fault.used == 0) return false;
  if (fault.times != 0 && fault.struck >= fault.times) return false;
  if (fault.gpu != kAnyGpu && fault.gpu != site.gpu) return false;
  if (fault.pid != 0 && fault.pid != site.pid) return false;
  return name_matches(fault, site.call);
}

}  // namespace

bool might_strike(const State& state, const CallSite& site) {
  if (state.faults.count == 0) return false;
  return std::any_of(std::begin(state.faults.rows), std::end(state.faults.rows),
                     [&](const Fault& f) { return matches(f, site); });
}

std::optional<Strike> strike(State& state, const CallSite& site) {
  std::optional<Strike> what;
  for (Fault& fault : state.faults.rows) {
    if (!matches(fault, site)) continue;
    ++fault.seen;
    if (fault.seen <= fault.after || what) continue;
    ++fault.struck;
    what = Strike{fault.kind, static_cast<Ret>(fault.ret), fault.latency_ns};
  }
  return what;
}

Status add_fault(State& state, const Fault& fault, std::string_view call) {
  if (call.empty() || call.size() >= kFaultCallName)
    return fail(Code::kUsage, "fault: \"{}\" is no name of an NVML call", call);
  for (Fault& row : state.faults.rows) {
    if (row.used != 0) continue;
    row = fault;
    row.used = 1;
    row.seen = 0;
    row.struck = 0;
    std::memset(row.call, 0, kFaultCallName);
    call.copy(row.call, kFaultCallName - 1);
    ++state.faults.count;
    return {};
  }
  return fail(Code::kFailed, "faults: all {} rows are taken; clear them first", kMaxFaults);
}

bool hangs_last(const State& state) {
  return std::any_of(std::begin(state.faults.rows), std::end(state.faults.rows),
                     [](const Fault& row) { return row.used && row.kind == FaultKind::kHang; });
}

void clear_faults(State& state) { state.faults = {}; }

}  // namespace gpuslice::sim
