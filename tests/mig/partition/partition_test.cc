// The agent's controller of MIG layouts: what it does when, on two simulated boards.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "partition_node.h"
#include "sim/mig.h"

namespace gpuslice::mig_test {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using Texts = std::vector<std::string>;

constexpr const char* kConfig = R"(version: v1
mig-configs:
  small:
    - {devices: all, mig-enabled: true, mig-devices: {1g.5gb: 7}}
  halves:
    - {devices: all, mig-enabled: true, mig-devices: {3g.20gb: 2}}
  first:
    - {devices: [0], mig-enabled: true, mig-devices: {3g.20gb: 2}}
)";
constexpr const char* kSmall =
    "1g.5gb at 0:1, 1g.5gb at 1:1, 1g.5gb at 2:1, 1g.5gb at 3:1, 1g.5gb at 4:1, 1g.5gb at 5:1, "
    "1g.5gb at 6:1";
constexpr const char* kHalves = "3g.20gb at 0:4, 3g.20gb at 4:4";

sim::NodeOptions two_boards() {
  sim::NodeOptions options;
  options.gpus = {{"A100-SXM4-40GB", sim::Sweep::kPlain}, {"A100-SXM4-40GB", sim::Sweep::kPlain}};
  return options;
}

class PartitionTest : public testing::Test {
 protected:
  PartitionTest() { node.files.files[kMigConfig] = kConfig; }

  // Calls of the driver that begin so fail until `node.strike` is taken away.
  void driver_fails(const std::string& word, Error error = {Code::kFailed, "unknown error", {}}) {
    node.strike = [word, error](std::string_view call, const std::string&, uint64_t,
                                bool after) -> std::optional<Error> {
      if (after || !call.starts_with(word)) return std::nullopt;
      return error;
    };
  }
  // A change of GPU 0 that an earlier life of the agent has begun.
  void leave_journal() {
    mig::Change change(node.ports(), Node::options(), node.gpu(0));
    ASSERT_TRUE(change.prepare(wish({{"3g.20gb", 2}})));
  }
  [[nodiscard]] bool journal_left() const {
    return node.files.files.contains(
        mig::journal_path(Node::options().journal_folder, node.gpu(0).uuid));
  }
  [[nodiscard]] std::string state() const { return agent.status().state; }
  [[nodiscard]] const std::string& reason() const { return agent.status().reason; }
  [[nodiscard]] size_t times(const std::string& question) const {
    return static_cast<size_t>(std::count(agent.asked.begin(), agent.asked.end(), question));
  }
  void expect_layouts(const std::string& first, const std::string& second) {
    EXPECT_EQ(agent.layout(0), first);
    EXPECT_EQ(agent.layout(1), second);
  }
  void another_program_takes_an_instance_of(uint32_t gpu) {
    sim::WorldNvml other(*node.world);
    const auto there = node.look(gpu);
    const ports::GpuInstance& first = there.instances.at(0);
    const std::string uuid = node.gpu(gpu).uuid;
    ASSERT_TRUE(other.destroy_ci(uuid, first.id, first.cis.at(0).id).has_value());
    ASSERT_TRUE(other.destroy_gi(uuid, first.id).has_value());
  }
  // "GPU-… twice" where a device was withdrawn more than once.
  [[nodiscard]] Texts withdrawn_twice() const {
    std::set<std::string> seen;
    Texts out;
    for (const std::set<std::string>& one : agent.withdrawals)
      for (const std::string& uuid : one)
        if (!seen.insert(uuid).second) out.push_back(uuid + " twice");
    return out;
  }

  Node node{two_boards()};
  PartitionNode agent{node};
};

TEST_F(PartitionTest, ALabelIsMadeGpuByGpu) {
  agent.start();
  EXPECT_FALSE(agent.partition().may_offer()) << "the API server has not said the label yet";
  agent.label("small");
  EXPECT_TRUE(agent.partition().may_offer());
  EXPECT_EQ(agent.states(), (Texts{"pending", "success"}));
  expect_layouts(kSmall, kSmall);
  EXPECT_EQ(agent.asked,
            (Texts{"check", "prepare GPU 0", "execute GPU 0", "prepare GPU 1", "execute GPU 1"}));
  EXPECT_EQ(agent.withdrawals,
            (std::vector<std::set<std::string>>{{node.gpu(0).uuid}, {node.gpu(1).uuid}}));
  EXPECT_TRUE(agent.partition().withheld().empty());
}

