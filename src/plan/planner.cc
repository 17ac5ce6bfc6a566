#include "plan/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "base/check.h"
#include "plan/fit.h"
#include "plan/reason.h"

namespace gpuslice::plan {

const GiProfile* Offer::find(ProfileId id) const {
  const auto it = std::find_if(profiles.begin(), profiles.end(),
                               [&](const GiProfile& p) { return p.id == id; });
  return it == profiles.end() ? nullptr : &*it;
}

namespace {

std::vector<Kind> kinds_of(const Offer& offer) {
  std::vector<Kind> kinds;
  for (const GiProfile& p : offer.profiles) kinds.push_back({p.placements, p.most, p.engines});
  return kinds;
}

std::vector<Kind> kinds_of(const GiProfile& profile) {
  std::vector<Kind> kinds;
  for (const CiProfile& p : profile.cis) kinds.push_back({p.placements, p.most, Engines{}});
  return kinds;
}

template <class Profiles>
std::optional<size_t> kind_index(const Profiles& profiles, ProfileId id) {
  for (size_t i = 0; i < profiles.size(); ++i)
    if (profiles[i].id == id) return i;
  return std::nullopt;
}

// The compute instances wanted inside one GPU instance, as kinds of its profile; nothing if one is
// not offered there.
struct Inside {
  size_t kind = 0;  // of the GPU instance
  std::vector<Item> items;
  friend bool operator==(const Inside& a, const Inside& b) {
    const auto same = [](const Item& x, const Item& y) {
      return x.kind == y.kind && x.fixed == y.fixed;
    };
    return a.kind == b.kind && a.items.size() == b.items.size() &&
           std::equal(a.items.begin(), a.items.end(), b.items.begin(), same);
  }
};

std::optional<Inside> inside_of(const Offer& offer, const WantedGi& wanted, size_t kind) {
  const GiProfile& profile = offer.profiles[kind];
  Inside inside{kind, {}};
  if (!wanted.cis) {
    if (!profile.cis.empty()) inside.items.push_back({profile.cis.size() - 1, std::nullopt, 0});
    return inside;
  }
  std::vector<WantedCi> cis = *wanted.cis;
  std::sort(cis.begin(), cis.end());
  for (const WantedCi& ci : cis) {
    const auto index = kind_index(profile.cis, ci.profile);
    if (!index) return std::nullopt;
    inside.items.push_back({*index, ci.placement, 0});
  }
  return inside;
}

struct InnerFit {
  Cost cost;
  Fit fit;
};

// Busy instances stay, or the fewest of them go.
enum class Busy : uint8_t { kStay, kMayGo };
// What one of them costs, against those that are idle: more than a board can hold.
constexpr uint32_t kBusyCost = 1000;

// One planning problem: the wish resolved against the offer, and the compute-instance problems
// solved on demand.
class Problem {
 public:
  Problem(const Offer& offer, std::span<const Gi> there, Busy busy = Busy::kStay)
      : offer_(offer), there_(there), stay_(busy == Busy::kStay), kinds_(kinds_of(offer)) {
    for (const Gi& gi : there) {
      const auto kind = kind_index(offer.profiles, gi.profile);
      // An instance of a profile that is not offered (another driver made it) lies there, and can
      // only go or, busy, stay.
      lying_.push_back({kind.value_or(offer.profiles.size()), gi.placement, gi.busy && stay_});
    }
    if (std::any_of(lying_.begin(), lying_.end(),
                    [&](const Lying& l) { return l.kind == kinds_.size(); }))
      kinds_.push_back({{}, 0, {}});
  }

  // Adds a wanted instance; false if its compute instances are not offered inside it.
  bool want(const WantedGi& wanted) {
    const auto kind = kind_index(offer_.profiles, wanted.profile);
    if (!kind) return false;
    const auto inside = inside_of(offer_, wanted, *kind);
    if (!inside || !inner(std::nullopt, *inside)) return false;
    auto it = std::find(variants_.begin(), variants_.end(), *inside);
    if (it == variants_.end()) it = variants_.insert(variants_.end(), *inside);
    items_.push_back({*kind, wanted.placement, static_cast<size_t>(it - variants_.begin())});
    return true;
  }
  // Adds a GPU instance that stays exactly as it is.
  void want_as_is(const Gi& gi) {
    std::vector<WantedCi> cis;
    for (const Ci& ci : gi.cis) cis.push_back({ci.profile, ci.placement});
    (void)want({gi.profile, gi.placement, std::move(cis)});
  }

