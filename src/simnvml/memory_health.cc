// ECC and the memory's health.

#include "simnvml/board_calls.h"

namespace gpuslice::simnvml {

NVML_API int nvmlDeviceGetEccMode(Handle h, uint32_t* current, uint32_t* pending) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (current == nullptr || pending == nullptr) return Ret::kInvalidArgument;
    *current = c.gpu().ecc_current;
    *pending = c.gpu().ecc_pending;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetDefaultEccMode(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call&) { return 1; });
}
NVML_API int nvmlDeviceGetTotalEccErrors(Handle h, uint32_t type, uint32_t counter,
                                         unsigned long long* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (type > 1 || counter > 1) return Ret::kInvalidArgument;
    if (c.gpu().ecc_current == 0) return Ret::kNotSupported;
    const sim::GpuLife& life = c.state().life.gpus[c.object.gpu];
    const sim::EccCounts& counts = counter == 0 ? life.ecc_volatile : life.ecc_aggregate;
    return put(out,
               static_cast<unsigned long long>(type == 0 ? counts.corrected : counts.uncorrected));
  });
}
NVML_API int nvmlDeviceGetMemoryErrorCounter(Handle h, uint32_t type, uint32_t counter,
                                             uint32_t location, unsigned long long* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (type > 1 || counter > 1 || location > 7) return Ret::kInvalidArgument;
    if (location != 2 && location != 7) {
      // Hopper and its followers count device memory and SRAM alone.
      const bool cache = location == 0 || location == 1 || location == 3;
      return cache && c.board().arch < gpu::Arch::kHopper ? put(out, 0ULL) : Ret::kNotSupported;
    }
    const sim::GpuLife& life = c.state().life.gpus[c.object.gpu];
    const sim::EccCounts& counts = counter == 0 ? life.ecc_volatile : life.ecc_aggregate;
    if (location == 7) return put(out, 0ULL);  // SRAM
    return put(out,
               static_cast<unsigned long long>(type == 0 ? counts.corrected : counts.uncorrected));
  });
}
NVML_API int nvmlDeviceClearEccErrorCounts(Handle h, uint32_t counter) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (counter > 1) return Ret::kInvalidArgument;
    if (!c.caller().admin) return Ret::kNoPermission;
    return change(c, [&](sim::State& s) {
      sim::GpuLife& life = s.life.gpus[c.object.gpu];
      (counter == 0 ? life.ecc_volatile : life.ecc_aggregate) = {};
      return Ret::kSuccess;
    });
  });
}
NVML_API int nvmlDeviceGetRemappedRows(Handle h, uint32_t* corrected, uint32_t* uncorrected,
                                       uint32_t* pending, uint32_t* failed) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (corrected == nullptr || uncorrected == nullptr || pending == nullptr || failed == nullptr)
      return Ret::kInvalidArgument;
    if (c.board().arch < gpu::Arch::kAmpere) return Ret::kNotSupported;
    if (c.gpu().mig_current != 0 && sim::mig_devices(c.state(), c.object.gpu).count > 0)
      return Ret::kNotSupported;
    const sim::GpuLife& life = c.state().life.gpus[c.object.gpu];
    *corrected = life.remapped_corrected;
    *uncorrected = life.remapped_uncorrected;
    *pending = life.remap_pending;
    *failed = life.remap_failed;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetRowRemapperHistogram(Handle h, RowRemapHistogram* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (c.board().arch < gpu::Arch::kAmpere) return Ret::kNotSupported;
    *out = {c.board().remap_banks, 0, 0, 0, 0};
    return Ret::kSuccess;
  });
}
namespace {
Ret no_retired_pages(const Call& c, uint32_t cause, uint32_t* count) {
  if (cause > 1) return Ret::kInvalidArgument;
  if (c.board().arch >= gpu::Arch::kAmpere) return Ret::kNotSupported;  // rows are remapped instead
  return put(count, 0U);
}
}  // namespace
NVML_API int nvmlDeviceGetRetiredPages(Handle h, uint32_t cause, uint32_t* count,
                                       unsigned long long*) {
  return device_call(__func__, h, kGpuOnly,
                     [&](Call& c) { return no_retired_pages(c, cause, count); });
}
NVML_API int nvmlDeviceGetRetiredPages_v2(Handle h, uint32_t cause, uint32_t* count,
                                          unsigned long long*, unsigned long long*) {
  return device_call(__func__, h, kGpuOnly,
                     [&](Call& c) { return no_retired_pages(c, cause, count); });
}
NVML_API int nvmlDeviceGetRetiredPagesPendingStatus(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) { return no_retired_pages(c, 0, out); });
}

}  // namespace gpuslice::simnvml
