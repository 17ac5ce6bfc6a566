#pragma once

// GPUs and MIG devices as an inventory shows them, configurations, and what is offered by them.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "agent/device_table.h"
#include "config/device_plugin.h"

namespace gpuslice::agent {

inline std::string uuid(uint32_t n) { return fmt::format("GPU-00000000-0000-5000-8000-{:012}", n); }

// The first `near` of them belong to NUMA node 0, the others to 1.
inline Hardware gpus(uint32_t count, uint32_t near = 4) {
  Hardware hardware;
  for (uint32_t i = 0; i < count; ++i) {
    ports::Gpu gpu;
    gpu.index = GpuIndex{i};
    gpu.minor = GpuMinor{i};
    gpu.uuid = uuid(i);
    gpu.numa_node = i < near ? 0 : 1;
    hardware.gpus.push_back(gpu);
  }
  return hardware;
}

inline config::Effective config_of(const std::string& text) {
  const config::DevicePluginFile file = config::read_device_plugin(text, config::Compat::kStrict);
  EXPECT_FALSE(file.problems.has_errors()) << text;
  return config::merge({}, file.config, "f").value();
}

inline config::Effective shared(uint32_t replicas, const std::string& more = "") {
  return config_of(fmt::format(
      "sharing: {{timeSlicing: {{resources: [{{name: gpu, replicas: {}{}}}]}}}}", replicas, more));
}

inline std::vector<std::string> ids(const DeviceTable& table,
                                    const std::string& resource = "nvidia.com/gpu") {
  std::vector<std::string> out;
  const auto it = table.resources.find(resource);
  if (it != table.resources.end())
    for (const ports::Device& device : it->second->list->devices) out.push_back(device.id);
  return out;
}

inline ports::MigDevice mig(uint32_t gpu, uint32_t index, const std::string& profile) {
  ports::MigDevice device;
  device.index = index;
  device.uuid = fmt::format("MIG-{}-{}", gpu, index);
  device.profile = profile;
  device.gi = GiId{7 + index};
  return device;
}
inline void partition(ports::Gpu& gpu, const std::vector<std::string>& profiles) {
  gpu.mig = ports::MigMode{true, true};
  for (const std::string& profile : profiles)
    gpu.mig_devices.push_back(
        mig(gpu.index.value, static_cast<uint32_t>(gpu.mig_devices.size()), profile));
}
inline config::Effective strategy(const std::string& word, const std::string& more = "") {
  return config_of(fmt::format("{{flags: {{migStrategy: {}}}{}}}", word, more));
}

}  // namespace gpuslice::agent
