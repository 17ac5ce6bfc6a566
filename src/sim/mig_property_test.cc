// What must hold of any sequence of calls, and the layout counts of data/mig-profiles.yaml found
// again by brute force through the engine.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "sim/mig.h"
#include "sim/mig_rules.h"
#include "sim/testing.h"
#include "sim/validate.h"

namespace gpuslice::sim {
namespace {

struct Option {
  uint8_t profile;
  Placement at;
};

// Walks all sets of instances that the engine admits, each once; the empty one is not counted.
class Layouts {
 public:
  Layouts(const std::string& board, const std::set<uint32_t>& ids) {
    state_ = test_node(board);
    board_ = &board_of(*state_, 0);
    for (size_t i = 0; i < board_->profiles.size(); ++i) {
      const gpu::Profile& profile = board_->profiles[i];
      if (!ids.empty() && !ids.contains(profile.id.value)) continue;
      for (const Placement& at : profile.placements)
        options_.push_back({static_cast<uint8_t>(i), at});
    }
    walk(0, state_->gpus[0], {});
  }

  size_t layouts = 0, maximal = 0;
  std::set<std::vector<uint8_t>> multisets, maximal_multisets;

 private:
  bool fits(const Gpu& gpu, const Option& option) const {
    Placement at;
    return place_gi(*board_, gpu, option.profile, option.at, at) == Ret::kSuccess;
  }

  void walk(size_t from, const Gpu& gpu, const std::vector<uint8_t>& profiles) {
    if (!profiles.empty()) ++layouts;
    std::vector<uint8_t> sorted = profiles;
    std::sort(sorted.begin(), sorted.end());
    if (!profiles.empty()) multisets.insert(sorted);
    if (std::none_of(options_.begin(), options_.end(),
                     [&](const Option& one) { return fits(gpu, one); })) {
      ++maximal;
      maximal_multisets.insert(sorted);
    }
    for (size_t i = from; i < options_.size(); ++i) {
      if (!fits(gpu, options_[i])) continue;
      Gpu next = gpu;
      Gi& gi = next.gis[gi_id_of(geometry_of(*board_, gpu.sweep), options_[i].at)];
      gi.live = 1;
      gi.profile = options_[i].profile;
      std::vector<uint8_t> more = profiles;
      more.push_back(options_[i].profile);
      walk(i + 1, next, more);
    }
  }

