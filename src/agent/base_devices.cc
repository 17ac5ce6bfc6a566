#include "agent/base_devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

namespace gpuslice::agent {
namespace {

constexpr const char* kGpuResource = "nvidia.com/gpu";

std::string mig_resource(const std::string& profile) {
  std::string name = "nvidia.com/mig-" + profile;
  std::replace(name.begin(), name.end(), '+', '.');
  return name;
}

void judge_health(BaseDevice& base, const std::string& uuid, const Hardware& hardware) {
  const auto it = hardware.unhealthy.find(uuid);
  if (it == hardware.unhealthy.end() || !base.healthy) return;
  base.healthy = false;
  base.why_unhealthy = it->second;
}

BaseDevice base_of(const ports::Gpu& gpu, const Hardware& hardware) {
  BaseDevice base;
  base.resource = kGpuResource;
  base.uuid = gpu.uuid;
  base.gpu_uuid = gpu.uuid;
  base.index = std::to_string(gpu.index.value);
  base.gpu_index = gpu.index.value;
  base.minor = gpu.minor.value;
  base.numa_node = gpu.numa_node;
  judge_health(base, gpu.uuid, hardware);
  return base;
}

// A MIG device whose compute instance is smaller than its GPU instance has a name of its own
// ("1c.3g.20gb"); NVIDIA's plugin dies of it in mixed strategy. It is left out and said.
bool is_whole(const ports::MigDevice& device) {
  return device.profile.find("c.") == std::string::npos;
}

// What strategy single calls a kind: whole GPUs, or one profile on all of a GPU.
std::string kind_of(const ports::Gpu& gpu) {
  if (!gpu.mig_on()) return "whole";
  std::string kind;
  for (const ports::MigDevice& device : gpu.mig_devices) {
    if (!is_whole(device) || device.profile == kind) continue;
    if (!kind.empty()) return "several profiles";
    kind = device.profile;
  }
  return kind;  // "": nothing to offer, no kind
}

// Under strategy single all that is offered is of one kind: that of most GPUs, MIG before whole
// GPUs, the first GPU's among equals; `stays` goes before, where there is one of it. NVIDIA's
// plugin refuses the whole node for one odd GPU.
std::string single_kind(const std::vector<ports::Gpu>& gpus, const std::string& stays) {
  std::map<std::string, size_t> count;
  for (const ports::Gpu& gpu : gpus)
    if (const std::string kind = kind_of(gpu); !kind.empty()) ++count[kind];
  if (count.contains(stays)) return stays;
  std::string best = "whole";
  size_t most = 0;
  for (const ports::Gpu& gpu : gpus) {
    const std::string kind = kind_of(gpu);
    if (kind.empty() || kind == "several profiles") continue;
    const size_t n = count[kind];
    if (n > most || (n == most && best == "whole" && kind != "whole")) {
      best = kind;
      most = n;
    }
  }
  return best;
}

}  // namespace

BaseDevices::BaseDevices(const Hardware& hardware, std::string strategy,
                         std::vector<std::string>& warnings)
    : hardware_(hardware), strategy_(std::move(strategy)), warnings_(warnings) {
  if (strategy_ == "single") kind_ = single_kind(hardware.gpus, hardware.kind);
  for (const ports::Gpu& gpu : hardware.gpus) add(gpu);
}

void BaseDevices::add(const ports::Gpu& gpu) {
  if (!gpu.mig_on() || strategy_ == "none") {
    const bool is_odd = strategy_ == "single" && kind_ != "whole";
    if (is_odd) odd(gpu, "is whole");
    (is_odd ? kept_back_ : offered_).push_back(base_of(gpu, hardware_));
    if (!gpu.mig_on()) return;
    warnings_.push_back(fmt::format(
        "GPU {}: MIG is on, and migStrategy none offers it whole, none of its MIG devices: use "
        "migStrategy single or mixed, or switch MIG off",
        gpu.index.value));
    for (const ports::MigDevice& device : gpu.mig_devices) add_mig(gpu, device, kept_back_);
    return;
  }
  kept_back_.push_back(base_of(gpu, hardware_));
  if (gpu.mig_devices.empty())
    warnings_.push_back(fmt::format(
        "GPU {}: MIG is on and it has no instances: nothing of it is offered", gpu.index.value));
  const std::string kind = kind_of(gpu);
  const bool is_odd = strategy_ == "single" && !kind.empty() && kind != kind_;
  if (is_odd) odd(gpu, "has " + kind);
  for (const ports::MigDevice& device : gpu.mig_devices)
    add_mig(gpu, device, is_odd ? kept_back_ : offered_);
}

void BaseDevices::odd(const ports::Gpu& gpu, const std::string& what) {
  warnings_.push_back(fmt::format(
      "GPU {}: it {}, and under migStrategy single all of {} is {}: nothing of it is offered; "
      "give it the others' layout, or use migStrategy mixed",
      gpu.index.value, what, kGpuResource, kind_ == "whole" ? "whole GPUs" : kind_));
}

void BaseDevices::add_mig(const ports::Gpu& gpu, const ports::MigDevice& device,
                          std::vector<BaseDevice>& bases) {
  if (!is_whole(device)) {
    warnings_.push_back(
        fmt::format("GPU {}: MIG device {} ({}) has a compute instance smaller than its GPU "
                    "instance: it is not offered",
                    gpu.index.value, device.index, device.profile));
    return;
  }
  BaseDevice base = base_of(gpu, hardware_);
  base.resource = strategy_ == "single" ? kGpuResource : mig_resource(device.profile);
  base.uuid = device.uuid;
  base.index = fmt::format("{}:{}", gpu.index.value, device.index);
  base.mig_index = device.index;
  base.is_mig = true;
  base.gi = device.gi;
  base.ci = device.ci;
  judge_health(base, device.uuid, hardware_);
  bases.push_back(std::move(base));
}

}  // namespace gpuslice::agent
