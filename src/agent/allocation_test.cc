#include "agent/allocation.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "agent/offers_for_test.h"

namespace gpuslice::agent {
namespace {

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

}  // namespace
}  // namespace gpuslice::agent
