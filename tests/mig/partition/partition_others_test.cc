// The agent's controller of MIG layouts: what other programs change, GPUs that are silent, and what
// is half-way.

#include <gtest/gtest.h>

#include "partition_for_test.h"

namespace gpuslice::mig_test {
namespace {

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

TEST_F(PartitionTest, WhatIsAskedForWhileAnotherProgramsChangeIsHalfWayIsMadeAfterIt) {
  agent.start();
  agent.label("small");
  leave_journal();
  driver_fails("");
  agent.partition().on_left_by_others({node.gpu(0).uuid});
  agent.look();
  agent.settle();
  ASSERT_TRUE(journal_left());
  node.strike = {};
  // Before it is gone on from again: the GPU is as wanted, and will not stay so.
  agent.partition().ask_again();
  agent.settle();
  agent.pass(minutes(10));
  EXPECT_FALSE(journal_left());
  expect_layouts(kSmall, kSmall);
  EXPECT_EQ(state(), "success") << reason();
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

}  // namespace
}  // namespace gpuslice::mig_test
