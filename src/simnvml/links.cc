// What a device is joined to: PCIe, NVLink, topology.

#include <fmt/format.h>

#include <cstring>

#include "simnvml/board_calls.h"

namespace gpuslice::simnvml {
namespace {

bool same_switch(const Call& a) { return a.board().links.nvswitch; }

}  // namespace

NVML_API int nvmlDeviceGetCurrPcieLinkGeneration(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().links.pcie_generation; });
}
NVML_API int nvmlDeviceGetMaxPcieLinkGeneration(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().links.pcie_generation; });
}
NVML_API int nvmlDeviceGetGpuMaxPcieLinkGeneration(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().links.pcie_generation; });
}
NVML_API int nvmlDeviceGetCurrPcieLinkWidth(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().links.pcie_width; });
}
NVML_API int nvmlDeviceGetMaxPcieLinkWidth(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().links.pcie_width; });
}
NVML_API int nvmlDeviceGetPcieSpeed(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) {
    return c.board().links.pcie_generation >= 5   ? 32000
           : c.board().links.pcie_generation == 4 ? 16000
                                                  : 8000;
  });
}
NVML_API int nvmlDeviceGetPcieLinkMaxSpeed(Handle h, uint32_t* out) {
  return board_value(__func__, h, out, [](Call& c) { return c.board().links.pcie_generation; });
}
NVML_API int nvmlDeviceGetPcieThroughput(Handle h, uint32_t counter, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (counter > 1) return Ret::kInvalidArgument;
    return put(out, counter == 0 ? vitals(c).pcie_tx_kbps : vitals(c).pcie_rx_kbps);
  });
}
NVML_API int nvmlDeviceGetPcieReplayCounter(Handle h, uint32_t* out) {
  return board_value(__func__, h, out,
                     [](Call& c) { return c.state().life.gpus[c.object.gpu].pcie_replays; });
}
NVML_API int nvmlDeviceGetNvLinkState(Handle h, uint32_t link, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (link >= 18) return Ret::kInvalidArgument;
    if (c.board().links.nvlinks == 0) return Ret::kNotSupported;
    return link >= c.board().links.nvlinks ? Ret::kInvalidArgument : put(out, 1U);
  });
}
NVML_API int nvmlDeviceGetNvLinkVersion(Handle h, uint32_t link, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (link >= 18) return Ret::kInvalidArgument;
    if (link >= c.board().links.nvlinks) return Ret::kNotSupported;
    return put(out, uint32_t{c.board().links.nvlink_version});
  });
}
NVML_API int nvmlDeviceGetNvLinkCapability(Handle h, uint32_t link, uint32_t capability,
                                           uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (link >= 18 || capability > 5) return Ret::kInvalidArgument;
    if (link >= c.board().links.nvlinks) return Ret::kNotSupported;
    return put(out, capability == 4 ? 0U : 1U);  // no SLI
  });
}
NVML_API int nvmlDeviceGetNvLinkErrorCounter(Handle h, uint32_t link, uint32_t counter,
                                             unsigned long long* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (link >= 18 || counter > 4) return Ret::kInvalidArgument;
    if (link >= c.board().links.nvlinks) return Ret::kNotSupported;
    return put(out, 0ULL);
  });
}
namespace {
// On an NVSwitch board every link ends at one of six switches; else links are spread over the peers
// of the same board.
std::optional<sim::Gpu> nvlink_peer(const Call& c, uint32_t link) {
  uint32_t peers[sim::kMaxGpus];
  uint32_t n = 0;
  for (uint32_t gpu = 0; gpu < c.state().node.gpu_count; ++gpu)
    if (gpu != c.object.gpu && c.state().gpus[gpu].board == c.gpu().board) peers[n++] = gpu;
  if (n == 0) return std::nullopt;
  return c.state().gpus[peers[link % n]];
}
Ret remote_pci(Call& c, uint32_t link, PciInfoV3& info) {
  if (link >= 18) return Ret::kInvalidArgument;
  if (link >= c.board().links.nvlinks) return Ret::kNotSupported;
  std::memset(&info, 0, sizeof info);
  if (same_switch(c)) {
    info.bus = 0xc0 + link % 6;
    info.pci_device_id = 0x1af110de;  // an NVSwitch
  } else if (const auto peer = nvlink_peer(c, link)) {
    info.domain = peer->pci_domain;
    info.bus = peer->pci_bus;
    info.device = peer->pci_device;
    info.pci_device_id = c.board().pci_device_id;
    info.pci_subsystem_id = c.board().pci_subsystem_id;
  } else {
    return Ret::kNotSupported;
  }
  const std::string text =
      fmt::format("{:08X}:{:02X}:{:02X}.0", info.domain, info.bus, info.device);
  std::memcpy(info.bus_id, text.data(), text.size());
  const std::string legacy = text.substr(4);
  std::memcpy(info.bus_id_legacy, legacy.data(), legacy.size());
  return Ret::kSuccess;
}
}  // namespace
NVML_API int nvmlDeviceGetNvLinkRemotePciInfo(Handle h, uint32_t link, PciInfoV2* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    PciInfoV3 info;
    if (const Ret ret = remote_pci(c, link, info); ret != Ret::kSuccess) return ret;
    std::memcpy(out, &info, 36);  // what v1 and v3 have in common
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetNvLinkRemotePciInfo_v2(Handle h, uint32_t link, PciInfoV3* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    return remote_pci(c, link, *out);
  });
}
NVML_API int nvmlDeviceGetNvLinkRemoteDeviceType(Handle h, uint32_t link, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (link >= c.board().links.nvlinks)
      return link >= 18 ? Ret::kInvalidArgument : Ret::kNotSupported;
    return put(out, same_switch(c) ? 2U : 0U);  // a switch, a GPU
  });
}

