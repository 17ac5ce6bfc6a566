// The readers of mig-parted's configuration and hooks. testdata/mig_cases.txt holds every form that
// people write and every mistake, with the exact messages.

#include "config/mig_parted.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "config/hooks_file.h"

namespace gpuslice::config {
namespace {

struct Case {
  std::string name, text, said;
};

std::vector<Case> read_cases() {
  std::ifstream in("src/config/testdata/mig_cases.txt");
  std::vector<Case> cases;
  std::string* part = nullptr;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("=== ")) {
      cases.push_back({line.substr(4), "", ""});
      part = &cases.back().text;
    } else if (line == "--- said") {
      part = &cases.back().said;
    } else if (part != nullptr) {
      *part += line + "\n";
    }
  }
  return cases;
}

std::string said_of(const Problems& problems) {
  std::string out;
  for (const Problem& problem : problems.all()) out += problem.text("f") + "\n";
  return out.empty() ? "good\n" : out;
}

// A case called "hooks: …" is a hooks file.
Problems problems_of(const Case& one) {
  return one.name.starts_with("hooks: ") ? read_hooks(one.text).problems
                                         : read_mig_parted(one.text).problems;
}

TEST(MigParted, EveryFormInTheWildAndEveryMistakeHasItsExactMessage) {
  const std::vector<Case> cases = read_cases();
  ASSERT_GE(cases.size(), 75U);
  for (const Case& one : cases) EXPECT_EQ(said_of(problems_of(one)), one.said) << one.name;
}

TEST(MigParted, EveryMistakeThatCanBeMadeIsMadeOnce) {
  std::set<std::string_view> made;
  const auto note = [&](const Problems& problems) {
    for (const Problem& problem : problems.all()) made.insert(problem_code(problem.mistake));
  };
  for (const Case& one : read_cases()) note(problems_of(one));
  note(read_mig_parted(std::string(1'100'000, ' ')).problems);
  // All but those of sharing and of --config-compat nvidia.
  std::set<std::string_view> all;
  for (size_t i = 0; i < kMistakes; ++i) all.insert(problem_code(static_cast<Mistake>(i)));
  for (const Mistake other :
       {Mistake::kBothSharings, Mistake::kMps, Mistake::kNoResources, Mistake::kNameTooLong,
        Mistake::kReplicas, Mistake::kSameResource, Mistake::kIgnored, Mistake::kDiffers})
    all.erase(problem_code(other));
  EXPECT_EQ(made, all);
}

TEST(MigParted, ByteOrderMarkAndCarriageReturnsAreFine) {
  const MigPartedFile file = read_mig_parted(
      "\xef\xbb\xbfversion: v1\r\nmig-configs:\r\n  a:\r\n  - devices: all\r\n    mig-enabled: "
      "true\r\n    mig-devices:\r\n      1g.5gb: 7\r\n");
  EXPECT_EQ(said_of(file.problems), "good\n");
  EXPECT_EQ(file.config.labels.at("a").entries[0].profiles[0].count, 7U);
}

TEST(MigParted, MergeKeysGiveWay) {
  const MigPartedFile file = read_mig_parted(
      "version: v1\nmig-configs:\n  a:\n  - &one {devices: [0], mig-enabled: true, mig-devices: "
      "&seven {1g.5gb: 7}}\n  b:\n  - {<<: *one, devices: 1, mig-devices: {<<: *seven, 1g.5gb: "
      "3}}\n");
  ASSERT_EQ(said_of(file.problems), "good\n");
  const MigEntry& entry = file.config.labels.at("b").entries[0];
  EXPECT_EQ(entry.gpus[0].index, 1U);
  EXPECT_TRUE(entry.mig_enabled);
  ASSERT_EQ(entry.profiles.size(), 1U);
  EXPECT_EQ(entry.profiles[0].count, 3U);
}

