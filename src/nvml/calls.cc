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

bool not_offered(api::Return code) {
  return code == api::kNotSupported || code == api::kFunctionNotFound;
}

namespace {
struct ProcessList {
  ports::Process::Kind kind;
  const char* name;
};
constexpr std::array<ProcessList, 3> kProcessLists = {
    {{ports::Process::Kind::kCompute, "nvmlDeviceGetComputeRunningProcesses_v3"},
     {ports::Process::Kind::kGraphics, "nvmlDeviceGetGraphicsRunningProcesses_v3"},
     {ports::Process::Kind::kMps, "nvmlDeviceGetMPSComputeRunningProcesses_v3"}}};
}  // namespace

std::vector<ports::Process> Calls::processes(api::Device device) {
  std::vector<ports::Process> out;
  for (const ProcessList& list : kProcessLists) read_processes(device, list.kind, list.name, out);
  return out;
}

Result<std::vector<ports::Process>> Calls::all_processes(const std::string& object,
                                                         api::Device device) {
  std::vector<ports::Process> out;
  for (const ProcessList& list : kProcessLists) {
    const api::Return code = read_processes(device, list.kind, list.name, out);
    if (code != api::kSuccess && !not_offered(code))
      return std::unexpected(error(object, list.name, code));
  }
  return out;
}

api::Return Calls::read_processes(api::Device device, ports::Process::Kind kind, const char* name,
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
  if (code != api::kSuccess) return code;
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
  return api::kSuccess;
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
