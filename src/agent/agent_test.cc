// The parts that the agent decides with, by tables. Whole nodes are in tests/dst.

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "agent/allocation.h"
#include "agent/config_keeper.h"
#include "agent/device_table.h"
#include "agent/gpu_memo.h"
#include "agent/ledger_file.h"
#include "agent/preferred.h"
#include "config/device_plugin.h"

namespace gpuslice::agent {
namespace {

std::string uuid(uint32_t n) { return fmt::format("GPU-00000000-0000-5000-8000-{:012}", n); }

Hardware gpus(uint32_t count) {
  Hardware hardware;
  for (uint32_t i = 0; i < count; ++i) {
    ports::Gpu gpu;
    gpu.index = GpuIndex{i};
    gpu.minor = GpuMinor{i};
    gpu.uuid = uuid(i);
    gpu.numa_node = i < 4 ? 0 : 1;
    hardware.gpus.push_back(gpu);
  }
  return hardware;
}

config::Effective config_of(const std::string& text) {
  const config::DevicePluginFile file = config::read_device_plugin(text, config::Compat::kStrict);
  EXPECT_FALSE(file.problems.has_errors()) << text;
  return config::merge({}, file.config, "f").value();
}

config::Effective shared(uint32_t replicas, const std::string& more = "") {
  return config_of(fmt::format(
      "sharing: {{timeSlicing: {{resources: [{{name: gpu, replicas: {}{}}}]}}}}", replicas, more));
}

std::vector<std::string> ids(const DeviceTable& table,
                             const std::string& resource = "nvidia.com/gpu") {
  std::vector<std::string> out;
  const auto it = table.resources.find(resource);
  if (it != table.resources.end())
    for (const ports::Device& device : it->second->list->devices) out.push_back(device.id);
  return out;
}

TEST(DeviceTable, UnsharedDevicesKeepTheirUuid) {
  const DeviceTable table = make_device_table(gpus(2), config_of("version: v1"), {}).value();
  EXPECT_EQ(ids(table), (std::vector<std::string>{uuid(0), uuid(1)}));
  EXPECT_EQ(table.resources.at("nvidia.com/gpu")->list->devices[0].numa_nodes,
            std::vector<int64_t>{0});
}

TEST(DeviceTable, ReplicasAreNumberedAndSorted) {
  const DeviceTable table = make_device_table(gpus(1), shared(11), {}).value();
  EXPECT_EQ(ids(table).size(), 11U);
  EXPECT_EQ(ids(table)[0], uuid(0) + "::0");
  EXPECT_EQ(ids(table)[2], uuid(0) + "::10");  // as texts sort
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

TEST(DeviceTable, HeldIdsStayAndFreeOnesGoFirst) {
  const HeldIds held = {{"nvidia.com/gpu", {uuid(0) + "::7", uuid(0) + "::9"}}};
  EXPECT_EQ(ids(make_device_table(gpus(1), shared(3), held).value()),
            (std::vector<std::string>{uuid(0) + "::0", uuid(0) + "::7", uuid(0) + "::9"}));
  // Fewer wanted than held: all held stay.
  const HeldIds three = {{"nvidia.com/gpu", {uuid(0) + "::1", uuid(0) + "::7", uuid(0) + "::9"}}};
  EXPECT_EQ(ids(make_device_table(gpus(1), shared(2), three).value()).size(), 3U);
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

ports::MigDevice mig(uint32_t gpu, uint32_t index, const std::string& profile) {
  ports::MigDevice device;
  device.index = index;
  device.uuid = fmt::format("MIG-{}-{}", gpu, index);
  device.profile = profile;
  device.gi = GiId{7 + index};
  return device;
}
void partition(ports::Gpu& gpu, const std::vector<std::string>& profiles) {
  gpu.mig = ports::MigMode{true, true};
  for (const std::string& profile : profiles)
    gpu.mig_devices.push_back(
        mig(gpu.index.value, static_cast<uint32_t>(gpu.mig_devices.size()), profile));
}
config::Effective strategy(const std::string& word, const std::string& more = "") {
  return config_of(fmt::format("{{flags: {{migStrategy: {}}}{}}}", word, more));
}
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
  EXPECT_TRUE(ids(none).empty());
  EXPECT_EQ(ids(none, "nvidia.com/mig-1g.5gb"), Ids{"MIG-0-1"});
}

// --- preferred
// --------------------------------------------------------------------------------------------------------------

std::vector<std::string> prefer(const ResourceTable& table, std::vector<std::string> available,
                                uint32_t size, Policy policy, std::vector<std::string> must = {}) {
  return preferred(table, {std::move(available), std::move(must), size}, policy).value();
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

// GPUs 0 and 1 with four MIG devices each.
Hardware two_boards() {
  Hardware hardware = gpus(2);
  for (uint32_t n = 0; n < 2; ++n) {
    hardware.gpus[n].mig = ports::MigMode{true, true};
    for (uint32_t i = 0; i < 4; ++i) {
      ports::MigDevice device;
      device.index = i;
      device.uuid = fmt::format("MIG-{}-{}", n, i);
      device.profile = "1g.5gb";
      device.gi = GiId{i};
      hardware.gpus[n].mig_devices.push_back(device);
    }
  }
  return hardware;
}

TEST(Preferred, MigDevicesAreGroupedByBoard) {
  const DeviceTable table =
      make_device_table(two_boards(), config_of("flags: {migStrategy: mixed}"), {}).value();
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

// --- the desk
// ------------------------------------------------------------------------------------------------------------------

struct DeskTest : testing::Test {
  MonotonicTime now{std::chrono::hours(1)};
  AllocationDesk desk{[this] { return now; }, 1};

  void put(const DeviceTable& tables, const AnswerRules& rules) {
    while (!desk.set_tables(tables, rules,
                            desk.ledger_version()));  // something was given out meanwhile
  }

  Result<ports::ContainerAnswer> allocate(std::vector<std::string> wanted,
                                          const std::string& resource = "nvidia.com/gpu") {
    auto answer = desk.service(resource).allocate({{std::move(wanted)}});
    if (!answer) return std::unexpected(answer.error());
    return answer->containers.at(0);
  }
};

TEST_F(DeskTest, AnswersAsNvidiasPluginWithEnvvar) {
  put(make_device_table(gpus(2), shared(2), {}).value(), {});
  const ports::ContainerAnswer answer =
      allocate({uuid(1) + "::0", uuid(0) + "::1", uuid(1) + "::1"}).value();
  EXPECT_EQ(
      answer.envs,
      (std::map<std::string, std::string>{{"NVIDIA_VISIBLE_DEVICES", uuid(0) + "," + uuid(1)}}));
  EXPECT_TRUE(answer.devices.empty());
}

TEST_F(DeskTest, TablesThatDoNotKnowTheNewestAllocateAreNotTaken) {
  put(make_device_table(gpus(1), shared(2), {}).value(), {});
  const uint64_t version = desk.ledger_version();
  const DeviceTable without = make_device_table(gpus(1), shared(2), desk.held()).value();
  ASSERT_TRUE(allocate({uuid(0) + "::1"}).has_value());
  EXPECT_FALSE(desk.set_tables(without, {}, version));
  EXPECT_TRUE(desk.set_tables(without, {}, desk.ledger_version()));
}

TEST_F(DeskTest, PassesDeviceSpecsAndIndices) {
  AnswerRules rules;
  rules.form.pass_device_specs = true;
  rules.form.index_ids = true;
  rules.form.dev_root = "/run/nvidia/driver";
  rules.form.control_nodes = {"/dev/nvidiactl", "/dev/nvidia-uvm"};
  put(make_device_table(gpus(2), shared(2), {}).value(), rules);
  const ports::ContainerAnswer answer = allocate({uuid(1) + "::0"}).value();
  EXPECT_EQ(answer.envs.at("NVIDIA_VISIBLE_DEVICES"), "1");
  ASSERT_EQ(answer.devices.size(), 3U);
  EXPECT_EQ(answer.devices[2],
            (ports::DeviceNode{"/dev/nvidia1", "/run/nvidia/driver/dev/nvidia1", "rw"}));
}

Hardware with_mig() {
  Hardware hardware = gpus(2);
  hardware.gpus[1].mig = ports::MigMode{true, true};
  for (uint32_t i = 0; i < 2; ++i) {
    ports::MigDevice device;
    device.index = i;
    device.uuid = "MIG-" + std::to_string(i);
    device.profile = "1g.5gb";
    device.gi = GiId{7 + i};
    device.ci = CiId{0};
    hardware.gpus[1].mig_devices.push_back(device);
  }
  return hardware;
}

TEST_F(DeskTest, AnswersForMigDevicesAndTheirReplicas) {
  AnswerRules rules;
  rules.form.pass_device_specs = rules.form.cdi_cri = true;
  put(make_device_table(with_mig(),
                        config_of("flags: {migStrategy: mixed}\n"
                                  "sharing: {timeSlicing: {resources: [{name: "
                                  "mig-1g.5gb, replicas: 2}]}}"),
                        {})
          .value(),
      rules);
  EXPECT_EQ(allocate({"MIG-1::1", "MIG-1::0"}, "nvidia.com/mig-1g.5gb").value(),
            (ports::ContainerAnswer{
                {{"NVIDIA_VISIBLE_DEVICES", "MIG-1"}},
                {},
                {{"/dev/nvidia1", "/dev/nvidia1", "rw"},
                 {"/dev/nvidia-caps/nvidia-cap210", "/dev/nvidia-caps/nvidia-cap210", "rw"},
                 {"/dev/nvidia-caps/nvidia-cap211", "/dev/nvidia-caps/nvidia-cap211", "rw"}},
                {},
                {"k8s.device-plugin.nvidia.com/gpu=MIG-1"}}));
}

TEST_F(DeskTest, ReplicasOfOneDeviceAreRefusedWhereTheyMustBeDistinct) {
  AnswerRules rules;
  rules.require_distinct = true;
  put(make_device_table(gpus(2), shared(2), {}).value(), rules);
  EXPECT_TRUE(allocate({uuid(0) + "::0", uuid(1) + "::0"}).has_value());
  EXPECT_EQ(
      allocate({uuid(0) + "::0", uuid(0) + "::1"}).error().message,
      "nvidia.com/gpu: 2 replicas asked for, some of one and the same device: more replicas of "
      "one are no more of it (--require-distinct); ask for fewer, or wait until more devices "
      "have a free one");
}

TEST_F(DeskTest, NamesOfAnnotationsDiffer) {
  AnswerRules rules;
  rules.form.envvar = false;
  rules.form.cdi_annotations = true;
  put(make_device_table(gpus(1), shared(2), {}).value(), rules);
  const auto first = allocate({uuid(0) + "::0"}).value().annotations;
  const auto second = allocate({uuid(0) + "::1"}).value().annotations;
  ASSERT_EQ(first.size(), 1U);
  EXPECT_NE(first.begin()->first, second.begin()->first);
  EXPECT_EQ(first.begin()->second, "k8s.device-plugin.nvidia.com/gpu=" + uuid(0));
}

TEST_F(DeskTest, AnUnhealthyDeviceIsGivenAndCounted) {
  Hardware hardware = gpus(2);
  hardware.unhealthy[uuid(0)] = "XID 79";
  put(make_device_table(hardware, shared(2), {}).value(), {});
  EXPECT_TRUE(allocate({uuid(0) + "::0", uuid(1) + "::0"}).has_value());
  EXPECT_EQ(desk.counts().unhealthy, 1U);
}

TEST_F(DeskTest, RefusesWhatIsNotOfferedAndMoreThanOne) {
  put(make_device_table(gpus(1),
                        config_of("sharing: {timeSlicing: {failRequestsGreaterThanOne: "
                                  "true, resources: [{name: gpu, replicas: 2}]}}"),
                        {})
          .value(),
      {});
  EXPECT_EQ(allocate({uuid(0)}).error().message,
            "nvidia.com/gpu: device " + uuid(0) +
                " is not offered (any more); the pod must be admitted anew");
  EXPECT_EQ(allocate({uuid(0) + "::0", uuid(0) + "::1"}).error().message,
            "nvidia.com/gpu: 2 replicas asked for, and this node gives one at a time "
            "(failRequestsGreaterThanOne): more replicas are no more of a GPU; ask for 1");
  EXPECT_EQ(allocate({"x"}, "nvidia.com/none").error().message,
            "nvidia.com/none is not offered on this node");
  EXPECT_TRUE(desk.held().empty());
  EXPECT_EQ(desk.counts().refused, 3U);
}

TEST_F(DeskTest, TheLedgerFollowsTheKubeletAfterAGrace) {
  put(make_device_table(gpus(1), shared(3), {}).value(), {});
  ASSERT_TRUE(allocate({uuid(0) + "::0"}).has_value());
  constexpr Duration kGrace = std::chrono::seconds(30);
  desk.reconcile({}, kGrace);
  EXPECT_EQ(desk.held().at("nvidia.com/gpu").size(), 1U)
      << "the kubelet lists a pod a little after its Allocate";
  desk.reconcile({{"default", "p", "c", "nvidia.com/gpu", {uuid(0) + "::0", uuid(0) + "::2"}}},
                 kGrace);
  EXPECT_EQ(desk.held().at("nvidia.com/gpu").size(), 2U) << "what the kubelet names is held";
  desk.reconcile({{"default", "p", "c", "nvidia.com/gpu", {uuid(0) + "::2"}}}, kGrace);
  EXPECT_EQ(desk.held().at("nvidia.com/gpu"), std::set<std::string>{uuid(0) + "::2"})
      << "a confirmed one goes at once";
  ASSERT_TRUE(allocate({uuid(0) + "::1"}).has_value());
  now += kGrace;
  desk.reconcile({}, kGrace);
  EXPECT_TRUE(desk.held()["nvidia.com/gpu"].empty());
}

// A change of MIG must not wait for a pod that has ended, nor pass over one that is starting.
TEST_F(DeskTest, WhatTheKubeletNamedOnceItNamesAsLongAsItIsHeld) {
  put(make_device_table(gpus(1), shared(3), {}).value(), {});
  constexpr Duration kGrace = std::chrono::seconds(30);
  ASSERT_TRUE(allocate({uuid(0) + "::0"}).has_value());
  EXPECT_TRUE(may_be_unlisted(desk.ledger().at(0), now, kGrace));
  EXPECT_FALSE(may_be_unlisted(desk.ledger().at(0), now + kGrace, kGrace));
  desk.reconcile({{"default", "p", "c", "nvidia.com/gpu", {uuid(0) + "::0"}}}, kGrace);
  EXPECT_FALSE(may_be_unlisted(desk.ledger().at(0), now, kGrace));
}

TEST_F(DeskTest, AWithdrawalAndAnAllocateCannotPassEachOther) {
  const DeviceTable many = make_device_table(gpus(1), shared(8), {}).value();
  const DeviceTable few = make_device_table(gpus(1), shared(2), {}).value();
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> allocated{0};
  put(many, {});
  std::thread kubelet([&] {
    ports::PluginService& service = desk.service("nvidia.com/gpu");
    for (uint32_t i = 0; !stop; ++i)
      if (service.allocate({{{uuid(0) + "::" + std::to_string(i % 8)}}})) ++allocated;
  });
  for (int i = 0; i < 200; ++i) {
    put(few, {});
    // From here on nothing that was withdrawn is given out.
    EXPECT_FALSE(desk.service("nvidia.com/gpu").allocate({{{uuid(0) + "::7"}}}).has_value());
    put(many, {});
  }
  while (allocated == 0) std::this_thread::yield();
  stop = true;
  kubelet.join();
}

// --- files
// -------------------------------------------------------------------------------------------------------------------------

TEST(LedgerFile, ReadsWhatItWrote) {
  const std::vector<LedgerEntry> entries = {{"nvidia.com/gpu", uuid(0) + "::1", {}, false},
                                            {"nvidia.com/slice", uuid(1), {}, true}};
  const std::string text = format_ledger(entries, "boot-1");
  const auto read = parse_ledger(text, "boot-1", MonotonicTime{});
  ASSERT_TRUE(read.has_value());
  ASSERT_EQ(read->size(), 2U);
  EXPECT_EQ((*read)[1].resource, "nvidia.com/slice");
  EXPECT_EQ((*read)[0].id, uuid(0) + "::1");
  EXPECT_TRUE(parse_ledger(text, "boot-2", MonotonicTime{})->empty())
      << "no pod has outlived a reboot";
  for (const char* bad :
       {"", "x", "gpuslice-ledger 1 boot-1", "gpuslice-ledger 1 boot-1\nnoblank\n",
        "gpuslice-ledger 1 boot-1\na b c\n", "gpuslice-ledger 2 boot-1\n"})
    EXPECT_EQ(parse_ledger(bad, "boot-1", MonotonicTime{}).error().code, Code::kCorrupt) << bad;
}

TEST(GpuMemo, ReadsWhatItWrote) {
  const std::vector<ports::Gpu> gpus_seen = gpus(5).gpus;
  const auto read = parse_gpu_memo(format_gpu_memo(gpus_seen, "b"), "b");
  ASSERT_TRUE(read.has_value());
  ASSERT_EQ(read->size(), 5U);
  EXPECT_EQ((*read)[4].uuid, uuid(4));
  EXPECT_EQ((*read)[4].numa_node, 1);
  EXPECT_TRUE(parse_gpu_memo(format_gpu_memo(gpus_seen, "b"), "c")->empty());
  for (const char* bad : {"", "gpuslice-gpus 1 b\n1 2\n", "gpuslice-gpus 1 b\nx 0 0 U\n",
                          "gpuslice-gpus 1 b\n0 0 0 \n"})
    EXPECT_EQ(parse_gpu_memo(bad, "b").error().code, Code::kCorrupt) << bad;
}

struct MemoryFiles final : ports::HostFiles {
  bool no_descriptors = false;
  std::map<std::string, std::string> files;
  int writes = 0;
  Result<std::string> read(const std::string& path, size_t) override {
    if (no_descriptors) return fail(Code::kFailed, "{}: Too many open files", path);
    const auto it = files.find(path);
    if (it == files.end()) return fail(Code::kNotFound, "{}: no such file", path);
    return it->second;
  }
  Status write_atomic(const std::string& path, const std::string& text, bool) override {
    files[path] = text;
    ++writes;
    return {};
  }
  Result<std::string> boot_id() override { return std::string("b"); }
  bool exists(const std::string&) override { return true; }
  Status remove(const std::string& path, bool) override {
    files.erase(path);
    return {};
  }
  Result<std::vector<std::string>> list(const std::string&) override {
    return std::vector<std::string>{};
  }
};

struct KeeperTest : testing::Test {
  MemoryFiles files;
  std::string said;
  Log log{[this](std::string_view line) { said += line; }, [] { return WallTime{}; }};
  ConfigSource source{"/c.yaml", config::Compat::kStrict, {}, "/last"};
};

TEST_F(KeeperTest, AWrongEditChangesNothing) {
  files.files["/c.yaml"] = "version: v1\n";
  ConfigKeeper keeper(source, files, log);
  ASSERT_TRUE(keeper.look());
  keeper.accept();
  EXPECT_EQ(files.files.at("/last"), "version: v1\n");
  files.files["/c.yaml"] = "version: v2\n";
  EXPECT_FALSE(keeper.look());
  EXPECT_TRUE(keeper.in_force().has_value());
  EXPECT_EQ(keeper.problem(), "/c.yaml:1:10: unknown version \"v2\": the only version is v1");
  EXPECT_EQ(keeper.reloads_bad(), 1U);
  EXPECT_FALSE(keeper.look()) << "the same text is judged once";
  EXPECT_EQ(keeper.reloads_bad(), 1U);
}

// A start waits for no disk when nothing is new.
TEST_F(KeeperTest, TheLastGoodOneIsWrittenOnceAndOnlyWhenItDiffers) {
  files.files["/c.yaml"] = "version: v1\n";
  for (int start = 0; start < 3; ++start) {
    ConfigKeeper keeper(source, files, log);
    ASSERT_TRUE(keeper.look());
    keeper.accept();
    EXPECT_EQ(files.writes, 1);
  }
  files.files["/c.yaml"] = "version: v1 # edited\n";
  ConfigKeeper keeper(source, files, log);
  ASSERT_TRUE(keeper.look());
  keeper.accept();
  EXPECT_EQ(files.writes, 2);
  EXPECT_EQ(files.files.at("/last"), "version: v1 # edited\n");
}

TEST_F(KeeperTest, AStartWithABrokenFileServesTheLastGoodOne) {
  files.files["/c.yaml"] = "version: v2\n";
  files.files["/last"] = "sharing: {timeSlicing: {resources: [{name: gpu, replicas: 4}]}}\n";
  ConfigKeeper keeper(source, files, log);
  ASSERT_TRUE(keeper.look());
  keeper.accept();
  EXPECT_EQ(keeper.in_force()->time_slicing->resources[0].replicas, 4U);
  EXPECT_EQ(keeper.problem(), "/c.yaml:1:10: unknown version \"v2\": the only version is v1");
  EXPECT_EQ(files.files.at("/last").substr(0, 7), "sharing");
}

TEST_F(KeeperTest, AnEditThatCouldNotBeReadJustNowIsReadLater) {
  files.files["/c.yaml"] = "version: v1\n";
  ConfigKeeper keeper(source, files, log);
  ASSERT_TRUE(keeper.look());
  EXPECT_FALSE(keeper.look_again());
  keeper.accept();
  files.files["/c.yaml"] = "version: v1 # edited\n";
  files.no_descriptors = true;
  EXPECT_FALSE(keeper.look());
  EXPECT_TRUE(keeper.look_again());
  EXPECT_EQ(keeper.problem(), "/c.yaml: Too many open files");
  files.no_descriptors = false;
  EXPECT_TRUE(keeper.look());
  EXPECT_FALSE(keeper.look_again());
  keeper.accept();
  EXPECT_EQ(keeper.problem(), "");
  files.files.erase("/c.yaml");
  EXPECT_FALSE(keeper.look());
  EXPECT_FALSE(keeper.look_again()) << "its folder is watched: it is seen when it comes";
}

TEST_F(KeeperTest, AFirstStartWithoutOneServesNothing) {
  ConfigKeeper keeper(source, files, log);
  EXPECT_FALSE(keeper.look());
  EXPECT_FALSE(keeper.in_force().has_value());
  EXPECT_EQ(keeper.problem(), "/c.yaml: no such file");
  files.files["/c.yaml"] = "version: v1\n";
  EXPECT_TRUE(keeper.look()) << "and serves when it comes";
}

}  // namespace
}  // namespace gpuslice::agent
