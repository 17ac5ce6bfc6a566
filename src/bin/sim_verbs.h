#pragma once

// The verbs of gpuslice-sim that concern the node itself. Each returns the exit status or an error
// for main to print.

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace gpuslice::bin {

struct CreateCommand {
  std::string root;
  std::string gpus = "4xA100-SXM4-40GB";
  std::string driver = "580.65.06";
  std::string library;  // "": beside this program, ../lib/libnvidia-ml.so.1
  uint64_t seed = 1;
  bool mirrored = false;
  bool swept = false;
  bool strict_clients = false;
  bool passthrough = false;
  bool virtual_clock = false;
  bool max_mig_while_off = false;
};
[[nodiscard]] Result<int> sim_create(const CreateCommand& command);

struct ExecCommand {
  std::string root;
  bool private_mounts = false;
  std::vector<std::string> command;
};
// Becomes the command; returns only if it cannot.
[[nodiscard]] Result<int> sim_exec(const ExecCommand& command);

[[nodiscard]] Result<int> sim_show(const std::string& root);

// Bus ids ("00000000:07:00.0") or indices; all GPUs when both are empty.
[[nodiscard]] Result<int> sim_reset(const std::string& root, const std::vector<uint32_t>& gpus,
                                    const std::vector<std::string>& bus_ids);
[[nodiscard]] Result<int> sim_reboot(const std::string& root);
[[nodiscard]] Result<int> sim_driver_reload(const std::string& root);
// Advances the node's clock.
[[nodiscard]] Result<int> sim_time(const std::string& root, const std::string& advance);

struct WorkCommand {
  std::string root;    // "": GPUSLICE_SIM_ROOT
  std::string device;  // UUID, index or gpu:mig index; "": the first that is seen
  std::string memory = "0";
  double activity = 0.5;
  double seconds = 0;  // 0: until a signal
  std::string kind = "compute";
};
[[nodiscard]] Result<int> sim_work(const WorkCommand& command);

struct InjectCommand {
  std::string root;
  std::string what;  // xid, lose, restore, fail, latency, hang, ecc, remap, recovery, heat, …
  uint32_t gpu = 0;
  bool gpu_given = false;
  uint64_t code = 79;
  std::optional<uint32_t> gi, ci;
  std::string call, ret = "UNKNOWN";
  uint32_t after = 0, times = 0;
  int32_t pid = 0;
  std::string duration = "1s";
  uint64_t corrected = 0, uncorrected = 0;
  uint32_t reasons = 0x20;       // software thermal slowdown
  bool failed = false;           // remap: nothing is left to remap to
  std::string action = "reset";  // recovery: none, reset, reboot, drain-p2p, drain-and-reset
  uint32_t celsius = 0;          // heat: 0 ends it
};
[[nodiscard]] Result<int> sim_inject(const InjectCommand& command);

}  // namespace gpuslice::bin
