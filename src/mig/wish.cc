#include "mig/wish.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <span>

#include "base/text.h"

namespace gpuslice::mig {
namespace {

std::string offered_names(const GpuState& state) {
  std::string names;
  for (const ports::GiProfile& profile : state.profiles)
    names += (names.empty() ? "" : ", ") + profile.name;
  return names;
}

struct Named {
  const ports::GiProfile* profile = nullptr;
  std::string note;
};

Result<Named> find_profile(const gpu::ProfileName& wanted, const GpuState& state) {
  const std::string text = wanted.gi_text();
  std::vector<const ports::GiProfile*> near;
  for (const ports::GiProfile& profile : state.profiles) {
    if (profile.name == text) return Named{&profile, ""};
    const auto name = gpu::parse_profile_name(profile.name);
    if (name && gpu::same_but_for_a_gigabyte(*name, wanted)) near.push_back(&profile);
  }
  if (near.size() == 1)
    return Named{near.front(), fmt::format("{}: {} is called {} by this driver", state.gpu.text(),
                                           text, near.front()->name)};
  std::vector<std::string_view> names;
  for (const ports::GiProfile& profile : state.profiles) names.emplace_back(profile.name);
  const auto meant = nearest(text, names);
  return fail(Code::kImpossible, "{} ({}): it has no profile {}; {}it offers {}", state.gpu.text(),
              state.gpu.board, text, meant ? fmt::format("the nearest is {}; ", *meant) : "",
              state.profiles.empty() ? "none" : offered_names(state));
}

// The compute instance of `c` slices in that profile: the one without engines of its own.
const plan::CiProfile* find_ci(const plan::GiProfile& gi, uint32_t c) {
  const std::string name = fmt::format("{}c", c);
  const plan::CiProfile* found = nullptr;
  for (const plan::CiProfile& ci : gi.cis)
    if (ci.name == name) found = &ci;
  return found;
}

// How many slices each compute instance wanted inside one profile takes.
struct InsideWish {
  std::vector<uint32_t> widths;
  std::vector<uint32_t> starts;
};

// Packs compute instances into as few GPU instances as they fit, widest first.
Status pack(const GpuState& state, const plan::GiProfile& profile, InsideWish inside,
            std::vector<plan::WantedGi>& out) {
  std::sort(inside.widths.rbegin(), inside.widths.rend());
  std::vector<plan::WantedGi> open;
  for (const uint32_t width : inside.widths) {
    const plan::CiProfile* ci = find_ci(profile, width);
    if (ci == nullptr)
      return fail(Code::kImpossible, "{} ({}): no compute instance of {} slices fits into {}",
                  state.gpu.text(), state.gpu.board, width, profile.name);
    bool placed = false;
    for (plan::WantedGi& gi : open) {
      gi.cis->push_back({ci->id, std::nullopt});
      plan::Offer alone;
      alone.profiles.push_back(profile);
      const std::vector<plan::WantedGi> one = {{gi.profile, std::nullopt, gi.cis}};
      placed = plan::fits(alone, one);
      if (placed) break;
      gi.cis->pop_back();
    }
    if (!placed)
      open.push_back({profile.id, std::nullopt, std::vector<plan::WantedCi>{{ci->id, {}}}});
  }
  if (!inside.starts.empty() && inside.starts.size() != open.size())
    return fail(Code::kImpossible,
                "{}: {} placements of {} are given, and {} GPU instances hold "
                "what is wanted",
                state.gpu.text(), inside.starts.size(), profile.name, open.size());
  const uint32_t size = profile.placements.empty() ? 0 : profile.placements.front().size;
  for (size_t i = 0; i < inside.starts.size(); ++i)
    open[i].placement = plan::Span{inside.starts[i], size};
  out.insert(out.end(), open.begin(), open.end());
  return {};
}

Result<std::vector<plan::WantedGi>> saved_gis(const std::vector<SavedGi>& saved,
                                              const GpuState& state) {
  std::vector<plan::WantedGi> out;
  for (const SavedGi& gi : saved) {
    const auto profile =
        std::find_if(state.profiles.begin(), state.profiles.end(),
                     [&](const ports::GiProfile& p) { return p.nvml_enum == gi.nvml_enum; });
    if (profile == state.profiles.end())
      return fail(Code::kImpossible,
                  "{} ({}): the checkpoint has a GPU instance of profile number {} there, which "
                  "this GPU does not offer; it offers {}",
                  state.gpu.text(), state.gpu.board, gi.nvml_enum, offered_names(state));
    plan::WantedGi one{profile->id, gi.placement, std::vector<plan::WantedCi>{}};
    for (const SavedCi& ci : gi.cis) one.cis->push_back({ProfileId{ci.nvml_enum}, ci.placement});
    out.push_back(std::move(one));
  }
  return out;
}

// The layout that a plan leads to.
Layout layout_after(const plan::Plan& plan) {
  Layout layout{true, {}};
  const auto at = [&](plan::Span gi) -> plan::WantedGi* {
    for (plan::WantedGi& one : layout.gis)
      if (one.placement == gi) return &one;
    return nullptr;
  };
  for (const plan::Gi& gi : plan.kept) {
    plan::WantedGi one{gi.profile, gi.placement, std::vector<plan::WantedCi>{}};
    for (const plan::Ci& ci : gi.cis) one.cis->push_back({ci.profile, ci.placement});
    layout.gis.push_back(std::move(one));
  }
  for (const plan::Step& step : plan.steps) {
    if (step.op == plan::Step::Op::kCreateGi)
      layout.gis.push_back({step.profile, step.placement, std::vector<plan::WantedCi>{}});
    if (step.op != plan::Step::Op::kCreateCi) continue;
    if (plan::WantedGi* gi = at(step.gi_placement))
      gi->cis->push_back({step.profile, step.placement});
  }
  normalise(layout);
  return layout;
}

std::vector<Holder> all_holders(const GpuState& state, const std::vector<Holder>& others) {
  std::vector<Holder> out = process_holders(state);
  for (const Holder& holder : others) {
    // A process is named once, by whoever knows more of it.
    const auto same = std::find_if(out.begin(), out.end(), [&](const Holder& h) {
      return h.pid != 0 && h.pid == holder.pid && h.gi == holder.gi && h.ci == holder.ci;
    });
    if (same != out.end())
      *same = holder;
    else
      out.push_back(holder);
  }
  return out;
}

std::string named(const std::vector<Holder>& holders) {
  constexpr size_t kMostNamed = 5;
  std::string text;
  for (size_t i = 0; i < holders.size() && i < kMostNamed; ++i)
    text += (i == 0 ? "" : "; ") + holders[i].text();
  if (holders.size() > kMostNamed) text += fmt::format(" and {} more", holders.size() - kMostNamed);
  return text;
}

Decision refused(Code code, std::string message) {
  Decision decision;
  decision.refusal = Refusal{{code, std::move(message), {}}, {}, {}, {}};
  return decision;
}

std::string listed(const std::vector<std::string>& names) {
  std::map<std::string, size_t> counts;
  for (const std::string& name : names) ++counts[name];
  std::string text;
  for (const auto& [name, n] : counts)
    text += fmt::format("{}{} x {}", text.empty() ? "" : " + ", n, name);
  return text;
}

// What leaves together: a pod, or a process of its own.
std::string who(const Holder& holder) {
  if (!holder.pod.empty()) return holder.pod_namespace + "/" + holder.pod;
  return fmt::format("{} {}", holder.pid, holder.device);
}

// As if these alone held something. A process of one of several pods counts as they do.
GpuState held_by(GpuState state, const std::vector<Holder>& holders) {
  state.processes.clear();
  state.gpu_busy = false;
  for (plan::Gi& gi : state.there) {
    gi.busy = false;
    for (plan::Ci& ci : gi.cis) ci.busy = false;
  }
  for (const Holder& holder : holders)
    if (!holder.of_several) mark_held(state, {holder});
  return state;
}

// Leaves out of those in the way whoever may stay if the others go, and says what goes then.
void make_least(const GpuState& state, const std::vector<Holder>& all,
                std::span<const plan::WantedGi> wanted, bool mode_changes, Refusal& refusal) {
  std::set<std::string> leave;
  for (const Holder& holder : refusal.holders)
    if (!holder.of_several) leave.insert(who(holder));
  const auto plan_without = [&](const std::set<std::string>& gone) -> std::optional<GpuPlan> {
    std::vector<Holder> stay;
    for (const Holder& holder : all)
      if (!gone.contains(who(holder))) stay.push_back(holder);
    const GpuState left = held_by(state, stay);
    if (mode_changes && left.gpu_busy) return std::nullopt;
    const plan::Outcome outcome = plan::make_plan(left.offer, left.there, wanted);
    const auto* const plan = std::get_if<plan::Plan>(&outcome);
    if (plan == nullptr) return std::nullopt;
    GpuPlan out;
    out.steps = *plan;
    out.mode_changes = mode_changes;
    return out;
  };
  for (const std::string& one : std::set(leave)) {
    std::set<std::string> others = leave;
    others.erase(one);
    if (plan_without(others)) leave = std::move(others);
  }
  std::erase_if(refusal.holders, [&](const Holder& holder) {
    return !holder.of_several && !leave.contains(who(holder));
  });
  if (const auto plan = plan_without(leave))
    refusal.going = devices_that_go(state, *plan);
  else if (mode_changes)
    refusal.going = {state.gpu.uuid};  // only with MIG on is it told what there is
}

Decision impossible(const GpuState& state, const plan::Impossible& why,
                    const std::vector<Holder>& holders, std::span<const plan::WantedGi> wanted,
                    bool mode_changes) {
  Refusal refusal;
  for (const ProfileId id : why.nearest) refusal.nearest.push_back(state.profile_name(id));
  const std::string nearest =
      refusal.nearest.empty()
          ? ""
          : fmt::format("; the most that can be had of it: {}", listed(refusal.nearest));
  for (const Holder& holder : holders) {
    const bool in_way = !holder.gi || std::find(why.in_the_way.begin(), why.in_the_way.end(),
                                                *holder.gi) != why.in_the_way.end();
    if (!why.in_the_way.empty() && in_way) refusal.holders.push_back(holder);
  }
  if (!refusal.holders.empty()) make_least(state, holders, wanted, mode_changes, refusal);
  refusal.error.code = why.in_the_way.empty() ? Code::kImpossible : Code::kInUse;
  refusal.error.message =
      refusal.holders.empty()
          ? fmt::format("{} ({}): {}{}", state.gpu.text(), state.gpu.board, why.reason, nearest)
          : fmt::format(
                "{} ({}): {}: held by {}{}; end what holds it, or wait with --wait (the agent: "
                "--mig-wait)",
                state.gpu.text(), state.gpu.board, why.reason, named(refusal.holders),
                nearest.empty() ? "; nothing of it can be had meanwhile" : nearest);
  Decision decision;
  decision.refusal = std::move(refusal);
  return decision;
}

}  // namespace

Result<Resolved> resolve(const Wish& wish, const GpuState& state) {
  Resolved out;
  if (!wish.mig) return out;
  if (wish.exact) {
    out.gis = wish.exact->gis;
    return out;
  }
  if (wish.saved) {
    TRY_ASSIGN(out.gis, saved_gis(*wish.saved, state));
    return out;
  }
  std::map<ProfileId, InsideWish> parts;  // compute instances smaller than their GPU instance
  for (const WishedProfile& wished : wish.profiles) {
    TRY_ASSIGN(const Named named, find_profile(wished.name, state));
    if (!named.note.empty()) out.notes.push_back(named.note);
    const ports::GiProfile& profile = *named.profile;
    if (wished.name.c != wished.name.g) {
      InsideWish& inside = parts[profile.id];
      inside.widths.insert(inside.widths.end(), wished.count, wished.name.c);
      inside.starts.insert(inside.starts.end(), wished.starts.begin(), wished.starts.end());
      continue;
    }
    const uint32_t size = profile.placements.empty() ? 0 : profile.placements.front().size;
    for (uint32_t i = 0; i < wished.count; ++i) {
      plan::WantedGi gi{profile.id, std::nullopt, std::nullopt};
      if (i < wished.starts.size()) gi.placement = plan::Span{wished.starts[i], size};
      out.gis.push_back(std::move(gi));
    }
  }
  for (auto& [id, inside] : parts)
    TRY(pack(state, *state.offer.find(id), std::move(inside), out.gis));
  return out;
}

Decision decide(const GpuState& original, const Wish& wish, const std::vector<Holder>& others) {
  GpuState state = original;
  mark_held(state, others);
  const std::vector<Holder> holders = all_holders(state, others);
  GpuPlan plan;
  plan.before = state.layout();
  plan.mode_changes = state.mode.current != wish.mig || state.mode.pending != wish.mig;

  if (plan.mode_changes && state.gpu_busy && !wish.mode_may_wait) {
    Decision decision = refused(
        Code::kInUse,
        fmt::format("{}: its MIG mode cannot be switched {} while it is in use: {}; end them, or "
                    "wait with --wait (the agent: --mig-wait)",
                    state.gpu.text(), wish.mig ? "on" : "off", named(holders)));
    decision.refusal->holders = holders;
    if (const auto resolved = resolve(wish, state))
      make_least(state, holders, resolved->gis, true, *decision.refusal);
    return decision;
  }
  if (wish.mig && !state.mode.current && !state.profiles_trusted) {
    plan.provisional = true;
    plan.after.mig = true;
    Decision decision;
    decision.plan = std::move(plan);
    return decision;
  }
  auto resolved = resolve(wish, state);
  if (!resolved) return refused(resolved.error().code, resolved.error().message);
  plan.notes = std::move(resolved->notes);
  const plan::Outcome outcome = plan::make_plan(state.offer, state.there, resolved->gis);
  if (const auto* why = std::get_if<plan::Impossible>(&outcome))
    return impossible(state, *why, holders, resolved->gis, plan.mode_changes);
  plan.steps = std::get<plan::Plan>(outcome);
  // The driver makes no first instance while somebody computes on the GPU itself.
  if (!plan.mode_changes && state.gpu_busy && state.there.empty() && plan.steps.gis_created > 0) {
    Decision decision =
        refused(Code::kInUse,
                fmt::format("{}: its first instance cannot be made while the GPU as a whole is in "
                            "use: {}; end them, or wait with --wait (the agent: --mig-wait)",
                            state.gpu.text(), named(holders)));
    decision.refusal->holders = holders;
    return decision;
  }
  plan.after = layout_after(plan.steps);
  plan.after.mig = wish.mig;
  Decision decision;
  decision.plan = std::move(plan);
  return decision;
}

std::vector<std::string> devices_that_go(const GpuState& state, const GpuPlan& plan) {
  std::vector<std::string> out;
  if (plan.mode_changes) out.push_back(state.gpu.uuid);
  for (const plan::Step& step : plan.steps.steps) {
    if (step.op != plan::Step::Op::kDestroyCi) continue;
    for (const ports::GpuInstance& gi : state.instances) {
      if (gi.id != step.gi) continue;
      for (const ports::ComputeInstance& ci : gi.cis)
        if (ci.id == step.ci) out.push_back(ci.uuid);
    }
  }
  return out;
}

}  // namespace gpuslice::mig
