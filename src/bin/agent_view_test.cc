#include "bin/agent_view.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "config/device_plugin.h"

namespace gpuslice::bin {
namespace {

const std::string kGpu = "GPU-00000000-0000-5000-8000-000000000000";

// One GPU of two replicas, one of which a pod holds.
agent::AgentStatus status(const std::string& why_unhealthy) {
  agent::Hardware hardware;
  ports::Gpu gpu;
  gpu.uuid = kGpu;
  gpu.name = "A100";
  gpu.memory_total_bytes = uint64_t{40} << 30;
  hardware.gpus = {gpu};
  if (!why_unhealthy.empty()) hardware.unhealthy[kGpu] = why_unhealthy;
  const auto file = config::read_device_plugin(
      "sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 2}]}}",
      config::Compat::kStrict);
  const auto config = config::merge({}, file.config, "f");
  agent::AgentStatus out;
  out.gpus = std::make_shared<const std::vector<ports::Gpu>>(hardware.gpus);
  out.unhealthy = hardware.unhealthy;
  agent::ResourceStatus& resource = out.resources["nvidia.com/gpu"];
  resource.table =
      agent::make_device_table(hardware, config.value(), {}).value().resources.at("nvidia.com/gpu");
  (why_unhealthy.empty() ? resource.healthy : resource.unhealthy) = 2;
  out.pods = std::make_shared<const std::vector<ports::PodDevices>>(
      std::vector<ports::PodDevices>{{"ml", "train-0", "main", "nvidia.com/gpu", {kGpu + "::1"}}});
  out.xids[{kGpu, 79}] = 1;
  return out;
}

double value(const WebState& state, const std::string& family,
             const std::vector<metrics::Label>& labels) {
  for (const metrics::Family& one : state.families)
    if (one.name == family)
      for (const metrics::Sample& sample : one.samples)
        if (sample.labels == labels) return sample.value;
  ADD_FAILURE() << "no sample of " << family;
  return -1;
}

TEST(AgentView, WhatIsUnhealthyAndWhyIsInTheMetricsAndOnThePage) {
  const agent::AgentStatus shown = status("XID 79: the GPU has fallen off the bus");
  const WebState state = make_web_state({shown, nullptr, {}, "1", {}, {}});
  EXPECT_EQ(
      value(state, "gpuslice_devices", {{"resource", "nvidia.com/gpu"}, {"state", "healthy"}}), 0);
  EXPECT_EQ(
      value(state, "gpuslice_devices", {{"resource", "nvidia.com/gpu"}, {"state", "unhealthy"}}),
      2);
  EXPECT_EQ(value(state, "gpuslice_gpus", {{"state", "unhealthy"}}), 1);
  EXPECT_EQ(value(state, "gpuslice_device_unhealthy",
                  {{"device", kGpu}, {"reason", "XID 79: the GPU has fallen off the bus"}}),
            1);
  EXPECT_EQ(value(state, "gpuslice_xid_errors_total", {{"gpu", kGpu}, {"xid", "79"}}), 1);
  ASSERT_EQ(state.page.gpus.size(), 1U);
  EXPECT_EQ(state.page.gpus[0].health, "XID 79: the GPU has fallen off the bus");
  ASSERT_EQ(state.page.slices.size(), 2U);
  for (const http::PageSlice& slice : state.page.slices)
    EXPECT_EQ(slice.health, "XID 79: the GPU has fallen off the bus");
}

// Time-slicing sets no limit to anybody's memory: who shares with whom, and how full it is, is
// shown.
TEST(AgentView, HowFullASharedGpuIsAndWhoIsOnItIsOnThePage) {
  const agent::AgentStatus shown = status("");
  Samples samples;
  samples.gpus = *shown.gpus;
  samples.gpus[0].memory_used_bytes = uint64_t{39} << 30;
  const WebState state = make_web_state({shown, &samples, {}, "1", {}, {}});
  ASSERT_EQ(state.page.gpus.size(), 1U);
  EXPECT_EQ(state.page.gpus[0].memory_used_mib, 39U * 1024);
  EXPECT_EQ(state.page.gpus[0].memory_total_mib, 40U * 1024);
  const WebState later =
      make_web_state({shown, &samples, {}, "1", {}, {}, 0, 0, samples.taken + kSamplesShown});
  EXPECT_EQ(later.page.gpus[0].memory_used_mib, std::nullopt) << "that was then";
  ASSERT_EQ(state.page.slices.size(), 2U);
  EXPECT_EQ(state.page.slices[0].pod, "");
  EXPECT_EQ(state.page.slices[1].pod, "ml/train-0");
}

}  // namespace
}  // namespace gpuslice::bin
