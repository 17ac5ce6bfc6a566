#include "mig/change.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"

namespace gpuslice::mig {
namespace {

constexpr std::string_view kJournalSuffix = ".journal";

std::string at(plan::Span span) { return fmt::format("{}:{}", span.start, span.size); }

Duration pause_after(int tries) {
  Duration pause = kFirstPause;
  for (int i = 1; i < tries && pause < kLongestPause; ++i) pause *= 2;
  return std::min(pause, kLongestPause);
}

// An error that no further try will mend.
bool is_final(Code code) {
  return code == Code::kGpuLost || code == Code::kNeedsReset || code == Code::kNoPermission ||
         code == Code::kCorrupt;
}

bool contains(const Layout& layout, const plan::WantedGi& gi) {
  return std::find(layout.gis.begin(), layout.gis.end(), gi) != layout.gis.end();
}
bool has_place(const Layout& layout, const plan::WantedGi& gi) {
  return std::any_of(layout.gis.begin(), layout.gis.end(), [&](const plan::WantedGi& other) {
    return other.placement == gi.placement && other.profile == gi.profile;
  });
}

const plan::Gi* find_gi(const GpuState& state, plan::Span placement) {
  for (const plan::Gi& gi : state.there)
    if (gi.placement == placement) return &gi;
  return nullptr;
}

}  // namespace

std::string_view end_name(End end) {
  constexpr std::array<std::string_view, 9> kNames = {"already",   "done",    "refused",
                                                      "went-back", "pending", "lost",
                                                      "blocked",   "foreign", "half-done"};
  return kNames[static_cast<size_t>(end)];
}

// Failures in a row of one drive().
struct Change::Tries {
  Patience patience;
  int in_use = 0;
  int other = 0;
  // Another try, after a pause? Nothing is left else.
  [[nodiscard]] std::optional<Duration> next(const Error& error) {
    if (is_final(error.code)) return std::nullopt;
    if (patience == Patience::kBack) {
      if (++other > kMostTriesGoingBack) return std::nullopt;
      return pause_after(other);
    }
    if (error.code == Code::kInUse) {
      if (++in_use > kMostTriesInUse) return std::nullopt;
      return pause_after(in_use);
    }
    if (++other > kMostTriesOther) return std::nullopt;
    return pause_after(other);
  }
  void progress() { in_use = other = 0; }
};

Change::Change(Ports ports, Options options, GpuName gpu)
    : ports_(ports), options_(std::move(options)), gpu_(std::move(gpu)) {
  report_.gpu = gpu_;
}

Change::~Change() = default;

void Change::tell(const std::string& text) const {
  if (options_.told) options_.told(fmt::format("{}: {}", gpu_.text(), text));
}

void Change::end(End end, std::optional<Error> error) {
  report_.end = end;
  report_.error = std::move(error);
  lock_.reset();
}

Status Change::lock() {
  if (lock_) return {};
  auto held = ports_.locks.take(fmt::format("{}/{}.lock", options_.lock_folder, gpu_.uuid));
  if (!held) {
    Error error = std::move(held).error().in(gpu_.text());
    if (error.code == Code::kNoPermission)
      error.message += "; nothing is changed: run it as root, or give another --run-dir";
    return std::unexpected(std::move(error));
  }
  lock_ = std::move(*held);
  return {};
}

Result<std::vector<Holder>> Change::other_holders(const GpuState& state) {
  if (!options_.holders) return std::vector<Holder>{};
  return options_.holders(state);
}

Result<GpuState> Change::read(Patience patience) {
  Tries tries{patience};
  while (true) {
    Result<GpuState> state = read_state(ports_.mig, gpu_);
    if (state) {
      report_.layout = layout_text(state->layout(), *state);
      return state;
    }
    // A GPU that nobody knows any more has fallen off the bus.
    if (state.error().code == Code::kNotFound) state.error().code = Code::kGpuLost;
    const auto pause = tries.next(state.error());
    if (!pause) return state;
    ports_.pause.wait(*pause);
  }
}

Result<Decision> Change::decide_now(const Wish& wish) {
  TRY_ASSIGN(GpuState state, read(Patience::kForward));
  TRY_ASSIGN(held_, other_holders(state));
  before_ = state.layout();
  Wish meant = wish;
  if (options_.mode_only) {
    meant.profiles.clear();
    meant.exact = wish.mig ? (state.mode.current ? before_ : Layout{true, {}}) : Layout{};
  }
  return decide(state, meant, held_);
}

bool Change::prepare(const Wish& wish) {
  wish_ = wish;
  if (Status locked = lock(); !locked) {
    end(End::kRefused, locked.error());
    return false;
  }
  recover();
  if (report_.end != End::kAlready && report_.end != End::kDone) return false;
  report_ = Report{};
  report_.gpu = gpu_;
  if (Status locked = lock(); !locked) {
    end(End::kRefused, locked.error());
    return false;
  }
  const MonotonicTime patient_until = ports_.clock.now() + options_.wait;
  while (true) {
    Result<Decision> decision = decide_now(wish);
    if (!decision) {
      end(End::kRefused, std::move(decision).error());
      return false;
    }
    if (decision->plan) {
      report_.plan = *std::move(decision->plan);
      break;
    }
    report_.refusal = *std::move(decision->refusal);
    const bool wait =
        report_.refusal.error.code == Code::kInUse && ports_.clock.now() < patient_until;
    if (!wait) {
      end(End::kRefused, report_.refusal.error);
      return false;
    }
    ports_.pause.wait(kHolderInterval);
  }
  if (report_.plan.nothing_to_do()) {
    end(End::kAlready, std::nullopt);
    return false;
  }
  if (Status written = write_journal(report_.plan.after, report_.plan.provisional); !written) {
    end(End::kRefused,
        Error{written.error().code,
              fmt::format(
                  "{}: nothing is changed without a journal: {}; {} or give another "
                  "--state-dir",
                  gpu_.text(), written.error().message,
                  written.error().code == Code::kNoPermission ? "make that writable" : "make room"),
              {}});
    return false;
  }
  return true;
}

Status Change::write_journal(const Layout& after, bool provisional) {
  Journal journal;
  journal.gpu = gpu_.uuid;
  journal.boot = ports_.files.boot_id().value_or("unknown");
  journal.before = before_;
  journal.after = after;
  journal.provisional = provisional;
  TRY(ports_.files.write_atomic(journal_path(options_.journal_folder, gpu_.uuid),
                                format_journal(journal), true));
  journal_written_ = true;
  return {};
}

void Change::forget_journal() {
  if (!journal_written_) return;
  const std::string path = journal_path(options_.journal_folder, gpu_.uuid);
  // A journal that cannot be removed does no harm: the next start finds the GPU as it says.
  if (const Status removed = ports_.files.remove(path, true); !removed)
    tell(removed.error().message);
  else
    journal_written_ = false;
}

std::vector<std::string> Change::devices_that_go() const {
  std::vector<std::string> out;
  if (report_.plan.mode_changes) out.push_back(gpu_.uuid);
  const auto state = read_state(ports_.mig, gpu_);
  if (!state) return out;
  for (const plan::Step& step : report_.plan.steps.steps) {
    if (step.op != plan::Step::Op::kDestroyCi) continue;
    for (const ports::GpuInstance& gi : state->instances) {
      if (gi.id != step.gi) continue;
      for (const ports::ComputeInstance& ci : gi.cis)
        if (ci.id == step.ci) out.push_back(ci.uuid);
    }
  }
  return out;
}

void Change::abandon() {
  forget_journal();
  end(End::kRefused, report_.error);
}

void Change::run(const Wish& wish) {
  if (prepare(wish)) execute();
}

void Change::execute() {
  CHECK(lock_ != nullptr, "a change is executed before it is prepared");
  // Between the check and now somebody may have come.
  if (const auto state = read(Patience::kForward)) {
    auto held = other_holders(*state);
    if (held) held_ = std::move(*held);
  }
  Status status;
  // Between the plan and now time has passed: what has come meanwhile is another program's.
  std::vector<Layout> expected = {before_};
  if (report_.plan.provisional) {
    status = find_layout();
    expected = {Layout{true, {}}};
  }
  if (status) status = drive(report_.plan.after, Patience::kForward, std::move(expected));
  if (status) {
    forget_journal();
    end(End::kDone, std::nullopt);
    return;
  }
  go_back(std::move(status).error());
}

Status Change::find_layout() {
  TRY(drive(Layout{true, {}}, Patience::kForward, {before_}));
  TRY_ASSIGN(const GpuState state, read(Patience::kForward));
  Wish meant = wish_;
  if (options_.mode_only) {
    meant.profiles.clear();
    meant.exact = Layout{true, {}};
  }
  Decision decision = decide(state, meant, held_);
  if (decision.refusal) {
    report_.refusal = *decision.refusal;
    return std::unexpected(decision.refusal->error);
  }
  decision.plan->mode_changes = true;
  decision.plan->before = report_.plan.before;
  report_.plan = *std::move(decision.plan);
  return write_journal(report_.plan.after, false);
}

void Change::go_back(Error error) {
  if (error.code == Code::kGpuLost) {
    error.message +=
        "; what it holds cannot be known until it answers: the journal is kept, and "
        "the next start goes on from it";
    end(End::kLost, std::move(error));
    return;
  }
  if (error.code == Code::kNeedsReset) {
    wait_for_reset(std::move(error));
    return;
  }
  const Status back = drive(before_, Patience::kBack);
  if (back) {
    forget_journal();
    // "In use" and "impossible" stay what they are; all else is a failure that lost nothing.
    if (error.code != Code::kInUse && error.code != Code::kImpossible &&
        error.code != Code::kNoPermission)
      error.code = Code::kFailed;
    error.message += "; the GPU is as it was before";
    end(End::kWentBack, std::move(error));
    return;
  }
  if (back.error().code == Code::kGpuLost) {
    end(End::kLost, Error{Code::kGpuLost,
                          fmt::format("{}; and on the way back: {}; the journal is kept, and the "
                                      "next start goes on from it",
                                      error.message, back.error().message),
                          {}});
    return;
  }
  if (back.error().code == Code::kNeedsReset) {
    error.code = Code::kNeedsReset;
    error.message += "; and going back: " + back.error().message;
    wait_for_reset(std::move(error));
    return;
  }
  if (foreign_changes_ > 0 && back.error().code != Code::kInUse) {
    forget_journal();
    end(End::kForeign,
        Error{Code::kFailed,
              fmt::format("{}; it is left as it is now: {}", error.message, report_.layout),
              {}});
    return;
  }
  if (back.error().code == Code::kInUse) {
    end(End::kBlocked,
        Error{
            Code::kInUse,
            fmt::format("{}; and going back: {}; it is now: {}; the journal is kept, and the next "
                        "start goes on when that has ended",
                        error.message, back.error().message, report_.layout),
            {}});
    return;
  }
  end(End::kHalfDone,
      Error{
          Code::kHalfDone,
          fmt::format("{}; and going back failed: {}; it is now: {}; the journal is kept, and the "
                      "next start goes on from it",
                      error.message, back.error().message, report_.layout),
          {}});
}

// Either the mode is pending, and all is done that could be; or the driver takes no change before a
// reset, which takes the instances away: what was meant is made after it.
void Change::wait_for_reset(Error error) {
  const auto mode = ports_.mig.mig_mode(gpu_.uuid);
  if (mode && mode->current != mode->pending) {
    forget_journal();
  } else {
    error.message += fmt::format(
        "; nothing can be changed before a reset (gpuslice smi --gpu-reset -i {}) or a reboot; it "
        "is now: {}; the journal is kept, and the next start goes on from it",
        gpu_.index.value, report_.layout);
  }
  end(End::kWaitsForReset, std::move(error));
}

void Change::recover() {
  const std::string path = journal_path(options_.journal_folder, gpu_.uuid);
  const auto text = ports_.files.read(path, kMaxJournalBytes);
  if (!text) {
    if (text.error().code != Code::kNotFound) end(End::kRefused, text.error());
    return;
  }
  if (Status locked = lock(); !locked) {
    end(End::kRefused, locked.error());
    return;
  }
  journal_written_ = true;
  const auto journal = parse_journal(*text);
  if (!journal || journal->gpu != gpu_.uuid) {
    // Written whole or not at all, so somebody else made it so: what is there stays.
    tell(fmt::format("{}: {}; it is put aside, and what is on the GPU stays as it is", path,
                     journal ? "it is of another GPU" : journal.error().message));
    (void)ports_.files.write_atomic(path + ".bad", *text, false);
    forget_journal();
    end(End::kDone, std::nullopt);
    return;
  }
  before_ = journal->before;
  // After a reboot instances are gone, and with them what the journal was to protect.
  const auto boot = ports_.files.boot_id();
  if (boot && *boot != journal->boot) {
    forget_journal();
    end(End::kDone, std::nullopt);
    return;
  }
  if (const auto state = read(Patience::kBack)) {
    if (auto held = other_holders(*state)) held_ = std::move(*held);
    // What the journal does not know came from another program.
    for (const plan::WantedGi& gi : state->layout().gis)
      if (!has_place(journal->before, gi) && !has_place(journal->after, gi)) {
        if (foreign_.empty()) ++foreign_changes_;
        foreign_.push_back(gi);
      }
    if (!foreign_.empty())
      tell(fmt::format("another program changed it meanwhile; it is now: {}", report_.layout));
  }
  Status status = journal->provisional ? drive(before_, Patience::kBack)
                                       : drive(journal->after, Patience::kForward);
  if (status) {
    tell(fmt::format("finished what was interrupted: {}", report_.layout));
    forget_journal();
    end(End::kDone, std::nullopt);
    return;
  }
  go_back(std::move(status).error());
  if (report_.end == End::kWentBack) {
    tell(fmt::format("went back from what was interrupted: {}", report_.layout));
    end(End::kDone, std::nullopt);
  }
}

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
    TRY_ASSIGN(const ports::Activation activation, ports_.mig.set_mig_mode(gpu_.uuid, on));
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
    return fail(Code::kNeedsReset, "{}: MIG {} is pending: reboot to make it so", gpu_.text(),
                word);
  tell(fmt::format("switched MIG {}", word));
  return {};
}

Status Change::reset_gpu() {
  ++report_.calls;
  ports_.nvml.close();
  const Status reset = ports_.reset.reset(gpu_.bus_id);
  TRY(ports_.nvml.open());
  if (reset) {
    tell("reset");
    return {};
  }
  if (reset.error().code == Code::kImpossible)
    return fail(Code::kNeedsReset, "{}: {}; reboot to make it so", gpu_.text(),
                reset.error().message);
  return reset;
}

Result<std::vector<std::string>> journals_left(ports::HostFiles& files, const std::string& folder) {
  TRY_ASSIGN(const std::vector<std::string> names, files.list(folder));
  std::vector<std::string> out;
  for (const std::string& name : names)
    if (name.ends_with(kJournalSuffix) && name.size() > kJournalSuffix.size())
      out.push_back(name.substr(0, name.size() - kJournalSuffix.size()));
  return out;
}

}  // namespace gpuslice::mig
