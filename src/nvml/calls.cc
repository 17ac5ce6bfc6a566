#include "nvml/calls.h"

#include <algorithm>

namespace gpuslice::nvml {
namespace {

// Processes of one list; a GPU with more shows this many.
constexpr unsigned kMaxProcesses = 1024;
// A process's name, as nvmlSystemGetProcessName writes it.
constexpr unsigned kProcessNameBytes = 512;

}  // namespace

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