// --- a start

TEST_F(PartitionTest, NothingIsOfferedBeforeWhatWasInterruptedIsOver) {
  leave_journal();
  agent.answers = false;
  agent.start();
  EXPECT_EQ(agent.asked, Texts{"recover"});
  agent.pass(hours(1));
  EXPECT_FALSE(agent.partition().may_offer()) << "however long it takes";
  agent.answers = true;
  agent.settle();
  EXPECT_TRUE(agent.partition().may_offer());
  EXPECT_FALSE(journal_left());
  EXPECT_EQ(agent.layout(0), kHalves);
}

TEST_F(PartitionTest, NothingIsOfferedBeforeTheFirstPassWithinPatience) {
  agent.options.source.label_from_api = false;
  agent.options.source.label = "small";
  agent.answers = false;
  agent.start();
  agent.pass(agent::kSettlePatience - seconds(1));
  EXPECT_FALSE(agent.partition().may_offer());
  agent.pass(seconds(1));
  EXPECT_TRUE(agent.partition().may_offer());
  agent.answers = true;
  agent.settle();
  EXPECT_EQ(state(), "success");
}

class AfterAReboot : public PartitionTest {
 protected:
  AfterAReboot() {
    agent.start();
    agent.label("halves");
    EXPECT_EQ(state(), "success");
    const auto done = node.world->write([](sim::State& s) {
      sim::reboot(s);
      return true;
    });
    EXPECT_TRUE(done.value_or(false));
    node.files.boot = "boot-1";
    agent.asked.clear();
    agent.start();
  }
  static constexpr const char* kNone = "MIG on, no instances";
};

TEST_F(AfterAReboot, TheLabelOfBeforeIsMadeWhereTheApiServerDoesNotSpeak) {
  agent.pass(agent::kFirstLabelPatience - seconds(1));
  expect_layouts(kNone, kNone);
  EXPECT_FALSE(agent.partition().may_offer());
  EXPECT_EQ(state(), "pending");
  agent.pass(seconds(1));
  EXPECT_EQ(state(), "success");
  EXPECT_TRUE(agent.partition().may_offer());
  expect_layouts(kHalves, kHalves);
}

TEST_F(AfterAReboot, TheLabelOfBeforeIsMadeAtOnceWhereTheApiServerSaysItAgain) {
  expect_layouts(kNone, kNone);
  agent.label("halves");
  EXPECT_EQ(state(), "success");
  expect_layouts(kHalves, kHalves);
}

TEST_F(AfterAReboot, NothingIsMadeForALabelThatWasTakenBackMeanwhile) {
  agent.label(std::nullopt);
  agent.pass(minutes(1));
  expect_layouts(kNone, kNone);
  EXPECT_TRUE(agent.partition().may_offer());
  EXPECT_EQ(state(), "");
  EXPECT_EQ(std::count(agent.asked.begin(), agent.asked.end(), "execute"), 0);
}

// What is as it was wanted is served, whoever does not speak.
TEST_F(PartitionTest, AStartWithoutTheApiServerServesWhatIsThere) {
  agent.start();
  agent.label("halves");
  agent.start();
  EXPECT_EQ(state(), "success");
  EXPECT_TRUE(agent.partition().may_offer());
}

// --- a wish that changes meanwhile

TEST_F(PartitionTest, AnotherWishWhileItIsChecked) {
  agent.start();
  agent.before_answer = [&](const std::string&) {
    agent.before_answer = nullptr;
    agent.partition().on_label("halves");
  };
  agent.label("small");
  EXPECT_EQ(agent.asked[1], "check") << "nothing was prepared for the first";
  EXPECT_EQ(state(), "success");
  EXPECT_EQ(agent.status().label, "halves");
  expect_layouts(kHalves, kHalves);
  EXPECT_EQ(withdrawn_twice(), Texts{});
}

