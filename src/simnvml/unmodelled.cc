// Every name that a driver exports and that is not modelled: a program that calls it is told
// NOT_SUPPORTED, after the checks that every call makes. Go programs leave all of them undefined,
// so a name that is missing would end them.

#include "simnvml/session.h"

namespace gpuslice::simnvml {

#define UNMODELLED(name)                                               \
  NVML_API int name() {                                                \
    return node_call(#name, [](Call&) { return Ret::kNotSupported; }); \
  }
// The first argument of these is a device; the rest is not looked at.
#define UNMODELLED_DEVICE(name)                                                             \
  NVML_API int name(Handle device) {                                                        \
    return device_call(#name, device, kGpuOrMig, [](Call&) { return Ret::kNotSupported; }); \
  }
#include "simnvml/unmodelled.inc"

}  // namespace gpuslice::simnvml
