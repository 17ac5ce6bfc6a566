#include "agent/preferred.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "agent/device_table.h"
#include "agent/offers_for_test.h"

namespace gpuslice::agent {
namespace {

std::vector<std::string> prefer(const ResourceTable& table,
                                const std::vector<std::string>& available, uint32_t size,
                                Policy policy, std::vector<std::string> must = {}) {
  return preferred(table, {{available.begin(), available.end()}, std::move(must), size}, policy)
      .value();
}

TEST(Preferred, DistributedSpreadsAndPackedPacks) {
  const DeviceTable table = make_device_table(gpus(2), shared(2), {}).value();
  const ResourceTable& gpu = *table.resources.at("nvidia.com/gpu");
  const std::vector<std::string> all = ids(table);
  EXPECT_EQ(prefer(gpu, all, 2, Policy::kDistributed),
            (std::vector<std::string>{uuid(0) + "::0", uuid(1) + "::0"}));
  EXPECT_EQ(prefer(gpu, all, 2, Policy::kPacked),
            (std::vector<std::string>{uuid(0) + "::0", uuid(0) + "::1"}));
  // GPU 0 has one in use already.
  const std::vector<std::string> rest = {uuid(0) + "::1", uuid(1) + "::0", uuid(1) + "::1"};
  EXPECT_EQ(prefer(gpu, rest, 1, Policy::kDistributed), std::vector<std::string>{uuid(1) + "::0"});
  EXPECT_EQ(prefer(gpu, rest, 1, Policy::kPacked), std::vector<std::string>{uuid(0) + "::1"});
}

TEST(Preferred, WhatMustBeIncludedComesFirst) {
  const DeviceTable table = make_device_table(gpus(2), shared(2), {}).value();
  EXPECT_EQ(prefer(*table.resources.at("nvidia.com/gpu"), ids(table), 2, Policy::kDistributed,
                   {uuid(1) + "::1"}),
            (std::vector<std::string>{uuid(1) + "::1", uuid(0) + "::0"}));
}

TEST(Preferred, OddRequestsAreRefused) {
  const DeviceTable table = make_device_table(gpus(1), shared(2), {}).value();
  const ResourceTable& gpu = *table.resources.at("nvidia.com/gpu");
  EXPECT_EQ(preferred(gpu, {{uuid(0) + "::0"}, {}, 2}, Policy::kPacked).error().message,
            "nvidia.com/gpu: 2 devices asked for, 1 available");
  EXPECT_FALSE(
      preferred(gpu, {{uuid(0) + "::0"}, {uuid(0) + "::0", uuid(0) + "::1"}, 1}, Policy::kPacked)
          .has_value());
}

TEST(Preferred, WhatWasWithdrawnAMomentAgoIsTakenLastAndFailsNoPod) {
  const DeviceTable table = make_device_table(gpus(1), shared(2), {}).value();
  const ResourceTable& gpu = *table.resources.at("nvidia.com/gpu");
  EXPECT_EQ(prefer(gpu, {"a", uuid(0) + "::1", "b"}, 2, Policy::kPacked),
            (std::vector<std::string>{uuid(0) + "::1", "a"}));
  EXPECT_EQ(prefer(gpu, {uuid(0) + "::1", "b"}, 1, Policy::kPacked, {"b"}),
            std::vector<std::string>{"b"});
  const DeviceTable whole = make_device_table(gpus(2), config_of("version: v1"), {}).value();
  EXPECT_EQ(prefer(*whole.resources.at("nvidia.com/gpu"), {"a", uuid(0), uuid(1)}, 3,
                   Policy::kDistributed),
            (std::vector<std::string>{uuid(0), uuid(1), "a"}));
}

TEST(Preferred, SpreadTakesDistinctGpusFirst) {
  const DeviceTable table = make_device_table(gpus(3), shared(4), {}).value();
  const ResourceTable& gpu = *table.resources.at("nvidia.com/gpu");
  // GPU 2 has one free, the others four: distributed would not touch it.
  std::vector<std::string> available;
  for (const std::string& id : ids(table))
    if (!id.starts_with(uuid(2)) || id.ends_with("::3")) available.push_back(id);
  EXPECT_EQ(prefer(gpu, available, 3, Policy::kDistributed),
            (std::vector<std::string>{uuid(0) + "::0", uuid(1) + "::0", uuid(0) + "::1"}));
  EXPECT_EQ(prefer(gpu, available, 4, Policy::kSpread),
            (std::vector<std::string>{uuid(0) + "::0", uuid(1) + "::0", uuid(2) + "::3",
                                      uuid(0) + "::1"}));
}

TEST(Preferred, MigDevicesAreGroupedByBoard) {
  Hardware hardware = gpus(2);
  for (ports::Gpu& gpu : hardware.gpus) partition(gpu, {"1g.5gb", "1g.5gb", "1g.5gb", "1g.5gb"});
  const DeviceTable table = make_device_table(hardware, strategy("mixed"), {}).value();
  const ResourceTable& mig = *table.resources.at("nvidia.com/mig-1g.5gb");
  // One of board 0 is in use.
  const std::vector<std::string> available = {"MIG-0-1", "MIG-0-2", "MIG-0-3", "MIG-1-0",
                                              "MIG-1-1", "MIG-1-2", "MIG-1-3"};
  EXPECT_EQ(prefer(mig, available, 3, Policy::kDistributed),
            (std::vector<std::string>{"MIG-1-0", "MIG-0-1", "MIG-1-1"}));
  EXPECT_EQ(prefer(mig, available, 4, Policy::kPacked),
            (std::vector<std::string>{"MIG-0-1", "MIG-0-2", "MIG-0-3", "MIG-1-0"}));
  EXPECT_EQ(prefer(mig, available, 2, Policy::kSpread),
            (std::vector<std::string>{"MIG-1-0", "MIG-0-1"}));
}

TEST(Preferred, WholeGpusGoByTheirTopology) {
  Hardware hardware = gpus(4);  // one NUMA node
  for (uint32_t a = 0; a < 4; ++a)
    for (uint32_t b = 0; b < 4; ++b)
      if (a != b) hardware.topology.links.push_back({GpuIndex{a}, GpuIndex{b}, 40, 0});
  // NVLinks join 1 and 3.
  for (ports::GpuLink& link : hardware.topology.links)
    if (link.from.value + link.to.value == 4 && link.from != link.to) link.nvlinks = 4;
  const DeviceTable table = make_device_table(hardware, config_of("version: v1"), {}).value();
  const ResourceTable& gpu = *table.resources.at("nvidia.com/gpu");
  for (const Policy policy : {Policy::kDistributed, Policy::kPacked, Policy::kSpread}) {
    EXPECT_EQ(prefer(gpu, ids(table), 2, policy), (std::vector<std::string>{uuid(1), uuid(3)}));
    EXPECT_EQ(prefer(gpu, ids(table), 1, policy), std::vector<std::string>{uuid(0)})
        << "one alone leaves the pair together";
    EXPECT_EQ(prefer(gpu, ids(table), 2, policy, {uuid(3)}),
              (std::vector<std::string>{uuid(3), uuid(1)}));
  }
}

}  // namespace
}  // namespace gpuslice::agent
