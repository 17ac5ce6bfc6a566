// What is offered of a node, by tables. Whole nodes are in tests/dst.

#include "agent/device_table.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "agent/offers_for_test.h"

namespace gpuslice::agent {
namespace {

TEST(DeviceTable, UnsharedDevicesKeepTheirUuid) {
  const DeviceTable table = make_device_table(gpus(2), config_of("version: v1"), {}).value();
  EXPECT_EQ(ids(table), (std::vector<std::string>{uuid(0), uuid(1)}));
  EXPECT_EQ(table.resources.at("nvidia.com/gpu")->list->devices[0].numa_node, 0);
}

TEST(DeviceTable, ReplicasAreNumberedAndSorted) {
  const DeviceTable table = make_device_table(gpus(1), shared(11), {}).value();
  EXPECT_EQ(ids(table).size(), 11U);
  EXPECT_EQ(ids(table)[0], uuid(0) + "::0");
  EXPECT_EQ(ids(table)[2], uuid(0) + "::10");  // as texts sort
}

// However many there are, and whatever is held: the list is sorted, no id twice, and each is found.
TEST(DeviceTable, EveryIdIsInItsPlaceAndIsFound) {
  const HeldIds held = {{"nvidia.com/gpu", {uuid(1) + "::4294967295", uuid(1) + "::12"}},
                        {"nvidia.com/old", {uuid(2) + "::0", uuid(2) + "::100"}}};
  for (const uint32_t replicas : {2U, 9U, 10U, 11U, 99U, 101U, 1000U, 1234U}) {
    const DeviceTable table = make_device_table(gpus(3), shared(replicas), held).value();
    const ResourceTable& gpu = *table.resources.at("nvidia.com/gpu");
    EXPECT_EQ(gpu.devices.size(), 3 * replicas - 2) << "those held as nvidia.com/old count";
    ASSERT_EQ(gpu.devices.size(), gpu.list->devices.size());
    for (size_t i = 0; i < gpu.devices.size(); ++i) {
      EXPECT_EQ(gpu.devices[i].id, gpu.list->devices[i].id);
      ASSERT_TRUE(gpu.ids.find(gpu.list->devices[i].id));
      EXPECT_EQ(gpu.ids.find(gpu.list->devices[i].id)->base, gpu.devices[i].base);
      EXPECT_TRUE(gpu.devices[i].id.starts_with(gpu.bases[gpu.devices[i].base].uuid + "::"));
      if (i == 0) continue;
      EXPECT_LT(gpu.devices[i - 1].id, gpu.devices[i].id);
    }
    EXPECT_TRUE(gpu.ids.find(uuid(1) + "::12"));
    EXPECT_FALSE(gpu.ids.find(uuid(2) + "::0")) << "it is offered under its old name";
    EXPECT_FALSE(gpu.ids.find(uuid(0) + "::" + std::to_string(replicas)));
  }
}

TEST(OfferedIds, AnIdIsItsTextAndNothingLikeIt) {
  OfferedIds ids;
  ids.add(3, "GPU-a", {"GPU-a::0", "GPU-a::1", "GPU-a::10", "GPU-a::4294967295", "GPU-a::x"});
  ids.add(5, "GPU-b", {"GPU-b"});
  for (const char* id : {"GPU-a::0", "GPU-a::10", "GPU-a::4294967295", "GPU-a::x"}) {
    ASSERT_TRUE(ids.find(id)) << id;
    EXPECT_EQ(ids.find(id)->base, 3U);
    EXPECT_TRUE(ids.find(id)->shared);
  }
  EXPECT_EQ(ids.find("GPU-a::10")->replica, 10U);
  ASSERT_TRUE(ids.find("GPU-b"));
  EXPECT_EQ(ids.find("GPU-b")->base, 5U);
  EXPECT_FALSE(ids.find("GPU-b")->shared);
  for (const char* id : {"", "::", "::0", "GPU-a", "GPU-a::", "GPU-a::2", "GPU-a::00", "GPU-a::01",
                         "GPU-a::+1", "GPU-a::-1", "GPU-a::1 ", "GPU-a::1::1", "GPU-a::4294967296",
                         "GPU-a::y", "GPU-b::0", "GPU-b::", "GPU-c", "gpu-b"})
    EXPECT_FALSE(ids.find(id)) << id;
}

TEST(DeviceTable, DevicesAndRenameDoWhatTheySay) {
  const DeviceTable table =
      make_device_table(gpus(3), shared(2, ", rename: gpu-0, devices: [0]"), {}).value();
  EXPECT_EQ(ids(table, "nvidia.com/gpu-0"),
            (std::vector<std::string>{uuid(0) + "::0", uuid(0) + "::1"}));
  EXPECT_EQ(ids(table), (std::vector<std::string>{uuid(1), uuid(2)}));
  EXPECT_EQ(ids(make_device_table(gpus(3), shared(2, ", devices: 2"), {}).value()).size(), 5U);
}

TEST(DeviceTable, WhatMatchesNothingIsSaid) {
  const DeviceTable table =
      make_device_table(gpus(1),
                        config_of("sharing: {timeSlicing: {resources: [{name: mig-1g.5gb, "
                                  "replicas: 2}, {name: gpu, replicas: 2, devices: [7]}]}}"),
                        {})
          .value();
  EXPECT_EQ(
      table.warnings,
      (std::vector<std::string>{
          "sharing: this node has no nvidia.com/mig-1g.5gb: its entry (line 1) shares nothing",
          "sharing: this node has no device 7 of nvidia.com/gpu (line 1)"}));
}

TEST(DeviceTable, ADeviceThatTwoEntriesNameIsTold) {
  const DeviceTable table =
      make_device_table(
          gpus(2),
          config_of("sharing: {timeSlicing: {resources: [\n{name: gpu, replicas: 2, devices: "
                    "[1]},\n{name: gpu, replicas: 3, devices: [" +
                    uuid(1) + "]}]}}"),
          {})
          .value();
  EXPECT_EQ(table.warnings,
            std::vector<std::string>{"sharing: " + uuid(1) +
                                     " of nvidia.com/gpu (line 3) is a device that the entry of "
                                     "line 2 shares already: that one counts"});
  EXPECT_EQ(ids(table).size(), 3U);
}

TEST(DeviceTable, AWayOfFindingGpusThatIsNotThereIsTold) {
  for (const std::string how : {"tegra", "vfio"}) {
    const DeviceTable table =
        make_device_table(gpus(1), config_of("flags: {deviceDiscoveryStrategy: " + how + "}"), {})
            .value();
    EXPECT_EQ(table.warnings,
              std::vector<std::string>{"deviceDiscoveryStrategy " + how +
                                       ": GPUs are found through NVML all the same, and others are "
                                       "not served; write nvml or auto"});
  }
  EXPECT_TRUE(make_device_table(gpus(1), config_of("flags: {deviceDiscoveryStrategy: nvml}"), {})
                  .value()
                  .warnings.empty());
}

TEST(DeviceTable, HeldIdsStayAndFreeOnesGoFirst) {
  const HeldIds held = {{"nvidia.com/gpu", {uuid(0) + "::7", uuid(0) + "::9"}}};
  EXPECT_EQ(ids(make_device_table(gpus(1), shared(3), held).value()),
            (std::vector<std::string>{uuid(0) + "::0", uuid(0) + "::7", uuid(0) + "::9"}));
  // Fewer wanted than held: all held stay.
  const HeldIds three = {{"nvidia.com/gpu", {uuid(0) + "::1", uuid(0) + "::7", uuid(0) + "::9"}}};
  const DeviceTable table = make_device_table(gpus(1), shared(2), three).value();
  EXPECT_EQ(ids(table).size(), 3U);
  EXPECT_EQ(table.warnings,
            std::vector<std::string>{"nvidia.com/gpu: pods hold more of it than is configured now; "
                                     "what is too many leaves the list as they end"});
  EXPECT_TRUE(make_device_table(gpus(1), shared(2), held).value().warnings.empty())
      << "others than it would be, and as many";
}

TEST(DeviceTable, MoreDevicesToShareThanThereAreIsTold) {
  const auto warnings = [](const char* count) {
    return make_device_table(
               gpus(2),
               config_of(fmt::format("sharing: {{timeSlicing: {{resources: [{{name: "
                                     "nvidia.com/gpu, devices: {}, replicas: 2}}]}}}}",
                                     count)),
               {})
        .value()
        .warnings;
  };
  EXPECT_TRUE(warnings("2").empty());
  EXPECT_EQ(warnings("9"),
            std::vector<std::string>{"sharing: 9 of nvidia.com/gpu are to be shared (line 1), and "
                                     "this node has 2: all of them are"});
}

TEST(DeviceTable, ARenamedResourceKeepsWhatIsHeldAndOffersItOnce) {
  const HeldIds held = {{"nvidia.com/gpu", {uuid(0) + "::0"}}};
  const DeviceTable table = make_device_table(gpus(1), shared(3, ", rename: slice"), held).value();
  EXPECT_EQ(ids(table), std::vector<std::string>{uuid(0) + "::0"});
  EXPECT_EQ(ids(table, "nvidia.com/slice"),
            (std::vector<std::string>{uuid(0) + "::1", uuid(0) + "::2"}));
  // Whole again, but a part is still held under the old name: not yet.
  const DeviceTable whole = make_device_table(gpus(1), config_of("version: v1"),
                                              {{"nvidia.com/slice", {uuid(0) + "::1"}}})
                                .value();
  EXPECT_TRUE(ids(whole).empty());
  EXPECT_EQ(whole.warnings,
            (std::vector<std::string>{"nvidia.com/gpu: all of it waits until pods end that hold "
                                      "the same devices in another way",
                                      "nvidia.com/slice: pods hold more of it than is configured "
                                      "now; what is too many leaves the list as they end"}));
  EXPECT_EQ(table.warnings,
            (std::vector<std::string>{"nvidia.com/gpu: pods hold more of it than is configured "
                                      "now; what is too many leaves the list as they end",
                                      "nvidia.com/slice: a part of it waits until pods end that "
                                      "hold the same devices in another way"}));
}

TEST(DeviceTable, AListBeyondFourMebibytesIsRefusedWithWhatFits) {
  EXPECT_TRUE(make_device_table(gpus(1), shared(16384), {}).has_value()) << "by VRAM, on one GPU";
  const Error error = make_device_table(gpus(8), shared(16384), {}).error();
  EXPECT_EQ(error.code, Code::kInvalidConfig);
  EXPECT_NE(error.message.find("nvidia.com/gpu: 16384 replicas of 8 devices make a list of"),
            std::string::npos)
      << error.message;
  const size_t at = error.message.find("at most ");
  const uint64_t most = std::stoull(error.message.substr(at + 8));
  EXPECT_TRUE(make_device_table(gpus(8), shared(static_cast<uint32_t>(most)), {}).has_value());
  EXPECT_FALSE(make_device_table(gpus(8), shared(static_cast<uint32_t>(most) + 1), {}).has_value());
}

TEST(DeviceTable, ALostGpuIsUnhealthyInAllItsReplicas) {
  Hardware hardware = gpus(2);
  hardware.unhealthy[uuid(1)] = "GPU is lost";
  const DeviceTable table = make_device_table(hardware, shared(2), {}).value();
  size_t unhealthy = 0;
  for (const ports::Device& d : table.resources.at("nvidia.com/gpu")->list->devices)
    unhealthy += d.healthy ? 0 : 1;
  EXPECT_EQ(unhealthy, 2U);
}

// --- MIG devices

using Ids = std::vector<std::string>;

TEST(MigDevices, MixedNamesTheProfileAndKeepsWholeGpusWhole) {
  Hardware hardware = gpus(2);
  partition(hardware.gpus[0], {"1g.5gb", "1g.5gb+me", "3g.20gb"});
  const DeviceTable table = make_device_table(hardware, strategy("mixed"), {}).value();
  EXPECT_EQ(ids(table), Ids{uuid(1)});
  EXPECT_EQ(ids(table, "nvidia.com/mig-1g.5gb"), Ids{"MIG-0-0"});
  EXPECT_EQ(ids(table, "nvidia.com/mig-1g.5gb.me"), Ids{"MIG-0-1"});
  EXPECT_EQ(ids(table, "nvidia.com/mig-3g.20gb"), Ids{"MIG-0-2"});
  EXPECT_TRUE(table.warnings.empty());
}

TEST(MigDevices, NoneOffersTheGpuAsItIs) {
  Hardware hardware = gpus(1);
  partition(hardware.gpus[0], {"1g.5gb"});
  EXPECT_EQ(ids(make_device_table(hardware, strategy("none"), {}).value()), Ids{uuid(0)});
}

TEST(MigDevices, SingleOffersOneKindAndNamesTheOddGpu) {
  Hardware hardware = gpus(4);
  partition(hardware.gpus[0], {"1g.5gb", "1g.5gb"});
  partition(hardware.gpus[1], {"1g.5gb"});
  partition(hardware.gpus[2], {"3g.20gb"});
  const DeviceTable table = make_device_table(hardware, strategy("single"), {}).value();
  EXPECT_EQ(ids(table), (Ids{"MIG-0-0", "MIG-0-1", "MIG-1-0"}));
  EXPECT_EQ(table.warnings,
            (Ids{"GPU 2: it has 3g.20gb, and under migStrategy single all of nvidia.com/gpu is "
                 "1g.5gb: nothing of it is offered; give it the others' layout, or use migStrategy "
                 "mixed",
                 "GPU 3: it is whole, and under migStrategy single all of nvidia.com/gpu is "
                 "1g.5gb: nothing of it is offered; give it the others' layout, or use migStrategy "
                 "mixed"}));
  // Without MIG it is as none; whole GPUs in the majority stay what is offered.
  EXPECT_EQ(ids(make_device_table(gpus(2), strategy("single"), {}).value()),
            (Ids{uuid(0), uuid(1)}));
  Hardware one = gpus(3);
  partition(one.gpus[0], {"1g.5gb", "3g.20gb"});
  EXPECT_EQ(ids(make_device_table(one, strategy("single"), {}).value()), (Ids{uuid(1), uuid(2)}));
  // What was on offer stays while layouts change, as long as there is any of it.
  hardware.kind = "3g.20gb";
  EXPECT_EQ(ids(make_device_table(hardware, strategy("single"), {}).value()), Ids{"MIG-2-0"});
  EXPECT_EQ(make_device_table(hardware, strategy("single"), {})->kind, "3g.20gb");
  hardware.kind = "7g.40gb";
  EXPECT_EQ(make_device_table(hardware, strategy("single"), {})->kind, "1g.5gb");
  // One of each: MIG is meant.
  Hardware two = gpus(2);
  partition(two.gpus[1], {"1g.5gb"});
  EXPECT_EQ(ids(make_device_table(two, strategy("single"), {}).value()), Ids{"MIG-1-0"});
}

TEST(MigDevices, WhatCrashesThePeersIsAWarning) {
  Hardware hardware = gpus(2);
  partition(hardware.gpus[0], {"1c.3g.20gb", "2g.10gb"});
  partition(hardware.gpus[1], {});
  const DeviceTable table = make_device_table(hardware, strategy("mixed"), {}).value();
  EXPECT_EQ(ids(table, "nvidia.com/mig-2g.10gb"), Ids{"MIG-0-1"});
  EXPECT_EQ(table.resources.size(), 1U);
  EXPECT_EQ(table.warnings,
            (Ids{"GPU 0: MIG device 0 (1c.3g.20gb) has a compute instance smaller than its GPU "
                 "instance: it is not offered",
                 "GPU 1: MIG is on and it has no instances: nothing of it is offered"}));
}

TEST(MigDevices, AreSharedByReplicasToo) {
  Hardware hardware = gpus(1);
  partition(hardware.gpus[0], {"1g.5gb", "2g.10gb"});
  const std::string sharing =
      ", sharing: {timeSlicing: {resources: [{name: nvidia.com/mig-1g.5gb, replicas: 2}]}}";
  const DeviceTable table = make_device_table(hardware, strategy("mixed", sharing), {}).value();
  EXPECT_EQ(ids(table, "nvidia.com/mig-1g.5gb"), (Ids{"MIG-0-0::0", "MIG-0-0::1"}));
  EXPECT_EQ(ids(table, "nvidia.com/mig-2g.10gb"), Ids{"MIG-0-1"});
}

TEST(MigDevices, OneInstanceIsUnhealthyAlone) {
  Hardware hardware = gpus(1);
  partition(hardware.gpus[0], {"1g.5gb", "1g.5gb"});
  hardware.unhealthy["MIG-0-1"] = "XID 94";
  const DeviceTable table = make_device_table(hardware, strategy("mixed"), {}).value();
  const auto& list = table.resources.at("nvidia.com/mig-1g.5gb")->list->devices;
  EXPECT_TRUE(list[0].healthy);
  EXPECT_FALSE(list[1].healthy);
}

TEST(MigDevices, WhatIsWithheldIsNotGivenOutAndWhatIsHeldStays) {
  Hardware hardware = gpus(2);
  partition(hardware.gpus[0], {"1g.5gb", "1g.5gb", "1g.5gb"});
  hardware.withheld = {"MIG-0-0", "MIG-0-1"};
  const HeldIds held = {{"nvidia.com/mig-1g.5gb", {"MIG-0-1"}}};
  EXPECT_EQ(
      ids(make_device_table(hardware, strategy("mixed"), held).value(), "nvidia.com/mig-1g.5gb"),
      (Ids{"MIG-0-1", "MIG-0-2"}));
  // A whole GPU's UUID withholds all of it, and a resource of which nothing is left stays, empty.
  hardware.withheld = {uuid(0)};
  const DeviceTable table = make_device_table(hardware, strategy("mixed"), {}).value();
  EXPECT_TRUE(ids(table, "nvidia.com/mig-1g.5gb").empty());
  EXPECT_TRUE(table.resources.contains("nvidia.com/mig-1g.5gb"));
  EXPECT_EQ(ids(table), Ids{uuid(1)});
}

TEST(MigDevices, AGpuIsNotGivenOutInTwoFacesAtOnce) {
  Hardware hardware = gpus(1);
  partition(hardware.gpus[0], {"1g.5gb", "1g.5gb"});
  // Whole, by strategy none; then the strategy becomes mixed while a pod holds it.
  const HeldIds whole = {{"nvidia.com/gpu", {uuid(0)}}};
  const DeviceTable mixed = make_device_table(hardware, strategy("mixed"), whole).value();
  EXPECT_EQ(ids(mixed), Ids{uuid(0)});
  EXPECT_TRUE(ids(mixed, "nvidia.com/mig-1g.5gb").empty());
  // And the other way round.
  const HeldIds part = {{"nvidia.com/mig-1g.5gb", {"MIG-0-1"}}};
  const DeviceTable none = make_device_table(hardware, strategy("none"), part).value();
  ASSERT_FALSE(none.warnings.empty());
  EXPECT_EQ(none.warnings[0],
            "GPU 0: MIG is on, and migStrategy none offers it whole, none of its MIG devices: use "
            "migStrategy single or mixed, or switch MIG off");
  EXPECT_TRUE(ids(none).empty());
  EXPECT_EQ(ids(none, "nvidia.com/mig-1g.5gb"), Ids{"MIG-0-1"});
}

}  // namespace
}  // namespace gpuslice::agent
