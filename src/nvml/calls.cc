#include "nvml/calls.h"

#include <algorithm>

namespace gpuslice::nvml {
namespace {

// Processes of one list; a GPU with more shows this many.
constexpr unsigned kMaxProcesses = 1024;
// A process's name, as nvmlSystemGetProcessName writes it.
constexpr unsigned kProcessNameBytes = 512;

}  // namespace

Code code_of_return(int nvml_return) {
  switch (nvml_return) {
    case 2:   // INVALID_ARGUMENT
    case 5:   // ALREADY_INITIALIZED
    case 7:   // INSUFFICIENT_SIZE
    case 25:  // ARGUMENT_VERSION_MISMATCH
      return Code::kInternal;
    case 3:   // NOT_SUPPORTED
    case 13:  // FUNCTION_NOT_FOUND
    case 23:  // INSUFFICIENT_RESOURCES
    case 26:  // DEPRECATED
    case 30:  // RESET_TYPE_NOT_SUPPORTED
      return Code::kImpossible;
    case 4:  // NO_PERMISSION
      return Code::kNoPermission;
    case 6:   // NOT_FOUND
    case 28:  // GPU_NOT_FOUND
      return Code::kNotFound;
    case 1:   // UNINITIALIZED
    case 9:   // DRIVER_NOT_LOADED
    case 12:  // LIBRARY_NOT_FOUND
    case 18:  // LIB_RM_VERSION_MISMATCH
    case 27:  // NOT_READY
      return Code::kUnavailable;
    case 10:  // TIMEOUT
      return Code::kTimeout;
    case 15:  // GPU_IS_LOST
      return Code::kGpuLost;
    case 16:  // RESET_REQUIRED
      return Code::kNeedsReset;
    case 19:  // IN_USE
      return Code::kInUse;
    default:
      return Code::kFailed;
  }
}

bool merely_absent(api::Return code) {
  return code == api::kNotSupported || code == api::kNoPermission || code == api::kNotFound ||
         code == api::kFunctionNotFound || code == api::kInvalidArgument;
}

std::vector<ports::Process> Calls::processes(api::Device device) {
  std::vector<ports::Process> out;
  read_processes(device, ports::Process::Kind::kCompute, "nvmlDeviceGetComputeRunningProcesses_v3",
                 out);
  read_processes(device, ports::Process::Kind::kGraphics,
                 "nvmlDeviceGetGraphicsRunningProcesses_v3", out);
  read_processes(device, ports::Process::Kind::kMps, "nvmlDeviceGetMPSComputeRunningProcesses_v3",
                 out);
  return out;
}

void Calls::read_processes(api::Device device, ports::Process::Kind kind, const char* name,
                           std::vector<ports::Process>& out) {
  std::vector<api::ProcessInfo> list(64);
  auto count = static_cast<unsigned>(list.size());
  api::Return code = call(name, device, &count, list.data());
  // Processes come while one asks: room for some more than it says.
  while (code == api::kInsufficientSize && list.size() < kMaxProcesses) {
    list.resize(std::min<size_t>(kMaxProcesses, std::max<size_t>(list.size() * 2, count + 16)));
    count = static_cast<unsigned>(list.size());
    code = call(name, device, &count, list.data());
  }
  if (code != api::kSuccess) return;
  list.resize(std::min<size_t>(count, list.size()));
  for (const api::ProcessInfo& info : list) {
    ports::Process process;
    process.pid = info.pid;
    process.kind = kind;
    if (info.used_memory != api::kUnknownMemory) process.memory_bytes = info.used_memory;
    if (info.gpu_instance != api::kNoInstance) process.gi = GiId{info.gpu_instance};
    if (info.compute_instance != api::kNoInstance) process.ci = CiId{info.compute_instance};
    process.name = process_name(info.pid);
    out.push_back(std::move(process));
  }
}

std::string Calls::process_name(unsigned pid) {
  std::array<char, kProcessNameBytes> buffer{};
  if (pid == 0 ||
      call("nvmlSystemGetProcessName", pid, buffer.data(), kProcessNameBytes) != api::kSuccess) {
    return "";
  }
  return text_of(buffer);
}

}  // namespace gpuslice::nvml
