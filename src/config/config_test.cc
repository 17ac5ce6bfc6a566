// The reader of device-plugin configurations. testdata/cases.txt holds every form that people write
// and every mistake, with the exact messages in both modes.

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "config/device_plugin.h"
#include "config/document.h"
#include "config/effective.h"
#include "config/list_size.h"

namespace gpuslice::config {
namespace {

struct Case {
  std::string name, text, strict, nvidia;
};

std::vector<Case> read_cases() {
  std::ifstream in("src/config/testdata/cases.txt");
  std::vector<Case> cases;
  std::string* part = nullptr;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("=== ")) {
      cases.push_back({line.substr(4), "", "", ""});
      part = &cases.back().text;
    } else if (line == "--- strict") {
      part = &cases.back().strict;
    } else if (line == "--- nvidia") {
      part = &cases.back().nvidia;
    } else if (part != nullptr) {
      *part += line + "\n";
    }
  }
  return cases;
}

std::string problems_of(const std::string& text, Compat compat) {
  const DevicePluginFile file = read_device_plugin(text, compat);
  std::string out;
  for (const Problem& problem : file.problems.all()) out += problem.text("f") + "\n";
  return out.empty() ? "good\n" : out;
}

TEST(DevicePlugin, EveryFormInTheWildAndEveryMistakeHasItsExactMessage) {
  const std::vector<Case> cases = read_cases();
  ASSERT_GE(cases.size(), 45U);
  for (const Case& one : cases) {
    EXPECT_EQ(problems_of(one.text, Compat::kStrict), one.strict) << one.name;
    EXPECT_EQ(problems_of(one.text, Compat::kNvidia), one.nvidia) << one.name;
  }
}

TEST(DevicePlugin, EveryMistakeOfTheCatalogueIsMadeOnce) {
  std::set<Mistake> made;
  const auto note = [&](const std::string& text) {
    for (const Compat compat : {Compat::kStrict, Compat::kNvidia}) {
      const DevicePluginFile file = read_device_plugin(text, compat);
      for (const Problem& problem : file.problems.all()) made.insert(problem.mistake);
    }
  };
  for (const Case& one : read_cases()) note(one.text);
  // Those of MIG configurations: mig_parted_test.cc.
  for (size_t i = static_cast<size_t>(Mistake::kOtherFile); i < kMistakes; ++i)
    made.insert(static_cast<Mistake>(i));
  for (size_t i = 0; i < kMistakes; ++i)
    EXPECT_TRUE(made.contains(static_cast<Mistake>(i))) << problem_code(static_cast<Mistake>(i));
}

DevicePluginConfig good(const std::string& text, Compat compat = Compat::kStrict) {
  const DevicePluginFile file = read_device_plugin(text, compat);
  EXPECT_FALSE(file.problems.has_errors()) << problems_of(text, compat);
  return file.config;
}

constexpr const char* kGuide =
    "version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - name: nvidia.com/gpu\n      "
    "replicas: 4\n";

TEST(DevicePlugin, ReadsTheGuidesFile) {
  const DevicePluginConfig config = good(kGuide);
  ASSERT_TRUE(config.time_slicing.has_value());
  ASSERT_EQ(config.time_slicing->resources.size(), 1U);
  EXPECT_EQ(config.time_slicing->resources[0].name, "nvidia.com/gpu");
  EXPECT_EQ(config.time_slicing->resources[0].offered_name(), "nvidia.com/gpu");
  EXPECT_EQ(config.time_slicing->resources[0].replicas, 4U);
  EXPECT_EQ(config.time_slicing->resources[0].devices.kind, DeviceSelection::Kind::kAll);
  EXPECT_FALSE(config.time_slicing->fail_requests_greater_than_one);
}

TEST(DevicePlugin, RenamesByDefault) {
  const DevicePluginConfig config = good(
      "sharing: {timeSlicing: {renameByDefault: true, failRequestsGreaterThanOne: true, resources: "
      "[{name: gpu, replicas: 2}]}}");
  EXPECT_EQ(config.time_slicing->resources[0].offered_name(), "nvidia.com/gpu.shared");
  EXPECT_TRUE(config.time_slicing->fail_requests_greater_than_one);
}

