#include "config/list_size.h"

#include <algorithm>

namespace gpuslice::config {
namespace {

size_t varint_bytes(size_t value) {
  size_t n = 1;
  while (value >= 128) {
    value >>= 7;
    ++n;
  }
  return n;
}

// A length-delimited field with a tag below 16.
size_t field_bytes(size_t length) { return 1 + varint_bytes(length) + length; }

}  // namespace

size_t listed_device_bytes(size_t id_bytes, bool numa) {
  constexpr size_t kUnhealthy = 9;
  // NUMANode{ID} at most 11 bytes: a tag and a varint; nodes are small numbers, so two.
  const size_t topology = numa ? field_bytes(field_bytes(2)) : 0;
  return field_bytes(field_bytes(id_bytes) + field_bytes(kUnhealthy) + topology);
}

size_t list_bytes(size_t devices, size_t id_bytes, bool numa, uint32_t replicas) {
  if (replicas <= 1) return devices * listed_device_bytes(id_bytes, numa);
  size_t sum = 0;
  size_t digits = 1;
  for (uint64_t first = 0, next = 10; first < replicas; first = next, next *= 10, ++digits) {
    const uint64_t count = std::min<uint64_t>(next, replicas) - first;
    sum += count * listed_device_bytes(id_bytes + 2 + digits, numa);
  }
  return sum * devices;
}

uint32_t most_replicas(size_t devices, size_t id_bytes, bool numa) {
  uint32_t low = 0;
  uint32_t high = kMaxListBytes;
  while (low < high) {  // the largest that fits
    const uint32_t middle = low + (high - low + 1) / 2;
    if (list_bytes(devices, id_bytes, numa, middle) <= kMaxListBytes)
      low = middle;
    else
      high = middle - 1;
  }
  return low < 2 ? 0 : low;
}

}  // namespace gpuslice::config