TEST_F(PartitionTest, AnotherWishWhileItIsPreparedWithdrawsNothing) {
  agent.start();
  agent.label("small");
  agent.asked.clear();
  agent.withdrawals.clear();
  const auto before = agent.gpus();
  agent.before_answer = [&](const std::string& question) {
    if (question != "prepare") return;
    agent.before_answer = nullptr;
    agent.partition().on_label("small");
  };
  agent.label("halves");
  EXPECT_EQ(agent.asked, (Texts{"check", "prepare GPU 0", "abandon GPU 0", "check"}));
  EXPECT_TRUE(agent.withdrawals.empty());
  EXPECT_FALSE(journal_left());
  EXPECT_EQ(state(), "success");
  EXPECT_EQ(agent.gpus()[0].mig_devices[0].uuid, before[0].mig_devices[0].uuid);
}

TEST_F(PartitionTest, AnotherWishWhileItIsMadeComesAfterThatGpu) {
  for (const char* during : {"withdrawal", "execute"}) {
    Node own{two_boards()};
    PartitionNode follower{own};
    own.files.files[kMigConfig] = kConfig;
    follower.start();
    if (during == std::string("execute")) {
      follower.before_answer = [&](const std::string& question) {
        if (question != "execute") return;
        follower.before_answer = nullptr;
        follower.partition().on_label("halves");
      };
      follower.label("small");
    } else {
      follower.withdraws = false;
      follower.label("small");
      follower.partition().on_label("halves");
      follower.withdraws = true;
      follower.settle();
    }
    EXPECT_EQ(follower.asked,
              (Texts{"check", "prepare GPU 0", "execute GPU 0", "check", "prepare GPU 0",
                     "execute GPU 0", "prepare GPU 1", "execute GPU 1"}))
        << during;
    EXPECT_EQ(follower.status().state, "success");
    EXPECT_EQ(follower.layout(0), kHalves);
    EXPECT_EQ(follower.layout(1), kHalves);
    // The GPU for its mode, then each of the seven that were made of it, once.
    std::map<std::string, int> withdrawn;
    for (const auto& one : follower.withdrawals)
      for (const std::string& uuid : one) ++withdrawn[uuid];
    EXPECT_EQ(withdrawn.size(), 9U) << during;
    for (const auto& [uuid, count] : withdrawn) EXPECT_EQ(count, 1) << uuid;
  }
}

TEST_F(PartitionTest, ALabelTakenAwayWhileItIsMadeStopsAfterThatGpu) {
  agent.start();
  agent.before_answer = [&](const std::string& question) {
    if (question == "execute") agent.partition().on_label(std::nullopt);
  };
  agent.label("small");
  expect_layouts(kSmall, "MIG off");
  EXPECT_EQ(agent.status(), ports::MigStatus({"", "", "", "", agent.status().since}));
  EXPECT_TRUE(agent.partition().withheld().empty());
}

// --- a driver that hangs, at each place where it may

TEST_F(PartitionTest, ALabelTakenAwayWhileTheAgentWasDownIsShownAsNothing) {
  agent.start();
  agent.label("small");
  ASSERT_EQ(state(), "success");
  agent.shown.clear();
  agent.start();
  agent.label(std::nullopt);
  ASSERT_FALSE(agent.shown.empty()) << "the Node would say success for ever";
  EXPECT_EQ(agent.shown.back().state, "");
  EXPECT_EQ(agent.shown.back().label, "");
}

