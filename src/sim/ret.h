#pragma once

// What a simulated driver call answers. The values are NVML's return codes (facts: NVML header,
// codes 0..30 and 999), so that the exported library casts and every other reader sees the same
// words.

#include <cstdint>
#include <string_view>

namespace gpuslice::sim {

enum class Ret : uint32_t {
  kSuccess = 0,
  kUninitialized = 1,
  kInvalidArgument = 2,
  kNotSupported = 3,
  kNoPermission = 4,
  kAlreadyInitialized = 5,
  kNotFound = 6,
  kInsufficientSize = 7,
  kInsufficientPower = 8,
  kDriverNotLoaded = 9,
  kTimeout = 10,
  kIrqIssue = 11,
  kLibraryNotFound = 12,
  kFunctionNotFound = 13,
  kCorruptedInforom = 14,
  kGpuIsLost = 15,
  kResetRequired = 16,
  kOperatingSystem = 17,
  kLibRmVersionMismatch = 18,
  kInUse = 19,
  kMemory = 20,
  kNoData = 21,
  kVgpuEccNotSupported = 22,
  kInsufficientResources = 23,
  kFreqNotSupported = 24,
  kArgumentVersionMismatch = 25,
  kDeprecated = 26,
  kNotReady = 27,
  kGpuNotFound = 28,
  kInvalidState = 29,
  kResetTypeNotSupported = 30,
  kUnknown = 999,
};

// "IN_USE" of kInUse: the words that `inject fail --return` takes. "UNKNOWN" for a number that is
// no code.
[[nodiscard]] std::string_view ret_name(Ret ret);

// The code of a word of ret_name(); false when there is none (`out` is then untouched).
[[nodiscard]] bool parse_ret(std::string_view name, Ret& out);

// The sentence of nvmlErrorString for any integer.
[[nodiscard]] const char* ret_text(uint32_t code);

}  // namespace gpuslice::sim
