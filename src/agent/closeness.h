#pragma once

// Which whole GPUs belong together: how near each two of a table are, and the set of some size that
// is nearest. Pure, deterministic.
//
// A pair scores 100 for each NVLink between the two (with an NVSwitch: as many as the one with
// fewer links has into it), and by the nearest common ancestor on PCIe 60 (one board), 50 (one
// switch), 40 (several), 30 (one host bridge), 20 (one NUMA node) or 10 (across the system), as
// NVIDIA's allocator does, which knows nothing of NVSwitch. What is not told, or told differently
// from the two ends, counts as the lesser; without a common ancestor the NUMA nodes speak.

#include <cstdint>
#include <span>
#include <vector>

#include "ports/nvml.h"

namespace gpuslice::agent {

// Of a device as the topology knows it.
struct ClosenessGpu {
  GpuIndex index;
  int64_t numa_node = -1;
};

class Closeness {
 public:
  Closeness() = default;
  Closeness(std::span<const ClosenessGpu> gpus, const ports::Topology& topology);

  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] uint32_t score(size_t a, size_t b) const { return scores_[a * size_ + b]; }

 private:
  size_t size_ = 0;
  std::vector<uint32_t> scores_;  // symmetric
};

// Up to this many GPUs to choose from the answer is exact; beyond, it is found greedily and then
// improved by swaps.
inline constexpr size_t kMaxExact = 16;

// `count` of `available` (ascending, each once), among them all of `must`: the set whose pairs
// score most; of equals the one whose loss hurts the others least; of equals the one with the
// lowest numbers. Ascending. `count` is at least must.size() and at most available.size().
[[nodiscard]] std::vector<size_t> nearest_set(const Closeness& closeness,
                                              std::span<const size_t> available,
                                              std::span<const size_t> must, size_t count);

}  // namespace gpuslice::agent
