#include "bin/api_node.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ports/kube_for_test.h"
#include "ports/timers_for_test.h"

namespace gpuslice::bin {
namespace {

using Text = std::optional<std::string>;
using Labels = std::map<std::string, std::string>;

const std::string kConfig(kMigConfigLabel);
const std::string kState(kMigStateLabel);
const std::string kReason(kMigReasonNote);
const std::string kRequest(kMigRequestNote);
const std::string kSince(kMigSinceNote);
const std::string kThen = format_utc(WallTime());
const std::string kDevicePlugin = "nvidia.com/gpu.deploy.device-plugin";

class ApiNodeTest : public ::testing::Test {
 protected:
  ApiNodeTest() { node.begin(api); }
  void see(Labels labels, Labels annotations = {}, const std::string& uid = "u") {
    node.on_node(ports::NodeObject{"n", uid, "1", std::move(labels), std::move(annotations)});
  }
  void show(const std::string& state, const std::string& reason = "",
            const std::string& label = "all-1g.5gb") {
    node.mig_board()->show({label, state, reason, label.empty() ? "" : "0a", WallTime()});
  }
  // Labels of the last patch.
  [[nodiscard]] Text state() const { return api.patches.back().labels.at(kState); }

  ports::TimersForTest timers;
  std::string said;  // the log
  Log log{[this](std::string_view line) { said += line; }, [] { return WallTime(); }};
  std::vector<Text> asked;
  ports::KubeForTest api;
  std::vector<Text> config;
  int again = 0;
  ApiNode node{
      timers,
      log,
      {[](const Status&) {}, [this](const Text& label) { asked.push_back(label); },
       [this] { ++again; }, nullptr, [this](const Text& label) { config.push_back(label); }}};
};

TEST_F(ApiNodeTest, EventsAreHandedOnUntilTheEnd) {
  ports::KubeEvent event;
  event.reason = "GpuUnhealthy";
  node.record(event);
  node.end();
  node.record(event);
  EXPECT_EQ(api.events.size(), 1U);
}

TEST_F(ApiNodeTest, TheLabelIsToldAtFirstSightAndWhenItSaysSomethingElse) {
  EXPECT_TRUE(api.watches_node);
  EXPECT_TRUE(asked.empty());
  see({});
  EXPECT_EQ(asked, (std::vector<Text>{std::nullopt}));
  see({{kConfig, "all-1g.5gb"}});
  see({{kConfig, "all-1g.5gb"}, {"other", "1"}});
  EXPECT_EQ(asked, (std::vector<Text>{std::nullopt, "all-1g.5gb"}));
  node.on_node(std::nullopt);  // deleted: that asks for nothing
  see({{kConfig, "all-1g.5gb"}}, {}, "v");
  EXPECT_EQ(asked.size(), 2U);
  see({}, {}, "v");
  EXPECT_EQ(asked.size(), 3U);
  EXPECT_EQ(asked.back(), std::nullopt);
}

TEST_F(ApiNodeTest, TheLabelOfTheConfigurationIsToldLikewise) {
  const std::string key = "nvidia.com/device-plugin.config";
  see({});
  see({{key, "a"}});
  see({{key, "a"}, {"other", "1"}});
  see({{key, "b"}});
  EXPECT_EQ(config, (std::vector<Text>{std::nullopt, "a", "b"}));
}

TEST_F(ApiNodeTest, WhatBecameOfItIsWrittenOnceTheNodeIsSeen) {
  show("failed", "GPU 0: held");
  EXPECT_TRUE(api.patches.empty());
  EXPECT_TRUE(api.events.empty());
  see({});
  ASSERT_EQ(api.patches.size(), 1U);
  EXPECT_EQ(api.patches[0].labels, (NodePatches::Values{{kState, "failed"}}));
  EXPECT_EQ(api.patches[0].annotations,
            (NodePatches::Values{
                {kReason, "GPU 0: held"}, {kRequest, "all-1g.5gb 0a"}, {kSince, kThen}}));
  ASSERT_EQ(api.events.size(), 1U);
  EXPECT_TRUE(api.events[0].warning);
  EXPECT_EQ(api.events[0].reason, "MigChangeFailed");
  EXPECT_EQ(api.events[0].message, "MIG layout all-1g.5gb: failed: GPU 0: held");
}

TEST_F(ApiNodeTest, OnePatchAtATimeAndTheLastStateWins) {
  see({});
  show("pending", "4 of 4 GPUs to be changed");
  show("pending", "GPU 1 is being changed");
  show("success");
  ASSERT_EQ(api.patches.size(), 1U);
  EXPECT_EQ(state(), "pending");
  node.on_node_patched({});
  ASSERT_EQ(api.patches.size(), 2U);
  EXPECT_EQ(state(), "success");
  EXPECT_EQ(api.patches[1].annotations.at(kReason), std::nullopt);
  EXPECT_FALSE(api.patches[1].annotations.contains(kRequest));  // as it was written before
  node.on_node_patched({});
  see({{kState, "success"}});
  EXPECT_EQ(api.patches.size(), 2U);
  ASSERT_EQ(api.events.size(), 1U);  // of the end, not of what was on the way
  EXPECT_EQ(api.events[0].reason, "MigChanged");
}

TEST_F(ApiNodeTest, WhatWeWroteIsNewerThanWhatTheNodeStillShows) {
  see({{kState, "success"}}, {{kRequest, "old 01"}, {kSince, kThen}});
  show("pending");
  node.on_node_patched({});
  show("success");  // and the news of "pending" is not there yet
  EXPECT_EQ(state(), "success");
}

TEST_F(ApiNodeTest, AStartThatFindsEverythingAsItWasWritesNothing) {
  see({{kState, "success"}}, {{kRequest, "all-1g.5gb 0a"}, {kSince, kThen}});
  show("success");
  EXPECT_TRUE(api.patches.empty());
  EXPECT_TRUE(api.events.empty());
}

TEST_F(ApiNodeTest, AFailedPatchIsSentAgainWithTheNewestState) {
  see({});
  show("pending");
  node.on_node_patched(fail(Code::kUnavailable, "no API server"));
  EXPECT_EQ(api.patches.size(), 1U);
  EXPECT_NE(said.find("no API server"), std::string::npos);
  show("success");
  ASSERT_EQ(api.patches.size(), 2U);
  EXPECT_EQ(state(), "success");
  EXPECT_EQ(api.patches[1].annotations.at(kRequest), "all-1g.5gb 0a");
  node.on_node_patched(fail(Code::kUnavailable, "no API server"));
  node.on_kube_reachable({});
  EXPECT_EQ(api.patches.size(), 3U);
}

TEST_F(ApiNodeTest, AStateThatIsTakenAwayAsksForTheSameOnceMore) {
  see({{kConfig, "all-1g.5gb"}});
  show("failed", "in use");
  node.on_node_patched({});
  see({{kConfig, "all-1g.5gb"}, {kState, "failed"}});
  EXPECT_EQ(again, 0);
  const size_t before = api.patches.size();
  see({{kConfig, "all-1g.5gb"}});
  EXPECT_EQ(again, 1);
  ASSERT_EQ(api.patches.size(), before + 1) << "what holds until then is shown again";
  EXPECT_EQ(state(), "failed");
  EXPECT_EQ(asked.size(), 1U);
  see({{kConfig, "all-1g.5gb"}});  // an older sight of it
  EXPECT_EQ(again, 1);
}

TEST_F(ApiNodeTest, AStateThatIsOnItsWayIsNotTakenForTakenAway) {
  see({{kConfig, "all-1g.5gb"}, {kState, "success"}});
  show("pending");
  see({{kConfig, "all-1g.5gb"}});  // our own removal of an earlier one, seen late
  EXPECT_EQ(again, 0);
}

TEST_F(ApiNodeTest, APauseThatEndsWhileTheNodeIsAwayHoldsNothingUp) {
  see({});
  show("success");
  node.on_node_patched(fail(Code::kUnavailable, "no API server"));
  node.on_node(std::nullopt);
  timers.pass(2 * kPatchPause);
  see({});  // the same node: a list that was empty for once
  EXPECT_EQ(api.patches.size(), 2U);
}

TEST_F(ApiNodeTest, APatchThatWasDoneAlthoughItFailedIsWrittenOver) {
  see({});
  show("failed", "in use");
  node.on_node_patched({});
  show("pending");
  show("failed", "in use");
  node.on_node_patched(fail(Code::kTimeout, "no answer"));  // it was done all the same
  timers.pass(2 * kPatchPause);
  ASSERT_EQ(api.patches.size(), 3U);
  EXPECT_EQ(state(), "failed");
}

TEST_F(ApiNodeTest, AnotherNodeOfTheNameIsToldAnew) {
  see({});
  show("success");
  node.on_node_patched({});
  node.on_node(std::nullopt);
  see({}, {}, "v");
  ASSERT_EQ(api.patches.size(), 2U);
  EXPECT_EQ(state(), "success");
  EXPECT_EQ(api.events.size(), 1U);
}

TEST_F(ApiNodeTest, AnAnswerOfTheOldNodeIsNotTakenForTheNewOne) {
  see({});
  show("success");
  see({}, {}, "v");
  node.on_node_patched({});  // of "u"
  ASSERT_EQ(api.patches.size(), 2U);
  EXPECT_EQ(state(), "success");
}

TEST_F(ApiNodeTest, WithoutARequestThereIsNoState) {
  see({{kState, "success"}}, {{kRequest, "all-1g.5gb 0a"}, {kSince, kThen}});
  show("", "", "");
  ASSERT_EQ(api.patches.size(), 1U);
  EXPECT_EQ(state(), std::nullopt);
  EXPECT_EQ(api.patches[0].annotations,
            (NodePatches::Values{{kRequest, std::nullopt}, {kSince, std::nullopt}}));
}

TEST_F(ApiNodeTest, WhatACrashedMigManagerPausedIsSetFreeOnce) {
  const std::string paused = "paused-for-mig-change";
  see({{kDevicePlugin, paused},
       {"nvidia.com/gpu.deploy.dcgm", "false"},
       {"nvidia.com/gpu.deploy.driver", paused},  // no MIG manager pauses it
       {"nvidia.com/gpu.deploy.nvsm", paused}});
  ASSERT_EQ(api.patches.size(), 1U);
  EXPECT_EQ(api.patches[0].labels,
            (NodePatches::Values{{kDevicePlugin, "true"}, {"nvidia.com/gpu.deploy.nvsm", "true"}}));
  EXPECT_NE(said.find(kDevicePlugin), std::string::npos);
  node.on_node_patched({});
  // Afterwards it is somebody else's word.
  see({{kDevicePlugin, "false"}});
  show("success");
  EXPECT_FALSE(api.patches.back().labels.contains(kDevicePlugin));
  node.on_node_patched({});
  const size_t before = api.patches.size();
  see({{kDevicePlugin, paused}});
  EXPECT_EQ(api.patches.size(), before);
}

TEST_F(ApiNodeTest, WithoutAMigLabelNothingOfItIsTouched) {
  ApiNode plain(timers, log, {[](const Status&) {}, nullptr, nullptr, nullptr, nullptr});
  plain.begin(api);
  EXPECT_EQ(plain.mig_board(), nullptr);
  plain.on_node(ports::NodeObject{"n", "u", "1", {{kDevicePlugin, "paused-for-mig-change"}}, {}});
  EXPECT_TRUE(api.patches.empty());
}

}  // namespace
}  // namespace gpuslice::bin
