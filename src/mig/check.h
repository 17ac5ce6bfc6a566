#pragma once

// What whoever changes GPUs asks of them: are they as wanted, is a change ready, and what an
// interrupted one left. For the thread of NVML, as change.h.

#include <optional>
#include <string>
#include <vector>

#include "mig/change.h"

namespace gpuslice::mig {

// The mode and the MIG devices of a GPU, each by ids, profile and place: to be compared.
[[nodiscard]] std::string devices_of(const ports::Gpu& gpu);

// MIG is off, and is to be: there is no instance, whatever the GPU offers.
[[nodiscard]] bool off_as_wanted(const ports::MigMode& mode, const Wish& wish);

// What a look at the hardware says of a wish.
struct Checked {
  GpuName gpu;
  bool as_wanted = false;
  std::string devices;  // of one that is: devices_of() it
  std::optional<Error> refused;
  std::vector<Holder> holders;     // those in the way, when refused for them
  std::vector<std::string> going;  // … and the UUIDs of what would go without them
};

// Changes nothing. `holders` may be null, and is not asked about a GPU that is as wanted.
[[nodiscard]] Checked check(ports::Mig& mig, const HolderSource& holders, const GpuName& gpu,
                            const Wish& wish);

// What is ready to be executed, or the report that says why nothing is.
struct Prepared {
  bool ready = false;
  std::vector<std::string> going;  // UUIDs of devices that the change takes away
  Report report;                   // when not ready
};
[[nodiscard]] Prepared prepare(Change& change, const Wish& wish);

// Finishes or reverts what the journals of these GPUs (UUIDs) say: a report for each, those that do
// not answer last, as lost.
[[nodiscard]] std::vector<Report> recover_all(const Ports& ports, const Options& options,
                                              const std::vector<std::string>& gpus);

}  // namespace gpuslice::mig
