#include "agent/config_key.h"

#include <gtest/gtest.h>

#include "agent/config_choice.h"
#include "agent/config_keeper.h"
#include "agent/memory_files_for_test.h"

namespace gpuslice::agent {
namespace {

struct Case {
  const char* what;
  std::vector<std::string> keys;
  std::string label;
  std::string by_default;
  std::string chosen;   // "" when none is
  std::string message;  // a part of it
};

TEST(ChooseKey, AsConfigManager) {
  const std::vector<Case> cases = {
      {"the label before everything", {"a", "b", "default"}, "b", "a", "b", ""},
      {"the default before the fallbacks", {"a", "b", "default"}, "", "a", "a", ""},
      {"fallback named", {"a", "default"}, "", "", "default", ""},
      {"fallback single", {"a"}, "", "", "a", ""},
      {"named before single", {"default"}, "", "", "default", ""},
      {"none stands out", {"a", "b"}, "", "", "", "there is a, b; set the node's label"},
      {"an empty map", {}, "", "", "", "there is none"},
      {"the label's key is not there: no fallback",
       {"a100", "default"},
       "a10O",
       "a100",
       "",
       "the node's label nvidia.com/device-plugin.config names the key a10O, which is not there; "
       "did you mean a100? there is a100, default"},
      {"nor the default's",
       {"a", "default"},
       "",
       "tiny",
       "",
       "--default-config names the key tiny, which is not there; there is a, default"},
      {"the only key is not the label's", {"a"}, "zebra", "", "", "names the key zebra"},
  };
  for (const Case& one : cases) {
    const auto chosen = choose_key(one.keys, one.label, one.by_default);
    ASSERT_EQ(chosen.has_value(), !one.chosen.empty()) << one.what;
    if (chosen) {
      EXPECT_EQ(*chosen, one.chosen) << one.what;
      continue;
    }
    EXPECT_EQ(chosen.error().code, Code::kInvalidConfig) << one.what;
    EXPECT_NE(chosen.error().message.find(one.message), std::string::npos)
        << one.what << ": " << chosen.error().message;
  }
}

TEST(ChooseKey, FallbacksThatAreSaid) {
  const auto chosen = [](const char* said, const std::vector<std::string>& keys) {
    const auto fallbacks = parse_fallbacks(said);
    const auto key = choose_key(keys, "", "", fallbacks.value());
    return key ? *key : std::string("none");
  };
  EXPECT_EQ(chosen("", {"a"}), "a");
  EXPECT_EQ(chosen("named", {"a"}), "none");
  EXPECT_EQ(chosen("single", {"a", "default"}), "none");
  EXPECT_EQ(chosen("named, single,empty", {"a", "b"}), "/dev/null");
  EXPECT_EQ(chosen("empty,named", {"a", "default"}), "/dev/null");
  EXPECT_EQ(parse_fallbacks("nmaed").error().code, Code::kUsage);
  // An empty configuration is none of the folder's keys.
  EXPECT_EQ(
      chosen_file({"/cm", "", false, {Fallback::kEmpty}}, std::vector<std::string>{"a", "b"}, "")
          .value(),
      "/dev/null");
}

// The file that counts is said at run time.
class FollowedFile : public ::testing::Test {
 protected:
  FollowedFile() {
    files.files = {{"/d/a", shared(2)}, {"/d/b", shared(4)}, {"/good", shared(8)}};
    source.follows = true;
    source.last_good_path = "/good";
  }
  static std::string shared(int replicas) {
    return fmt::format(
        "version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - name: nvidia.com/gpu\n"
        "      replicas: {}\n",
        replicas);
  }
  [[nodiscard]] static Result<std::string> unknown() {
    return fail(Code::kInvalidConfig, "no such key");
  }
  MemoryFiles files;
  ConfigSource source;
  Log log{[](std::string_view) {}, [] { return WallTime(); }};
};

TEST_F(FollowedFile, NothingIsDoneBeforeItIsSaid) {
  ConfigKeeper keeper(source, files, log);
  EXPECT_FALSE(keeper.look());
  EXPECT_FALSE(keeper.candidate());
  EXPECT_FALSE(keeper.problem().empty());
  keeper.use("/d/b");
  ASSERT_TRUE(keeper.look());
  keeper.accept();
  EXPECT_EQ(keeper.from(), "/d/b");
  EXPECT_EQ(keeper.generation(), 1U);  // nothing else was ever in force
  EXPECT_EQ(keeper.problem(), "");
}

TEST_F(FollowedFile, AnotherFileReplacesItAndTheSameOneDoesNot) {
  ConfigKeeper keeper(source, files, log);
  keeper.use("/d/a");
  ASSERT_TRUE(keeper.look());
  keeper.accept();
  keeper.use("/d/a");
  EXPECT_FALSE(keeper.look());
  keeper.use("/d/b");
  ASSERT_TRUE(keeper.look());
  keeper.accept();
  EXPECT_EQ(keeper.from(), "/d/b");
  files.files["/d/a"] = "version: v9\n";
  EXPECT_FALSE(keeper.look());  // not ours any more
  EXPECT_EQ(files.files["/good"], shared(4));
}

TEST_F(FollowedFile, WhereNoneIsKnownWhatIsInForceStays) {
  ConfigKeeper keeper(source, files, log);
  keeper.use("/d/a");
  ASSERT_TRUE(keeper.look());
  keeper.accept();
  keeper.use(unknown());
  files.files.erase("/d/a");  // that is why
  EXPECT_FALSE(keeper.look());
  EXPECT_EQ(keeper.from(), "/d/a");
  EXPECT_EQ(keeper.problem(), "no such key");
  EXPECT_EQ(keeper.reloads_bad(), 1U);
  keeper.use(unknown());
  EXPECT_EQ(keeper.reloads_bad(), 1U);  // the same news is none
  files.files["/d/a"] = shared(2);
  keeper.use("/d/a");
  ASSERT_TRUE(keeper.look());
  keeper.accept();
  EXPECT_EQ(keeper.problem(), "");
}

TEST_F(FollowedFile, WhereNoneWasEverKnownTheLastGoodOneServes) {
  ConfigKeeper keeper(source, files, log);
  keeper.use(unknown());
  ASSERT_TRUE(keeper.look());
  keeper.accept();
  EXPECT_EQ(keeper.from(), "/good");
  EXPECT_EQ(keeper.problem(), "no such key");
  keeper.use("/d/a");
  ASSERT_TRUE(keeper.look());
  keeper.accept();
  EXPECT_EQ(keeper.from(), "/d/a");
}

TEST_F(FollowedFile, WhatWasChosenBeforeTheHardwareWasSeenIsNotDroppedForTheLastGoodOne) {
  ConfigKeeper keeper(source, files, log);
  keeper.use("/d/a");
  ASSERT_TRUE(keeper.look());
  keeper.use(unknown());
  EXPECT_FALSE(keeper.look());
  keeper.accept();
  EXPECT_EQ(keeper.from(), "/d/a");
  EXPECT_EQ(keeper.problem(), "no such key");
}

}  // namespace
}  // namespace gpuslice::agent
