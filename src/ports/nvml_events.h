#pragma once

// What a GPU's driver reports by itself, as values, and who hears it.

#include <cstdint>
#include <optional>
#include <string>

#include "base/ids.h"

namespace gpuslice::ports {

struct GpuEvent {
  enum class Kind : uint8_t { kXid, kDoubleBitEcc };
  std::string gpu;  // UUID of the physical GPU
  Kind kind = Kind::kXid;
  uint64_t xid = 0;        // of kXid; 999: the driver does not know which
  std::optional<GiId> gi;  // nothing: of no instance, it is the whole GPU's
  std::optional<CiId> ci;  // nothing: all of the GPU instance's
  friend bool operator==(const GpuEvent&, const GpuEvent&) = default;
};

class GpuEvents {
 public:
  virtual ~GpuEvents() = default;
  // T0. Each event once, in the order in which the driver told them; those of a time in which the
  // driver was let go are never told.
  virtual void on_gpu_event(const GpuEvent& event) = 0;
};

}  // namespace gpuslice::ports