TEST_F(PartitionTest, NothingIsPendingForEverWhereverItHangs) {
  for (const std::string at :
       {"first look", "recover", "check", "prepare", "withdrawal", "execute", "look"}) {
    Node own{two_boards()};
    PartitionNode follower{own};
    own.files.files[kMigConfig] = kConfig;
    if (at == "recover") {
      mig::Change change(own.ports(), Node::options(), own.gpu(0));
      ASSERT_TRUE(change.prepare(wish({{"3g.20gb", 2}})));
    }
    follower.looks = at != "first look";
    follower.withdraws = at != "withdrawal";
    follower.hangs_at = at;
    follower.before_answer = [&](const std::string& question) {
      if (at == "look" && question == "execute") follower.looks = false;
    };
    follower.start();
    follower.label("small");
    follower.pass(agent::kFirstWordPatience);
    EXPECT_EQ(follower.status().state, "pending") << at;
    EXPECT_EQ(follower.status().label, "small") << at;
    EXPECT_FALSE(follower.status().reason.empty()) << at;
    follower.pass(agent::kPendingDeadline);
    EXPECT_EQ(follower.status().state, "failed") << at;
    EXPECT_TRUE(follower.status().reason.starts_with("not finished in time: ")) << at;
    follower.pass(hours(1));
    EXPECT_EQ(follower.status().state, "failed") << at;
    follower.before_answer = nullptr;
    follower.hangs_at.clear();
    follower.looks = follower.withdraws = true;
    follower.settle();
    EXPECT_EQ(follower.status().state, "success") << at << ": " << follower.status().reason;
    EXPECT_EQ(follower.layout(0), kSmall) << at;
  }
}

// The last wish's success is not the next one's.
TEST_F(PartitionTest, AnotherLabelIsPendingAtOnce) {
  agent.start();
  agent.label("small");
  ASSERT_EQ(state(), "success");
  agent.answers = false;
  agent.label("halves");
  EXPECT_EQ(agent.status().label, "halves");
  EXPECT_EQ(state(), "pending");
}

// --- failures

TEST_F(PartitionTest, AFailureIsTriedAgainLessAndLessOften) {
  agent.start();
  driver_fails("set_mig_mode");
  agent.label("small");
  EXPECT_EQ(state(), "failed");
  EXPECT_EQ(times("check"), 1U);
  agent.pass(seconds(5));
  EXPECT_EQ(times("check"), 2U);
  agent.pass(seconds(10));
  EXPECT_EQ(times("check"), 3U);
  agent.pass(hours(1));
  // 20, 40, 80, 160 s, then every five minutes; a pass itself takes its tries' time.
  EXPECT_GE(times("check"), 15U);
  EXPECT_LE(times("check"), 19U);
  node.strike = nullptr;
  const size_t before = times("check");
  agent.label("small");
  EXPECT_EQ(times("check"), before + 1) << "asked for again";
  EXPECT_EQ(state(), "success");
  agent.pass(hours(1));
  EXPECT_EQ(times("check"), before + 1) << "nothing more to do";
}

TEST_F(PartitionTest, AGpuThatDoesNotAnswerHoldsUpNoOther) {
  for (const bool noticed : {true, false}) {
    Node own{two_boards()};
    PartitionNode follower{own};
    own.files.files[kMigConfig] = kConfig;
    follower.start();
    follower.lose(1, true);
    if (noticed) follower.look();
    follower.label("small");
    EXPECT_EQ(follower.status().state, "failed") << noticed;
    EXPECT_NE(follower.status().reason.find("GPU 1"), std::string::npos)
        << follower.status().reason;
    EXPECT_EQ(follower.layout(0), kSmall) << noticed;
    EXPECT_TRUE(follower.partition().troubles().contains(own.gpu(1).uuid));
    follower.lose(1, false);
    follower.look();
    follower.pass(agent::kFirstMigRetry);
    EXPECT_EQ(follower.status().state, "success") << noticed << follower.status().reason;
    EXPECT_EQ(follower.layout(1), kSmall) << noticed;
    EXPECT_TRUE(follower.partition().troubles().empty());
  }
}

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

