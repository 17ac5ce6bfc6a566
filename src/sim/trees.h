#pragma once

// The files of a driver under the node's root: /dev/nvidia*, /proc/driver/nvidia*, /proc/devices,
// /proc/modules, /sys/bus/pci/devices, and links to the library. tree_of() says what should be
// there, purely; sync_trees() makes it so, under the writer's lock, and mends whatever a killed
// writer left.

#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"
#include "sim/state.h"

namespace gpuslice::sim {

struct TreeEntry {
  enum class Kind : uint8_t { kFile, kLink, kNode };
  Kind kind = Kind::kFile;
  std::string text;    // of a file; where a link points
  uint32_t major = 0;  // of a node
  uint32_t minor = 0;
  uint32_t mode = 0444;
  friend bool operator==(const TreeEntry&, const TreeEntry&) = default;
};

// By path below the root, without leading '/'. Folders follow from the paths.
using Tree = std::map<std::string, TreeEntry>;

// The interrupt of a GPU, as /proc and NVML tell it.
[[nodiscard]] constexpr uint32_t irq_of(uint32_t gpu) { return 40 + gpu; }

// What changes with the world. Files that stay (the library) are laid by lay_driver_files().
[[nodiscard]] Tree tree_of(const State& state);
// Differs when tree_of() does.
[[nodiscard]] uint64_t tree_key(const State& state);
// Makes the folders that belong to the driver hold just tree_of(state). Idempotent. Each change
// announces itself as an abort point. kNoPermission from inside a namespace that walls the tree
// off: the next writer does it.
[[nodiscard]] Status sync_trees(const std::string& root, const State& state);

// Once, when a node is made: usr/lib/x86_64-linux-gnu/libnvidia-ml.so* and libcuda.so*,
// usr/bin/nvidia-smi. `library` and `program` are our own files that are copied there.
[[nodiscard]] Status lay_driver_files(const std::string& root, const std::string& driver,
                                      const std::string& library, const std::string& program);

inline constexpr uint32_t kNvidiaMajor = 195;
inline constexpr uint32_t kUvmMajor = 511;
inline constexpr uint32_t kCapsMajor = 236;

}  // namespace gpuslice::sim
