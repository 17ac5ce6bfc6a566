#pragma once

// The library's contract in C: what it exports and models, as declarations. What it exports besides
// (unmodelled.inc) answers NOT_SUPPORTED.

#include "simnvml/abi.h"

#define NVML_API extern "C" __attribute__((visibility("default")))

namespace gpuslice::simnvml {

#define EXPORT(name, ...) NVML_API int name(__VA_ARGS__);
#include "simnvml/exports.inc"
#undef EXPORT
NVML_API const char* nvmlErrorString(int code);

}  // namespace gpuslice::simnvml
