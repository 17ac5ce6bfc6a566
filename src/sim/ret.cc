#include "sim/ret.h"

#include <array>

namespace gpuslice::sim {
namespace {

struct Row {
  Ret ret;
  std::string_view name;
  const char* text;
};

// The sentences are those a client of the real library prints; scripts grep for them.
constexpr std::array<Row, 32> kRows{{
    {Ret::kSuccess, "SUCCESS", "Success"},
    {Ret::kUninitialized, "UNINITIALIZED", "Uninitialized"},
    {Ret::kInvalidArgument, "INVALID_ARGUMENT", "Invalid Argument"},
    {Ret::kNotSupported, "NOT_SUPPORTED", "Not Supported"},
    {Ret::kNoPermission, "NO_PERMISSION", "Insufficient Permissions"},
    {Ret::kAlreadyInitialized, "ALREADY_INITIALIZED", "Already Initialized"},
    {Ret::kNotFound, "NOT_FOUND", "Not Found"},
    {Ret::kInsufficientSize, "INSUFFICIENT_SIZE", "Insufficient Size"},
    {Ret::kInsufficientPower, "INSUFFICIENT_POWER", "Insufficient External Power"},
    {Ret::kDriverNotLoaded, "DRIVER_NOT_LOADED", "Driver Not Loaded"},
    {Ret::kTimeout, "TIMEOUT", "Timeout"},
    {Ret::kIrqIssue, "IRQ_ISSUE", "Interrupt Request Issue"},
    {Ret::kLibraryNotFound, "LIBRARY_NOT_FOUND", "NVML Shared Library Not Found"},
    {Ret::kFunctionNotFound, "FUNCTION_NOT_FOUND", "Function Not Found"},
    {Ret::kCorruptedInforom, "CORRUPTED_INFOROM", "Corrupted infoROM"},
    {Ret::kGpuIsLost, "GPU_IS_LOST", "GPU is lost"},
    {Ret::kResetRequired, "RESET_REQUIRED", "GPU requires reset"},
    {Ret::kOperatingSystem, "OPERATING_SYSTEM", "GPU access blocked by the operating system"},
    {Ret::kLibRmVersionMismatch, "LIB_RM_VERSION_MISMATCH", "Driver/library version mismatch"},
    {Ret::kInUse, "IN_USE", "In use by another client"},
    {Ret::kMemory, "MEMORY", "Insufficient Memory"},
    {Ret::kNoData, "NO_DATA", "No data"},
    {Ret::kVgpuEccNotSupported, "VGPU_ECC_NOT_SUPPORTED", "vGPU ECC not supported"},
    {Ret::kInsufficientResources, "INSUFFICIENT_RESOURCES", "Insufficient Resources"},
    {Ret::kFreqNotSupported, "FREQ_NOT_SUPPORTED", "Invalid Frequency"},
    {Ret::kArgumentVersionMismatch, "ARGUMENT_VERSION_MISMATCH", "Argument version mismatch"},
    {Ret::kDeprecated, "DEPRECATED", "Requested functionality has been deprecated"},
    {Ret::kNotReady, "NOT_READY", "System is not in ready state"},
    {Ret::kGpuNotFound, "GPU_NOT_FOUND", "No supported GPUs were found"},
    {Ret::kInvalidState, "INVALID_STATE",
     "Resource not in correct state to perform requested operation"},
    {Ret::kResetTypeNotSupported, "RESET_TYPE_NOT_SUPPORTED",
     "Reset type is not supported for given device"},
    {Ret::kUnknown, "UNKNOWN", "Unknown Error"},
}};

const Row& row_of(uint32_t code) {
  for (const Row& row : kRows)
    if (static_cast<uint32_t>(row.ret) == code) return row;
  return kRows.back();
}

}  // namespace

std::string_view ret_name(Ret ret) { return row_of(static_cast<uint32_t>(ret)).name; }

bool parse_ret(std::string_view name, Ret& out) {
  for (const Row& row : kRows) {
    if (row.name != name) continue;
    out = row.ret;
    return true;
  }
  return false;
}

const char* ret_text(uint32_t code) { return row_of(code).text; }

}  // namespace gpuslice::sim
