#include "agent/mig_wanted.h"

#include <gtest/gtest.h>

#include "agent/memory_files_for_test.h"
#include "agent/partition.h"

namespace gpuslice::agent {
namespace {

class Idle final : public MigRunner {
 public:
  void recover(std::vector<std::string>) override {}
  void check(std::vector<MigTask>) override {}
  void prepare(MigTask) override {}
  void execute() override {}
  void abandon() override {}
};

class Time final : public ports::Clock {
 public:
  MonotonicTime now() const override { return at; }
  WallTime wall() const override { return {}; }
  MonotonicTime at{std::chrono::hours(1)};
};

// The label comes from the node's object in the API server.
class MigFromApi : public ::testing::Test {
 protected:
  Partition fresh() {
    PartitionOptions options;
    options.source.config_path = "/mig.yaml";
    options.source.label_from_api = true;
    options.source.state_dir = "/state";
    return {options, {files, clock, &runner}, log};
  }
  MemoryFiles files;
  Time clock;
  Idle runner;
  Log log{[](std::string_view) {}, [] { return WallTime(); }};
};

TEST_F(MigFromApi, NothingIsOfferedBeforeTheFirstWordOfTheApiServer) {
  Partition partition = fresh();
  partition.start();
  partition.on_inventory({}, {});
  EXPECT_EQ(partition.step(), clock.at + kSettlePatience);
  EXPECT_FALSE(partition.may_offer());
  partition.on_label(std::nullopt);
  (void)partition.step();
  EXPECT_TRUE(partition.may_offer());
}

TEST_F(MigFromApi, AnApiServerThatIsAwayHoldsUpForAWhileOnly) {
  Partition partition = fresh();
  partition.start();
  partition.on_inventory({}, {});
  (void)partition.step();
  clock.at += kSettlePatience;
  (void)partition.step();
  EXPECT_TRUE(partition.may_offer());
}

TEST_F(MigFromApi, WhatItSaidLastCountsAtTheNextStart) {
  {
    MigWanted wanted({"/mig.yaml", "", "", true, "/state"}, files, log);
    wanted.start();
    EXPECT_FALSE(wanted.known());
    EXPECT_TRUE(wanted.set_label("all-1g.5gb"));
    EXPECT_FALSE(wanted.set_label("all-1g.5gb"));
  }
  MigWanted wanted({"/mig.yaml", "", "", true, "/state"}, files, log);
  wanted.start();
  EXPECT_TRUE(wanted.known());
  EXPECT_EQ(wanted.label(), "all-1g.5gb");
}

TEST_F(MigFromApi, ThatItAskedForNothingIsKnownAtTheNextStartToo) {
  {
    MigWanted wanted({"/mig.yaml", "", "", true, "/state"}, files, log);
    wanted.start();
    (void)wanted.set_label(std::nullopt);
  }
  Partition partition = fresh();
  partition.start();
  partition.on_inventory({}, {});
  (void)partition.step();
  EXPECT_TRUE(partition.may_offer());
}

// A start waits for no disk when nothing is new.
TEST(MigWanted, TheLastGoodOneIsWrittenOnceAndOnlyWhenItDiffers) {
  MemoryFiles files;
  Log log{[](std::string_view) {}, [] { return WallTime(); }};
  MigSource source;
  source.config_path = "/mig.yaml";
  source.state_dir = "/state";
  files.files["/mig.yaml"] =
      "version: v1\nmig-configs: {off: [{devices: all, mig-enabled: false}]}\n";
  const auto start = [&] {
    MigWanted wanted(source, files, log);
    wanted.start();
  };
  start();
  const int first = files.writes;
  EXPECT_EQ(files.files.at("/state/last-good-mig-config.yaml"), files.files.at("/mig.yaml"));
  start();
  EXPECT_EQ(files.writes, first);
  files.files["/mig.yaml"] += "# edited\n";
  start();
  EXPECT_EQ(files.writes, first + 1);
  EXPECT_EQ(files.files.at("/state/last-good-mig-config.yaml"), files.files.at("/mig.yaml"));
}

}  // namespace
}  // namespace gpuslice::agent
