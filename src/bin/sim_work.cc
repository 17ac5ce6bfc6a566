// work: a process that uses a GPU or a MIG instance for as long as it lives. inject: faults.

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "base/text.h"
#include "bin/sim_verbs.h"
#include "sim/events.h"
#include "sim/faults.h"
#include "sim/life.h"
#include "sim/mig.h"
#include "sim/visibility.h"
#include "sim/world.h"

namespace gpuslice::bin {
namespace {

Result<std::string> node_root(const std::string& said) {
  if (!said.empty()) return said;
  if (const char* root = std::getenv("GPUSLICE_SIM_ROOT"); root != nullptr && *root != '\0')
    return std::string(root);
  return std::string("/run/gpuslice-sim");
}

Result<std::unique_ptr<sim::World>> open_world(const std::string& root) {
  auto world = sim::World::open(root);
  if (!world && world.error().code == Code::kNotFound)
    return fail(Code::kNotFound, "{}: there is no simulated node; name it with --root", root);
  return world;
}

struct Target {
  uint32_t gpu = 0;
  uint8_t gi = sim::kNone;
  uint8_t ci = sim::kNone;
};

// What the caller sees, in NVML's order: GPUs without MIG, and MIG devices.
std::vector<Target> visible_targets(const sim::State& state, const sim::Visibility& visible) {
  std::vector<Target> out;
  for (uint32_t gpu = 0; gpu < state.node.gpu_count; ++gpu) {
    const uint32_t minor = state.gpus[gpu].minor;
    if (!visible.gpu(minor)) continue;
    if (state.gpus[gpu].mig_current == 0) {
      out.push_back({gpu, sim::kNone, sim::kNone});
      continue;
    }
    for (const sim::MigDevice& device : sim::mig_devices(state, gpu))
      if (visible.gi(minor, device.gi) && visible.ci(minor, device.gi, device.ci))
        out.push_back({gpu, device.gi, device.ci});
  }
  return out;
}

Result<Target> find_target(const sim::State& state, const sim::Visibility& visible,
                           const std::string& device) {
  const std::vector<Target> targets = visible_targets(state, visible);
  if (targets.empty()) {
    bool any = false;
    for (uint32_t gpu = 0; gpu < state.node.gpu_count; ++gpu)
      any = any || visible.gpu(state.gpus[gpu].minor);
    return fail(Code::kNotFound, "work: nothing to work on is visible here: {}",
                any ? "MIG is on, and no compute instance is there whose device nodes are, too"
                    : "no device node stands in the node's /dev");
  }
  if (device.empty()) return targets.front();
  for (const Target& t : targets) {
    const std::string uuid = t.gi == sim::kNone ? std::string(state.gpus[t.gpu].uuid)
                                                : sim::mig_uuid(state, t.gpu, t.gi, t.ci);
    if (device == uuid) return t;
    if (t.gi == sim::kNone && device == std::to_string(t.gpu)) return t;
    if (t.gi != sim::kNone &&
        device == fmt::format("{}:{}", t.gpu, *sim::mig_index(state, t.gpu, t.gi, t.ci)))
      return t;
  }
  return fail(Code::kNotFound, "work: no device {} is visible here", device);
}

}  // namespace

Result<int> sim_work(const WorkCommand& command) {
  TRY_ASSIGN(const std::string root, node_root(command.root));
  TRY_ASSIGN(const auto world, open_world(root));
  const auto memory = parse_bytes(command.memory);
  if (!memory)
    return fail(Code::kUsage, "work --memory {}: an amount such as 512Mi or 2Gi", command.memory);
  if (!(command.activity >= 0) || command.activity > 1)
    return fail(Code::kUsage, "work --activity {}: between 0 and 1", command.activity);
  const sim::Visibility visible(root);
  TRY_ASSIGN(const Target target, find_target(*world->snapshot(), visible, command.device));
  TRY_ASSIGN(const uint16_t slot, world->attach(uint32_t{1} << target.gpu));
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGHUP);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  sim::Work work;
  work.gpu = static_cast<uint8_t>(target.gpu);
  work.gi = target.gi;
  work.ci = target.ci;
  work.client = slot;
  work.kind = command.kind == "graphics" ? sim::WorkKind::kGraphics
              : command.kind == "mps"    ? sim::WorkKind::kMps
                                         : sim::WorkKind::kCompute;
  work.memory_bytes = *memory;
  work.activity_permille = static_cast<uint32_t>(std::lround(command.activity * 1000));
  TRY_ASSIGN(const sim::AddWork added,
             world->write([&](sim::State& s) { return sim::add_work(s, work); }));
  switch (added) {
    case sim::AddWork::kAdded:
      break;
    case sim::AddWork::kNoSuchDevice:
      return fail(Code::kGpuLost, "work: GPU {}: the device is gone", target.gpu);
    case sim::AddWork::kTableFull:
      return fail(Code::kFailed, "work: all {} places for work are taken", sim::kMaxWorks);
    case sim::AddWork::kOutOfMemory: {
      // As CUDA's out-of-memory ends a program that does not expect it: this process alone.
      fmt::print(stderr, "CUDA error: out of memory ({} asked for on GPU {})\n", command.memory,
                 target.gpu);
      std::fflush(stderr);
      const rlimit none{0, 0};
      ::setrlimit(RLIMIT_CORE, &none);
      ::raise(SIGABRT);
      return 1;
    }
  }
  fmt::print("working on GPU {}{}\n", target.gpu,
             target.gi == sim::kNone ? "" : fmt::format(" GI {} CI {}", target.gi, target.ci));
  std::fflush(stdout);
  if (command.seconds > 0) {
    const timespec limit{static_cast<time_t>(command.seconds),
                         static_cast<long>((command.seconds - std::floor(command.seconds)) * 1e9)};
    (void)::sigtimedwait(&ends, nullptr, &limit);
  } else {
    (void)::sigwaitinfo(&ends, nullptr);
  }
  world->detach();
  return 0;
}

