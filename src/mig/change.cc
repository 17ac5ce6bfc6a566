#include "mig/change.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"
#include "mig/tries.h"

namespace gpuslice::mig {
namespace {

constexpr std::string_view kJournalSuffix = ".journal";

}  // namespace

std::string_view end_name(End end) {
  constexpr std::array<std::string_view, 9> kNames = {"already",   "done",    "refused",
                                                      "went-back", "pending", "lost",
                                                      "blocked",   "foreign", "half-done"};
  return kNames[static_cast<size_t>(end)];
}

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
    // A driver that was let go for a reset may not have come back at once.
    const Status opened = ports_.nvml.open();
    Result<GpuState> state =
        opened ? read_state(ports_.mig, gpu_) : Result<GpuState>(std::unexpected(opened.error()));
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
  GpuState none;
  none.gpu = gpu_;
  const auto state = read_state(ports_.mig, gpu_);
  return mig::devices_that_go(state ? *state : none, report_.plan);
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
    // "In use" stays what it is, and "impossible" where a plan said so; all else, such as a driver
    // that refused a step of a plan that fits, is a failure that lost nothing.
    const bool cannot_be =
        error.code == Code::kImpossible && report_.refusal.error.code == Code::kImpossible;
    if (error.code != Code::kInUse && error.code != Code::kNoPermission && !cannot_be)
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

Result<std::vector<std::string>> journals_left(ports::HostFiles& files, const std::string& folder) {
  TRY_ASSIGN(const std::vector<std::string> names, files.list(folder));
  std::vector<std::string> out;
  for (const std::string& name : names)
    if (name.ends_with(kJournalSuffix) && name.size() > kJournalSuffix.size())
      out.push_back(name.substr(0, name.size() - kJournalSuffix.size()));
  return out;
}

}  // namespace gpuslice::mig
