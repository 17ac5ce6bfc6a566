// Calls that are not modelled and take a struct with a version word: a word that NVML never had is
// told from a board that does not have the thing.

#include <algorithm>
#include <initializer_list>

#include "simnvml/session.h"

namespace gpuslice::simnvml {
namespace {

// `since`: the driver branch that brought the call.
Ret judge(const Call& c, uint32_t since, const uint32_t* info,
          std::initializer_list<uint32_t> words) {
  if (info == nullptr) return Ret::kInvalidArgument;
  if (driver_major(c.state()) < since) return Ret::kFunctionNotFound;
  return std::find(words.begin(), words.end(), *info) != words.end()
             ? Ret::kNotSupported
             : Ret::kArgumentVersionMismatch;
}

int of_device(const char* name, Handle h, uint32_t since, const uint32_t* info,
              std::initializer_list<uint32_t> words) {
  return device_call(name, h, kGpuOrMig, [&](Call& c) { return judge(c, since, info, words); });
}
int of_instance(const char* name, Handle h, uint32_t since, const uint32_t* info,
                std::initializer_list<uint32_t> words) {
  return instance_call(name, h, Kind::kGi, [&](Call& c) { return judge(c, since, info, words); });
}
int of_node(const char* name, uint32_t since, const uint32_t* info,
            std::initializer_list<uint32_t> words) {
  return node_call(name, [&](Call& c) { return judge(c, since, info, words); });
}

constexpr uint32_t k535 = 535, k560 = 560, k570 = 570, k575 = 575, k580 = 580;

}  // namespace

NVML_API int nvmlDeviceGetPlatformInfo(Handle h, uint32_t* info) {
  return of_device(__func__, h, k570, info, {0x0100002c, 0x0200002c});
}
NVML_API int nvmlDeviceSetClockOffsets(Handle h, uint32_t* info) {
  return of_device(__func__, h, k560, info, {0x01000018});
}
NVML_API int nvmlDeviceSetPowerManagementLimit_v2(Handle h, uint32_t* info) {
  return of_device(__func__, h, k535, info, {0x0200000c});
}
NVML_API int nvmlDeviceGetNvLinkInfo(Handle h, uint32_t* info) {
  return of_device(__func__, h, k580, info, {0x01000008, 0x0200064c});
}
NVML_API int nvmlGpuInstanceGetVgpuSchedulerState(Handle h, uint32_t* info) {
  return of_instance(__func__, h, k575, info, {0x01000018});
}
NVML_API int nvmlGpuInstanceSetVgpuSchedulerState(Handle h, uint32_t* info) {
  return of_instance(__func__, h, k575, info, {0x01000018});
}
NVML_API int nvmlSystemEventSetCreate(uint32_t* info) {
  return of_node(__func__, k575, info, {0x01000010});
}
NVML_API int nvmlSystemEventSetFree(uint32_t* info) {
  return of_node(__func__, k575, info, {0x01000010});
}
NVML_API int nvmlSystemRegisterEvents(uint32_t* info) {
  return of_node(__func__, k575, info, {0x01000018});
}
NVML_API int nvmlSystemEventSetWait(uint32_t* info) {
  return of_node(__func__, k575, info, {0x01000020});
}

}  // namespace gpuslice::simnvml
