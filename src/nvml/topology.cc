#include "nvml/topology.h"

#include <algorithm>
#include <map>

#include "base/text.h"

namespace gpuslice::nvml {
namespace {

// Links that a GPU may have at most, in any driver so far.
constexpr unsigned kMostNvlinks = 36;
// NVML's enum of what a link ends at.
constexpr unsigned kRemoteGpu = 0;
constexpr unsigned kRemoteSwitch = 2;

struct Known {
  GpuIndex index;
  api::Device device = nullptr;
  std::string bus_id;
};

std::string bus_id_of(const api::PciInfo& pci) {
  return to_lower(std::string_view(pci.bus_id, ::strnlen(pci.bus_id, sizeof pci.bus_id)));
}

void read_nvlinks(Calls& calls, const Known& gpu, const std::vector<Known>& all,
                  std::map<GpuIndex, uint32_t>& direct, ports::Topology& out) {
  for (unsigned link = 0; link < kMostNvlinks; ++link) {
    const auto active = calls.value("nvmlDeviceGetNvLinkState", gpu.device, link);
    if (!active) break;  // no such link, or no NVLink at all
    if (*active == 0) continue;
    api::PciInfo pci{};
    const bool told =
        calls.call("nvmlDeviceGetNvLinkRemotePciInfo_v2", gpu.device, link, &pci) == api::kSuccess;
    const auto kind = calls.value("nvmlDeviceGetNvLinkRemoteDeviceType", gpu.device, link);
    const std::string remote = bus_id_of(pci);
    const auto peer = std::find_if(all.begin(), all.end(),
                                   [&](const Known& g) { return told && g.bus_id == remote; });
    if (peer != all.end())
      ++direct[peer->index];
    else if (kind == kRemoteSwitch || (told && kind != kRemoteGpu))
      // A driver that does not tell the kind: the end is none of the GPUs, so it is a switch.
      ++out.switch_links[gpu.index];
  }
}

}  // namespace

ports::Topology read_topology(Calls& calls, const std::vector<GpuIndex>& gpus) {
  std::vector<Known> all;
  for (const GpuIndex index : gpus) {
    Known gpu{index, nullptr, ""};
    api::PciInfo pci{};
    if (calls.call("nvmlDeviceGetHandleByIndex_v2", index.value, &gpu.device) != api::kSuccess ||
        calls.call("nvmlDeviceGetPciInfo_v3", gpu.device, &pci) != api::kSuccess)
      continue;
    gpu.bus_id = bus_id_of(pci);
    all.push_back(std::move(gpu));
  }
  ports::Topology out;
  for (const Known& from : all) {
    std::map<GpuIndex, uint32_t> direct;
    read_nvlinks(calls, from, all, direct, out);
    for (const Known& to : all) {
      if (to.index == from.index) continue;
      ports::GpuLink link{from.index, to.index, std::nullopt, direct[to.index]};
      link.ancestor = calls.value("nvmlDeviceGetTopologyCommonAncestor", from.device, to.device);
      out.links.push_back(link);
    }
  }
  return out;
}

}  // namespace gpuslice::nvml