TEST(DevicePlugin, DevicesAndRenameCountInStrictModeOnly) {
  const std::string text =
      "sharing: {timeSlicing: {resources: [{name: gpu, rename: gpu-0, devices: [\"0\", 2], "
      "replicas: 8}]}}";
  const SharedResource strict = good(text).time_slicing->resources[0];
  EXPECT_EQ(strict.offered_name(), "nvidia.com/gpu-0");
  ASSERT_EQ(strict.devices.list.size(), 2U);
  EXPECT_EQ(strict.devices.list[1].gpu, 2U);
  const SharedResource nvidia = good(text, Compat::kNvidia).time_slicing->resources[0];
  EXPECT_EQ(nvidia.offered_name(), "nvidia.com/gpu");
  EXPECT_EQ(nvidia.devices.kind, DeviceSelection::Kind::kAll);
}

TEST(DevicePlugin, ByteOrderMarkAndCarriageReturnsAreFine) {
  std::string text = std::string("\xef\xbb\xbf") + kGuide;
  for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 2)
    text.insert(at, "\r");
  for (const Compat compat : {Compat::kStrict, Compat::kNvidia})
    EXPECT_EQ(good(text, compat).time_slicing->resources[0].replicas, 4U);
}

TEST(DevicePlugin, LargeAndDeepTextsAreRefused) {
  EXPECT_EQ(problems_of(std::string(kMaxFileBytes + 1, ' '), Compat::kStrict),
            "f: error: 1048577 bytes: a configuration has at most 1048576 [too-large]\n");
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += "{a: ";
  EXPECT_EQ(problems_of(deep, Compat::kStrict),
            "f:1:253: error: nested deeper than 64 levels [too-large]\n");
  EXPECT_EQ(problems_of(std::string("a\0b", 3), Compat::kStrict),
            "f: error: not a text: it has a zero byte [syntax]\n");
}

TEST(Problems, FirstErrorIsOneLine) {
  const DevicePluginFile file = read_device_plugin("version: v2\nfoo: 1\n", Compat::kStrict);
  EXPECT_EQ(file.problems.first_error("c.yaml").text(),
            "c.yaml:2:1: unknown key \"foo\" under the file's top; the keys here are version, "
            "flags, resources, sharing, imex (and 1 more error)");
}

TEST(Effective, FlagBeforeEnvironmentBeforeFileBeforeDefault) {
  const DevicePluginConfig file = good(
      "flags: {migStrategy: single, failOnInitError: false, plugin: {deviceIDStrategy: index}}");
  Said said;
  EXPECT_EQ(merge(said, {}, "f").value().text(Flag::kMigStrategy), "none");
  EXPECT_EQ(merge(said, file, "f").value().text(Flag::kMigStrategy), "single");
  EXPECT_EQ(merge(said, file, "f").value().setting(Flag::kMigStrategy).from, "f:1:22");
  said.environment = {
      {"MIG_STRATEGY", "mixed"}, {"DEVICE_ID_STRATEGY", ""}, {"PASS_DEVICE_SPECS", "1"}};
  EXPECT_EQ(merge(said, file, "f").value().text(Flag::kMigStrategy), "mixed");
  EXPECT_EQ(merge(said, file, "f").value().text(Flag::kDeviceIdStrategy), "index");
  EXPECT_TRUE(merge(said, file, "f").value().on(Flag::kPassDeviceSpecs));
  said.options[Flag::kMigStrategy] = "none";
  EXPECT_EQ(merge(said, file, "f").value().text(Flag::kMigStrategy), "none");
  EXPECT_EQ(merge(said, file, "f").value().setting(Flag::kMigStrategy).origin,
            Origin::kCommandLine);
  EXPECT_FALSE(merge(said, file, "f").value().on(Flag::kFailOnInitError));
}

TEST(Effective, EveryFlagByEveryName) {
  for (const FlagRow& row : flag_rows()) {
    const std::string value = row.type == FlagType::kBool       ? "true"
                              : row.type == FlagType::kDuration ? "5s"
                              : row.type == FlagType::kXidTimes ? "94=60s"
                              : row.choices[0].empty()          ? "0"
                                                                : std::string(row.choices[1]);
    Said by_option;
    by_option.options[row.flag] = value;
    EXPECT_EQ(merge(by_option, {}, "f").value().text(row.flag), value) << row.options[0];
    for (const std::string_view name : row.environment) {
      if (name.empty()) continue;
      Said by_environment;
      by_environment.environment[std::string(name)] = value;
      EXPECT_EQ(merge(by_environment, {}, "f").value().text(row.flag), value) << name;
    }
  }
}

