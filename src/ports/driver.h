#pragma once

// What hardware the node has, for thread T0: asked for without waiting, read on the NVML worker's
// thread.

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "ports/nvml.h"

namespace gpuslice::ports {

// A GPU that did not answer: its place in the order, why, and which it is where others know that
// (index, minor, UUID, bus id and NUMA node alone).
struct SilentGpu {
  GpuIndex index;
  Error error;
  std::optional<Gpu> gpu = {};
};

struct Inventory {
  MonotonicTime begun{};  // when the look began; not told: just now
  DriverInfo driver;
  std::vector<Gpu> gpus;          // those that answered, by index
  std::vector<SilentGpu> silent;  // lost ones and such, by index
  Topology topology;              // of those that answered; read again only when they change
};

class Driver {
 public:
  virtual ~Driver() = default;
  // Reads the inventory anew; on_inventory() follows, unless the driver hangs. At most one question
  // is under way: a second one is the same.
  virtual void ask_inventory() = 0;
};

class DriverEvents {
 public:
  virtual ~DriverEvents() = default;
  // kUnavailable: no driver, no library (yet).
  virtual void on_inventory(Result<Inventory> inventory) = 0;
};

}  // namespace gpuslice::ports
