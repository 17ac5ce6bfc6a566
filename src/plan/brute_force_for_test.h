#pragma once

// An independent brute force for tests of the planner: every layout of an offer by trying every
// placement, with no thought of speed. Shares no code with the planner.

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "plan/layout.h"

namespace gpuslice::plan::brute_force {

using Layout = std::set<std::pair<Span, uint32_t>>;  // (placement, profile id)
using Multiset = std::multiset<uint32_t>;

inline bool overlap(Span a, Span b) {
  return a.start < b.start + b.size && b.start < a.start + a.size;
}

struct Rules {
  bool engines = false;  // media engines are counted as well as overlap and counts
};

inline bool can_add(const Offer& offer, const Layout& layout, const GiProfile& p, Span s,
                    Rules rules) {
  uint32_t same = 0;
  Engines sum = p.engines;
  Engines most;
  for (const GiProfile& q : offer.profiles) {
    most.dec = std::max(most.dec, q.engines.dec);
    most.enc = std::max(most.enc, q.engines.enc);
    most.jpeg = std::max(most.jpeg, q.engines.jpeg);
    most.ofa = std::max(most.ofa, q.engines.ofa);
  }
  for (const auto& [span, id] : layout) {
    if (overlap(span, s)) return false;
    if (id == p.id.value) ++same;
    const Engines& e = offer.find(ProfileId{id})->engines;
    sum.dec += e.dec;
    sum.enc += e.enc;
    sum.jpeg += e.jpeg;
    sum.ofa += e.ofa;
  }
  if (same >= p.most) return false;
  return !rules.engines || (sum.dec <= most.dec && sum.enc <= most.enc && sum.jpeg <= most.jpeg &&
                            sum.ofa <= most.ofa);
}

inline std::set<Layout> all_layouts(const Offer& offer, Rules rules = {}) {
  std::set<Layout> seen = {Layout{}};
  std::vector<Layout> todo = {Layout{}};
  while (!todo.empty()) {
    const Layout layout = todo.back();
    todo.pop_back();
    for (const GiProfile& p : offer.profiles)
      for (const Span s : p.placements) {
        if (!can_add(offer, layout, p, s, rules)) continue;
        Layout next = layout;
        next.insert({s, p.id.value});
        if (seen.insert(next).second) todo.push_back(std::move(next));
      }
  }
  seen.erase(Layout{});
  return seen;  // the empty one is not counted, as in the published figures
}

inline Multiset multiset_of(const Layout& layout) {
  Multiset out;
  for (const auto& [span, id] : layout) out.insert(id);
  return out;
}

inline std::map<Multiset, std::vector<Layout>> by_multiset(const std::set<Layout>& layouts) {
  std::map<Multiset, std::vector<Layout>> out;
  for (const Layout& layout : layouts) out[multiset_of(layout)].push_back(layout);
  return out;
}

inline size_t count_maximal(const Offer& offer, const std::set<Layout>& layouts, Rules rules = {}) {
  return static_cast<size_t>(
      std::count_if(layouts.begin(), layouts.end(), [&](const Layout& layout) {
        for (const GiProfile& p : offer.profiles)
          for (const Span s : p.placements)
            if (can_add(offer, layout, p, s, rules)) return false;
        return true;
      }));
}

inline uint32_t open_of(const Offer& offer, const Layout& layout, Rules rules) {
  uint32_t n = 0;
  for (const GiProfile& p : offer.profiles)
    for (const Span s : p.placements) n += can_add(offer, layout, p, s, rules) ? 1U : 0U;
  return n;
}

inline size_t kept_between(const Layout& a, const Layout& b) {
  return static_cast<size_t>(
      std::count_if(a.begin(), a.end(), [&](const auto& x) { return b.contains(x); }));
}

}  // namespace gpuslice::plan::brute_force