TEST(Effective, TimesOfXids) {
  EXPECT_EQ(parse_xid_times("94=60s, 95 = 1m30s,,94=2m").value(),
            (std::map<uint64_t, int64_t>{{94, 120'000'000'000}, {95, 90'000'000'000}}));
  EXPECT_TRUE(parse_xid_times("").value().empty());
  for (const char* wrong : {"94", "94=", "=60s", "x=60s", "94=-60s", "94=10ms", "94=169h",
                            "94=60s;95=60s", "94=infinite"})
    EXPECT_FALSE(parse_xid_times(wrong)) << wrong;
  Said said;
  said.options[Flag::kXidCleanProbe] = "94";
  EXPECT_EQ(check_said(said).error().message,
            "--xid-clean-probe must be XIDs with a time between 1s and 168h, such as "
            "94=60s,95=5m, not \"94\"");
  EXPECT_EQ(merge({}, good("flags: {plugin: {xidCleanProbe: 94=60s}}"), "f")
                .value()
                .text(Flag::kXidCleanProbe),
            "94=60s");
}

// Feature discovery's own names count too; the device plugin's come first.
TEST(Effective, TwoPeersNamesForOneFlag) {
  Said said;
  said.environment["GFD_MIG_STRATEGY"] = "single";
  EXPECT_EQ(merge(said, {}, "f").value().text(Flag::kMigStrategy), "single");
  said.environment["MIG_STRATEGY"] = "mixed";
  EXPECT_EQ(merge(said, {}, "f").value().text(Flag::kMigStrategy), "mixed");
  Said fail_on_init;
  fail_on_init.environment["GFD_FAIL_ON_INIT_ERROR"] = "false";
  EXPECT_FALSE(merge(fail_on_init, {}, "f").value().on(Flag::kFailOnInitError));
}

TEST(Effective, ABadValueNamesWhereItCameFrom) {
  Said said;
  said.environment["MIG_STRATEGY"] = "mxed";
  EXPECT_EQ(check_said(said).error().message,
            "MIG_STRATEGY must be none, single or mixed, not \"mxed\"; did you mean mixed?");
  EXPECT_EQ(check_said(said).error().code, Code::kInvalidConfig);
  said.options[Flag::kMigStrategy] = "singel";
  EXPECT_EQ(check_said(said).error().message,
            "--mig-strategy must be none, single or mixed, not \"singel\"; did you mean single?");
  EXPECT_EQ(check_said(said).error().code, Code::kUsage);
  Said imex;
  imex.options[Flag::kImexChannelIds] = "3";
  EXPECT_EQ(check_said(imex).error().message, "--imex-channel-ids must be empty or 0, not \"3\"");
}

TEST(Flags, GoDurations) {
  EXPECT_EQ(parse_go_duration("60s"), 60'000'000'000);
  EXPECT_EQ(parse_go_duration("1m30s"), 90'000'000'000);
  EXPECT_EQ(parse_go_duration("1h0.5s"), 3'600'500'000'000);
  EXPECT_EQ(parse_go_duration("1000"), 1000);
  EXPECT_EQ(parse_go_duration("-1s"), -1'000'000'000);
  for (const char* bad : {"", "s", "x1s", "1s2", "1 s"})
    EXPECT_FALSE(parse_go_duration(bad).has_value()) << bad;
}

TEST(ListSize, TheLargestCountFitsAndOneMoreDoesNot) {
  for (const size_t gpus : {1U, 4U, 8U, 16U}) {
    const uint32_t most = most_replicas(gpus, 40, true);
    EXPECT_LE(list_bytes(gpus, 40, true, most), kMaxListBytes);
    EXPECT_GT(list_bytes(gpus, 40, true, most + 1), kMaxListBytes);
  }
  // "GPU-<uuid>::0": tag, length and 43 bytes of id; 11 of health; 6 of topology; 2 around it.
  EXPECT_EQ(listed_device_bytes(43, true), 2U + 45U + 11U + 6U);
  EXPECT_EQ(list_bytes(2, 40, false, 12),
            2 * (10 * listed_device_bytes(43, false) + 2 * listed_device_bytes(44, false)));
}

}  // namespace
}  // namespace gpuslice::config
