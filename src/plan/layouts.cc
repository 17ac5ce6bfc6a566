#include "plan/layouts.h"

#include <algorithm>

#include "plan/fit.h"

namespace gpuslice::plan {
namespace {

struct Found {
  uint32_t layouts = 0;
  uint32_t extendable = 0;
};

class Search {
 public:
  explicit Search(const Offer& offer) {
    for (size_t i = 0; i < offer.profiles.size(); ++i) {
      const GiProfile& p = offer.profiles[i];
      kinds_.push_back({p.placements, p.most, p.engines});
      ids_.push_back(p.id);
      for (const Span span : p.placements) places_.push_back({i, span});
    }
    std::sort(places_.begin(), places_.end(), [](const Used& a, const Used& b) {
      return a.placement != b.placement ? a.placement < b.placement : a.kind < b.kind;
    });
  }

  std::map<std::vector<ProfileId>, Found> run() {
    extend(0, 0);
    return std::move(found_);
  }

 private:
  // Layouts that have `used_` and others of places_[from..].
  void extend(size_t from, uint64_t mask) {
    if (!used_.empty()) note();
    for (size_t i = from; i < places_.size(); ++i) {
      if ((mask & mask_of(places_[i].placement)) != 0 || !may_add(places_[i])) continue;
      used_.push_back(places_[i]);
      extend(i + 1, mask | mask_of(places_[i].placement));
      used_.pop_back();
    }
  }
  // By left_open(): it knows counts and engines.
  bool may_add(const Used& place) const {
    std::vector<Kind> only = kinds_;
    for (size_t k = 0; k < only.size(); ++k)
      if (k != place.kind)
        only[k].placements.clear();
      else
        only[k].placements = {place.placement};
    return left_open(only, used_) > 0;
  }
  void note() {
    std::vector<ProfileId> profiles;
    for (const Used& one : used_) profiles.push_back(ids_[one.kind]);
    std::sort(profiles.begin(), profiles.end());
    Found& found = found_[profiles];
    ++found.layouts;
    if (left_open(kinds_, used_) > 0) ++found.extendable;
  }

  std::vector<Kind> kinds_;
  std::vector<ProfileId> ids_;
  std::vector<Used> places_;
  std::vector<Used> used_;
  std::map<std::vector<ProfileId>, Found> found_;
};

}  // namespace

std::vector<Combination> combinations(const Offer& offer) {
  std::vector<Combination> out;
  for (auto& [profiles, found] : Search(offer).run())
    out.push_back({profiles, found.layouts, found.layouts - found.extendable});
  return out;
}

}  // namespace gpuslice::plan
