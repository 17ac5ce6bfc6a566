// The agent's controller of MIG layouts: what is wished, on two simulated boards.

#include <gtest/gtest.h>

#include "partition_for_test.h"

namespace gpuslice::mig_test {
namespace {

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

}  // namespace
}  // namespace gpuslice::mig_test
