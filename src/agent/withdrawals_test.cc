// What other programs take away, by tables: what is withheld, and until when.

#include "agent/withdrawals.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace gpuslice::agent {
namespace {

using Set = std::set<std::string>;

ports::Gpu gpu_with(const std::string& uuid, const std::vector<std::string>& devices) {
  ports::Gpu gpu;
  gpu.uuid = uuid;
  for (const std::string& device : devices) gpu.mig_devices.emplace_back().uuid = device;
  return gpu;
}

MonotonicTime at(int seconds) { return MonotonicTime{std::chrono::seconds(seconds)}; }

TEST(Withdrawals, WithholdWhatGoesAndWhatAppearsOnTheGpuMeanwhile) {
  Withdrawals withdrawals;
  std::vector<ports::Gpu> gpus = {gpu_with("GPU-0", {"MIG-a", "MIG-b"}),
                                  gpu_with("GPU-1", {"MIG-c"})};
  const auto id = withdrawals.begin({"apply", {{"GPU-0", {"MIG-a"}}}}, gpus);
  ASSERT_TRUE(id.has_value());
  EXPECT_EQ(withdrawals.withheld(gpus), Set{"MIG-a"});
  EXPECT_EQ(withdrawals.withheld_for(*id, gpus), Set{"MIG-a"});
  // The change, seen in its middle; the other GPU is nobody's business.
  gpus[0] = gpu_with("GPU-0", {"MIG-b", "MIG-new"});
  gpus[1] = gpu_with("GPU-1", {"MIG-c", "MIG-other"});
  EXPECT_EQ(withdrawals.withheld(gpus), (Set{"MIG-a", "MIG-new"}));
  ASSERT_EQ(withdrawals.under_way().size(), 1U);
  EXPECT_EQ(withdrawals.under_way()[0].who, "apply");
}

TEST(Withdrawals, LastUntilALookThatBeganAfterTheirEnd) {
  Withdrawals withdrawals;
  const std::vector<ports::Gpu> gpus = {gpu_with("GPU-0", {"MIG-a"})};
  const auto id = withdrawals.begin({"apply", {{"GPU-0", {"GPU-0", "MIG-a"}}}}, gpus);
  withdrawals.looked(at(5));
  EXPECT_EQ(withdrawals.withheld(gpus), (Set{"GPU-0", "MIG-a"})) << "its holder lives";
  EXPECT_EQ(withdrawals.end(*id, at(10)), Set{"GPU-0"});
  EXPECT_TRUE(withdrawals.under_way().empty());
  withdrawals.looked(at(9));
  EXPECT_EQ(withdrawals.withheld(gpus).size(), 2U) << "that look may have seen the middle";
  withdrawals.looked(at(10));
  EXPECT_TRUE(withdrawals.withheld(gpus).empty());
  EXPECT_TRUE(withdrawals.end(*id, at(11)).empty()) << "once";
}

TEST(Withdrawals, AreBounded) {
  Withdrawals withdrawals;
  std::vector<Withdrawals::Id> ids;
  for (size_t i = 0; i < kMaxWithdrawals; ++i)
    ids.push_back(withdrawals.begin({"a", {{fmt::format("GPU-{}", i), {}}}}, {}).value());
  EXPECT_EQ(withdrawals.begin({"a", {{"GPU-x", {}}}}, {}).error().code, Code::kUnavailable);
  withdrawals.end(ids[3], at(1));
  EXPECT_TRUE(withdrawals.begin({"a", {{"GPU-x", {}}}}, {}).has_value());
  Set many;
  for (size_t i = 0; i < kMaxWithdrawnDevices; ++i) many.insert(fmt::format("MIG-{}", i));
  withdrawals.end(ids[4], at(1));
  EXPECT_EQ(withdrawals.begin({"a", {{"GPU-x", many}}}, {}).error().code, Code::kInvalidConfig);
}

}  // namespace
}  // namespace gpuslice::agent
