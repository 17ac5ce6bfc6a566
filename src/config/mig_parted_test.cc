// The readers of mig-parted's configuration and hooks. testdata/mig_cases.txt holds every form that
// people write and every mistake, with the exact messages.

#include "config/mig_parted.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

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

TEST(MigParted, EveryFormInTheWildAndEveryMistakeHasItsExactMessage) {
  const std::vector<Case> cases = read_cases();
  ASSERT_GE(cases.size(), 35U);
  for (const Case& one : cases)
    EXPECT_EQ(said_of(read_mig_parted(one.text).problems), one.said) << one.name;
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
}

TEST(Hooks, SaysWhatIsWrong) {
  EXPECT_EQ(said_of(read_hooks("version: v2\nhooks: {apply-star: []}\n").problems),
            "f:1:10: error: unknown version \"v2\": the only version is v1 [unknown-version]\n"
            "f:2:9: error: unknown key \"apply-star\" under hooks; did you mean apply-start? "
            "[unknown-key]\n");
  EXPECT_EQ(said_of(read_hooks("hooks: {apply-exit: [{args: a, envs: [b]}]}\n").problems),
            "f:1:29: error: args must be a list of texts, not \"a\" [wrong-type]\n"
            "f:1:38: error: envs must be a map of names and values, not a list [wrong-type]\n"
            "f:1:22: error: a hook needs a command [missing-key]\n"
            "f:1:1: error: version is missing; write: version: v1 [missing-key]\n");
}

}  // namespace
}  // namespace gpuslice::config
