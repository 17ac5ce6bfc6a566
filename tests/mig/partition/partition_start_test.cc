// The agent's controller of MIG layouts: starts, reboots of the machine, and those it asks for.

#include <gtest/gtest.h>

#include "partition_for_test.h"
#include "sim/mig.h"

namespace gpuslice::mig_test {
namespace {

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

class WithMigOff : public PartitionTest {
 protected:
  WithMigOff() {
    agent.options.source.label_from_api = false;
    agent.options.source.label = "off";
  }
};

TEST_F(WithMigOff, AStartAsksNothingMoreOfTheDriver) {
  agent.start();
  EXPECT_EQ(agent.asked, Texts{});
  EXPECT_EQ(state(), "success");
  EXPECT_TRUE(agent.partition().may_offer());
  another_program_switches_on(1);
  agent.look();
  agent.settle();
  EXPECT_EQ(state(), "failed") << "it was looked at, and is watched";
  EXPECT_NE(reason().find("GPU 1: another program changed it: it was MIG off"), std::string::npos)
      << reason();
}

TEST_F(WithMigOff, AnOldLookIsNotEnough) {
  agent.start();
  another_program_switches_on(1);
  agent.partition().ask_again();
  agent.settle();
  EXPECT_EQ(agent.asked, (Texts{"check", "prepare GPU 1", "execute GPU 1"}));
  EXPECT_EQ(state(), "success");
}

TEST_F(WithMigOff, AllAreCheckedWhereOneIsOn) {
  another_program_switches_on(1);
  agent.start();
  EXPECT_EQ(agent.asked, (Texts{"check", "prepare GPU 1", "execute GPU 1"}));
  EXPECT_EQ(state(), "success");
}

TEST_F(WithMigOff, WhatWasInterruptedIsFinishedFirst) {
  leave_journal();
  agent.start();
  EXPECT_EQ(agent.asked.front(), "recover");
  EXPECT_EQ(state(), "success");
  EXPECT_FALSE(journal_left());
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
