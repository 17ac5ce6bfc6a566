#pragma once

// UUIDs of GPUs and MIG devices as the driver derives them (open-gpu-kernel-modules,
// nvGenerateGpuUuid and nvGenerateSmcUuid): RFC 4122 version 5, SHA-1 over a namespace, the text
// "NVIDIA GPU" and tagged numbers. The same GPU, GPU instance id and engine give the same MIG UUID
// again after destroy, create and reboot.

#include <array>
#include <cstdint>
#include <string>

namespace gpuslice::gpu {

using UuidBytes = std::array<uint8_t, 16>;

// `chip_id` identifies the chip, `pdi` the device ("per-device identifier", nvmlDeviceGetPdi).
[[nodiscard]] UuidBytes gpu_uuid(uint16_t chip_id, uint64_t pdi);
// `gi` is the GPU instance id, `engine` the first graphics engine of the compute instance.
[[nodiscard]] UuidBytes mig_uuid(uint16_t chip_id, uint64_t pdi, uint32_t gi, uint32_t engine);

// "4d1c1a2b-…" in lower case; the caller adds "GPU-" or "MIG-".
[[nodiscard]] std::string uuid_text(const UuidBytes& uuid);

}  // namespace gpuslice::gpu
