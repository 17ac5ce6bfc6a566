// Which XIDs and troubles count, by tables.

#include "agent/health_policy.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace gpuslice::agent {
namespace {

bool ignored(const char* disable, const char* enable, uint64_t xid) {
  std::vector<std::string> problems;
  const HealthPolicy policy(disable, enable, problems);
  EXPECT_TRUE(problems.empty()) << problems[0];
  return policy.ignores(xid);
}

TEST(HealthPolicy, NvidiasDefaultsAndBothVariables) {
  const struct {
    const char* disable;
    const char* enable;
    std::vector<uint64_t> ignored, counted;
  } cases[] = {
      {"", "", {13, 31, 43, 45, 68, 109}, {0, 48, 63, 74, 79, 94, 95, 999}},
      {"all", "", {13, 79, 48, 999}, {}},
      {"xids", "", {13, 79}, {}},
      {" XIDS ", "", {79}, {}},
      // NVIDIA's plugin checks nothing at all then.
      {"all", "79", {13, 48, 95}, {79}},
      {"all", "79, 95", {13, 48}, {79, 95}},
      // NVIDIA's plugin takes 0 for all.
      {"0", "", {0, 13}, {79}},
      {"79,48", "", {13, 48, 79}, {95}},
      {"79", "all", {}, {13, 31, 79, 95}},
      {"all", "xids", {}, {13, 79}},
      {"79", "79", {13}, {79}},
      {"", "13,,109,", {31, 43, 45, 68}, {13, 109, 79}},
  };
  for (const auto& one : cases) {
    for (const uint64_t xid : one.ignored)
      EXPECT_TRUE(ignored(one.disable, one.enable, xid))
          << one.disable << " / " << one.enable << ": XID " << xid;
    for (const uint64_t xid : one.counted)
      EXPECT_FALSE(ignored(one.disable, one.enable, xid))
          << one.disable << " / " << one.enable << ": XID " << xid;
  }
}

TEST(HealthPolicy, WhatMeansNothingIsToldAndTheRestCounts) {
  std::vector<std::string> problems;
  const HealthPolicy policy("79,eec,-1", "13x", problems);
  const auto left_out = [](const char* name, const char* word) {
    return fmt::format(
        "{}: \"{}\" is none of all, xids, ecc, remap-pending, remap-failed, recovery, temperature "
        "and the number of an XID: it is left out",
        name, word);
  };
  EXPECT_EQ(problems, (std::vector<std::string>{left_out("DP_DISABLE_HEALTHCHECKS", "eec"),
                                                left_out("DP_DISABLE_HEALTHCHECKS", "-1"),
                                                left_out("DP_ENABLE_HEALTHCHECKS", "13x")}));
  EXPECT_TRUE(policy.ignores(79));
  EXPECT_TRUE(policy.ignores(13));
}

using Verdict = HealthPolicy::Verdict;

TEST(HealthPolicy, TroublesOfTheBoardAndWhoCanSwitchThemOff) {
  const auto judge = [](const char* disable, const char* enable, GpuTrouble trouble, bool mig) {
    std::vector<std::string> problems;
    const HealthPolicy policy(disable, enable, problems);
    EXPECT_TRUE(problems.empty());
    return policy.judge(trouble, mig);
  };
  const struct {
    const char* disable;
    const char* enable;
    GpuTrouble trouble;
    Verdict whole, with_instances;
  } cases[] = {
      {"", "", GpuTrouble::kEcc, Verdict::kUnhealthy, Verdict::kTold},
      {"", "", GpuTrouble::kRemapPending, Verdict::kUnhealthy, Verdict::kTold},
      {"", "", GpuTrouble::kRemapFailed, Verdict::kUnhealthy, Verdict::kUnhealthy},
      {"", "", GpuTrouble::kRecovery, Verdict::kUnhealthy, Verdict::kUnhealthy},
      {"", "", GpuTrouble::kTemperature, Verdict::kUnhealthy, Verdict::kUnhealthy},
      {"", "ecc", GpuTrouble::kEcc, Verdict::kUnhealthy, Verdict::kUnhealthy},
      {"ECC, 79", "", GpuTrouble::kEcc, Verdict::kIgnored, Verdict::kIgnored},
      {"ecc", "", GpuTrouble::kRecovery, Verdict::kUnhealthy, Verdict::kUnhealthy},
      {"all", "", GpuTrouble::kRemapFailed, Verdict::kIgnored, Verdict::kIgnored},
      {"all", "79", GpuTrouble::kRecovery, Verdict::kIgnored, Verdict::kIgnored},
      {"xids", "", GpuTrouble::kRecovery, Verdict::kUnhealthy, Verdict::kUnhealthy},
      {"all", "temperature", GpuTrouble::kTemperature, Verdict::kUnhealthy, Verdict::kUnhealthy},
      {"", "all", GpuTrouble::kRemapPending, Verdict::kUnhealthy, Verdict::kUnhealthy},
  };
  for (const auto& one : cases) {
    EXPECT_EQ(judge(one.disable, one.enable, one.trouble, false), one.whole)
        << one.disable << " / " << one.enable << ": " << word_of(one.trouble);
    EXPECT_EQ(judge(one.disable, one.enable, one.trouble, true), one.with_instances)
        << one.disable << " / " << one.enable << ": " << word_of(one.trouble);
  }
}

TEST(Troubles, WhatAGpuTellsOfItself) {
  ports::Gpu gpu;
  EXPECT_TRUE(troubles_of(gpu, false).empty()) << "what it does not tell is none";
  gpu.ecc_uncorrected = 0;
  gpu.remap_pending = gpu.remap_failed = false;
  gpu.recovery_action = 0;
  gpu.temperature_c = 91;
  gpu.shutdown_c = 92;
  EXPECT_TRUE(troubles_of(gpu, false).empty());
  EXPECT_EQ(troubles_of(gpu, true).size(), 1U) << "hot until it is cooler by five degrees";
  gpu.temperature_c = 86;
  EXPECT_TRUE(troubles_of(gpu, true).empty());
  gpu.temperature_c = 92;
  gpu.ecc_uncorrected = 2;
  gpu.remap_pending = gpu.remap_failed = true;
  gpu.recovery_action = 2;
  std::vector<std::string> told;
  for (const TroubleSeen& one : troubles_of(gpu, false))
    told.push_back(fmt::format("{}: {}", word_of(one.trouble), one.text));
  EXPECT_EQ(
      told,
      (std::vector<std::string>{
          "ecc: 2 uncorrectable ECC errors since its last reset",
          "remap-pending: bad memory waits for a reset of the GPU to be replaced",
          "remap-failed: bad memory could not be replaced: the board itself is to be exchanged",
          "recovery: the driver says that the node needs a reboot",
          "temperature: it has reached 92 °C, at which it switches itself off"}));
}

}  // namespace
}  // namespace gpuslice::agent
