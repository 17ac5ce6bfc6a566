#include "agent/label_keeper.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "agent/memory_files_for_test.h"
#include "config/device_plugin.h"

namespace gpuslice::agent {
namespace {

struct LabelKeeperTest : testing::Test {
  MemoryFiles files;
  std::vector<std::string> logged;
  Log log{[this](std::string_view line) { logged.emplace_back(line); }, [] { return WallTime(); },
          Level::kWarning};
  std::vector<std::string> printed;
  std::vector<Labels> applied;
  Hardware hardware;
  std::string config = "flags: {gfd: {outputFile: /features.d/gfd, machineTypeFile: /dmi}}\n";

  LabelKeeperTest() {
    ports::Gpu gpu;
    gpu.uuid = "GPU-0";
    gpu.name = "Tesla T4";
    hardware.gpus.push_back(gpu);
    files.files["/dmi"] = "A machine\n";
  }
  LabelKeeper keeper(LabelsTo to, int64_t start = 100) {
    return {{to, [this](const std::string& text) { printed.push_back(text); },
             [this](const Labels& labels) { applied.push_back(labels); }},
            files,
            log,
            start};
  }
  void look(LabelKeeper& keeper) {
    const auto file = config::read_device_plugin(config, config::Compat::kStrict);
    EXPECT_FALSE(file.problems.has_errors()) << config;
    keeper.look({"580.65.06", "", 13000}, hardware, config::merge({}, file.config, "f").value());
  }
};

TEST_F(LabelKeeperTest, WritesAFeaturesFileAndOnlyWhenSomethingChanged) {
  LabelKeeper one = keeper(LabelsTo::kNfdFile);
  look(one);
  const std::string text = files.files.at("/features.d/gfd");
  EXPECT_TRUE(text.starts_with("nvidia.com/cuda.driver-version.full=580.65.06\n")) << text;
  EXPECT_NE(text.find("\nnvidia.com/gfd.timestamp=100\nnvidia.com/gpu.count=1\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("\nnvidia.com/gpu.machine=A-machine\n"), std::string::npos);
  for (int i = 0; i < 10; ++i) look(one);
  EXPECT_EQ(files.writes, 1);
  hardware.gpus.push_back(hardware.gpus[0]);
  hardware.gpus[1].uuid = "GPU-1";
  look(one);
  EXPECT_EQ(files.writes, 2);
}

TEST_F(LabelKeeperTest, ARestartLeavesTheFileUnlessSomethingChanged) {
  {
    LabelKeeper one = keeper(LabelsTo::kNfdFile, 100);
    look(one);
  }
  const std::string text = files.files.at("/features.d/gfd");
  LabelKeeper two = keeper(LabelsTo::kNfdFile, 200);
  look(two);
  EXPECT_EQ(files.files.at("/features.d/gfd"), text) << "with the time of the first start";
  EXPECT_EQ(files.writes, 1);
  hardware.gpus[0].name = "NVIDIA L4";
  look(two);
  EXPECT_NE(files.files.at("/features.d/gfd").find("gfd.timestamp=200\n"), std::string::npos);
  // No timestamp wanted any more: that is a change of the file at the next start.
  config =
      "flags: {gfd: {outputFile: /features.d/gfd, machineTypeFile: /dmi, noTimestamp: true}}\n";
  LabelKeeper three = keeper(LabelsTo::kNfdFile, 300);
  look(three);
  EXPECT_EQ(files.files.at("/features.d/gfd").find("timestamp"), std::string::npos);
  // What somebody else wrote is replaced.
  files.files["/features.d/gfd"] += "rubbish\n";
  LabelKeeper four = keeper(LabelsTo::kNfdFile, 400);
  look(four);
  EXPECT_EQ(files.files.at("/features.d/gfd").find("rubbish"), std::string::npos);
}

TEST_F(LabelKeeperTest, AFileThatSomebodyTookAwayOrChangedIsWrittenAgain) {
  LabelKeeper one = keeper(LabelsTo::kNfdFile);
  look(one);
  const std::string text = files.files.at("/features.d/gfd");
  files.files.erase("/features.d/gfd");
  look(one);
  EXPECT_EQ(files.files.at("/features.d/gfd"), text);
  files.files["/features.d/gfd"] += "nvidia.com/gpu.count=7\n";
  look(one);
  EXPECT_EQ(files.files.at("/features.d/gfd"), text);
  EXPECT_EQ(files.writes, 3);
}

TEST_F(LabelKeeperTest, AFullDiskIsToldOnceAndTriedAgain) {
  files.full = true;
  LabelKeeper one = keeper(LabelsTo::kNfdFile);
  look(one);
  look(one);
  ASSERT_EQ(logged.size(), 1U);
  EXPECT_NE(logged[0].find("labels: /features.d/gfd: no space left on device; they are written "
                           "again when that is mended"),
            std::string::npos)
      << logged[0];
  files.full = false;
  look(one);
  EXPECT_EQ(files.writes, 1);
}

TEST_F(LabelKeeperTest, TheStandardOutputHearsOncePerChange) {
  LabelKeeper one = keeper(LabelsTo::kStdout);
  look(one);
  look(one);
  ASSERT_EQ(printed.size(), 1U);
  EXPECT_NE(printed[0].find("nvidia.com/gpu.product=Tesla-T4\n"), std::string::npos);
  EXPECT_EQ(files.writes, 0);
  // No file is the standard output as well.
  config = "flags: {gfd: {outputFile: \"\"}}\n";
  LabelKeeper two = keeper(LabelsTo::kNfdFile);
  look(two);
  EXPECT_EQ(printed.size(), 2U);
}

TEST_F(LabelKeeperTest, TheNodeIsAskedAgainAfterAFailure) {
  LabelKeeper one = keeper(LabelsTo::kNode);
  look(one);
  look(one);
  ASSERT_EQ(applied.size(), 1U);
  EXPECT_EQ(applied[0].at("nvidia.com/gpu.count"), "1");
  one.applied(std::unexpected(Error{Code::kUnavailable, "API server: no connection", {}}));
  look(one);
  EXPECT_EQ(applied.size(), 2U);
  one.applied({});
  look(one);
  EXPECT_EQ(applied.size(), 2U);
}

TEST_F(LabelKeeperTest, NowhereIsNowhere) {
  LabelKeeper one = keeper(LabelsTo::kNowhere);
  look(one);
  EXPECT_FALSE(one.said().has_value());
  EXPECT_EQ(files.writes, 0);
}

}  // namespace
}  // namespace gpuslice::agent