TEST_F(PartitionTest, ARetryLeavesAloneWhatAnotherProgramChanged) {
  agent.start();
  agent.label("small");
  const uint16_t client = node.work(0, 7, 0);
  agent.label("halves");
  ASSERT_EQ(state(), "failed");
  ASSERT_EQ(agent.layout(1), kHalves);
  another_program_takes_an_instance_of(1);
  const std::string left = agent.layout(1);
  agent.look();
  node.end_work(client);
  agent.pass(minutes(6));
  EXPECT_EQ(agent.layout(0), kHalves) << "what failed is tried again";
  EXPECT_EQ(agent.layout(1), left);
  EXPECT_EQ(state(), "failed");
  EXPECT_NE(reason().find("GPU 1: another program changed it"), std::string::npos) << reason();
  agent.partition().ask_again();
  agent.settle();
  EXPECT_EQ(state(), "success") << reason();
  expect_layouts(kHalves, kHalves);
}

TEST_F(PartitionTest, AskedForAgainIsSeenAlthoughNothingIsToBeDone) {
  agent.start();
  agent.label("halves");
  agent.shown.clear();
  agent.partition().ask_again();
  agent.settle();
  EXPECT_EQ(agent.states(), (Texts{"pending", "success"}));
}

TEST_F(PartitionTest, AGpuThatComesBackIsMadeAgainAndNoOther) {
  agent.start();
  agent.label("halves");
  agent.lose(0, true);
  agent.look();
  agent.pass(minutes(1));
  another_program_takes_an_instance_of(1);
  const std::string left = agent.layout(1);
  agent.look();
  agent.pass(minutes(1));
  agent.lose(0, false);
  another_program_takes_an_instance_of(0);
  agent.look();
  agent.pass(minutes(6));
  EXPECT_EQ(agent.layout(0), kHalves);
  EXPECT_EQ(agent.layout(1), left);
}

TEST_F(PartitionTest, AnotherProgramsChangeIsToldAndNotFought) {
  agent.start();
  agent.label("halves");
  another_program_takes_an_instance_of(1);
  const std::string left = agent.layout(1);
  agent.look();
  agent.pass(hours(1));
  EXPECT_EQ(state(), "failed");
  EXPECT_NE(reason().find("GPU 1: another program changed it"), std::string::npos) << reason();
  EXPECT_EQ(agent.layout(1), left);
  agent.label("halves");
  EXPECT_EQ(state(), "success");
  expect_layouts(kHalves, kHalves);
}

// The last look is from before: what it showed was never made for this label.
TEST_F(PartitionTest, WhatAnotherProgramMadeAsWantedJustBeforeTheCheckIsNoChangeOfItLater) {
  agent.start();
  agent.label("halves");
  agent.before_answer = [this](const std::string& question) {
    if (question != "check") return;
    agent.before_answer = nullptr;
    mig::Change change(node.ports(), Node::options(), node.gpu(1));
    change.run(wish({{"1g.5gb", 7}}));
    ASSERT_EQ(change.report().end, mig::End::kDone);
  };
  agent.label("small");
  EXPECT_EQ(state(), "success");
  agent.look();
  agent.pass(minutes(1));
  EXPECT_EQ(state(), "success") << reason();
  expect_layouts(kSmall, kSmall);
  another_program_takes_an_instance_of(1);
  agent.look();
  agent.pass(minutes(1));
  EXPECT_EQ(state(), "failed");
  EXPECT_NE(reason().find("GPU 1: another program changed it: it was MIG on, 1g.5gb"),
            std::string::npos)
      << reason();
}

// … and what somebody changes right after it is one.
TEST_F(PartitionTest, WhatAnotherProgramChangesJustAfterTheCheckIsTold) {
  agent.start();
  agent.label("halves");
  agent.looks = false;
  agent.label("halves");
  EXPECT_EQ(state(), "success");
  another_program_takes_an_instance_of(1);
  agent.looks = true;
  agent.look();
  agent.pass(minutes(1));
  EXPECT_EQ(state(), "failed");
  EXPECT_NE(reason().find("GPU 1: another program changed it"), std::string::npos) << reason();
}

// --- wishes that mean nothing

TEST_F(PartitionTest, ALabelThatIsNotThereFailsWithTheNearest) {
  agent.start();
  agent.label("smal");
  EXPECT_EQ(state(), "failed");
  EXPECT_NE(reason().find("did you mean small?"), std::string::npos) << reason();
  EXPECT_TRUE(agent.asked.empty());
  std::string more = kConfig;
  more += "  smal:\n    - {devices: all, mig-enabled: false, mig-devices: {}}\n";
  agent.config(more);
  EXPECT_EQ(state(), "success") << "the file was edited: " << reason();
}

