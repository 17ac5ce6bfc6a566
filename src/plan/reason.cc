#include "plan/reason.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>

namespace gpuslice::plan {
namespace {

std::string at(Span span) { return fmt::format("{}:{}", span.start, span.size); }

std::string places(const GiProfile& profile) {
  std::string starts;
  for (const Span span : profile.placements)
    starts += (starts.empty() ? "" : ",") + std::to_string(span.start);
  return fmt::format("{} may start at {{{}}} and takes {}", profile.name, starts,
                     profile.placements.empty() ? 0 : profile.placements.front().size);
}

uint32_t slices_of(const Offer& offer) {
  uint32_t end = 0;
  for (const GiProfile& p : offer.profiles)
    for (const Span span : p.placements) end = std::max(end, span.start + span.size);
  return end;
}

std::map<ProfileId, uint32_t> counts_of(std::span<const WantedGi> wanted) {
  std::map<ProfileId, uint32_t> counts;
  for (const WantedGi& w : wanted) ++counts[w.profile];
  return counts;
}

std::string wish(const Offer& offer, const std::map<ProfileId, uint32_t>& counts) {
  std::string text;
  for (const auto& [id, n] : counts)
    text += fmt::format("{}{} x {}", text.empty() ? "" : ", ", n, offer.find(id)->name);
  return text.empty() ? "a GPU without instances" : text;
}

// A rule that the wish breaks by itself, whatever is there.
std::string broken_rule(const Offer& offer, std::span<const WantedGi> wanted,
                        const std::map<ProfileId, uint32_t>& counts) {
  uint32_t needed = 0;
  for (const auto& [id, n] : counts) {
    const GiProfile* profile = offer.find(id);
    if (profile == nullptr) return fmt::format("this GPU offers no profile with id {}", id.value);
    if (n > profile->most)
      return fmt::format("{} x {} wanted, but at most {} fit on this GPU", n, profile->name,
                         profile->most);
    needed += n * (profile->placements.empty() ? 0 : profile->placements.front().size);
  }
  for (const WantedGi& w : wanted) {
    const GiProfile& profile = *offer.find(w.profile);
    if (w.placement && std::find(profile.placements.begin(), profile.placements.end(),
                                 *w.placement) == profile.placements.end())
      return fmt::format("{} cannot lie at {}: {} slices", profile.name, at(*w.placement),
                         places(profile));
    if (!w.cis) continue;
    for (const WantedCi& ci : *w.cis) {
      const bool offered = std::any_of(profile.cis.begin(), profile.cis.end(),
                                       [&](const CiProfile& p) { return p.id == ci.profile; });
      if (!offered)
        return fmt::format("no compute instance of profile id {} fits into {}", ci.profile.value,
                           profile.name);
    }
  }
  if (needed > slices_of(offer))
    return fmt::format("{} need {} memory slices, and this GPU has {}", wish(offer, counts), needed,
                       slices_of(offer));
  return "";
}

// All of the instance, or something busy in it.
bool goes(const Gi& gi, const Plan& plan) {
  return std::any_of(plan.steps.begin(), plan.steps.end(), [&](const Step& step) {
    if (step.gi != gi.id) return false;
    if (step.op == Step::Op::kDestroyGi) return true;
    return step.op == Step::Op::kDestroyCi &&
           std::any_of(gi.cis.begin(), gi.cis.end(),
                       [&](const Ci& ci) { return ci.id == step.ci && ci.busy; });
  });
}

}  // namespace

Impossible explain_impossible(const Offer& offer, std::span<const Gi> there,
                              std::span<const WantedGi> wanted, const Plan* room) {
  const std::map<ProfileId, uint32_t> counts = counts_of(wanted);
  if (std::string rule = broken_rule(offer, wanted, counts); !rule.empty())
    return {std::move(rule), {}, {}};

  if (room != nullptr) {
    // If busy instances made room it could be: those are the reason.
    Impossible busy;
    std::string names;
    for (const Gi& gi : there) {
      if (!gi.busy || !goes(gi, *room)) continue;
      const GiProfile* profile = offer.find(gi.profile);
      names += fmt::format("{}GPU instance {} ({} at {})", names.empty() ? "" : ", ", gi.id.value,
                           profile ? profile->name : "of an unknown profile", at(gi.placement));
      busy.in_the_way.push_back(gi.id);
    }
    busy.reason = fmt::format("{} cannot be made without touching what is in use: {}",
                              wish(offer, counts), names);
    return busy;
  }
  std::string rules;
  for (const auto& [id, n] : counts) rules += (rules.empty() ? "" : "; ") + places(*offer.find(id));
  return {fmt::format("{} do not fit together: no arrangement is free of overlap and within the "
                      "media engines of "
                      "this GPU ({} of {} slices)",
                      wish(offer, counts), rules, slices_of(offer)),
          {},
          {}};
}

}  // namespace gpuslice::plan
