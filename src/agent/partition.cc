#include "agent/partition.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/partition_words.h"

namespace gpuslice::agent {
namespace {

// The journal stays: neither old nor new is certain.
bool unfinished(mig::End end) {
  return end == mig::End::kLost || end == mig::End::kBlocked || end == mig::End::kHalfDone;
}

}  // namespace

Partition::Partition(PartitionOptions options, PartitionPorts ports, Log& log)
    : options_(std::move(options)),
      ports_(ports),
      log_(log),
      wanted_(options_.source, ports.files, log) {}

void Partition::start() {
  started_ = now();
  if (ports_.runner == nullptr) {
    recovered_ = settled_ = true;
    return;
  }
  wanted_.start();
}

// A file that is written again as it was is a wish as well: try again at once.
void Partition::on_files_changed() {
  (void)wanted_.look();
  asked_ = true;
}

void Partition::on_label(const std::optional<std::string>& label) {
  (void)wanted_.set_label(label);
  asked_ = true;
}

void Partition::ask_again() { asked_ = asked_again_ = true; }

void Partition::on_inventory(const std::vector<ports::Gpu>& gpus,
                             const std::map<std::string, std::string>& silent) {
  looked_ = fresh_ = true;
  gpus_ = gpus;
  silent_ = silent;
  answering_.clear();
  for (const ports::Gpu& gpu : gpus_)
    if (!silent_.contains(gpu.uuid)) answering_ += gpu.uuid + " ";
  // No look overtakes another question: this one is from after the last check.
  remember_made();
  for (auto& [uuid, made] : made_) made.looked = true;
  if (phase_ == Phase::kLooking) {
    set_withheld({});
    next_gpu();
  }
}

void Partition::on_left_by_others(const std::set<std::string>& gpus) {
  if (ports_.runner == nullptr || options_.journal_folder.empty()) return;
  const auto found = mig::journals_left(ports_.files, options_.journal_folder);
  if (!found) return;
  for (const std::string& uuid : *found) {
    if (!gpus.contains(uuid)) continue;
    log_.warning("MIG: {}: another program left a change half-way; going on from its journal",
                 uuid);
    unfinished_.insert(uuid);
    retry_at_ = now();
  }
  set_withheld(going_);
}

bool Partition::wants_inventory() { return std::exchange(wants_inventory_, false); }

bool Partition::may_offer() const {
  if (settled_) return true;
  return recovered_ && now() - started_ >= kSettlePatience;
}

void Partition::set_withheld(std::set<std::string> going) {
  going_ = std::move(going);
  withheld_ = going_;
  withheld_.insert(unfinished_.begin(), unfinished_.end());
  for (const auto& [gpu, devices] : kept_back_) withheld_.insert(devices.begin(), devices.end());
}

MonotonicTime Partition::step() {
  if (ports_.runner == nullptr) return MonotonicTime::max();
  if (looked_ && phase_ == Phase::kIdle && !recover_first()) {
    if (pass_is_due())
      begin_pass();
    else
      notice_drift();
  }
  fresh_ = false;
  // What is under way wakes us by its answer, and by its not coming.
  MonotonicTime next = tell_of_what_is_under_way();
  if (looked_ && phase_ == Phase::kIdle && retry_at_ > now()) next = std::min(next, retry_at_);
  if (!settled_ && started_ + kSettlePatience > now())
    next = std::min(next, started_ + kSettlePatience);
  return std::min(next, keep_deadline());
}

bool Partition::answers(const std::string& uuid) const {
  return !silent_.contains(uuid) &&
         std::any_of(gpus_.begin(), gpus_.end(),
                     [&](const ports::Gpu& gpu) { return gpu.uuid == uuid; });
}

bool Partition::recovery_is_due() const {
  if (!recovered_) return true;
  const auto answer = [this](const std::string& uuid) { return answers(uuid); };
  if (std::any_of(awaited_.begin(), awaited_.end(), answer)) return true;
  return now() >= retry_at_ && std::any_of(unfinished_.begin(), unfinished_.end(), answer);
}

// What an earlier life left half-way, and what ended here with its journal kept. True while that is
// under way.
bool Partition::recover_first() {
  if (!recovery_is_due()) return false;
  std::vector<std::string> left;
  awaited_.clear();
  if (!options_.journal_folder.empty())
    if (const auto found = mig::journals_left(ports_.files, options_.journal_folder))
      for (const std::string& uuid : *found) {
        // That of a GPU that does not answer waits for it; nothing of it is given out until then.
        if (answers(uuid))
          left.push_back(uuid);
        else
          awaited_.insert(uuid);
      }
  if (left.empty()) {
    recovered_ = true;
    unfinished_ = awaited_;
    set_withheld({});
    return false;
  }
  phase_ = Phase::kRecovering;
  ports_.runner->recover(std::move(left));
  return true;
}

void Partition::on_mig_recovered(const std::vector<mig::Report>& reports) {
  if (phase_ != Phase::kRecovering) return;
  recovered_ = true;
  unfinished_ = awaited_;
  bool trouble = false;
  for (const mig::Report& report : reports) {
    ++counts_.changes[std::string(mig::end_name(report.end))];
    const bool kept = unfinished(report.end) || report.end == mig::End::kRefused;
    if (kept) unfinished_.insert(report.gpu.uuid);
    trouble = trouble || kept;
    if (report.error)
      log_.error("MIG: what was interrupted: {}", report.error->text());
    else
      log_.info("MIG: {}: what was interrupted is finished: {}", report.gpu.text(), report.layout);
  }
  if (trouble)
    retry_later(false);
  else
    retry_at_ = now();
  phase_ = Phase::kLooking;
  set_withheld({});
  wants_inventory_ = true;
}

bool Partition::pass_is_due() const {
  // Before the node was ever seen, what it asks for is not known: what is offered now could be in
  // the way.
  if (wanted_.label().empty())
    return wanted_.known() && (!settled_ || wanted_.request() != request_done_);
  return asked_ || now() >= retry_at_ || wanted_.request() != request_done_ ||
         answering_ != gpus_done_;
}

void Partition::begin_pass() {
  const bool same = wanted_.request() == request_;
  if (!same || asked_) {
    evicted_.clear();
    not_evicted_.clear();
    made_.clear();
    request_at_ = now();
    retry_ = kFirstMigRetry;
  }
  // What did not answer until now may have been reset, or be another one.
  std::erase_if(made_, [this](const auto& made) { return !gpus_done_.contains(made.first); });
  if (!same && !kept_back_.empty()) {
    kept_back_.clear();
    set_withheld(going_);
  }
  request_ = request_done_ = wanted_.request();
  gpus_done_ = answering_;
  asked_ = false;
  const bool seen = std::exchange(asked_again_, false);
  retry_at_ = MonotonicTime::max();
  errors_.clear();
  nobody_goes_.clear();
  only_holders_ = true;
  needs_reboot_ = false;
  tasks_.clear();
  passing_ = false;
  troubles_.clear();
  if (wanted_.label().empty()) {
    // The label was taken away: what is there stays.
    settled_ = true;
    show("", "");
    if (!unfinished_.empty()) retry_later(false);
    return;
  }
  ++counts_.passes;
  passing_ = true;
  if (seen && !status_.state.empty()) show(kPending, "asked for again: it is being checked");
  auto wish = wanted_.wish(gpus_);
  if (!wish) return fail_pass(wish.error());
  for (const std::string& warning : wish->warnings)
    log_.once(Level::kWarning, "mig " + warning, warning);
  for (const auto& [index, one] : wish->gpus)
    for (const ports::Gpu& gpu : gpus_) {
      if (gpu.index.value != index) continue;
      if (const auto why = silent_.find(gpu.uuid); why != silent_.end())
        note(gpu.uuid,
             {Code::kGpuLost, fmt::format("GPU {} does not answer: {}", index, why->second), {}});
      else if (!made_.contains(gpu.uuid))
        tasks_.push_back({mig::name_of(gpu), one});
    }
  skip_check();
  if (tasks_.empty()) return finish_pass();
  phase_ = Phase::kChecking;
  if (ports_.evictor != nullptr) ports_.evictor->before_look();
  ports_.runner->check(tasks_);
}

// Where MIG is off everywhere and is to be so, as on most nodes when they start, the look that has
// just come says all that a check would.
void Partition::skip_check() {
  if (!fresh_ || !unfinished_.empty()) return;
  std::map<std::string, std::string> devices;  // by GPU
  for (const MigTask& task : tasks_)
    for (const ports::Gpu& gpu : gpus_)
      if (gpu.uuid == task.gpu.uuid && gpu.mig && mig::off_as_wanted(*gpu.mig, task.wish))
        devices[gpu.uuid] = mig::devices_of(gpu);
  if (devices.size() != tasks_.size()) return;
  for (auto& [uuid, text] : devices) made_[uuid].devices = std::move(text);
  tasks_.clear();
}

void Partition::note(const std::string& gpu, const Error& error) {
  troubles_[gpu] = error.message;
  only_holders_ = only_holders_ && error.code == Code::kInUse;
  errors_.push_back(error);
}

bool Partition::label_may_be_old() const {
  return !wanted_.heard() && now() - started_ < kFirstLabelPatience;
}

bool Partition::waits_for_holders() const { return now() - request_at_ < options_.wait; }

// Everything is checked before the first GPU is touched; what nobody can make so stops all of it,
// somebody who holds an instance, and a GPU that does not answer, only that GPU.
void Partition::on_mig_checked(const std::vector<MigChecked>& checked) {
  if (phase_ != Phase::kChecking) return;
  phase_ = Phase::kIdle;
  if (overtaken()) return;
  std::vector<MigTask> todo;
  std::optional<Error> stops;
  std::map<std::string, std::vector<std::string>> kept_back;
  for (const MigChecked& one : checked) {
    if (one.refused) {
      const bool only_this =
          one.refused->code == Code::kInUse || one.refused->code == Code::kGpuLost;
      if (!only_this && !stops) stops = one.refused;
      note(one.gpu.uuid, *one.refused);
      if (one.refused->code == Code::kInUse && waits_for_holders()) {
        // Who is in the way changes while pods come and go. What was kept back for this wish stays
        // so: nothing is offered again to be withdrawn once more.
        std::set<std::string> back(one.going.begin(), one.going.end());
        if (const auto before = kept_back_.find(one.gpu.uuid); before != kept_back_.end())
          back.insert(before->second.begin(), before->second.end());
        kept_back[one.gpu.uuid] = {back.begin(), back.end()};
      }
      continue;
    }
    if (one.as_wanted) {
      // A change that is half-way has yet to be finished or reverted: then it is looked at again.
      if (!unfinished_.contains(one.gpu.uuid)) made_[one.gpu.uuid].devices = one.devices;
      continue;
    }
    for (const MigTask& task : tasks_)
      if (task.gpu.uuid == one.gpu.uuid) todo.push_back(task);
    // Nobody is in the way any more: it stays back until it goes, or somebody takes it meanwhile.
    if (const auto before = kept_back_.find(one.gpu.uuid); before != kept_back_.end())
      kept_back.insert(*before);
  }
  if (!stops && (!todo.empty() || !errors_.empty()) && label_may_be_old()) {
    tasks_.clear();
    passing_ = false;
    retry_at_ = started_ + kFirstLabelPatience;
    return show(kPending, "the API server has not said yet whether it still wants it");
  }
  kept_back_ = std::move(kept_back);
  tasks_ = std::move(todo);
  if (stops) {
    tasks_.clear();
    kept_back_.clear();
    set_withheld(going_);
    return fail_pass(*stops);
  }
  set_withheld(going_);
  for (const MigChecked& one : checked)
    if (one.refused && one.refused->code == Code::kInUse) evict(one.gpu, one.holders);
  if (!tasks_.empty()) {
    show(kPending, fmt::format("{} of {} GPUs to be changed", tasks_.size(), checked.size()));
  }
  next_gpu();
}

// It is another wish by now: the next step begins its pass.
bool Partition::overtaken() const { return asked_ || wanted_.request() != request_; }

void Partition::next_gpu() {
  phase_ = Phase::kIdle;
  if (!passing_ || overtaken()) return;
  if (tasks_.empty()) return finish_pass();
  phase_ = Phase::kPreparing;
  if (ports_.evictor != nullptr) ports_.evictor->before_look();
  ports_.runner->prepare(tasks_.front());
}

void Partition::on_mig_prepared(MigPrepared prepared) {
  if (phase_ != Phase::kPreparing) return;
  if (!prepared.ready) {
    ended(prepared.report);
    phase_ = Phase::kLooking;  // preparing may have finished an older change
    wants_inventory_ = true;
    return;
  }
  if (overtaken()) {
    // Nothing is withdrawn for the old wish.
    phase_ = Phase::kExecuting;
    ports_.runner->abandon();
    return;
  }
  phase_ = Phase::kWithdrawing;
  set_withheld({prepared.going.begin(), prepared.going.end()});
  show(kPending, tasks_.front().gpu.text() + " is being changed");
}

void Partition::withdrawn() {
  if (phase_ != Phase::kWithdrawing) return;
  phase_ = Phase::kExecuting;
  ports_.runner->execute();
}

void Partition::on_mig_done(const mig::Report& report) {
  if (phase_ != Phase::kExecuting) return;
  ended(report);
  phase_ = Phase::kLooking;
  wants_inventory_ = true;
}

void Partition::ended(const mig::Report& report) {
  ++counts_.changes[std::string(mig::end_name(report.end))];
  if (!tasks_.empty()) tasks_.erase(tasks_.begin());
  if (unfinished(report.end))
    unfinished_.insert(report.gpu.uuid);
  else if (report.end != mig::End::kRefused)
    unfinished_.erase(report.gpu.uuid);
  if (report.end != mig::End::kRefused) kept_back_.erase(report.gpu.uuid);
  set_withheld(going_);
  if (report.end == mig::End::kDone) made_[report.gpu.uuid];
  if (!report.error) {
    if (report.end == mig::End::kDone)
      log_.info("MIG: {}: done, {} instances kept: {}", report.gpu.text(),
                report.plan.steps.kept.size(), report.layout);
    return;
  }
  log_.error("MIG: {}: {}", mig::end_name(report.end), report.error->text());
  note(report.gpu.uuid, *report.error);
  if (report.error->code == Code::kInUse) evict(report.gpu, report.refusal.holders);
  needs_reboot_ = needs_reboot_ || report.end == mig::End::kWaitsForReset;
}

void Partition::remember_made() {
  for (const ports::Gpu& gpu : gpus_)
    if (const auto made = made_.find(gpu.uuid); made != made_.end() && made->second.text.empty())
      if (made->second.devices.empty() || made->second.devices == mig::devices_of(gpu))
        made->second.text = mig_text(gpu);
}

void Partition::finish_pass() {
  remember_made();
  if (errors_.empty()) {
    passing_ = false;
    retry_ = kFirstMigRetry;
    if (!unfinished_.empty()) retry_later(false);
    (void)wanted_.remember_reboot("");
    wants_inventory_ =
        wants_inventory_ || std::any_of(made_.begin(), made_.end(),
                                        [](const auto& m) { return m.second.text.empty(); });
    if (const auto changed = drift()) return settle(kFailed, *changed);
    // The configuration's newest file may be bad: what was made is the last good one's.
    return settle(kSuccess, wanted_.problem().empty()
                                ? ""
                                : "made from the last good configuration: " + wanted_.problem());
  }
  if (needs_reboot_ && ports_.reboot != nullptr) return try_reboot(errors_.front());
  fail_pass(errors_.front());
}

void Partition::fail_pass(const Error& error) {
  passing_ = false;
  remember_made();
  const bool waits = !errors_.empty() && only_holders_ && waits_for_holders();
  retry_later(waits);
  if (!waits && !kept_back_.empty()) {
    kept_back_.clear();
    set_withheld(going_);
  }
  std::string reason = error.text();
  if (!nobody_goes_.empty()) reason += "; " + nobody_goes_.front();
  if (nobody_goes_.size() > 1)
    reason += fmt::format(" (and {} more GPUs)", nobody_goes_.size() - 1);
  for (const auto& [pod, why] : not_evicted_)
    reason += fmt::format("; pod {} cannot be evicted: {}", pod, why);
  if (errors_.size() > 1) reason += fmt::format(" (and {} more)", errors_.size() - 1);
  settle(waits ? kPending : kFailed, std::move(reason));
}

}  // namespace gpuslice::agent