TEST_F(PartitionTest, ABadFileLeavesTheLastGoodOneInForce) {
  agent.start();
  agent.config("version: v2\n");
  agent.label("halves");
  EXPECT_EQ(state(), "success");
  EXPECT_TRUE(reason().starts_with("made from the last good configuration: ")) << reason();
  agent.start();
  agent.label("small");
  EXPECT_EQ(state(), "success") << "after a restart as well: " << reason();
  expect_layouts(kSmall, kSmall);
  agent.config(kConfig);
  EXPECT_EQ(reason(), "");
}

TEST_F(PartitionTest, WithoutAnyGoodFileALabelFails) {
  node.files.files[kMigConfig] = "version: v2\n";
  agent.start();
  agent.label("small");
  EXPECT_EQ(state(), "failed");
  EXPECT_NE(reason().find("v2"), std::string::npos) << reason();
  EXPECT_TRUE(agent.partition().may_offer());
  agent.config(kConfig);
  EXPECT_EQ(state(), "success");
}

// --- a journal that is kept

TEST_F(PartitionTest, AGpuBetweenLayoutsIsWithheldUntilItIsWhole) {
  agent.start();
  agent.label("small");
  driver_fails("create_gi");
  agent.label("first");
  EXPECT_EQ(state(), "failed");
  EXPECT_TRUE(journal_left());
  const std::set<std::string> whole = {node.gpu(0).uuid};
  EXPECT_EQ(agent.partition().withheld(), whole);
  agent.pass(minutes(2));
  EXPECT_EQ(agent.partition().withheld(), whole);
  // Also when nothing is wanted any more: it is not left half-way.
  agent.label(std::nullopt);
  EXPECT_EQ(agent.partition().withheld(), whole);
  node.strike = nullptr;
  agent.pass(agent::kLongestMigRetry);
  EXPECT_TRUE(agent.partition().withheld().empty());
  EXPECT_FALSE(journal_left());
  EXPECT_TRUE(agent.layout(0) == kHalves || agent.layout(0) == kSmall) << agent.layout(0);
}

TEST_F(PartitionTest, WhatAnotherProgramLeftHalfWayIsGoneOnFromAndWithheldBefore) {
  agent.start();
  agent.label(std::nullopt);
  agent.asked.clear();
  leave_journal();
  agent.look();
  agent.settle();
  EXPECT_TRUE(agent.asked.empty()) << "its program may live, and hold the lock";
  agent.partition().on_left_by_others({node.gpu(1).uuid});
  agent.settle();
  EXPECT_TRUE(agent.asked.empty()) << "it was another GPU's program that ended";
  const std::set<std::string> whole = {node.gpu(0).uuid};
  std::set<std::string> withheld;
  agent.before_answer = [&](const std::string&) { withheld = agent.partition().withheld(); };
  agent.partition().on_left_by_others({node.gpu(0).uuid});
  EXPECT_EQ(agent.partition().withheld(), whole) << "at once";
  agent.look();
  agent.settle();
  EXPECT_EQ(agent.asked, Texts{"recover"});
  EXPECT_EQ(withheld, whole);
  EXPECT_TRUE(agent.partition().withheld().empty());
  EXPECT_FALSE(journal_left());
  EXPECT_EQ(agent.layout(0), kHalves);
}

TEST_F(PartitionTest, TheJournalOfASilentGpuWaitsForItAndWithholdsIt) {
  agent.start();
  leave_journal();
  agent.lose(0, true);
  agent.start();
  agent.label(std::nullopt);
  EXPECT_TRUE(agent.partition().may_offer()) << "the others need not wait";
  const std::set<std::string> whole = {node.gpu(0).uuid};
  EXPECT_EQ(agent.partition().withheld(), whole);
  EXPECT_TRUE(agent.asked.empty());
  agent.pass(hours(1));
  EXPECT_EQ(agent.partition().withheld(), whole);
  agent.lose(0, false);
  agent.look();
  agent.settle();
  EXPECT_EQ(agent.asked, Texts{"recover"});
  EXPECT_TRUE(agent.partition().withheld().empty());
  EXPECT_EQ(agent.layout(0), kHalves);
}

