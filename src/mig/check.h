#pragma once

// What is asked of several GPUs at once: is it as wanted, and what an interrupted change left. For
// the thread of NVML, as change.h.

#include <optional>
#include <string>
#include <vector>

#include "mig/change.h"

namespace gpuslice::mig {

// What a look at the hardware says of a wish.
struct Checked {
  GpuName gpu;
  bool as_wanted = false;
  std::optional<Error> refused;
  std::vector<Holder> holders;     // those in the way, when refused for them
  std::vector<std::string> going;  // … and the UUIDs of what would go without them
};

// Changes nothing. `holders` may be null.
[[nodiscard]] Checked check(ports::Mig& mig, const HolderSource& holders, const GpuName& gpu,
                            const Wish& wish);

// Finishes or reverts what the journals of these GPUs (UUIDs) say: a report for each, those that do
// not answer last, as lost.
[[nodiscard]] std::vector<Report> recover_all(const Ports& ports, const Options& options,
                                              const std::vector<std::string>& gpus);

}  // namespace gpuslice::mig