  std::unique_ptr<State> state_;
  const gpu::Board* board_ = nullptr;
  std::vector<Option> options_;
};

TEST(Layouts, FiveProfilesOfASevenSliceBoard) {
  const Layouts found("A100-SXM4-40GB", {19, 14, 9, 5, 0});
  EXPECT_EQ(found.layouts, 297U);
  EXPECT_EQ(found.maximal, 19U);
  EXPECT_EQ(found.multisets.size(), 37U);
  EXPECT_EQ(found.maximal_multisets.size(), 14U);
}

TEST(Layouts, AllSevenProfiles) {
  for (const char* board : {"A100-SXM4-40GB", "A100-SXM4-80GB", "H100-80GB-SXM", "H200-141GB"}) {
    SCOPED_TRACE(board);
    const Layouts found(board, {});
    EXPECT_EQ(found.layouts, 2318U);
    EXPECT_EQ(found.maximal, 239U);
    EXPECT_EQ(found.multisets.size(), 127U);
    EXPECT_EQ(found.maximal_multisets.size(), 64U);
  }
}

TEST(Layouts, ThreeProfilesOfAFourSliceBoard) {
  const Layouts found("A30-24GB", {14, 5, 0});
  EXPECT_EQ(found.layouts, 25U);
  EXPECT_EQ(found.maximal, 5U);
  EXPECT_EQ(found.multisets.size(), 9U);
  EXPECT_EQ(found.maximal_multisets.size(), 4U);
}

TEST(Layouts, TwelfthsBehaveAsQuarters) {
  const Layouts found("RTX-PRO-6000-Blackwell-96GB", {14, 5, 0});
  EXPECT_EQ(found.layouts, 25U);
  EXPECT_EQ(found.maximal, 5U);
}

// Any board, any sweep, any calls: the State stays valid (no overlap, ids where they belong),
// capacity is what can be made, a failed call changes nothing but its counter, destroy undoes
// create.
class RandomCalls : public testing::TestWithParam<std::pair<const char*, Sweep>> {};

bool same_but_counters(const State& a, const State& b) {
  State x = a;
  x.gpus[0].calls = b.gpus[0].calls;
  return std::memcmp(&x, &b, sizeof(State)) == 0;
}

TEST_P(RandomCalls, KeepTheInvariants) {
  const auto [board, sweep] = GetParam();
  const auto state = test_node(board, sweep);
  const std::span<const gpu::Profile> profiles = board_of(*state, 0).profiles;
  Random random(std::string(board).size() * 3 + static_cast<uint64_t>(sweep));
  std::set<uint64_t> generations;
  for (int step = 0; step < 2000; ++step) {
    const gpu::Profile& profile = profiles[random.below(profiles.size())];
    const State before = *state;
    uint8_t gi = kNone;
    switch (random.below(5)) {
      case 0:
      case 1: {
        std::optional<Placement> at;
        if (random.chance(1, 2)) at = profile.placements[random.below(profile.placements.size())];
        uint32_t room = 0, room_after = 0;
        ASSERT_EQ(gi_capacity(*state, 0, profile.id, room), Ret::kSuccess);
        const Ret ret = create_gi(*state, 0, profile.id, at, kRoot, gi);
        if (!at) {
          ASSERT_EQ(ret == Ret::kSuccess, room > 0);
        }
        if (ret != Ret::kSuccess) {
          ASSERT_EQ(ret, Ret::kInsufficientResources);
          ASSERT_TRUE(same_but_counters(before, *state));
          break;
        }
        ASSERT_GT(room, 0U);
        ASSERT_TRUE(generations.insert(state->gpus[0].gis[gi].generation).second);
        ASSERT_EQ(gi_capacity(*state, 0, profile.id, room_after), Ret::kSuccess);
        ASSERT_EQ(room_after, room - 1);
        // destroy ∘ create is the identity, but for the counters of what was ever made.
        State undone = *state;
        ASSERT_EQ(destroy_gi(undone, 0, gi, kRoot), Ret::kSuccess);
        undone.node.next_generation = before.node.next_generation;
        undone.events = before.events;
        ASSERT_TRUE(same_but_counters(undone, before));
        break;
      }
      case 2: {
        gi = static_cast<uint8_t>(random.below(kMaxGis));
        uint8_t ci = kNone;
        const auto ci_enum = static_cast<uint8_t>(random.below(9));
        uint32_t room = 0;
        const Ret asked = ci_capacity(*state, 0, gi, ci_enum, room);
        const Ret ret = create_ci(*state, 0, gi, ci_enum, std::nullopt, kRoot, ci);
        ASSERT_EQ(ret == Ret::kSuccess, asked == Ret::kSuccess && room > 0);
        if (ret == Ret::kSuccess) {
          ASSERT_TRUE(generations.insert(state->gpus[0].gis[gi].cis[ci].generation).second);
        }
        break;
      }
      case 3: {
        const MigDevices devices = mig_devices(*state, 0);
        if (devices.count == 0) break;
        const MigDevice one = devices.device[random.below(devices.count)];
        ASSERT_EQ(destroy_ci(*state, 0, one.gi, one.ci, kRoot), Ret::kSuccess);
        break;
      }
      default: {
        gi = static_cast<uint8_t>(random.below(kMaxGis));
        const bool empty =
            state->gpus[0].gis[gi].live &&
            std::none_of(std::begin(state->gpus[0].gis[gi].cis),
                         std::end(state->gpus[0].gis[gi].cis), [](const Ci& c) { return c.live; });
        ASSERT_EQ(destroy_gi(*state, 0, gi, kRoot) == Ret::kSuccess, empty);
      }
    }
    const Status valid = validate(*state);
    ASSERT_TRUE(valid) << valid.error().text();
    // Every MIG device has a UUID of its own.
    std::set<std::string> uuids;
    const MigDevices devices = mig_devices(*state, 0);
    for (const MigDevice& one : devices) uuids.insert(mig_uuid(*state, 0, one.gi, one.ci));
    ASSERT_EQ(uuids.size(), devices.count);
  }
}

INSTANTIATE_TEST_SUITE_P(Boards, RandomCalls,
                         testing::Values(std::pair{"A100-SXM4-40GB", Sweep::kPlain},
                                         std::pair{"A100-SXM4-40GB", Sweep::kMirrored},
                                         std::pair{"H100-80GB-PCIe", Sweep::kSwept},
                                         std::pair{"H200-141GB", Sweep::kPlain},
                                         std::pair{"A30-24GB", Sweep::kPlain},
                                         std::pair{"RTX-PRO-6000-Blackwell-96GB", Sweep::kPlain}));

}  // namespace
}  // namespace gpuslice::sim