namespace {

// By NVML's numbers.
constexpr auto kRecoveryActions =
    std::to_array<std::string_view>({"none", "reset", "reboot", "drain-p2p", "drain-and-reset"});

std::optional<uint8_t> recovery_action(std::string_view word) {
  const auto found = std::find(kRecoveryActions.begin(), kRecoveryActions.end(), word);
  if (found == kRecoveryActions.end()) return std::nullopt;
  return static_cast<uint8_t>(found - kRecoveryActions.begin());
}

// The library's exports, which faults can be of.
constexpr auto kCalls = std::to_array<std::string_view>({
#define EXPORT(name, ...) #name,
#define UNMODELLED(name) #name,
#define UNMODELLED_DEVICE(name) #name,
#include "simnvml/exports.inc"
#include "simnvml/unmodelled.inc"
#undef EXPORT
#undef UNMODELLED
#undef UNMODELLED_DEVICE
});

// A call that nobody makes would be a fault that never strikes.
Status check_call(const std::string& fault, const std::string& call) {
  const bool pattern = call.ends_with('*');
  const std::string_view head = std::string_view(call).substr(0, call.size() - (pattern ? 1 : 0));
  if (std::any_of(kCalls.begin(), kCalls.end(), [&](std::string_view one) {
        return pattern ? one.starts_with(head) : one == head;
      }))
    return {};
  const auto near = nearest(head, kCalls);
  return fail(Code::kUsage, "inject {} --call {}: NVML has no such call{}", fault,
              json_escape(call), near ? fmt::format("; did you mean {}?", *near) : "");
}

Status check_inject(const InjectCommand& command) {
  static constexpr auto kFaults =
      std::to_array<std::string_view>({"xid", "lose", "restore", "fail", "latency", "hang", "ecc",
                                       "remap", "recovery", "heat", "throttle", "clear"});
  if (std::find(kFaults.begin(), kFaults.end(), command.what) == kFaults.end()) {
    const auto near = nearest(command.what, kFaults);
    return fail(Code::kUsage,
                "inject: \"{}\" is no fault{}; there are xid, lose, restore, fail, latency, hang, "
                "ecc, remap, recovery, heat, throttle, clear",
                json_escape(command.what), near ? fmt::format("; did you mean {}?", *near) : "");
  }
  const bool of_call =
      command.what == "fail" || command.what == "latency" || command.what == "hang";
  if (of_call && !command.call.starts_with("nvml"))
    return fail(
        Code::kUsage,
        "inject {} --call {}: a call of NVML such as nvmlGpuInstanceDestroy, or nvmlDevice*",
        command.what, json_escape(command.call));
  if (of_call) TRY(check_call(command.what, command.call));
  if (command.what == "recovery" && !recovery_action(command.action))
    return fail(Code::kUsage, "inject recovery --action {}: one of {}", json_escape(command.action),
                fmt::join(kRecoveryActions, ", "));
  if (!of_call && command.what != "clear" && !command.gpu_given)
    return fail(Code::kUsage, "inject {}: which GPU? --gpu N", command.what);
  return {};
}

}  // namespace

