#pragma once

// How long a ListAndWatch message gets. The kubelet takes at most 4 MiB (gRPC's default); a longer
// list would never arrive, so it is refused when it is configured, with the largest number of
// replicas that fits.

#include <cstddef>
#include <cstdint>

namespace gpuslice::config {

inline constexpr size_t kMaxListBytes = 4 * 1024 * 1024;

// A device in the message: its id's length, and whether it has a NUMA node. Counted as unhealthy,
// which is longer.
[[nodiscard]] size_t listed_device_bytes(size_t id_bytes, bool numa);

// The list of `devices` devices with ids of `id_bytes` ("GPU-…": 40), each offered `replicas` times
// as "<id>::<n>".
[[nodiscard]] size_t list_bytes(size_t devices, size_t id_bytes, bool numa, uint32_t replicas);

// The most replicas of which such a list fits; 0 if not even two do.
[[nodiscard]] uint32_t most_replicas(size_t devices, size_t id_bytes, bool numa);

}  // namespace gpuslice::config