namespace {
template <class F>
int pair_call(const char* name, Handle a, Handle b, F&& f) {
  return device_call(name, a, kGpuOnly, [&](Call& c) {
    const auto other = object_of(c.state(), b);
    if (!other || other->kind != Kind::kGpu) return Ret::kInvalidArgument;
    return f(c, other->gpu);
  });
}
}  // namespace
NVML_API int nvmlDeviceGetTopologyCommonAncestor(Handle a, Handle b, uint32_t* out) {
  return pair_call(__func__, a, b, [&](Call& c, uint32_t other) {
    if (other == c.object.gpu) return Ret::kNotSupported;
    return put(out,
               c.state().gpus[other].numa_node == c.gpu().numa_node ? 40U : 50U);  // NODE, SYSTEM
  });
}
NVML_API int nvmlDeviceGetTopologyNearestGpus(Handle h, uint32_t level, uint32_t* count,
                                              Handle* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (count == nullptr) return Ret::kInvalidArgument;
    uint32_t gpus[sim::kMaxGpus];
    const uint32_t n = visible_gpus(c, gpus);
    uint32_t found = 0;
    for (uint32_t i = 0; i < n; ++i) {
      if (gpus[i] == c.object.gpu) continue;
      const uint32_t distance = c.state().gpus[gpus[i]].numa_node == c.gpu().numa_node ? 40 : 50;
      if (distance != level) continue;
      if (out != nullptr && found < *count)
        out[found] = handle_of(c.state(), {Kind::kGpu, gpus[i]});
      ++found;
    }
    *count = found;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetP2PStatus(Handle a, Handle b, uint32_t index, uint32_t* out) {
  return pair_call(__func__, a, b, [&](Call& c, uint32_t other) {
    if (index > 5) return Ret::kInvalidArgument;
    if (other == c.object.gpu) return put(out, index == 5 ? 0U : 5U);  // NOT_SUPPORTED
    const bool linked = c.board().links.nvlinks > 0 && c.state().gpus[other].board == c.gpu().board;
    const bool ok = c.gpu().mig_current == 0 && c.state().gpus[other].mig_current == 0 &&
                    (index != 2 || linked);
    return put(out, ok ? 0U : 2U);  // OK, GPU_NOT_SUPPORTED
  });
}
namespace {
Ret cpu_set(const Call& c, uint32_t words, unsigned long* out) {
  if (out == nullptr || words == 0) return Ret::kInvalidArgument;
  std::memset(out, 0, words * sizeof *out);
  for (uint32_t cpu = uint32_t{c.gpu().numa_node} * 8; cpu < (uint32_t{c.gpu().numa_node} + 1) * 8;
       ++cpu)
    if (cpu / 64 < words) out[cpu / 64] |= 1UL << (cpu % 64);
  return Ret::kSuccess;
}
}  // namespace
NVML_API int nvmlDeviceGetCpuAffinity(Handle h, uint32_t words, unsigned long* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) { return cpu_set(c, words, out); });
}
NVML_API int nvmlDeviceGetCpuAffinityWithinScope(Handle h, uint32_t words, unsigned long* out,
                                                 uint32_t scope) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return scope > 1 ? Ret::kInvalidArgument : cpu_set(c, words, out);
  });
}
NVML_API int nvmlDeviceGetMemoryAffinity(Handle h, uint32_t words, unsigned long* out,
                                         uint32_t scope) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr || words == 0 || scope > 1) return Ret::kInvalidArgument;
    std::memset(out, 0, words * sizeof *out);
    out[0] = 1UL << c.gpu().numa_node;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetNumaNodeId(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    // Coherent platforms only.
    return driver_major(c.state()) < 550 ? Ret::kFunctionNotFound : Ret::kNotSupported;
  });
}
namespace {
template <class Info>
Ret no_fabric(Info& info) {
  std::memset(info.cluster, 0, sizeof info.cluster);
  info.status = 0;
  info.clique = 0;
  info.state = 0;  // NOT_SUPPORTED: no multi-node NVLink here
  return Ret::kSuccess;
}
}  // namespace
NVML_API int nvmlDeviceGetGpuFabricInfo(Handle h, FabricInfo* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    return c.board().arch < gpu::Arch::kHopper ? Ret::kNotSupported : no_fabric(*out);
  });
}
NVML_API int nvmlDeviceGetGpuFabricInfoV(Handle h, FabricInfoV2* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 550) return Ret::kFunctionNotFound;
    const bool v3 = out->version == version_word(sizeof(FabricInfoV3), 3);
    if (!v3 && out->version != version_word(sizeof(FabricInfoV2), 2))
      return Ret::kArgumentVersionMismatch;
    if (c.board().arch < gpu::Arch::kHopper) return Ret::kNotSupported;
    out->health_mask = 0;
    if (v3) reinterpret_cast<FabricInfoV3*>(out)->health_summary = 0;
    return no_fabric(*out);
  });
}

}  // namespace gpuslice::simnvml
