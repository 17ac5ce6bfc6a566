// The agent's controller of MIG layouts: who is in the way, and who is put out.

#include <gtest/gtest.h>

#include "partition_for_test.h"

namespace gpuslice::mig_test {
namespace {

TEST_F(PartitionTest, HoldersAreWaitedForAsLongAsAskedFor) {
  agent.options.wait = minutes(2);
  agent.start();
  agent.label("small");
  const uint16_t client = node.work(0, 7, 0);
  agent.label("halves");
  EXPECT_EQ(state(), "pending");
  EXPECT_NE(reason().find("GPU 0"), std::string::npos) << reason();
  EXPECT_EQ(agent.layout(1), kHalves) << "the other GPU is changed meanwhile";
  EXPECT_EQ(agent.layout(0), kSmall);
  agent.pass(minutes(2) - seconds(10));
  EXPECT_EQ(state(), "pending");
  agent.pass(seconds(20));
  EXPECT_EQ(state(), "failed");
  node.end_work(client);
  agent.pass(agent::kFirstMigRetry + seconds(10));
  EXPECT_EQ(state(), "success") << reason();
  EXPECT_EQ(agent.layout(0), kHalves);
}

TEST_F(PartitionTest, WithoutAWaitHoldersAreAFailure) {
  agent.start();
  agent.label("small");
  (void)node.work(0, 7, 0);
  agent.label("halves");
  EXPECT_EQ(state(), "failed");
  EXPECT_NE(reason().find("PID 5000"), std::string::npos) << reason();
  expect_layouts(kSmall, kHalves);
}

TEST_F(PartitionTest, WhatIsWaitedForIsGivenToNobodyNewAndWithdrawnOnce) {
  agent.options.wait = minutes(2);
  agent.start();
  agent.label("small");
  const uint16_t client = node.work(0, 7, 0);
  const auto held = node.look(0);
  agent.withdrawals.clear();
  agent.label("halves");
  ASSERT_EQ(state(), "pending");
  std::set<std::string> all;
  for (const ports::GpuInstance& gi : held.instances) all.insert(gi.cis.at(0).uuid);
  EXPECT_EQ(agent.partition().withheld(), all) << "the seven of GPU 0; GPU 1 is done";
  node.end_work(client);
  agent.pass(agent::kHoldersRetry);
  EXPECT_EQ(state(), "success") << reason();
  EXPECT_TRUE(agent.partition().withheld().empty());
  ASSERT_EQ(agent.withdrawals.size(), 2U);
  EXPECT_EQ(agent.withdrawals.back(), all);
}

TEST_F(PartitionTest, WhatWasWaitedForInVainIsGivenOutAgain) {
  agent.options.wait = minutes(1);
  agent.start();
  agent.label("small");
  (void)node.work(0, 7, 0);
  agent.label("halves");
  EXPECT_EQ(agent.partition().withheld().size(), 7U);
  agent.label("small");
  EXPECT_TRUE(agent.partition().withheld().empty()) << "another wish";
  agent.label("halves");
  agent.pass(minutes(1) + seconds(10));
  EXPECT_EQ(state(), "failed");
  EXPECT_TRUE(agent.partition().withheld().empty());
  EXPECT_EQ(agent.layout(0), kSmall);
}

class EvictionTest : public PartitionTest {
 protected:
  EvictionTest() {
    agent.options.wait = minutes(2);
    agent.may_evict = true;
    agent.start();
    agent.label("small");
  }
  // Pod "ml/a" on the first instance of GPU 0.
  void pod() {
    agent.pods = {{"ml",
                   "a",
                   "main",
                   "nvidia.com/mig-1g.5gb",
                   {node.look(0).instances.at(0).cis.at(0).uuid}}};
  }
};

TEST_F(EvictionTest, APodThatIsInTheWayIsAskedOnceAndTheChangeFollowsItsEnd) {
  pod();
  int announced = 0;
  agent.before_answer = [&](const std::string& question) {
    if (question == "check" || question == "prepare") ++announced;
    EXPECT_LE(announced, agent.looks_announced) << question;
  };
  agent.looks_announced = 0;
  agent.label("halves");
  EXPECT_EQ(state(), "pending");
  EXPECT_EQ(agent.evicted, Texts{"ml/a"});
  agent.pass(seconds(30));
  EXPECT_EQ(agent.evicted, Texts{"ml/a"}) << "its grace period is its own";
  EXPECT_EQ(agent.layout(0), kSmall);
  agent.pods.clear();
  agent.pass(agent::kHoldersRetry);
  EXPECT_EQ(state(), "success") << reason();
  expect_layouts(kHalves, kHalves);
}

TEST_F(EvictionTest, APodThatIsNotInTheWayStays) {
  agent.pods = {
      {"ml", "a", "main", "nvidia.com/mig-1g.5gb", {node.look(1).instances.at(0).cis.at(0).uuid}}};
  agent.label("first");  // GPU 0 alone
  EXPECT_EQ(state(), "success") << reason();
  EXPECT_TRUE(agent.evicted.empty());
}

TEST_F(EvictionTest, OnlyAsManyAsMustGoAreAskedAndTheirInstancesAloneAreKeptBack) {
  agent.config(std::string(kConfig) + R"(  two:
    - {devices: [0], mig-enabled: true, mig-devices: {1g.5gb: 2}}
)");
  const auto instances = node.look(0).instances;
  std::vector<std::string> uuids;
  for (size_t i = 0; i < 3; ++i) uuids.push_back(instances.at(i).cis.at(0).uuid);
  const std::string resource = "nvidia.com/mig-1g.5gb";
  agent.pods = {{"ml", "a", "main", resource, {uuids[0]}},
                {"ml", "b", "main", resource, {uuids[1]}},
                {"ml", "c", "main", resource, {uuids[2]}}};
  agent.label("two");
  EXPECT_EQ(state(), "pending");
  ASSERT_EQ(agent.evicted.size(), 1U) << "two of the three may stay: " << reason();
  const size_t gone = static_cast<size_t>(agent.evicted[0].back() - 'a');
  ASSERT_LT(gone, 3U);
  for (size_t i = 0; i < 3; ++i)
    EXPECT_EQ(agent.partition().withheld().contains(uuids[i]), i == gone) << i;
  agent.pods.erase(agent.pods.begin() + static_cast<std::ptrdiff_t>(gone));
  agent.pass(agent::kHoldersRetry);
  EXPECT_EQ(state(), "success") << reason();
  EXPECT_EQ(agent.evicted.size(), 1U);
}

TEST_F(EvictionTest, APodStaysWhereAnotherThatGoesMakesRoomEnough) {
  agent.config(std::string(kConfig) + R"(  one:
    - {devices: [0], mig-enabled: true, mig-devices: {1g.5gb: 1}}
)");
  const auto instances = node.look(0).instances;
  const auto uuid = [&](size_t i) { return instances.at(i).cis.at(0).uuid; };
  const std::string resource = "nvidia.com/mig-1g.5gb";
  agent.pods = {{"ml", "a", "main", resource, {uuid(0)}},
                {"ml", "two", "main", resource, {uuid(1), uuid(2)}}};
  agent.label("one");
  EXPECT_EQ(agent.evicted, Texts{"ml/two"}) << reason();
}

TEST_F(EvictionTest, WhatCannotBeEvictedIsToldAndAskedAgain) {
  pod();
  const Error budget{Code::kInUse, "a PodDisruptionBudget forbids it", {}};
  agent.label("halves");
  agent.partition().on_not_evicted("ml", "a", budget);
  agent.pass(agent::kHoldersRetry);
  EXPECT_EQ(agent.evicted, (Texts{"ml/a", "ml/a"}));
  EXPECT_NE(reason().find("pod ml/a cannot be evicted: a PodDisruptionBudget forbids it"),
            std::string::npos)
      << reason();
  const std::string once = "cannot be evicted";
  agent.partition().on_not_evicted("ml", "a", budget);
  agent.partition().on_not_evicted("ml", "other", budget);  // nobody asked
  size_t said = 0;
  for (size_t at = agent.logged.find(once + ": a Pod"); at != std::string::npos;
       at = agent.logged.find(once + ": a Pod", at + 1))
    ++said;
  EXPECT_EQ(said, 1U) << agent.logged;
}

TEST_F(EvictionTest, NobodyIsPutOutForALayoutThatCannotBe) {
  agent.config(std::string(kConfig) + R"(  never:
    - {devices: [0], mig-enabled: true, mig-devices: {3g.20gb: 2}}
    - {devices: [1], mig-enabled: true, mig-devices: {3g.20gb: 3}}
)");
  pod();
  agent.label("never");
  EXPECT_EQ(state(), "failed");
  agent.pass(minutes(10));
  EXPECT_TRUE(agent.evicted.empty());
  EXPECT_TRUE(agent.partition().withheld().empty());
}

TEST_F(EvictionTest, NobodyIsPutOutBesideAProcessThatNobodyCanPutOut) {
  pod();
  (void)node.work(0, 7, 0);
  agent.label("halves");
  EXPECT_EQ(state(), "pending");
  EXPECT_TRUE(agent.evicted.empty());
  EXPECT_NE(reason().find("nobody is put out of GPU 0: PID "), std::string::npos) << reason();
}

TEST_F(EvictionTest, OfAGpuAllThatAreInTheWayArePutOutOrNone) {
  const auto of_gpu = [&](uint32_t gpu, size_t i) {
    return node.look(gpu).instances.at(i).cis.at(0).uuid;
  };
  const std::string resource = "nvidia.com/mig-1g.5gb";
  agent.pods = {{"ml", "a", "main", resource, {of_gpu(0, 0)}},
                {"ml", "b", "main", resource, {of_gpu(1, 0)}},
                {"ops", "exporter", "main", resource, {of_gpu(0, 1)}}};
  agent.stay = {{"ops/exporter", {Code::kImpossible, "it is a DaemonSet's", {}}}};
  agent.label("halves");
  EXPECT_EQ(agent.evicted, Texts{"ml/b"}) << "GPU 0 stays as it is in any case";
  EXPECT_EQ(state(), "pending");
  const std::string who =
      "nobody is put out of GPU 0: pod ops/exporter cannot be evicted: it is a DaemonSet's";
  EXPECT_NE(reason().find(who), std::string::npos) << reason();
  agent.pass(seconds(30));
  EXPECT_EQ(agent.evicted, Texts{"ml/b"});
  const size_t said = agent.logged.find("MIG: " + who);
  ASSERT_NE(said, std::string::npos) << agent.logged;
  EXPECT_EQ(agent.logged.find("MIG: " + who, said + 1), std::string::npos) << "once";
  agent.pods.pop_back();
  agent.pass(agent::kHoldersRetry);
  EXPECT_EQ(agent.evicted, (Texts{"ml/b", "ml/a"})) << "by now it helps";
}

TEST_F(EvictionTest, NobodyIsPutOutBesideAPodThatIsNotKnownYet) {
  pod();
  agent.pods.push_back(agent.pods[0]);
  agent.pods[1].pod = "b";
  agent.pods[1].ids = {node.look(0).instances.at(1).cis.at(0).uuid};
  agent.stay = {{"ml/b", {Code::kUnavailable, "no such pod on this node", {}}}};
  agent.label("halves");
  EXPECT_TRUE(agent.evicted.empty());
  EXPECT_NE(reason().find("pod ml/b cannot be evicted: no such pod"), std::string::npos)
      << reason();
  agent.stay.clear();
  agent.unlisted = {node.look(0).instances.at(2).cis.at(0).uuid};
  agent.pass(agent::kHoldersRetry);
  EXPECT_TRUE(agent.evicted.empty());
  EXPECT_NE(reason().find("is not named by the kubelet yet"), std::string::npos) << reason();
  agent.unlisted.clear();
  agent.pass(agent::kHoldersRetry);
  EXPECT_EQ(agent.evicted, (Texts{"ml/a", "ml/b"}));
  EXPECT_EQ(reason().find("nobody is put out"), std::string::npos) << reason();
}

TEST_F(EvictionTest, WhoStaysIsNamedAlsoWhenTheWaitIsOver) {
  pod();
  agent.stay = {{"ml/a", {Code::kImpossible, "it is a static pod", {}}}};
  agent.label("halves");
  agent.pass(minutes(3));
  EXPECT_EQ(state(), "failed");
  EXPECT_TRUE(agent.evicted.empty());
  EXPECT_NE(reason().find("pod ml/a cannot be evicted: it is a static pod"), std::string::npos)
      << reason();
}

TEST_F(EvictionTest, PodsThatShareAnInstanceAreAskedAlthoughWhoseTheProcessIsIsNotKnown) {
  pod();
  agent.pods.push_back(agent.pods[0]);
  agent.pods[0].ids = {agent.pods[0].ids[0] + "::0"};
  agent.pods[1].ids = {agent.pods[1].ids[0] + "::1"};
  agent.pods[1].pod = "b";
  (void)node.work(0, 7, 0);
  agent.processes_in_pods = true;
  agent.label("halves");
  EXPECT_EQ(state(), "pending");
  EXPECT_EQ(agent.evicted, (Texts{"ml/a", "ml/b"}));
}

}  // namespace
}  // namespace gpuslice::mig_test