  [[nodiscard]] std::optional<Fit> solve() const {
    uint64_t visited = 0;
    const FitProblem problem{kinds_,
                             lying_,
                             items_,
                             [&](size_t lying, size_t variant) -> std::optional<Cost> {
                               const auto fit = inner(lying, variants_[variant]);
                               if (!fit) return std::nullopt;
                               return fit->cost;
                             },
                             [&](size_t variant) {
                               return Cost{0, 0, 1,
                                           static_cast<uint32_t>(variants_[variant].items.size())};
                             },
                             [&](size_t lying) {
                               return Cost{there_[lying].busy ? kBusyCost : 1,
                                           static_cast<uint32_t>(there_[lying].cis.size()), 0, 0};
                             }};
    return best_fit(problem, visited);
  }

  [[nodiscard]] Plan plan_of(const Fit& fit) const;

 private:
  // The compute instances of `inside` in the GPU instance `lying`, or in a new one.
  [[nodiscard]] std::optional<InnerFit> inner(std::optional<size_t> lying,
                                              const Inside& inside) const {
    const GiProfile& profile = offer_.profiles[inside.kind];
    const std::vector<Kind> kinds = kinds_of(profile);
    std::vector<Lying> cis;
    if (lying) {
      for (const Ci& ci : there_[*lying].cis) {
        const auto kind = kind_index(profile.cis, ci.profile);
        if (!kind && ci.busy && stay_) return std::nullopt;
        cis.push_back({kind.value_or(kinds.size()), ci.placement, ci.busy && stay_});
      }
    }
    uint64_t visited = 0;
    const FitProblem problem{
        kinds,
        cis,
        inside.items,
        [](size_t, size_t) -> std::optional<Cost> { return Cost{}; },
        [](size_t) { return Cost{0, 0, 1, 0}; },
        [&](size_t ci) { return Cost{there_[*lying].cis[ci].busy ? kBusyCost : 1, 0, 0, 0}; }};
    auto fit = best_fit(problem, visited);
    if (!fit) return std::nullopt;
    uint32_t kept = 0;
    for (const auto& keep : fit->keeps) kept += keep.has_value() ? 1U : 0U;
    Cost cost{0, static_cast<uint32_t>(cis.size()) - kept, 0,
              static_cast<uint32_t>(inside.items.size()) - kept};
    for (size_t ci = 0; ci < cis.size(); ++ci)
      if (there_[*lying].cis[ci].busy && std::find(fit->keeps.begin(), fit->keeps.end(),
                                                   std::optional<size_t>(ci)) == fit->keeps.end())
        cost.destroyed += kBusyCost;
    return InnerFit{cost, std::move(*fit)};
  }

  const Offer& offer_;
  std::span<const Gi> there_;
  bool stay_;
  std::vector<Kind> kinds_;
  std::vector<Lying> lying_;
  std::vector<Item> items_;
  std::vector<Inside> variants_;
};

struct Steps {
  std::vector<Step> destroy_ci, destroy_gi, create_gi, create_ci;

  [[nodiscard]] std::vector<Step> in_order() const {
    std::vector<Step> all = destroy_ci;
    all.insert(all.end(), destroy_gi.begin(), destroy_gi.end());
    all.insert(all.end(), create_gi.begin(), create_gi.end());
    all.insert(all.end(), create_ci.begin(), create_ci.end());
    return all;
  }
};

Step destroy_ci(const Gi& gi, const Ci& ci) {
  return {Step::Op::kDestroyCi, ci.profile, ci.placement, gi.placement, gi.id, ci.id, false};
}

void remove_gi(const Gi& gi, Steps& steps) {
  for (const Ci& ci : gi.cis) steps.destroy_ci.push_back(destroy_ci(gi, ci));
  steps.destroy_gi.push_back(
      {Step::Op::kDestroyGi, gi.profile, gi.placement, gi.placement, gi.id, CiId{}, false});
}

Plan Problem::plan_of(const Fit& fit) const {
  Plan plan;
  Steps steps;
  std::vector<size_t> order(items_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return fit.placements[a] < fit.placements[b]; });

