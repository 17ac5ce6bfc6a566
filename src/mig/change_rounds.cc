#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "mig/change.h"
#include "mig/tries.h"

// Rounds of a change: what is there is read, planned from, and the first step of that plan is done.

namespace gpuslice::mig {
namespace {

std::string at(plan::Span span) { return fmt::format("{}:{}", span.start, span.size); }

bool contains(const Layout& layout, const plan::WantedGi& gi) {
  return std::find(layout.gis.begin(), layout.gis.end(), gi) != layout.gis.end();
}

const plan::Gi* find_gi(const GpuState& state, plan::Span placement) {
  for (const plan::Gi& gi : state.there)
    if (gi.placement == placement) return &gi;
  return nullptr;
}

}  // namespace

Status Change::drive(const Layout& target, Patience patience, std::vector<Layout> expected) {
  Tries tries{patience};
  for (int round = 0; round < kMostRounds; ++round) {
    TRY_ASSIGN(GpuState state, read(patience));
    mark_held(state, held_);
    if (!expected.empty()) notice_foreign(state, expected);
    const Layout now = state.layout();
    const Layout goal = with_foreign(target, now);
    if (now == goal && state.mode.pending == target.mig) return {};
    if (foreign_changes_ > kMostForeignChanges)
      return fail(Code::kInUse,
                  "{}: another program keeps changing it (it is now: {}); stop that program first",
                  gpu_.text(), report_.layout);
    Layout after = now;
    Status done = step(state, goal, after);
    expected = {after};
    if (done) {
      tries.progress();
      continue;
    }
    // An error does not say that nothing happened.
    expected.push_back(now);
    const auto pause = tries.next(done.error());
    if (!pause) return done;
    ports_.pause.wait(*pause);
  }
  return fail(Code::kFailed, "{}: {} rounds did not lead to the layout; it is now: {}", gpu_.text(),
              kMostRounds, report_.layout);
}

// What is there and was not to be expected is another program's: its instances are not ours to
// destroy.
void Change::notice_foreign(GpuState& state, const std::vector<Layout>& expected) {
  const Layout now = state.layout();
  if (std::find(expected.begin(), expected.end(), now) == expected.end()) {
    ++foreign_changes_;
    for (const plan::WantedGi& gi : now.gis) {
      const bool known = std::any_of(expected.begin(), expected.end(),
                                     [&](const Layout& l) { return has_place(l, gi); });
      if (!known && !contains(before_, gi)) foreign_.push_back(gi);
    }
    tell(fmt::format("another program changed it meanwhile; it is now: {}", report_.layout));
  }
  for (plan::Gi& gi : state.there)
    for (const plan::WantedGi& foreign : foreign_)
      if (foreign.placement == gi.placement && foreign.profile == gi.profile) gi.busy = true;
}

// What another program made meanwhile and what is meant, together: planned around, not fought.
Layout Change::with_foreign(const Layout& target, const Layout& now) const {
  Layout goal = target;
  for (const plan::WantedGi& gi : now.gis) {
    const bool foreign = std::any_of(foreign_.begin(), foreign_.end(), [&](const auto& one) {
      return one.placement == gi.placement && one.profile == gi.profile;
    });
    if (foreign && !has_place(goal, gi)) goal.gis.push_back(gi);
  }
  normalise(goal);
  return goal;
}

Status Change::step(const GpuState& state, const Layout& target, Layout& expected) {
  const bool empty = state.there.empty();
  if (state.mode.current && !target.mig && empty) return switch_mode(state, false, expected);
  if (!state.mode.current && target.mig) return switch_mode(state, true, expected);
  const plan::Outcome outcome = plan::make_plan(state.offer, state.there, target.gis);
  if (const auto* why = std::get_if<plan::Impossible>(&outcome))
    return fail(why->in_the_way.empty() ? Code::kImpossible : Code::kInUse, "{}: {}", gpu_.text(),
                why->reason);
  const auto& plan = std::get<plan::Plan>(outcome);
  if (!plan.steps.empty()) return do_step(state, plan.steps.front(), expected);
  // The layout is right, and the mode waits to become another one.
  return switch_mode(state, target.mig, expected);
}

// `expected` becomes what is there if the call takes effect, whatever it answers.
Status Change::do_step(const GpuState& state, const plan::Step& step, Layout& expected) {
  using Op = plan::Step::Op;
  ++report_.calls;
  const auto here = [&](plan::WantedGi& gi) { return gi.placement == step.gi_placement; };
  const plan::Gi* gi = find_gi(state, step.gi_placement);
  switch (step.op) {
    case Op::kDestroyCi: {
      CHECK(gi != nullptr, "a plan destroys a compute instance where nothing lies");
      for (plan::WantedGi& one : expected.gis)
        if (here(one) && one.cis)
          std::erase_if(*one.cis, [&](const auto& ci) { return ci.placement == step.placement; });
      TRY(ports_.mig.destroy_ci(gpu_.uuid, gi->id, step.ci));
      tell(fmt::format("destroyed compute instance {} of GPU instance {}", step.ci.value,
                       gi->id.value));
      break;
    }
    case Op::kDestroyGi: {
      std::erase_if(expected.gis, here);
      TRY(ports_.mig.destroy_gi(gpu_.uuid, step.gi));
      tell(fmt::format("destroyed GPU instance {} ({} at {})", step.gi.value,
                       state.profile_name(step.profile), at(step.placement)));
      break;
    }
    case Op::kCreateGi: {
      expected.gis.push_back({step.profile, step.placement, std::vector<plan::WantedCi>{}});
      normalise(expected);
      TRY_ASSIGN(const GiId made,
                 ports_.mig.create_gi(gpu_.uuid, step.profile, placement_of(step.placement)));
      tell(fmt::format("created GPU instance {} ({} at {})", made.value,
                       state.profile_name(step.profile), at(step.placement)));
      break;
    }
    case Op::kCreateCi: {
      CHECK(gi != nullptr, "a plan creates a compute instance where nothing lies");
      for (plan::WantedGi& one : expected.gis)
        if (here(one) && one.cis) one.cis->push_back({step.profile, step.placement});
      normalise(expected);
      TRY_ASSIGN(const CiId made, ports_.mig.create_ci(gpu_.uuid, gi->id, step.profile,
                                                       placement_of(step.placement)));
      tell(fmt::format("created compute instance {} of GPU instance {}", made.value, gi->id.value));
      break;
    }
  }
  return {};
}

Status Change::switch_mode(const GpuState& state, bool on, Layout& expected) {
  const std::string_view word = on ? "on" : "off";
  expected.mig = on;
  expected.gis.clear();
  if (state.mode.pending != on || state.mode.current == on || !options_.skip_reset) {
    ++report_.calls;
    const bool resets = ports_.mig.mode_needs_reset(gpu_.uuid).value_or(false);
    TRY_ASSIGN(const ports::Activation activation, ports_.mig.set_mig_mode(gpu_.uuid, on));
    // Where a switch needs a reset, the driver does that itself when nobody is in the way.
    if (resets && activation == ports::Activation::kDone) report_.was_reset = true;
    if (options_.skip_reset && resets && activation == ports::Activation::kInUse)
      return fail(
          Code::kNeedsReset,
          "{}: MIG {} is pending, since the GPU is in use, and --skip-reset was given: reset "
          "it when that has ended (gpuslice smi --gpu-reset -i {}) or reboot",
          gpu_.text(), word, gpu_.index.value);
    if (activation == ports::Activation::kInUse) {
      // The driver would do it at the next reset, whenever that comes: not what was agreed.
      (void)ports_.mig.set_mig_mode(gpu_.uuid, state.mode.current);
      return fail(Code::kInUse,
                  "{}: MIG cannot be switched {}: another client holds the GPU's driver open "
                  "(monitoring, nvidia-persistenced, a shell with nvidia-smi), which no process "
                  "list names; stop it, or reboot",
                  gpu_.text(), word);
    }
    if (activation == ports::Activation::kNeedsReset) {
      if (options_.skip_reset)
        return fail(
            Code::kNeedsReset,
            "{}: MIG {} is pending, and --skip-reset was given: reset the GPU (gpuslice smi "
            "--gpu-reset -i {}) or reboot",
            gpu_.text(), word, gpu_.index.value);
      TRY(reset_gpu());
    }
  }
  TRY_ASSIGN(const ports::MigMode now, ports_.mig.mig_mode(gpu_.uuid));
  if (now.current != on)
    return fail(
        Code::kNeedsReset, "{}: MIG {} is pending: {} to make it so", gpu_.text(), word,
        options_.skip_reset
            ? fmt::format("reset it (gpuslice smi --gpu-reset -i {}) or reboot", gpu_.index.value)
            : "reboot");
  tell(fmt::format("switched MIG {}", word));
  return {};
}

Status Change::reset_gpu() {
  ++report_.calls;
  ports_.nvml.close();
  const Status reset = ports_.reset.reset(gpu_.bus_id);
  report_.was_reset = report_.was_reset || reset.has_value();
  TRY(ports_.nvml.open());
  if (reset) {
    tell("reset");
    return {};
  }
  if (reset.error().code == Code::kImpossible)
    return fail(
        Code::kNeedsReset,
        "{}: its MIG mode is pending, and this machine cannot reset it ({}): reboot to make "
        "it so",
        gpu_.text(), reset.error().message);
  return reset;
}

}  // namespace gpuslice::mig
