// Init, shutdown, errors, and what is asked of the system.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "base/text.h"
#include "sim/ret.h"
#include "simnvml/session.h"

namespace gpuslice::simnvml {
namespace {

std::string_view driver(const Call& call) {
  return {call.state().node.driver, strnlen(call.state().node.driver, sim::kDriverName)};
}

// The CUDA version that a driver branch brings (release notes).
int cuda_version(uint32_t major) {
  switch (major) {
    case 535:
      return 12020;
    case 550:
      return 12040;
    case 570:
      return 12080;
    default:
      return 13000;
  }
}

std::string process_name(uint32_t pid) {
  std::ifstream in(fmt::format("/proc/{}/cmdline", pid), std::ios::binary);
  std::string text;
  std::getline(in, text, '\0');
  return text;
}

int do_init(const char* name, uint32_t flags) noexcept {
  try {
    return to_int(init(name, flags));
  } catch (...) {
    return to_int(Ret::kUnknown);
  }
}

}  // namespace

NVML_API int nvmlInit() { return do_init(__func__, 0); }
NVML_API int nvmlInit_v2() { return do_init(__func__, 0); }
NVML_API int nvmlInitWithFlags(uint32_t flags) { return do_init(__func__, flags); }
NVML_API int nvmlShutdown() {
  try {
    return to_int(shutdown());
  } catch (...) {
    return to_int(Ret::kUnknown);
  }
}
NVML_API const char* nvmlErrorString(int code) {
  return sim::ret_text(static_cast<uint32_t>(code));
}

NVML_API int nvmlSystemGetDriverVersion(char* out, uint32_t length) {
  return node_call(__func__, [&](Call& c) { return put_text(out, length, driver(c)); });
}
NVML_API int nvmlSystemGetNVMLVersion(char* out, uint32_t length) {
  return node_call(__func__, [&](Call& c) {
    const uint32_t major = driver_major(c.state());
    return put_text(out, length, fmt::format("{}.{}", major >= 580 ? 13 : 12, driver(c)));
  });
}
NVML_API int nvmlSystemGetCudaDriverVersion(int* out) {
  return node_call(__func__,
                   [&](Call& c) { return put(out, cuda_version(driver_major(c.state()))); });
}
NVML_API int nvmlSystemGetCudaDriverVersion_v2(int* out) {
  return node_call(__func__,
                   [&](Call& c) { return put(out, cuda_version(driver_major(c.state()))); });
}
// NVIDIA's name of the line of development: one driver's was measured, of others there is none to
// tell.
NVML_API int nvmlSystemGetDriverBranch(DriverBranchV1* info, uint32_t length) {
  return node_call(__func__, [&](Call& c) {
    if (info == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 560) return Ret::kFunctionNotFound;
    if (driver(c) != "580.159.04") return Ret::kNotSupported;
    if (info->version != version_word(sizeof *info, 1)) return Ret::kArgumentVersionMismatch;
    return put_text(info->branch, std::min<uint32_t>(length, sizeof info->branch), "r582_49");
  });
}
NVML_API int nvmlSystemGetProcessName(uint32_t pid, char* out, uint32_t length) {
  return node_call(__func__, [&](Call&) {
    if (out == nullptr || length == 0) return Ret::kInvalidArgument;
    const std::string name = process_name(pid);
    if (name.empty()) return Ret::kNotFound;
    // The driver cuts a name that is too long.
    return put_text(out, length, std::string_view(name).substr(0, length - 1));
  });
}
NVML_API int nvmlSystemGetHicVersion(uint32_t* count, HwbcEntry*) {
  return node_call(__func__, [&](Call&) { return put(count, 0U); });
}
NVML_API int nvmlUnitGetCount(uint32_t* count) {
  return node_call(__func__, [&](Call&) { return put(count, 0U); });
}
// There are no S-class units, so no index is one.
NVML_API int nvmlUnitGetHandleByIndex(uint32_t, Handle*) {
  return node_call(__func__, [](Call&) { return Ret::kInvalidArgument; });
}
NVML_API int nvmlSystemGetTopologyGpuSet(uint32_t cpu, uint32_t* count, Handle* out) {
  return node_call(__func__, [&](Call& c) {
    if (count == nullptr) return Ret::kInvalidArgument;
    uint32_t gpus[sim::kMaxGpus];
    const uint32_t visible = visible_gpus(c, gpus);
    uint32_t near = 0;
    Handle found[sim::kMaxGpus];
    for (uint32_t i = 0; i < visible; ++i) {
      // Eight CPUs a NUMA node.
      if (c.state().gpus[gpus[i]].numa_node == cpu / 8)
        found[near++] = handle_of(c.state(), {Kind::kGpu, gpus[i]});
    }
    if (out != nullptr) {
      if (*count < near) return Ret::kInsufficientSize;
      std::copy_n(found, near, out);
    }
    *count = near;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlSystemGetConfComputeCapabilities(void*) {
  return node_call(__func__, [](Call&) { return Ret::kNotSupported; });
}

// --- finding devices
// ----------------------------------------------------------------------------------------------

namespace {

std::string bus_id(const sim::Gpu& gpu, bool legacy) {
  return legacy
             ? fmt::format("{:04X}:{:02X}:{:02X}.0", gpu.pci_domain, gpu.pci_bus, gpu.pci_device)
             : fmt::format("{:08X}:{:02X}:{:02X}.0", gpu.pci_domain, gpu.pci_bus, gpu.pci_device);
}

Ret count_gpus(Call& c, uint32_t* count, bool all_must_work) {
  uint32_t gpus[sim::kMaxGpus];
  const uint32_t n = visible_gpus(c, gpus);
  for (uint32_t i = 0; all_must_work && i < n; ++i)
    if (c.state().gpus[gpus[i]].lost != 0) return Ret::kGpuIsLost;
  return put(count, n);
}

Ret by_index(Call& c, uint32_t index, Handle* out, bool all_must_work) {
  if (out == nullptr) return Ret::kInvalidArgument;
  uint32_t gpus[sim::kMaxGpus];
  const uint32_t n = visible_gpus(c, gpus);
  if (index >= n) return Ret::kInvalidArgument;
  for (uint32_t i = 0; all_must_work && i < n; ++i)
    if (c.state().gpus[gpus[i]].lost != 0) return Ret::kGpuIsLost;
  if (c.state().gpus[gpus[index]].lost != 0) return Ret::kGpuIsLost;
  *out = handle_of(c.state(), {Kind::kGpu, gpus[index]});
  return Ret::kSuccess;
}

// Two or three hexadecimal numbers with colons, and perhaps a function.
bool is_bus_id(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  if (const size_t dot = text.rfind('.'); dot != std::string_view::npos) {
    if (text.size() != dot + 2 || !kDigits.contains(text.back())) return false;
    text = text.substr(0, dot);
  }
  const auto parts = split(text, ':');
  if (parts.size() != 2 && parts.size() != 3) return false;
  return std::all_of(parts.begin(), parts.end(), [&](std::string_view part) {
    return !part.empty() && part.size() <= 8 &&
           part.find_first_not_of(kDigits) == std::string_view::npos;
  });
}

// The GPU that `is` says, which nobody else is. What it looks like first: whether we may see it is
// asked of the file system.
template <class Is>
Ret by_gpu(Call& c, Handle* out, const Is& is) {
  for (uint32_t index = 0; index < c.state().node.gpu_count; ++index) {
    const sim::Gpu& gpu = c.state().gpus[index];
    if (!is(gpu)) continue;
    if (!c.visible.gpu(gpu.minor)) return Ret::kNotFound;
    if (gpu.lost != 0) return Ret::kGpuIsLost;
    *out = handle_of(c.state(), {Kind::kGpu, index});
    return Ret::kSuccess;
  }
  return Ret::kNotFound;
}

// "00000000:07:00.0", "0000:07:00.0", "07:00.0"; case does not matter.
Ret by_bus_id(Call& c, const char* text, Handle* out) {
  if (text == nullptr || out == nullptr) return Ret::kInvalidArgument;
  const std::string wanted = to_lower(std::string_view(text, strnlen(text, 64)));
  if (!is_bus_id(wanted)) return Ret::kInvalidArgument;
  return by_gpu(c, out, [&](const sim::Gpu& gpu) {
    const std::string legacy = to_lower(bus_id(gpu, true));
    return wanted == to_lower(bus_id(gpu, false)) || wanted == legacy || wanted == legacy.substr(5);
  });
}

Ret by_mig_uuid(Call& c, std::string_view uuid, Handle* out) {
  std::optional<sim::Instance> found;
  constexpr std::string_view kOld = "MIG-GPU-";  // before R470: MIG-GPU-<uuid>/<gi>/<ci>
  if (uuid.starts_with(kOld)) {
    const auto parts = split(uuid.substr(4), '/');
    for (uint32_t gpu = 0; parts.size() == 3 && gpu < c.state().node.gpu_count; ++gpu) {
      const auto gi = parse_u64(parts[1]);
      const auto ci = parse_u64(parts[2]);
      if (parts[0] != c.state().gpus[gpu].uuid || !gi || !ci || *gi >= sim::kMaxGis ||
          *ci >= sim::kMaxCis)
        continue;
      if (c.state().gpus[gpu].gis[*gi].cis[*ci].live != 0)
        found = {gpu, static_cast<uint8_t>(*gi), static_cast<uint8_t>(*ci)};
    }
  } else {
    found = sim::find_mig_uuid(c.state(), uuid);
  }
  if (!found || !c.visible.gpu(c.state().gpus[found->gpu].minor) ||
      !visible_mig(c, found->gpu, found->gi, found->ci))
    return Ret::kNotFound;
  if (c.state().gpus[found->gpu].lost != 0) return Ret::kGpuIsLost;
  *out = handle_of(c.state(), {Kind::kMig, found->gpu, found->gi, found->ci});
  return Ret::kSuccess;
}

Ret by_uuid(Call& c, std::string_view uuid, Handle* out) {
  if (out == nullptr) return Ret::kInvalidArgument;
  if (uuid.starts_with("MIG-")) return by_mig_uuid(c, uuid, out);
  return by_gpu(c, out, [&](const sim::Gpu& gpu) { return uuid == gpu.uuid; });
}

}  // namespace

NVML_API int nvmlDeviceGetCount(uint32_t* count) {
  return node_call(__func__, [&](Call& c) { return count_gpus(c, count, true); });
}
NVML_API int nvmlDeviceGetCount_v2(uint32_t* count) {
  return node_call(__func__, [&](Call& c) { return count_gpus(c, count, false); });
}
NVML_API int nvmlDeviceGetHandleByIndex(uint32_t index, Handle* out) {
  return node_call(__func__, [&](Call& c) { return by_index(c, index, out, true); });
}
NVML_API int nvmlDeviceGetHandleByIndex_v2(uint32_t index, Handle* out) {
  return node_call(__func__, [&](Call& c) { return by_index(c, index, out, false); });
}
NVML_API int nvmlDeviceGetHandleByPciBusId(const char* bus, Handle* out) {
  return node_call(__func__, [&](Call& c) { return by_bus_id(c, bus, out); });
}
NVML_API int nvmlDeviceGetHandleByPciBusId_v2(const char* bus, Handle* out) {
  return node_call(__func__, [&](Call& c) { return by_bus_id(c, bus, out); });
}
NVML_API int nvmlDeviceGetHandleByUUID(const char* uuid, Handle* out) {
  return node_call(__func__, [&](Call& c) {
    if (uuid == nullptr) return Ret::kInvalidArgument;
    return by_uuid(c, std::string_view(uuid, strnlen(uuid, 128)), out);
  });
}
NVML_API int nvmlDeviceGetHandleByUUIDV(const UuidV1* uuid, Handle* out) {
  return node_call(__func__, [&](Call& c) {
    if (uuid == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 575) return Ret::kFunctionNotFound;
    if (uuid->version != version_word(sizeof(UuidV1), 1)) return Ret::kArgumentVersionMismatch;
    if (uuid->type == 1)
      return by_uuid(c, std::string_view(uuid->value.text, strnlen(uuid->value.text, 41)), out);
    if (uuid->type != 2) return Ret::kInvalidArgument;
    std::string text;
    for (size_t i = 0; i < 16; ++i) {
      if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
      text += fmt::format("{:02x}", uuid->value.bytes[i]);
    }
    const Ret gpu = by_uuid(c, "GPU-" + text, out);
    return gpu == Ret::kNotFound ? by_uuid(c, "MIG-" + text, out) : gpu;
  });
}
NVML_API int nvmlDeviceGetHandleBySerial(const char* serial, Handle* out) {
  return node_call(__func__, [&](Call& c) {
    if (serial == nullptr || out == nullptr) return Ret::kInvalidArgument;
    const std::string_view wanted(serial, strnlen(serial, 64));
    return by_gpu(c, out, [&](const sim::Gpu& gpu) {
      return wanted == fmt::format("{:013}", gpu.pdi % 10'000'000'000'000ULL);
    });
  });
}

// --- PCI
// ----------------------------------------------------------------------------------------------------------

namespace {

void copy_text(char* out, size_t size, const std::string& text) {
  std::memset(out, 0, size);
  std::copy_n(text.data(), std::min(text.size(), size - 1), out);
}

template <class Info>
void fill_pci(const Call& c, Info& info) {
  info.domain = c.gpu().pci_domain;
  info.bus = c.gpu().pci_bus;
  info.device = c.gpu().pci_device;
  info.pci_device_id = c.board().pci_device_id;
  info.pci_subsystem_id = c.board().pci_subsystem_id;
}

// The first 36 bytes are common to v1 and v2; v2's reserved words are zeroed, v1 has none.
Ret pci_v2(Call& c, PciInfoV2* out, bool with_reserved) {
  if (out == nullptr) return Ret::kInvalidArgument;
  copy_text(out->bus_id, sizeof out->bus_id, bus_id(c.gpu(), true));
  fill_pci(c, *out);
  if (with_reserved) std::memset(out->reserved, 0, sizeof out->reserved);
  return Ret::kSuccess;
}

}  // namespace

NVML_API int nvmlDeviceGetPciInfo(Handle h, PciInfoV2* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) { return pci_v2(c, out, false); });
}
NVML_API int nvmlDeviceGetPciInfo_v2(Handle h, PciInfoV2* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) { return pci_v2(c, out, true); });
}
NVML_API int nvmlDeviceGetPciInfo_v3(Handle h, PciInfoV3* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    copy_text(out->bus_id_legacy, sizeof out->bus_id_legacy, bus_id(c.gpu(), true));
    copy_text(out->bus_id, sizeof out->bus_id, bus_id(c.gpu(), false));
    fill_pci(c, *out);
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetPciInfoExt(Handle h, PciInfoExtV1* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 550) return Ret::kFunctionNotFound;
    if (out->version != version_word(sizeof *out, 1)) return Ret::kArgumentVersionMismatch;
    copy_text(out->bus_id, sizeof out->bus_id, bus_id(c.gpu(), false));
    fill_pci(c, *out);
    out->base_class = c.board().pci_class >> 16;
    out->sub_class = (c.board().pci_class >> 8) & 0xff;
    return Ret::kSuccess;
  });
}

}  // namespace gpuslice::simnvml
