// The planner's steps on simulated boards, whose rules are the driver's and not the planner's: each
// multiset of profiles from sampled layouts, without one refused call. On plain, mirrored and
// floor-swept boards, where GPU instance ids and placements have nothing to do with each other.

#include <gtest/gtest.h>

#include "base/random.h"
#include "node.h"
#include "plan/brute_force_for_test.h"

namespace gpuslice::mig_test {
namespace {

using plan::Plan;
using plan::Span;
using plan::Step;
using plan::brute_force::Layout;
using plan::brute_force::Multiset;

constexpr sim::Caller kRoot{true, sim::kNoClient};

// A board with MIG on and nothing on it, as a plain State: no clock, no file, no lock.
class Board {
 public:
  explicit Board(const sim::NodeOptions& options) {
    Node node(options);
    mig::Change change(node.ports(), Node::options(), node.gpu(0));
    change.run(wish({}));
    CHECK(change.report().end == mig::End::kDone, "MIG of a test's board");
    offer = node.look(0).offer;
    state_ = std::make_unique<sim::State>(*node.world->snapshot());
    empty_ = gpu();
  }

  // Makes `layout` at its explicit placements from an empty board.
  void make(const Layout& layout) {
    gpu() = empty_;
    for (const auto& [span, profile] : layout) {
      uint8_t gi = 0;
      uint8_t ci = 0;
      must(sim::create_gi(*state_, 0, ProfileId{profile}, at(span), kRoot, gi));
      const plan::CiProfile& full = offer.find(ProfileId{profile})->cis.back();
      must(sim::create_ci(*state_, 0, gi, static_cast<uint8_t>(full.id.value),
                          at(full.placements[0]), kRoot, ci));
    }
    made_ = gpu();
  }
  void make_again() { gpu() = made_; }

  [[nodiscard]] std::vector<plan::Gi> there() {
    std::vector<plan::Gi> out;
    for (uint8_t id = 0; id < sim::kMaxGis; ++id) {
      const sim::Gi& gi = gpu().gis[id];
      if (!gi.live) continue;
      plan::Gi one{GiId{id}, sim::gi_profile(*state_, 0, id).id, {gi.start, gi.size}, false, {}};
      for (uint8_t c = 0; c < sim::kMaxCis; ++c)
        if (gi.cis[c].live)
          one.cis.push_back(
              {CiId{c}, ProfileId{gi.cis[c].profile}, {gi.cis[c].start, gi.cis[c].size}, false});
      out.push_back(std::move(one));
    }
    return out;
  }

  void execute(const Plan& plan) {
    for (const Step& step : plan.steps) {
      const auto gi = static_cast<uint8_t>(step.gi.value);
      uint8_t made = 0;
      switch (step.op) {
        case Step::Op::kDestroyCi:
          must(sim::destroy_ci(*state_, 0, gi, static_cast<uint8_t>(step.ci.value), kRoot));
          break;
        case Step::Op::kDestroyGi:
          must(sim::destroy_gi(*state_, 0, gi, kRoot));
          break;
        case Step::Op::kCreateGi:
          must(sim::create_gi(*state_, 0, step.profile, at(step.placement), kRoot, made));
          break;
        case Step::Op::kCreateCi:
          must(sim::create_ci(*state_, 0, lying_at(step.gi_placement),
                              static_cast<uint8_t>(step.profile.value), at(step.placement), kRoot,
                              made));
          break;
      }
    }
  }

  [[nodiscard]] Multiset multiset() {
    Multiset out;
    for (const plan::Gi& gi : there()) out.insert(gi.profile.value);
    return out;
  }

  plan::Offer offer;
  size_t refused = 0;

 private:
  sim::Gpu& gpu() { return state_->gpus[0]; }
  void must(sim::Ret ret) { refused += ret == sim::Ret::kSuccess ? 0U : 1U; }
  static sim::Placement at(Span span) {
    return {static_cast<uint8_t>(span.start), static_cast<uint8_t>(span.size)};
  }
  uint8_t lying_at(Span span) {
    for (uint8_t id = 0; id < sim::kMaxGis; ++id)
      if (gpu().gis[id].live && gpu().gis[id].start == span.start &&
          gpu().gis[id].size == span.size)
        return id;
    return sim::kNone;
  }

  std::unique_ptr<sim::State> state_;
  sim::Gpu empty_{}, made_{};
};

// `samples` layouts, each to every multiset.
void walk(const sim::NodeOptions& options, size_t samples, size_t multisets, size_t layouts) {
  Board board(options);
  const auto all = plan::brute_force::all_layouts(board.offer, {true});
  const auto wishes = plan::brute_force::by_multiset(all);
  ASSERT_EQ(all.size(), layouts);
  ASSERT_EQ(wishes.size(), multisets);
  std::vector<Layout> starts(all.begin(), all.end());
  Random random(7);
  for (size_t i = starts.size() - 1; i > 0; --i) std::swap(starts[i], starts[random.below(i + 1)]);
  starts.resize(std::min(samples, starts.size()));
  for (const Layout& start : starts) {
    board.make(start);
    ASSERT_EQ(board.refused, 0U) << "a layout that brute force found, the board refuses";
    const std::vector<plan::Gi> there = board.there();
    for (const auto& [multiset, unused] : wishes) {
      std::vector<plan::WantedGi> wanted;
      for (const uint32_t id : multiset)
        wanted.push_back({ProfileId{id}, std::nullopt, std::nullopt});
      board.make_again();
      const plan::Outcome outcome = plan::make_plan(board.offer, there, wanted);
      const Plan* plan = std::get_if<Plan>(&outcome);
      ASSERT_NE(plan, nullptr) << std::get<plan::Impossible>(outcome).reason;
      board.execute(*plan);
      ASSERT_EQ(board.refused, 0U);
      ASSERT_EQ(board.multiset(), multiset);
    }
  }
}

TEST(PlannerOnBoard, A100FromTwoThousandLayoutsToEachOf127Multisets) {
  walk(one_board("A100-SXM4-40GB"), 2000, 127, 2318);
}
TEST(PlannerOnBoard, MirroredAndFloorSweptBoards) {
  for (const sim::Sweep sweep : {sim::Sweep::kMirrored, sim::Sweep::kSwept})
    for (const char* board : {"A100-SXM4-40GB", "H100-80GB-PCIe"})
      walk(one_board(board, sweep), 100, 127, 2318);
}
TEST(PlannerOnBoard, A30) {
  const auto all = [] {
    Board board(one_board("A30-24GB"));
    return plan::brute_force::all_layouts(board.offer, {true});
  }();
  walk(one_board("A30-24GB"), all.size(), plan::brute_force::by_multiset(all).size(), all.size());
}
TEST(PlannerOnBoard, RtxPro6000InTwelfths) {
  walk(one_board("RTX-PRO-6000-Blackwell-96GB"), 716, 114, 716);
}

}  // namespace
}  // namespace gpuslice::mig_test
