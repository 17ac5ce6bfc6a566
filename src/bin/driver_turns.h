#pragma once

// Looks at the GPUs and changes of their MIG take turns with the driver, so that nobody sees a GPU
// half-way and answers come in the order of the looks; but a change that hangs in one call must not
// make all GPUs stale.
//
// Any thread. One look and one change at a time: each kind has a thread of its own.

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>

#include "base/time.h"
#include "nvml/calls.h"

namespace gpuslice::bin {

class DriverTurns {
 public:
  // A call of a change that lasts for longer hangs: on Ampere one call resets the GPU, for seconds.
  static constexpr Duration kPatience = std::chrono::seconds(30);

  // `watch`: of the session that changes work with; outlives this.
  explicit DriverTurns(const nvml::CallWatch& watch, Duration patience = kPatience)
      : watch_(watch), patience_(patience) {}

  struct Hanging {
    std::string gpu;   // UUID of the GPU under change; "" where it concerns several
    std::string call;  // "nvmlGpuInstanceCreateComputeInstance"
  };
  // Waits until no change is under way, or the one that is hangs; what that is.
  [[nodiscard]] std::optional<Hanging> begin_look();
  void end_look();

  // Waits until no look is under way.
  void begin_change(std::string gpu);
  void end_change();

 private:
  const nvml::CallWatch& watch_;
  const Duration patience_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool looking_ = false;
  bool changing_ = false;
  std::string gpu_;
};

}  // namespace gpuslice::bin