TEST(MigParted, TenThousandGpusAndLabelsTakeNoLongerThanTheyMust) {
  std::string text = "version: v1\nmig-configs:\n";
  for (int i = 0; i < 10'000; ++i)
    text += "  l" + std::to_string(i) + ": [{devices: all, mig-enabled: false}]\n";
  EXPECT_EQ(read_mig_parted(text).config.labels.size(), 10'000U);
  text = "version: v1\nmig-configs: {a: [{mig-enabled: false, devices: [";
  for (int i = 0; i < 60'000; ++i)
    text += std::to_string(1000 + i % 9000) + ":" + std::to_string(10 + i % 10) + ":" +
            std::to_string(10 + i % 10) + ".0,";
  const MigPartedFile file = read_mig_parted(text + "]}]}");
  EXPECT_FALSE(file.problems.has_errors()) << file.problems.first_error("f").text();
  EXPECT_EQ(file.config.labels.at("a").entries[0].gpus.size(), 9'000U);
}

TEST(MigParted, ReadsWhatTheGuideWants) {
  const MigPartedFile file = read_mig_parted(
      "version: v1\nmig-configs:\n  mixed:\n    - devices: [0]\n      mig-enabled: true\n      "
      "mig-devices:\n        \"2g.10gb\": 3\n    - devices: [3]\n      mig-enabled: false\n");
  ASSERT_FALSE(file.problems.has_errors());
  const MigLabel& label = file.config.labels.at("mixed");
  ASSERT_EQ(label.entries.size(), 2U);
  EXPECT_TRUE(label.entries[0].mig_enabled);
  ASSERT_EQ(label.entries[0].gpus.size(), 1U);
  EXPECT_EQ(label.entries[0].gpus[0].index, 0U);
  ASSERT_EQ(label.entries[0].profiles.size(), 1U);
  EXPECT_EQ(label.entries[0].profiles[0].name.text(), "2g.10gb");
  EXPECT_EQ(label.entries[0].profiles[0].count, 3U);
  EXPECT_EQ(label.entries[0].profiles[0].place, (Place{7, 9}));
  EXPECT_FALSE(label.entries[1].mig_enabled);
}

TEST(MigParted, ReadsEveryWayToNameAGpu) {
  const MigPartedFile file = read_mig_parted(
      "version: v1\nmig-configs:\n  a:\n    - {devices: 2, mig-enabled: false}\n    - {devices: "
      "[GPU-11111111-2222-3333-4444-55555555555A, \"0000:0f:00.0\", \"47:00.0\"], device-filter: "
      "\"0x20B010DE:0x134F10DE\", mig-enabled: false}\n");
  ASSERT_FALSE(file.problems.has_errors());
  const auto& entries = file.config.labels.at("a").entries;
  EXPECT_EQ(entries[0].gpus[0].index, 2U);
  EXPECT_EQ(entries[1].gpus[0].kind, GpuRef::Kind::kUuid);
  EXPECT_EQ(entries[1].gpus[0].text, "GPU-11111111-2222-3333-4444-55555555555a");
  EXPECT_EQ(entries[1].gpus[1].kind, GpuRef::Kind::kBusId);
  EXPECT_EQ(entries[1].gpus[1].text, "00000000:0F:00.0");
  EXPECT_EQ(entries[1].gpus[2].text, "00000000:47:00.0");
  EXPECT_EQ(entries[1].filters[0].device, 0x20B010DEU);
  EXPECT_EQ(entries[1].filters[0].subsystem, 0x134F10DEU);
}

TEST(MigParted, ReadsPlacements) {
  const MigPartedFile file = read_mig_parted(
      "version: v1\nmig-configs: {a: [{devices: all, mig-enabled: true, mig-devices: {3g.20gb: "
      "[4], 1g.5gb: {count: 3, placements: [0, 1]}}}]}\n");
  ASSERT_FALSE(file.problems.has_errors());
  const auto& profiles = file.config.labels.at("a").entries[0].profiles;
  EXPECT_EQ(profiles[0].count, 1U);
  EXPECT_EQ(profiles[0].starts, (std::vector<uint32_t>{4}));
  EXPECT_EQ(profiles[1].count, 3U);
  EXPECT_EQ(profiles[1].starts, (std::vector<uint32_t>{0, 1}));
}

TEST(Hooks, ReadsAllFourPoints) {
  const HooksFile file = read_hooks(
      "version: v1\nhooks:\n  apply-start:\n  - workdir: /tmp\n    command: /bin/sh\n    args: "
      "[-c, \"echo $A\", 7]\n    envs: {A: b, N: 1}\n  pre-apply-mode: []\n  pre-apply-config:\n  "
      "apply-exit:\n  - command: \"true\"\n");
  ASSERT_FALSE(file.problems.has_errors()) << said_of(file.problems);
  ASSERT_EQ(file.hooks.apply_start.size(), 1U);
  EXPECT_EQ(file.hooks.apply_start[0].args, (std::vector<std::string>{"-c", "echo $A", "7"}));
  EXPECT_EQ(file.hooks.apply_start[0].envs.at("N"), "1");
  EXPECT_EQ(file.hooks.apply_start[0].workdir, "/tmp");
  EXPECT_EQ(file.hooks.apply_exit[0].command, "true");
  EXPECT_EQ(file.hooks.apply_exit[0].place, (Place{11, 5}));
}

}  // namespace
}  // namespace gpuslice::config