  for (size_t lying = 0; lying < there_.size(); ++lying)
    if (std::find(fit.keeps.begin(), fit.keeps.end(), std::optional<size_t>(lying)) ==
        fit.keeps.end())
      remove_gi(there_[lying], steps);

  std::vector<Used> used;
  for (const size_t i : order) {
    const Item& item = items_[i];
    const Span span = fit.placements[i];
    used.push_back({item.kind, span});
    const GiProfile& profile = offer_.profiles[item.kind];
    const Inside& inside = variants_[item.variant];
    const std::optional<size_t> keep = fit.keeps[i];
    const auto in = inner(keep, inside);
    CHECK(in.has_value(), "a fit chose compute instances that do not fit");
    const Gi fresh{GiId{}, profile.id, span, false, {}};
    const Gi& gi = keep ? there_[*keep] : fresh;
    Gi stays{gi.id, gi.profile, gi.placement, gi.busy, {}};
    for (size_t c = 0; c < gi.cis.size(); ++c) {
      const bool kept = std::find(in->fit.keeps.begin(), in->fit.keeps.end(),
                                  std::optional<size_t>(c)) != in->fit.keeps.end();
      if (kept)
        stays.cis.push_back(gi.cis[c]);
      else
        steps.destroy_ci.push_back(destroy_ci(gi, gi.cis[c]));
    }
    if (keep)
      plan.kept.push_back(stays);
    else
      steps.create_gi.push_back(
          {Step::Op::kCreateGi, profile.id, span, span, GiId{}, CiId{}, true});
    std::vector<Step> cis;
    for (size_t c = 0; c < inside.items.size(); ++c) {
      if (in->fit.keeps[c]) continue;
      cis.push_back({Step::Op::kCreateCi, profile.cis[inside.items[c].kind].id,
                     in->fit.placements[c], span, gi.id, CiId{}, !keep});
    }
    std::sort(cis.begin(), cis.end(),
              [](const Step& a, const Step& b) { return a.placement < b.placement; });
    steps.create_ci.insert(steps.create_ci.end(), cis.begin(), cis.end());
  }
  plan.gis_destroyed = static_cast<uint32_t>(steps.destroy_gi.size());
  plan.cis_destroyed = static_cast<uint32_t>(steps.destroy_ci.size());
  plan.gis_created = static_cast<uint32_t>(steps.create_gi.size());
  plan.cis_created = static_cast<uint32_t>(steps.create_ci.size());
  plan.left_open = left_open(kinds_, used);
  plan.steps = steps.in_order();
  return plan;
}

// How many of each distinct wish a part of the wish has.
using Part = std::vector<uint32_t>;

uint32_t total(const Part& part) {
  uint32_t sum = 0;
  for (const uint32_t n : part) sum += n;
  return sum;
}

struct Wishes {
  std::vector<WantedGi> distinct;  // larger profiles first
  Part most;                       // how many of each are wanted, cut to what the board can hold
};

Wishes group(const Offer& offer, std::span<const WantedGi> wanted) {
  std::vector<WantedGi> known;
  for (const WantedGi& w : wanted)
    if (const GiProfile* p = offer.find(w.profile); p != nullptr && !p->placements.empty())
      known.push_back(w);
  const auto size = [&](const WantedGi& w) {
    return offer.find(w.profile)->placements.front().size;
  };
  std::sort(known.begin(), known.end(), [&](const WantedGi& a, const WantedGi& b) {
    return size(a) != size(b) ? size(a) > size(b) : a < b;
  });
  Wishes wishes;
  for (const WantedGi& w : known) {
    if (wishes.distinct.empty() || wishes.distinct.back() != w) {
      wishes.distinct.push_back(w);
      wishes.most.push_back(0);
    }
    if (wishes.most.back() < offer.find(w.profile)->most) ++wishes.most.back();
  }
  return wishes;
}

// Every part of the wish, largest first; of equals the one with more of the larger profiles.
std::vector<Part> parts_of(const Part& most) {
  constexpr size_t kMostParts =
      20'000;  // a wish of all seven profiles of an 8-slice board has 3,840
  std::vector<Part> parts = {Part(most.size(), 0)};
  for (size_t i = 0; i < most.size(); ++i) {
    const size_t before = parts.size();
    for (uint32_t n = 1; n <= most[i] && parts.size() < kMostParts; ++n)
      for (size_t j = 0; j < before; ++j) {
        parts.push_back(parts[j]);
        parts.back()[i] = n;
      }
  }
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
    return total(a) != total(b) ? total(a) > total(b) : a > b;
  });
  return parts;
}

