// The driver's choice, against every sequence that somebody published: the runnable model's and
// those of data/mig-profiles.yaml (default_placement.vectors).

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "sim/mig.h"
#include "sim/testing.h"

namespace gpuslice::sim {
namespace {

constexpr int kRefused = -1;  // INSUFFICIENT_RESOURCES; what stood before stays

struct Vector {
  const char* board;
  Sweep sweep;
  std::vector<uint32_t> profiles;  // -cgi ids
  std::vector<int> ids;
  std::vector<std::string> placements;  // as far as they were published
};

std::string shown(const Gi& gi) { return std::to_string(gi.start) + ":" + std::to_string(gi.size); }

constexpr const char* kA100 = "A100-SXM4-40GB";
constexpr uint32_t k1g = 19, k1g2x = 15, k2g = 14, k3g = 9, k4g = 5, k7g = 0;

const std::vector<Vector>& vectors() {
  static const std::vector<Vector> all = {
      // The model's recorded sequences.
      {kA100,
       Sweep::kPlain,
       {k1g, k1g, k1g, k1g, k1g, k1g, k1g},
       {13, 11, 12, 7, 8, 9, 10},
       {"6:1", "4:1", "5:1", "0:1", "1:1", "2:1", "3:1"}},
      {kA100,
       Sweep::kMirrored,
       {k1g, k1g, k1g, k1g, k1g, k1g},
       {9, 7, 8, 11, 12, 13},
       {"6:1", "4:1", "5:1", "0:1", "1:1", "2:1"}},
      {kA100, Sweep::kMirrored, {k3g, k1g, k2g, k1g}, {1, 11, 6, 12}, {"4:4", "0:1", "2:2", "1:1"}},
      {kA100, Sweep::kMirrored, {k2g, k2g, k1g}, {3, 5, 9}, {"4:2", "0:2", "6:1"}},
      {kA100, Sweep::kPlain, {k1g, k3g}, {13, 1}, {}},
      {kA100, Sweep::kPlain, {k3g}, {2}, {"4:4"}},
      {kA100, Sweep::kPlain, {k3g, k2g, k1g, k1g}, {2, 3, 9, 10}, {}},
      {kA100, Sweep::kPlain, {k1g2x}, {6}, {"6:2"}},
      {kA100, Sweep::kPlain, {k3g, k3g}, {2, 1}, {"4:4", "0:4"}},
      {kA100, Sweep::kPlain, {k1g, k1g, k2g, k3g}, {13, 11, 3, kRefused}, {"6:1", "4:1", "0:2"}},
      {kA100, Sweep::kPlain, {k3g, k1g, k2g, k1g}, {2, 7, 4, 8}, {"4:4", "0:1", "2:2", "1:1"}},
      {kA100,
       Sweep::kPlain,
       {k2g, k1g, k1g, k1g, k1g, k1g},
       {5, 13, 7, 8, 9, 10},
       {"4:2", "6:1", "0:1", "1:1", "2:1", "3:1"}},
      {kA100, Sweep::kPlain, {k4g, k3g}, {1, 2}, {"0:4", "4:4"}},
      {kA100, Sweep::kMirrored, {k4g, k3g}, {2, 1}, {"0:4", "4:4"}},
      {kA100, Sweep::kPlain, {k7g}, {0}, {"0:8"}},
      // The table's, on the boards they were seen on.
      {"H100-80GB-SXM", Sweep::kPlain, {k3g, k2g}, {2, 3}, {}},
      {"H100-94GB-NVL",
       Sweep::kPlain,
       {k2g, k2g, k2g, k1g},
       {5, 3, 4, 13},
       {"4:2", "0:2", "2:2", "6:1"}},
      {"A30-24GB", Sweep::kPlain, {14}, {3}, {"0:1"}},
      {"H100-80GB-PCIe", Sweep::kSwept, {k1g}, {9}, {"2:1"}},
      {"RTX-PRO-6000-Blackwell-96GB",
       Sweep::kPlain,
       {14, 14, 5, 14},
       {3, 4, 2, kRefused},
       {"0:3", "3:3", "6:6"}},
  };
  return all;
}

TEST(DefaultPlacement, ReplaysEveryPublishedSequence) {
  for (const Vector& vector : vectors()) {
    const auto state = test_node(vector.board, vector.sweep);
    for (size_t i = 0; i < vector.profiles.size(); ++i) {
      SCOPED_TRACE(std::string(vector.board) + " step " + std::to_string(i));
      uint8_t gi = kNone;
      const Ret ret = create_gi(*state, 0, ProfileId{vector.profiles[i]}, std::nullopt, kRoot, gi);
      if (vector.ids[i] == kRefused) {
        EXPECT_EQ(ret, Ret::kInsufficientResources);
        continue;
      }
      ASSERT_EQ(ret, Ret::kSuccess);
      EXPECT_EQ(int{gi}, vector.ids[i]);
      if (i < vector.placements.size()) {
        EXPECT_EQ(shown(state->gpus[0].gis[gi]), vector.placements[i]);
      }
    }
  }
}

TEST(DefaultPlacement, IdsAndSlotsFollowTheTree) {
  const Geometry plain{8, 8, Sweep::kPlain};
  const Geometry mirrored{8, 8, Sweep::kMirrored};
  const Geometry twelfths{12, 4, Sweep::kPlain};
  EXPECT_EQ(gi_id_of(plain, {0, 8}), 0);
  EXPECT_EQ(gi_id_of(plain, {0, 4}), 1);
  EXPECT_EQ(gi_id_of(plain, {4, 4}), 2);
  EXPECT_EQ(gi_id_of(plain, {6, 2}), 6);
  EXPECT_EQ(gi_id_of(plain, {6, 1}), 13);
  EXPECT_EQ(gi_id_of(mirrored, {0, 8}), 0);
  EXPECT_EQ(gi_id_of(mirrored, {4, 4}), 1);
  EXPECT_EQ(gi_id_of(mirrored, {0, 1}), 11);
  EXPECT_EQ(gi_id_of(mirrored, {6, 1}), 9);
  EXPECT_EQ(gi_id_of(twelfths, {0, 12}), 0);
  EXPECT_EQ(gi_id_of(twelfths, {6, 6}), 2);
  EXPECT_EQ(gi_id_of(twelfths, {9, 3}), 6);
  EXPECT_EQ(leaves_of(plain, 0), 0xffU);
  EXPECT_EQ(leaves_of(plain, 2), 0xf0U);
  EXPECT_EQ(leaves_of(plain, 4), 0x0cU);
  EXPECT_EQ(leaves_of(plain, 14), 0x80U);
  EXPECT_EQ(leaves_of(twelfths, 6), 0x8U);
}

TEST(DefaultPlacement, ComputeInstancesKeepTheMostOptionsOpen) {
  const auto state = test_node(kA100);
  uint8_t gi = kNone;
  ASSERT_EQ(create_gi(*state, 0, ProfileId{k3g}, std::nullopt, kRoot, gi), Ret::kSuccess);
  uint8_t ci = kNone;
  // A 2c needs slices 0 and 1 of a 3g, so a first 1c goes to slice 2.
  ASSERT_EQ(create_ci(*state, 0, gi, 0, std::nullopt, kRoot, ci), Ret::kSuccess);
  EXPECT_EQ(ci, 0);
  EXPECT_EQ(state->gpus[0].gis[gi].cis[0].start, 2);
  ASSERT_EQ(create_ci(*state, 0, gi, 1, std::nullopt, kRoot, ci), Ret::kSuccess);
  EXPECT_EQ(ci, 1);
  EXPECT_EQ(state->gpus[0].gis[gi].cis[1].start, 0);
  EXPECT_EQ(state->gpus[0].gis[gi].cis[1].size, 2);
  EXPECT_EQ(create_ci(*state, 0, gi, 0, std::nullopt, kRoot, ci), Ret::kInsufficientResources);
}

}  // namespace
}  // namespace gpuslice::sim