// --- a mode that waits for a reboot

class RebootTest : public PartitionTest {
 protected:
  RebootTest() {
    // In a virtual machine a GPU cannot be reset.
    const auto done = node.world->write([](sim::State& s) {
      s.node.passthrough = 1;
      return true;
    });
    CHECK(done.value_or(false), "the world of a test cannot be made");
  }
  void boot() {
    const auto done = node.world->write([](sim::State& s) {
      sim::reboot(s);
      return true;
    });
    ASSERT_TRUE(done.value_or(false));
    node.files.boot += "+1";
    agent.start();
  }
};

TEST_F(RebootTest, WithoutLeaveItFailsAndSaysSo) {
  agent.start();
  agent.label("halves");
  EXPECT_EQ(state(), "failed");
  EXPECT_NE(reason().find("reboot"), std::string::npos) << reason();
  EXPECT_EQ(agent.reboots, 0);
}

TEST_F(RebootTest, ItIsRebootedOnceAndThenItIsThere) {
  agent.may_reboot = true;
  agent.start();
  agent.label("halves");
  EXPECT_EQ(agent.states(), (Texts{"pending", "rebooting"}));
  agent.pass(minutes(1));
  EXPECT_EQ(agent.reboots, 1);
  boot();
  agent.label("halves");  // as the API server says it again
  EXPECT_EQ(state(), "success") << reason();
  expect_layouts(kHalves, kHalves);
  EXPECT_EQ(node.files.files.at("/state/mig-request").find("rebooted-for"), std::string::npos)
      << "that one is over: another need for one is another reboot";
  EXPECT_EQ(agent.reboots, 1);
}

TEST_F(RebootTest, ARebootThatDidNotHelpIsNotRepeated) {
  agent.may_reboot = true;
  agent.start();
  agent.label("halves");
  for (int life = 0; life < 3; ++life) {
    agent.start();  // the mode is as it was
    agent.pass(hours(1));
    EXPECT_EQ(state(), "failed");
    EXPECT_NE(reason().find("a reboot did not help"), std::string::npos) << reason();
  }
  EXPECT_EQ(agent.reboots, 1);
}

TEST_F(RebootTest, AMachineThatDoesNotRestartIsToldOf) {
  agent.may_reboot = true;
  agent.start();
  agent.label("halves");
  agent.pass(agent::kRebootPatience - seconds(1));
  EXPECT_EQ(state(), "rebooting");
  agent.pass(seconds(1));
  EXPECT_EQ(state(), "failed");
  EXPECT_NE(reason().find("has not restarted"), std::string::npos) << reason();
  EXPECT_EQ(agent.reboots, 1);
}

TEST_F(RebootTest, ACommandThatFailsIsTriedAgain) {
  agent.may_reboot = agent.reboot_fails = true;
  agent.start();
  agent.label("halves");
  EXPECT_EQ(state(), "failed");
  EXPECT_NE(reason().find("cannot be rebooted"), std::string::npos) << reason();
  agent.reboot_fails = false;
  agent.pass(agent::kFirstMigRetry + seconds(1));
  EXPECT_EQ(state(), "rebooting");
  EXPECT_EQ(agent.reboots, 2);
}

// Otherwise each boot would find that it was not rebooted yet.
TEST_F(RebootTest, ThereIsNoneThatCannotBeRemembered) {
  agent.may_reboot = true;
  agent.start();
  agent.before_answer = [&](const std::string& question) {
    if (question == "execute") node.files.full = true;
  };
  agent.label("halves");
  EXPECT_EQ(state(), "failed");
  EXPECT_NE(reason().find("it is not rebooted"), std::string::npos) << reason();
  EXPECT_EQ(agent.reboots, 0);
}

}  // namespace
}  // namespace gpuslice::mig_test