// The largest part of `wanted` that fits beside what is busy. A busy instance counts for a wish of
// its profile.
std::vector<ProfileId> nearest_that_can(const Offer& offer, std::span<const Gi> there,
                                        std::span<const WantedGi> wanted) {
  const Wishes wishes = group(offer, wanted);
  uint32_t slices = 0;
  for (const GiProfile& p : offer.profiles)
    for (const Span span : p.placements) slices = std::max(slices, span.start + span.size);
  for (const Part& part : parts_of(wishes.most)) {
    uint32_t needed = 0;
    for (size_t i = 0; i < part.size(); ++i)
      needed += part[i] * offer.find(wishes.distinct[i].profile)->placements.front().size;
    if (needed > slices) continue;
    Problem problem(offer, there);
    std::vector<ProfileId> profiles;
    bool known = true;
    for (size_t i = 0; i < part.size(); ++i)
      for (uint32_t n = 0; n < part[i]; ++n) {
        known = problem.want(wishes.distinct[i]) && known;
        profiles.push_back(wishes.distinct[i].profile);
      }
    std::vector<ProfileId> unmatched = profiles;
    for (const Gi& gi : there) {
      if (!gi.busy) continue;
      const auto it = std::find(unmatched.begin(), unmatched.end(), gi.profile);
      if (it == unmatched.end())
        problem.want_as_is(gi);
      else
        unmatched.erase(it);
    }
    if (!known || !problem.solve()) continue;
    std::sort(profiles.begin(), profiles.end());
    return profiles;
  }
  return {};
}

}  // namespace

Outcome make_plan(const Offer& offer, std::span<const Gi> there, std::span<const WantedGi> wanted) {
  Problem problem(offer, there);
  bool known = true;
  for (const WantedGi& w : wanted) known = problem.want(w) && known;
  if (known) {
    if (const auto fit = problem.solve()) return problem.plan_of(*fit);
  }
  const std::optional<Plan> room = make_room_plan(offer, there, wanted);
  Impossible impossible = explain_impossible(offer, there, wanted, room ? &*room : nullptr);
  impossible.nearest = nearest_that_can(offer, there, wanted);
  return impossible;
}

std::optional<Plan> make_room_plan(const Offer& offer, std::span<const Gi> there,
                                   std::span<const WantedGi> wanted) {
  Problem problem(offer, there, Busy::kMayGo);
  for (const WantedGi& w : wanted)
    if (!problem.want(w)) return std::nullopt;
  const auto fit = problem.solve();
  if (!fit) return std::nullopt;
  return problem.plan_of(*fit);
}

bool fits(const Offer& offer, std::span<const WantedGi> wanted) {
  Problem problem(offer, {});
  for (const WantedGi& w : wanted)
    if (!problem.want(w)) return false;
  return problem.solve().has_value();
}

uint32_t placements_left_open(const Offer& offer, std::span<const Gi> there) {
  std::vector<Used> used;
  std::vector<Kind> kinds = kinds_of(offer);
  for (const Gi& gi : there) {
    const auto kind = kind_index(offer.profiles, gi.profile);
    if (!kind) kinds.push_back({{}, 0, {}});
    used.push_back({kind.value_or(kinds.size() - 1), gi.placement});
  }
  return left_open(kinds, used);
}

}  // namespace gpuslice::plan
