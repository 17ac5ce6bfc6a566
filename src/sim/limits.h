#pragma once

// How large a simulated node can be. These sizes are part of the world file's format: changing one
// changes sizeof(State), and an older file is refused.

#include <cstddef>
#include <cstdint>

namespace gpuslice::sim {

inline constexpr uint32_t kMaxGpus =
    32;  // of one node; /dev/nvidia minors 0..31 exist in MIG's scheme
inline constexpr uint32_t kMaxGis =
    15;  // GI ids 0..14: one full, two halves, four quarters, eight eighths
inline constexpr uint32_t kMaxCis = 8;         // CI ids 0..7
inline constexpr uint32_t kMaxMigDevices = 8;  // compute instances of one GPU that can be at once
inline constexpr uint32_t kMaxClients = 1024;  // processes that have NVML open on a node
inline constexpr uint32_t kMaxSubscriptions =
    2048;                                    // instances held by open handles, all processes
inline constexpr uint32_t kMaxWorks = 1024;  // pieces of work, all GPUs
inline constexpr size_t kClientName = 32;    // bytes with the NUL
inline constexpr size_t kDriverName = 24;
inline constexpr size_t kMaxStateBytes = size_t{1} << 20;

inline constexpr uint8_t kNone = 0xff;               // no GPU instance, no compute instance
inline constexpr uint16_t kNoClient = 0xffff;        // nobody in particular
inline constexpr uint32_t kNoInstance = 0xffffffff;  // NVML's word for "not on MIG"

}  // namespace gpuslice::sim
