// What a device is: identity, modes.

#include <fmt/format.h>

#include <cstring>

#include "base/text.h"
#include "simnvml/board_calls.h"

namespace gpuslice::simnvml {
namespace {

std::string mig_name(const Call& c) {
  const gpu::Profile& gi = sim::gi_profile(c.state(), c.object.gpu, c.object.gi);
  const sim::Ci& ci = c.gpu().gis[c.object.gi].cis[c.object.ci];
  const std::string slices = ci.size < gi.slices ? fmt::format("{}c.", ci.size) : "";
  return fmt::format("{} MIG {}{}", c.board().name, slices, gi.name);
}

// The board's part number and a version: 692-2G520-0282-000 has G520.0282.02.02.
std::string inforom_image(const gpu::Board& board) {
  const auto parts = split(board.part_number, '-');
  if (parts.size() != 4 || parts[1].size() != 5) return "G506.0200.00.04";
  return fmt::format("{}.{}.{}", parts[1].substr(1), parts[2],
                     board.arch < gpu::Arch::kHopper ? "00.04" : "02.02");
}

}  // namespace

NVML_API int nvmlDeviceGetName(Handle h, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    return put_text(out, length, c.is_mig() ? mig_name(c) : std::string(c.board().name));
  });
}
NVML_API int nvmlDeviceGetUUID(Handle h, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    return put_text(out, length,
                    c.is_mig() ? sim::mig_uuid(c.state(), c.object.gpu, c.object.gi, c.object.ci)
                               : std::string(c.gpu().uuid));
  });
}
NVML_API int nvmlDeviceGetMinorNumber(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.gpu().minor; });
}
NVML_API int nvmlDeviceGetModuleId(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.object.gpu; });
}
NVML_API int nvmlDeviceGetIndex(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (c.is_mig()) {
      const auto index = sim::mig_index(c.state(), c.object.gpu, c.object.gi, c.object.ci);
      return index ? put(out, *index) : Ret::kNotFound;
    }
    uint32_t gpus[sim::kMaxGpus];
    const uint32_t n = visible_gpus(c, gpus);
    for (uint32_t i = 0; i < n; ++i)
      if (gpus[i] == c.object.gpu) return put(out, i);
    return Ret::kNotFound;
  });
}
NVML_API int nvmlDeviceGetSerial(Handle h, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return put_text(out, length, fmt::format("{:013}", c.gpu().pdi % 10'000'000'000'000ULL));
  });
}
NVML_API int nvmlDeviceGetVbiosVersion(Handle h, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOnly,
                     [&](Call& c) { return put_text(out, length, c.board().vbios); });
}
NVML_API int nvmlDeviceGetBoardPartNumber(Handle h, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOnly,
                     [&](Call& c) { return put_text(out, length, c.board().part_number); });
}
NVML_API int nvmlDeviceGetBoardId(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return uint32_t{c.gpu().pci_bus} << 8; });
}
NVML_API int nvmlDeviceGetMultiGpuBoard(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call&) { return 0; });
}
NVML_API int nvmlDeviceGetInforomImageVersion(Handle h, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOnly,
                     [&](Call& c) { return put_text(out, length, inforom_image(c.board())); });
}
NVML_API int nvmlDeviceGetInforomVersion(Handle h, uint32_t object, char* out, uint32_t length) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (object > 3) return Ret::kInvalidArgument;
    if (object > 1) return Ret::kNotSupported;
    constexpr std::string_view kOlder[] = {"2.0", "6.16"}, kHopper[] = {"2.1", "7.16"};
    return put_text(out, length,
                    c.board().arch < gpu::Arch::kHopper ? kOlder[object] : kHopper[object]);
  });
}
NVML_API int nvmlDeviceGetBrand(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOrMig,
                     [&](Call& c) { return put(out, uint32_t{c.board().brand}); });
}
NVML_API int nvmlDeviceGetArchitecture(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    constexpr uint32_t kNumbers[] = {6, 7, 8, 9, 10};  // Turing, Ampere, Ada, Hopper, Blackwell
    return put(out, kNumbers[static_cast<size_t>(c.board().arch)]);
  });
}
NVML_API int nvmlDeviceGetCudaComputeCapability(Handle h, int* major, int* minor) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (major == nullptr || minor == nullptr) return Ret::kInvalidArgument;
    *major = c.board().cc_major;
    *minor = c.board().cc_minor;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetNumGpuCores(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (c.gpu().mig_current != 0) return Ret::kNotSupported;
    return put(out, c.board().sm * c.board().cores_per_sm);
  });
}
NVML_API int nvmlDeviceGetMemoryBusWidth(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().memory_bus_bits; });
}
NVML_API int nvmlDeviceGetDisplayMode(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call&) { return 0; });
}
NVML_API int nvmlDeviceGetDisplayActive(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call&) { return 0; });
}
NVML_API int nvmlDeviceGetPersistenceMode(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.gpu().persistence_mode; });
}
NVML_API int nvmlDeviceSetPersistenceMode(Handle h, uint32_t mode) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (mode > 1) return Ret::kInvalidArgument;
    if (!c.caller().admin) return Ret::kNoPermission;
    return change(c, [&](sim::State& s) {
      s.gpus[c.object.gpu].persistence_mode = static_cast<uint8_t>(mode);
      return Ret::kSuccess;
    });
  });
}
NVML_API int nvmlDeviceGetComputeMode(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (c.is_mig())
      return put(out, uint32_t{c.gpu().gis[c.object.gi].cis[c.object.ci].compute_mode});
    return put(out, uint32_t{c.gpu().compute_mode});
  });
}
NVML_API int nvmlDeviceSetComputeMode(Handle h, uint32_t mode) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (mode > 3 || mode == 1) return mode == 1 ? Ret::kNotSupported : Ret::kInvalidArgument;
    if (!c.caller().admin) return Ret::kNoPermission;
    if (!c.is_mig() && c.gpu().mig_current != 0) return Ret::kNotSupported;
    return change(c, [&](sim::State& s) {
      sim::Gpu& gpu = s.gpus[c.object.gpu];
      (c.is_mig() ? gpu.gis[c.object.gi].cis[c.object.ci].compute_mode : gpu.compute_mode) =
          static_cast<uint8_t>(mode);
      return Ret::kSuccess;
    });
  });
}
NVML_API int nvmlDeviceGetVirtualizationMode(Handle h, uint32_t* out) {
  return board_value(__func__, h, out,
                     [](Call& c) { return c.state().node.passthrough != 0 ? 1 : 0; });
}
NVML_API int nvmlDeviceGetGspFirmwareMode(Handle h, uint32_t* enabled, uint32_t* by_default) {
  return device_call(__func__, h, kGpuOnly, [&](Call&) {
    if (enabled == nullptr || by_default == nullptr) return Ret::kInvalidArgument;
    *enabled = *by_default = 1;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetGspFirmwareVersion(Handle h, char* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return put_text(
        out, 80,
        std::string_view(c.state().node.driver, strnlen(c.state().node.driver, sim::kDriverName)));
  });
}
NVML_API int nvmlDeviceGetPdi(Handle h, PdiV1* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 580) return Ret::kFunctionNotFound;
    if (out->version != version_word(sizeof *out, 1)) return Ret::kArgumentVersionMismatch;
    out->value = c.gpu().pdi;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetAddressingMode(Handle h, AddressingModeV1* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 580) return Ret::kFunctionNotFound;
    if (out->version != version_word(sizeof *out, 1)) return Ret::kArgumentVersionMismatch;
    out->value = 0;  // neither HMM nor ATS
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetRepairStatus(Handle h, RepairStatusV1* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 580) return Ret::kFunctionNotFound;
    if (out->version != version_word(sizeof *out, 1)) return Ret::kArgumentVersionMismatch;
    out->channel_repair_pending = out->tpc_repair_pending = 0;
    return Ret::kSuccess;
  });
}

}  // namespace gpuslice::simnvml
