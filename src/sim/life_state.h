#pragma once

// What runs on by itself on a GPU, and its error counters: plain numbers in the State. life.h gives
// them meaning.

#include <cstdint>

#include "sim/limits.h"

namespace gpuslice::sim {

// What a GPU wants done, in NVML's numbers (field 230).
inline constexpr uint8_t kRecoverByReset = 1;
inline constexpr uint8_t kRecoverByReboot = 2;
inline constexpr uint8_t kRecoverByDrainAndReset = 4;

struct EccCounts {
  uint64_t corrected = 0;
  uint64_t uncorrected = 0;
};

struct GpuLife {
  int64_t settled_ns = 0;         // energy and temperature are those of this node time
  uint64_t energy_mj = 0;         // since the driver initialised the GPU
  uint64_t energy_rest_uj = 0;    // below a millijoule
  int32_t temperature_mc = 0;     // millidegrees Celsius; 0: not settled yet
  uint32_t throttle_reasons = 0;  // NVML's bits, injected; the power cap comes on top by itself
  EccCounts ecc_volatile;         // since the driver was loaded
  EccCounts ecc_aggregate;        // in the life of the board
  uint32_t remapped_corrected = 0;
  uint32_t remapped_uncorrected = 0;
  uint8_t remap_pending = 0;
  uint8_t remap_failed = 0;
  uint8_t recovery_action = 0;  // injected; NVML's enum of what the GPU wants done
  uint8_t heat_c = 0;           // injected: it is that hot, whatever it does; 0: by what it does
  uint32_t pcie_replays = 0;
  uint64_t last_xid = 0;
};

// How busy a GPU was, from where the stretch before it ended: what the driver's samples remember.
struct Stretch {
  int64_t until_ns = 0;  // 0: not used
  uint32_t permille = 0;
  uint32_t pad_ = 0;
};
inline constexpr uint32_t kMaxStretches = 16;

struct LifeState {
  GpuLife gpus[kMaxGpus];
  Stretch past[kMaxGpus][kMaxStretches];  // the newest first
};

}  // namespace gpuslice::sim