Result<int> sim_inject(const InjectCommand& command) {
  TRY(check_inject(command));
  TRY_ASSIGN(const auto world, open_world(command.root));
  const uint32_t count = world->snapshot()->node.gpu_count;
  if (command.gpu_given && command.gpu >= count)
    return fail(Code::kNotFound, "inject: no GPU {}: this node has GPUs 0 to {}", command.gpu,
                count - 1);
  const bool of_gpu = command.what != "fail" && command.what != "latency" &&
                      command.what != "hang" && command.what != "clear";
  sim::Fault fault;
  fault.gpu =
      command.gpu_given ? static_cast<uint8_t>(command.gpu) : static_cast<uint8_t>(sim::kAnyGpu);
  fault.pid = command.pid;
  fault.after = command.after;
  fault.times = command.times;
  if (command.what == "fail") {
    constexpr std::string_view kPrefix = "NVML_ERROR_";
    const bool prefixed = command.ret.starts_with(kPrefix);
    sim::Ret ret{};
    if (!sim::parse_ret(std::string_view(command.ret).substr(prefixed ? kPrefix.size() : 0), ret))
      return fail(Code::kUsage,
                  "inject fail --return {}: a code of NVML such as IN_USE, UNKNOWN, GPU_IS_LOST",
                  command.ret);
    fault.ret = static_cast<int32_t>(ret);
  } else if (command.what == "latency") {
    const auto ns = parse_duration_ns(command.duration);
    if (!ns)
      return fail(Code::kUsage, "inject latency --for {}: a duration such as 200ms",
                  command.duration);
    fault.kind = sim::FaultKind::kLatency;
    fault.latency_ns = *ns;
  } else if (command.what == "hang") {
    fault.kind = sim::FaultKind::kHang;
  }
  TRY_ASSIGN(const Status done, world->write([&](sim::State& s) -> Status {
    sim::GpuLife& life = s.life.gpus[command.gpu % sim::kMaxGpus];
    if (command.what == "clear") {
      sim::clear_faults(s);
    } else if (!of_gpu) {
      return sim::add_fault(s, fault, command.call);
    } else if (command.what == "xid") {
      sim::push_event(
          s, {sim::kEventXid, command.code, command.gpu, command.gi.value_or(sim::kNoInstance),
              command.ci.value_or(sim::kNoInstance)});
    } else if (command.what == "lose") {
      s.gpus[command.gpu].lost = 1;
      sim::push_event(s, {sim::kEventXid, 79, command.gpu, sim::kNoInstance, sim::kNoInstance});
    } else if (command.what == "restore") {
      s.gpus[command.gpu].lost = 0;
    } else if (command.what == "ecc") {
      for (sim::EccCounts* counts : {&life.ecc_volatile, &life.ecc_aggregate}) {
        counts->corrected += command.corrected;
        counts->uncorrected += command.uncorrected;
      }
      if (command.corrected > 0)
        sim::push_event(s, {sim::kEventSingleBitEcc, command.corrected, command.gpu,
                            sim::kNoInstance, sim::kNoInstance});
      if (command.uncorrected > 0)
        sim::push_event(s, {sim::kEventDoubleBitEcc, command.uncorrected, command.gpu,
                            sim::kNoInstance, sim::kNoInstance});
    } else if (command.what == "remap") {
      life.remapped_corrected += static_cast<uint32_t>(command.corrected);
      life.remapped_uncorrected += static_cast<uint32_t>(command.uncorrected);
      if (command.failed)
        life.remap_failed = 1;
      else
        life.remap_pending = 1;
    } else if (command.what == "recovery") {
      life.recovery_action = *recovery_action(command.action);
    } else if (command.what == "heat") {
      life.heat_c = static_cast<uint8_t>(std::min(command.celsius, 255U));
    } else {
      life.throttle_reasons = command.reasons;
    }
    return {};
  }));
  TRY(done);
  return 0;
}

}  // namespace gpuslice::bin
