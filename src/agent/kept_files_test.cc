// What the agent keeps in files: the ledger, the GPUs that were seen, the last good configuration.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "agent/config_keeper.h"
#include "agent/gpu_memo.h"
#include "agent/ledger_file.h"
#include "agent/memory_files_for_test.h"
#include "agent/offers_for_test.h"

namespace gpuslice::agent {
namespace {

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
