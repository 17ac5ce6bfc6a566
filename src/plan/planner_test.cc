// The planner against an independent brute force: counts of layouts known from the geometry, every
// multiset from every layout, and the reference figure of kept instances.

#include "plan/planner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "plan/brute_force_for_test.h"
#include "plan/layouts.h"

namespace gpuslice::plan {
namespace {

using namespace brute_force;

std::vector<Span> spans(std::initializer_list<uint32_t> starts, uint32_t size) {
  std::vector<Span> out;
  for (const uint32_t s : starts) out.push_back({s, size});
  return out;
}

std::vector<CiProfile> cis(uint32_t slices) {
  const std::map<uint32_t, std::vector<CiProfile>> by_slices = {
      {1, {{{0}, "1c", 1, spans({0}, 1)}}},
      {2, {{{0}, "1c", 2, spans({0, 1}, 1)}, {{1}, "2c", 1, spans({0}, 2)}}},
      {3,
       {{{0}, "1c", 3, spans({0, 1, 2}, 1)},
        {{1}, "2c", 1, spans({0}, 2)},
        {{2}, "3c", 1, spans({0}, 3)}}},
      {4,
       {{{0}, "1c", 4, spans({0, 1, 2, 3}, 1)},
        {{1}, "2c", 2, spans({0, 2}, 2)},
        {{3}, "4c", 1, spans({0}, 4)}}},
      {7,
       {{{0}, "1c", 7, spans({0, 1, 2, 3, 4, 5, 6}, 1)},
        {{1}, "2c", 3, spans({0, 2, 4}, 2)},
        {{2}, "3c", 2, spans({0, 4}, 3)},
        {{3}, "4c", 1, spans({0}, 4)},
        {{4}, "7c", 1, spans({0}, 7)}}}};
  return by_slices.at(slices);
}

// Profiles of A100-SXM4-40GB as `nvidia-smi mig -lgip` and `-lgipp` list them.
Offer a100() {
  return {{{{19}, "1g.5gb", 7, {}, spans({0, 1, 2, 3, 4, 5, 6}, 1), cis(1)},
           {{20}, "1g.5gb+me", 1, {1, 0, 1, 1}, spans({0, 1, 2, 3, 4, 5, 6}, 1), cis(1)},
           {{15}, "1g.10gb", 4, {1, 0, 0, 0}, spans({0, 2, 4, 6}, 2), cis(1)},
           {{14}, "2g.10gb", 3, {1, 0, 0, 0}, spans({0, 2, 4}, 2), cis(2)},
           {{9}, "3g.20gb", 2, {2, 0, 0, 0}, spans({0, 4}, 4), cis(3)},
           {{5}, "4g.20gb", 1, {2, 0, 0, 0}, spans({0}, 4), cis(4)},
           {{0}, "7g.40gb", 1, {5, 0, 1, 1}, spans({0}, 8), cis(7)}}};
}

Offer only(Offer offer, const std::set<uint32_t>& ids) {
  std::erase_if(offer.profiles, [&](const GiProfile& p) { return !ids.contains(p.id.value); });
  return offer;
}

Offer a100_base() { return only(a100(), {19, 14, 9, 5, 0}); }

Offer a30_base() {
  return {{{{14}, "1g.6gb", 4, {1, 0, 0, 0}, spans({0, 1, 2, 3}, 1), cis(1)},
           {{5}, "2g.12gb", 2, {2, 0, 0, 0}, spans({0, 2}, 2), cis(2)},
           {{0}, "4g.24gb", 1, {4, 0, 1, 1}, spans({0}, 4), cis(4)}}};
}

Offer rtx_pro_6000() {
  const auto one = spans({0, 3, 6, 9}, 3);
  const auto two = spans({0, 6}, 6);
  return {{{{14}, "1g.24gb", 4, {1, 1, 1, 0}, one, cis(1)},
           {{21}, "1g.24gb+me", 1, {1, 1, 1, 1}, one, cis(1)},
           {{47}, "1g.24gb+gfx", 4, {1, 1, 1, 0}, one, cis(1)},
           {{65}, "1g.24gb+me.all", 1, {4, 4, 4, 1}, one, cis(1)},
           {{67}, "1g.24gb-me", 4, {}, one, cis(1)},
           {{5}, "2g.48gb", 2, {2, 2, 2, 0}, two, cis(2)},
           {{35}, "2g.48gb+gfx", 2, {2, 2, 2, 0}, two, cis(2)},
           {{64}, "2g.48gb+me.all", 1, {4, 4, 4, 1}, two, cis(2)},
           {{66}, "2g.48gb-me", 2, {}, two, cis(2)},
           {{0}, "4g.96gb", 1, {4, 4, 4, 1}, spans({0}, 12), cis(4)},
           {{32}, "4g.96gb+gfx", 1, {4, 4, 4, 1}, spans({0}, 12), cis(4)}}};
}

// --- plans on layouts
// --------------------------------------------------------------------------------------------

std::vector<Gi> gis_of(const Layout& layout, const std::set<Span>& busy = {}) {
  std::vector<Gi> out;
  uint32_t id = 1;
  for (const auto& [span, profile] : layout)
    out.push_back({GiId{id++}, ProfileId{profile}, span, busy.contains(span), {}});
  return out;
}

std::vector<WantedGi> wish_of(const Multiset& multiset) {
  std::vector<WantedGi> out;
  for (const uint32_t id : multiset) out.push_back({ProfileId{id}, std::nullopt, std::nullopt});
  return out;
}

// Executes a plan as a board would, step by step; an EXPECT fails where the board would refuse.
Layout execute(const Offer& offer, const std::vector<Gi>& there, const Plan& plan) {
  Layout layout;
  std::map<Span, std::vector<Span>> inside;
  for (const Gi& gi : there) {
    layout.insert({gi.placement, gi.profile.value});
    for (const Ci& ci : gi.cis) inside[gi.placement].push_back(ci.placement);
  }
  for (const Step& step : plan.steps) {
    switch (step.op) {
      case Step::Op::kDestroyCi: {
        auto& in = inside[step.gi_placement];
        const auto it = std::find(in.begin(), in.end(), step.placement);
        EXPECT_NE(it, in.end()) << "destroys a compute instance that is not there";
        if (it != in.end()) in.erase(it);
        break;
      }
      case Step::Op::kDestroyGi:
        EXPECT_TRUE(inside[step.placement].empty())
            << "destroys a GPU instance with compute instances";
        EXPECT_EQ(layout.erase({step.placement, step.profile.value}), 1U);
        break;
      case Step::Op::kCreateGi:
        EXPECT_TRUE(can_add(offer, layout, *offer.find(step.profile), step.placement, {true}));
        layout.insert({step.placement, step.profile.value});
        break;
      case Step::Op::kCreateCi:
        for (const Span other : inside[step.gi_placement])
          EXPECT_FALSE(overlap(other, step.placement));
        inside[step.gi_placement].push_back(step.placement);
        break;
    }
  }
  return layout;
}

const Plan& plan_of(const Outcome& outcome) {
  const Plan* plan = std::get_if<Plan>(&outcome);
  EXPECT_NE(plan, nullptr) << (plan ? "" : std::get<Impossible>(outcome).reason);
  static const Plan kNone;
  return plan ? *plan : kNone;
}

const Impossible& impossible_of(const Outcome& outcome) {
  const Impossible* impossible = std::get_if<Impossible>(&outcome);
  EXPECT_NE(impossible, nullptr);
  static const Impossible kNone;
  return impossible ? *impossible : kNone;
}

// --- oracles
// ---------------------------------------------------------------------------------------------------------

TEST(Layouts, CountsAreThoseOfTheGeometry) {
  const auto base = all_layouts(a100_base());
  EXPECT_EQ(base.size(), 297U);
  EXPECT_EQ(count_maximal(a100_base(), base), 19U);
  EXPECT_EQ(by_multiset(base).size(), 37U);
  const auto seven = all_layouts(a100());
  EXPECT_EQ(seven.size(), 2318U);
  EXPECT_EQ(count_maximal(a100(), seven), 239U);
  EXPECT_EQ(by_multiset(seven).size(), 127U);
  const auto a30 = all_layouts(a30_base());
  EXPECT_EQ(a30.size(), 25U);
  EXPECT_EQ(count_maximal(a30_base(), a30), 5U);
  EXPECT_EQ(by_multiset(a30).size(), 9U);
}

// What `list layouts` shows, against the same brute force, layout by layout.
TEST(Layouts, CombinationsAreThoseOfBruteForce) {
  struct Known {
    Offer offer;
    size_t maximal;  // multisets with a maximal layout: known from the geometry, the last counted
    bool engines;
  };
  for (const Known& known : {Known{a100_base(), 14, false}, Known{a100(), 64, false},
                             Known{a30_base(), 4, false}, Known{rtx_pro_6000(), 64, true}}) {
    const auto layouts = by_multiset(all_layouts(known.offer, {known.engines}));
    const std::vector<Combination> found = combinations(known.offer);
    ASSERT_EQ(found.size(), layouts.size());
    size_t maximal = 0;
    for (const Combination& one : found) {
      Multiset multiset;
      for (const ProfileId id : one.profiles) multiset.insert(id.value);
      const auto it = layouts.find(multiset);
      ASSERT_NE(it, layouts.end());
      EXPECT_EQ(one.layouts, it->second.size());
      EXPECT_EQ(one.maximal, count_maximal(known.offer, {it->second.begin(), it->second.end()},
                                           {known.engines}));
      maximal += one.maximal > 0 ? 1U : 0U;
    }
    EXPECT_EQ(maximal, known.maximal);
  }
}

TEST(Layouts, MediaEnginesForbidNothingOnA100) {
  EXPECT_EQ(all_layouts(a100(), {true}).size(), 2318U);
}

TEST(Layouts, RtxPro6000CountsInUnitsOfATwelfth) {
  // Counted here, by overlap, counts and the media-engine budget (4 NVDEC, 4 NVENC, 4 JPEG, 1 OFA).
  const auto layouts = all_layouts(rtx_pro_6000(), {true});
  EXPECT_EQ(layouts.size(), 716U);
  EXPECT_EQ(by_multiset(layouts).size(), 114U);
}

TEST(Planner, MakesEveryMultisetFromEveryLayoutAsBruteForceWould) {
  const Offer offer = a100();
  const auto layouts = all_layouts(offer);
  const auto multisets = by_multiset(layouts);
  ASSERT_EQ(multisets.size(), 127U);
  Random random(2318);
  std::vector<Layout> starts(layouts.begin(), layouts.end());
  size_t checked = 0;
  for (const Layout& start : starts) {
    const std::vector<Gi> there = gis_of(start);
    // Each start against some multisets, so that all pairs of a large sample are seen in a second.
    for (const auto& [multiset, targets] : multisets) {
      if (!random.chance(1, 8)) continue;
      ++checked;
      const Outcome outcome = make_plan(offer, there, wish_of(multiset));
      const Plan& plan = plan_of(outcome);
      const Layout end = execute(offer, there, plan);
      ASSERT_EQ(multiset_of(end), multiset);
      size_t best_kept = 0;
      for (const Layout& target : targets)
        best_kept = std::max(best_kept, kept_between(start, target));
      ASSERT_EQ(kept_between(start, end), best_kept);
      uint32_t best_open = 0;
      for (const Layout& target : targets)
        if (kept_between(start, target) == best_kept)
          best_open = std::max(best_open, open_of(offer, target, {true}));
      ASSERT_EQ(plan.left_open, best_open);
      ASSERT_EQ(plan.gis_destroyed, start.size() - best_kept);
      ASSERT_EQ(plan.gis_created, multiset.size() - best_kept);
    }
  }
  EXPECT_GT(checked, 30'000U);
}

TEST(Planner, WorksInTwelfths) {
  const Offer offer = rtx_pro_6000();
  const auto multisets = by_multiset(all_layouts(offer, {true}));
  for (const auto& [from, starts] : multisets)
    for (const auto& [to, targets] : multisets) {
      const std::vector<Gi> there = gis_of(starts.front());
      const Outcome outcome = make_plan(offer, there, wish_of(to));
      ASSERT_EQ(multiset_of(execute(offer, there, plan_of(outcome))), to);
    }
}

// The driver's own choice of a place, replayed from its published sequences (ids 0; 1-2; 3-6; 7-14
// cover all, halves, quarters, eighths of the slices): the free id that leaves most valid ids free;
// the lowest of equals.
class DriverChoice {
 public:
  std::optional<Span> create(uint32_t profile) {
    const auto [low, high, any] = range(profile);
    std::optional<uint32_t> best;
    size_t best_left = 0;
    for (uint32_t id = low; id <= high; ++id) {
      if (!(any || counted(id)) || !free(id)) continue;
      size_t left = 0;
      for (uint32_t other = 0; other < 15; ++other)
        if (counted(other) && free(other) && !overlap(span(other), span(id))) ++left;
      if (!best || left > best_left) {
        best = id;
        best_left = left;
      }
    }
    if (!best) return std::nullopt;
    live_.push_back(*best);
    return span(*best);
  }

 private:
  struct Range {
    uint32_t low, high;
    bool any;
  };
  static Range range(uint32_t profile) {
    switch (profile) {
      case 0:
        return {0, 0, true};
      case 5:
        return {1, 2, false};
      case 9:
        return {1, 2, true};
      case 14:
        return {3, 6, false};
      default:
        return {7, 14, false};
    }
  }
  static Span span(uint32_t id) {
    if (id == 0) return {0, 8};
    if (id <= 2) return {4 * (id - 1), 4};
    if (id <= 6) return {2 * (id - 3), 2};
    return {id - 7, 1};
  }
  static bool counted(uint32_t id) { return id == 0 || !overlap(span(id), {7, 1}); }
  bool free(uint32_t id) const {
    return std::none_of(live_.begin(), live_.end(),
                        [&](uint32_t l) { return overlap(span(l), span(id)); });
  }
  std::vector<uint32_t> live_;
};

TEST(Planner, KeepsAsManyAsBruteForceOverThe1332ReferenceTransitions) {
  const Offer offer = a100_base();
  const auto multisets = by_multiset(all_layouts(offer));
  ASSERT_EQ(multisets.size(), 37U);
  size_t transitions = 0;
  size_t instances = 0;
  size_t kept = 0;
  size_t kept_by_brute_force = 0;
  for (const auto& [from, unused] : multisets) {
    Layout start;
    DriverChoice driver;
    std::vector<uint32_t> largest_first(from.begin(), from.end());
    const std::map<uint32_t, int> size = {{0, 7}, {5, 4}, {9, 3}, {14, 2}, {19, 1}};
    std::sort(largest_first.begin(), largest_first.end(),
              [&](uint32_t a, uint32_t b) { return size.at(a) > size.at(b); });
    for (const uint32_t profile : largest_first) {
      const auto span = driver.create(profile);
      ASSERT_TRUE(span.has_value());
      start.insert({*span, profile});
    }
    for (const auto& [to, targets] : multisets) {
      if (from == to) continue;
      ++transitions;
      instances += start.size();
      const Outcome outcome = make_plan(offer, gis_of(start), wish_of(to));
      kept += plan_of(outcome).kept.size();
      size_t best = 0;
      for (const Layout& target : targets) best = std::max(best, kept_between(start, target));
      kept_by_brute_force += best;
    }
  }
  EXPECT_EQ(transitions, 1332U);
  EXPECT_EQ(instances, 4212U);
  EXPECT_EQ(kept_by_brute_force, 1510U);
  EXPECT_EQ(kept, 1510U);
}

// Some of what is there is busy: a plan exists exactly where brute force finds a layout with all
// that is busy in it, and keeps as many as the best of these; else the nearest is as large as any
// part of the wish that fits beside what is busy, and does fit.
TEST(Planner, BesideWhatIsBusyAsBruteForceWould) {
  const Offer offer = a100();
  const auto layouts = all_layouts(offer);
  const auto multisets = by_multiset(layouts);
  const std::vector<Layout> starts(layouts.begin(), layouts.end());
  std::vector<Multiset> wishes;
  for (const auto& [multiset, unused] : multisets) wishes.push_back(multiset);
  Random random(11);
  const auto beside = [&](const std::vector<Layout>& targets, const Layout& busy) {
    return std::any_of(targets.begin(), targets.end(), [&](const Layout& target) {
      return std::includes(target.begin(), target.end(), busy.begin(), busy.end());
    });
  };
  size_t impossible = 0;
  for (int round = 0; round < 3000; ++round) {
    const Layout& start = starts[random.below(starts.size())];
    Layout busy;
    std::set<Span> busy_spans;
    for (const auto& one : start)
      if (random.chance(1, 3)) {
        busy.insert(one);
        busy_spans.insert(one.first);
      }
    const Multiset& wish = wishes[random.below(wishes.size())];
    const std::vector<Gi> there = gis_of(start, busy_spans);
    const Outcome outcome = make_plan(offer, there, wish_of(wish));
    size_t best_kept = 0;
    for (const Layout& target : multisets.at(wish))
      if (std::includes(target.begin(), target.end(), busy.begin(), busy.end()))
        best_kept = std::max(best_kept, kept_between(start, target));
    const bool can = beside(multisets.at(wish), busy);
    ASSERT_EQ(std::holds_alternative<Plan>(outcome), can);
    if (can) {
      const Layout end = execute(offer, there, std::get<Plan>(outcome));
      ASSERT_EQ(multiset_of(end), wish);
      ASSERT_TRUE(std::includes(end.begin(), end.end(), busy.begin(), busy.end()));
      ASSERT_EQ(kept_between(start, end), best_kept);
      continue;
    }
    ++impossible;
    // Parts of the wish by size; what is busy is there as well, wished or not.
    const Impossible& why = std::get<Impossible>(outcome);
    Multiset nearest;
    for (const ProfileId id : why.nearest) nearest.insert(id.value);
    ASSERT_TRUE(std::includes(wish.begin(), wish.end(), nearest.begin(), nearest.end()));
    const auto possible = [&](const Multiset& part) {
      if (part.empty()) return true;
      // The part itself as a wish, or with the rest of what is busy beside it.
      for (const auto& [multiset, targets] : multisets) {
        if (!std::includes(multiset.begin(), multiset.end(), part.begin(), part.end())) continue;
        Multiset rest;
        std::set_difference(multiset.begin(), multiset.end(), part.begin(), part.end(),
                            std::inserter(rest, rest.end()));
        const Multiset held = multiset_of(busy);
        if (std::includes(held.begin(), held.end(), rest.begin(), rest.end()) &&
            beside(targets, busy))
          return true;
      }
      return false;
    };
    EXPECT_TRUE(possible(nearest));
    size_t largest = 0;
    std::vector<uint32_t> items(wish.begin(), wish.end());
    for (uint32_t bits = 0; bits < (1U << items.size()); ++bits) {
      Multiset part;
      for (size_t i = 0; i < items.size(); ++i)
        if ((bits >> i & 1U) != 0) part.insert(items[i]);
      if (part.size() > largest && possible(part)) largest = part.size();
    }
    EXPECT_EQ(nearest.size(), largest);
  }
  EXPECT_GT(impossible, 500U);
}

// What comes in another order is the same: instances as the driver happens to list them, profiles
// as the file happens to name them.
TEST(Planner, TheOrderOfTheInputDoesNotMatter) {
  const Offer offer = a100();
  const auto layouts = all_layouts(offer);
  const std::vector<Layout> starts(layouts.begin(), layouts.end());
  const auto multisets = by_multiset(layouts);
  Random random(3);
  for (int round = 0; round < 300; ++round) {
    std::vector<Gi> there = gis_of(starts[random.below(starts.size())]);
    auto it = multisets.begin();
    std::advance(it, random.below(multisets.size()));
    std::vector<WantedGi> wanted = wish_of(it->first);
    const Plan first = plan_of(make_plan(offer, there, wanted));
    const Layout end = execute(offer, there, first);
    const auto shuffle = [&](auto& list) {
      for (size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[random.below(i)]);
    };
    shuffle(there);
    shuffle(wanted);
    const Plan second = plan_of(make_plan(offer, there, wanted));
    EXPECT_EQ(execute(offer, there, second), end);
    EXPECT_EQ(second.steps.size(), first.steps.size());
  }
}

// --- rules
// -----------------------------------------------------------------------------------------------------------

TEST(Planner, SamePlanForTheSameInput) {
  const std::vector<Gi> there = gis_of({{{4, 4}, 9}, {{0, 1}, 19}});
  const auto wish = wish_of({14, 14, 19});
  EXPECT_EQ(plan_of(make_plan(a100(), there, wish)).steps,
            plan_of(make_plan(a100(), there, wish)).steps);
}

TEST(Planner, NothingToDoIsNoStep) {
  std::vector<Gi> there = gis_of({{{0, 4}, 9}});
  there[0].cis = {{CiId{0}, ProfileId{2}, {0, 3}, false}};
  const Plan plan = plan_of(make_plan(a100(), there, wish_of({9})));
  EXPECT_TRUE(plan.steps.empty());
  ASSERT_EQ(plan.kept.size(), 1U);
  EXPECT_EQ(plan.kept[0], there[0]);
}

TEST(Planner, GpuInstanceWithoutComputeInstanceIsADifference) {
  const std::vector<Gi> there = gis_of({{{0, 4}, 9}});
  const Plan plan = plan_of(make_plan(a100(), there, wish_of({9})));
  ASSERT_EQ(plan.steps.size(), 1U);
  EXPECT_EQ(plan.steps[0].op, Step::Op::kCreateCi);
  EXPECT_EQ(plan.steps[0].profile, ProfileId{2});
  EXPECT_FALSE(plan.steps[0].new_gi);
}

TEST(Planner, ChangingComputeInstancesKeepsTheGpuInstance) {
  std::vector<Gi> there = gis_of({{{0, 4}, 9}});
  there[0].cis = {{CiId{0}, ProfileId{0}, {0, 1}, true}, {CiId{1}, ProfileId{0}, {1, 1}, false}};
  there[0].busy = true;
  const std::vector<WantedGi> wanted = {
      {ProfileId{9}, std::nullopt,
       std::vector<WantedCi>{{ProfileId{0}, {}}, {ProfileId{0}, {}}, {ProfileId{0}, {}}}}};
  const Plan plan = plan_of(make_plan(a100(), there, wanted));
  ASSERT_EQ(plan.steps.size(), 1U);
  EXPECT_EQ(plan.steps[0].op, Step::Op::kCreateCi);
  EXPECT_EQ(plan.steps[0].placement, (Span{2, 1}));
  EXPECT_EQ(plan.kept[0].cis.size(), 2U);
}

TEST(Planner, NeverABusyInstance) {
  // A busy 3g at slices 4..7: 2 x 2g fit beside it, three do not, though an idle board takes three.
  const std::vector<Gi> there = gis_of({{{4, 4}, 9}}, {{4, 4}});
  const Impossible three = impossible_of(make_plan(a100(), there, wish_of({14, 14, 14})));
  EXPECT_EQ(three.in_the_way, std::vector<GiId>{GiId{1}});
  EXPECT_EQ(three.reason,
            "3 x 2g.10gb cannot be made without touching what is in use: GPU instance 1 (3g.20gb "
            "at 4:4)");
  EXPECT_EQ(three.nearest, (std::vector<ProfileId>{{14}, {14}}));
  const Plan plan = plan_of(make_plan(a100(), there, wish_of({9, 14, 14})));
  EXPECT_EQ(plan.kept.size(), 1U);
  EXPECT_EQ(plan.gis_destroyed, 0U);
}

TEST(Planner, OnlyTheFewestThatMustMakeRoomAreInTheWay) {
  // A busy 3g stays where two are wanted; the busy 1g beside it is the one in the way.
  const std::vector<Gi> halves = gis_of({{{0, 4}, 9}, {{4, 1}, 19}}, {{0, 4}, {4, 1}});
  const Impossible one = impossible_of(make_plan(a100(), halves, wish_of({9, 9})));
  EXPECT_EQ(one.in_the_way, std::vector<GiId>{GiId{2}});
  EXPECT_EQ(one.reason,
            "2 x 3g.20gb cannot be made without touching what is in use: GPU instance 2 (1g.5gb "
            "at 4:1)");
  // Of three busy ones any may stay; two have to go, though an idle one could be kept instead.
  const std::vector<Gi> small =
      gis_of({{{0, 1}, 19}, {{1, 1}, 19}, {{2, 1}, 19}, {{3, 1}, 19}}, {{0, 1}, {1, 1}, {3, 1}});
  EXPECT_EQ(impossible_of(make_plan(a100(), small, wish_of({19}))).in_the_way.size(), 2U);
  // Of a GPU instance that stays, the compute instance.
  std::vector<Gi> inside = gis_of({{{0, 4}, 9}});
  inside[0].busy = true;
  inside[0].cis = {{CiId{0}, ProfileId{0}, {0, 1}, true}, {CiId{1}, ProfileId{0}, {1, 1}, true}};
  const auto room =
      make_room_plan(a100(), inside,
                     std::vector<WantedGi>{{ProfileId{9}, std::nullopt,
                                            std::vector<WantedCi>{{ProfileId{0}, std::nullopt}}}});
  ASSERT_TRUE(room);
  EXPECT_EQ(room->gis_destroyed, 0U);
  EXPECT_EQ(room->cis_destroyed, 1U);
}

TEST(Planner, EveryRefusalHasItsReasonAndTheNearestThatCan) {
  const Impossible eight =
      impossible_of(make_plan(a100(), {}, wish_of({19, 19, 19, 19, 19, 19, 19, 19})));
  EXPECT_EQ(eight.reason, "8 x 1g.5gb wanted, but at most 7 fit on this GPU");
  EXPECT_EQ(eight.nearest.size(), 7U);
  const Impossible unknown = impossible_of(make_plan(a100(), {}, wish_of({77})));
  EXPECT_EQ(unknown.reason, "this GPU offers no profile with id 77");
  const Impossible too_much = impossible_of(make_plan(a100(), {}, wish_of({0, 19})));
  EXPECT_EQ(too_much.reason, "1 x 7g.40gb, 1 x 1g.5gb need 9 memory slices, and this GPU has 8");
  EXPECT_EQ(too_much.nearest, std::vector<ProfileId>{{0}});
  const Impossible two_threes = impossible_of(make_plan(a100(), {}, wish_of({9, 5, 19})));
  EXPECT_EQ(two_threes.nearest, (std::vector<ProfileId>{{5}, {9}}));
  const Impossible fragments = impossible_of(make_plan(a100(), {}, wish_of({9, 14, 19, 19, 19})));
  EXPECT_NE(fragments.reason.find("need 9 memory slices"), std::string::npos) << fragments.reason;
  const Impossible odd =
      impossible_of(make_plan(a100(), {}, {{{ProfileId{14}, Span{1, 2}, std::nullopt}}}));
  EXPECT_EQ(odd.reason,
            "2g.10gb cannot lie at 1:2: 2g.10gb may start at {0,2,4} and takes 2 slices");
  const Impossible engines = impossible_of(make_plan(rtx_pro_6000(), {}, wish_of({65, 14})));
  EXPECT_NE(engines.reason.find("do not fit together"), std::string::npos);
  EXPECT_EQ(engines.nearest.size(), 1U);
}

TEST(Planner, ExplicitPlacementsAreTaken) {
  const std::vector<WantedGi> wanted = {{ProfileId{14}, Span{4, 2}, std::nullopt},
                                        {ProfileId{19}, Span{0, 1}, std::nullopt}};
  const Layout end = execute(a100(), {}, plan_of(make_plan(a100(), {}, wanted)));
  EXPECT_EQ(end, (Layout{{{4, 2}, 14}, {{0, 1}, 19}}));
}

TEST(Planner, AnInstanceOfAnUnknownProfileGoesOrStaysInTheWay) {
  const std::vector<Gi> idle = gis_of({{{0, 4}, 99}});
  EXPECT_EQ(plan_of(make_plan(a100(), idle, wish_of({0}))).gis_destroyed, 1U);
  const std::vector<Gi> busy = gis_of({{{0, 4}, 99}}, {{0, 4}});
  EXPECT_EQ(impossible_of(make_plan(a100(), busy, wish_of({19}))).in_the_way,
            std::vector<GiId>{GiId{1}});
}

}  // namespace
}  // namespace gpuslice::plan
