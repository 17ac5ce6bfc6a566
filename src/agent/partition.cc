#include "agent/partition.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace gpuslice::agent {
namespace {

constexpr const char* kPending = "pending";
constexpr const char* kSuccess = "success";
constexpr const char* kFailed = "failed";
constexpr const char* kRebooting = "rebooting";

// A GPU's MIG in one line: what another program would change.
std::string mig_text(const ports::Gpu& gpu) {
  if (!gpu.mig || !gpu.mig->current) return "MIG off";
  std::string out = "MIG on";
  for (const ports::MigDevice& device : gpu.mig_devices)
    out += fmt::format(", {} (GPU instance {})", device.profile, device.gi.value);
  return out;
}

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

void Partition::on_label(std::optional<std::string> label) {
  (void)wanted_.set_label(std::move(label));
  asked_ = true;
}

void Partition::on_inventory(const std::vector<ports::Gpu>& gpus,
                             const std::map<std::string, std::string>& silent) {
  looked_ = true;
  gpus_ = gpus;
  silent_ = silent;
  if (phase_ == Phase::kLooking) {
    set_withheld({});
    next_gpu();
  }
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
}

MonotonicTime Partition::step() {
  if (ports_.runner == nullptr || !looked_) return MonotonicTime::max();
  if (phase_ == Phase::kIdle && !recover_first()) {
    if (pass_is_due())
      begin_pass();
    else
      notice_drift();
  }
  // What is under way wakes us by its answer.
  MonotonicTime next = MonotonicTime::max();
  if (phase_ == Phase::kIdle && retry_at_ > now()) next = retry_at_;
  if (!settled_ && started_ + kSettlePatience > now())
    next = std::min(next, started_ + kSettlePatience);
  if (status_.state == kPending || status_.state == kRebooting) {
    const Duration limit =
        status_.state == kPending ? kPendingDeadline + options_.wait : kRebootPatience;
    if (now() - status_at_ >= limit)
      show(kFailed, status_.state == kPending
                        ? "not finished in time: " + status_.reason + "; it goes on"
                        : std::string("a reboot was asked for, and the machine has not restarted"));
    else
      next = std::min(next, status_at_ + limit);
  }
  return next;
}

// What an earlier life left half-way, and what ended here with its journal kept. True while that is
// under way.
bool Partition::recover_first() {
  if (recovered_ && (unfinished_.empty() || now() < retry_at_)) return false;
  std::vector<std::string> left;
  if (!options_.journal_folder.empty())
    if (auto found = mig::journals_left(ports_.files, options_.journal_folder))
      left = std::move(*found);
  // Journals of GPUs that do not answer wait for them.
  std::erase_if(left, [&](const std::string& uuid) {
    return std::none_of(gpus_.begin(), gpus_.end(), [&](const ports::Gpu& g) {
      return g.uuid == uuid && !silent_.contains(uuid);
    });
  });
  if (left.empty()) {
    recovered_ = true;
    unfinished_.clear();
    set_withheld({});
    return false;
  }
  phase_ = Phase::kRecovering;
  ports_.runner->recover(std::move(left));
  return true;
}

void Partition::on_mig_recovered(std::vector<mig::Report> reports) {
  if (phase_ != Phase::kRecovering) return;
  recovered_ = true;
  unfinished_.clear();
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
  if (wanted_.label().empty()) return !settled_ || !status_.label.empty();
  return asked_ || now() >= retry_at_ || wanted_.request() != request_done_ ||
         answering() != gpus_done_;
}

// The GPUs that can be changed: others coming is a reason to look again.
std::string Partition::answering() const {
  std::string out;
  for (const ports::Gpu& gpu : gpus_)
    if (!silent_.contains(gpu.uuid)) out += gpu.uuid + " ";
  return out;
}

void Partition::begin_pass() {
  const bool again = wanted_.request() == request_;
  if (!again || asked_) {
    evicted_.clear();
    request_at_ = now();
    retry_ = kFirstMigRetry;
  }
  request_ = request_done_ = wanted_.request();
  gpus_done_ = answering();
  asked_ = false;
  retry_at_ = MonotonicTime::max();
  errors_.clear();
  only_holders_ = true;
  needs_reboot_ = false;
  tasks_.clear();
  passing_ = false;
  troubles_.clear();
  made_.clear();
  if (wanted_.label().empty()) {
    // The label was taken away: what is there stays.
    settled_ = true;
    show("", "");
    return;
  }
  ++counts_.passes;
  passing_ = true;
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
      else
        tasks_.push_back({mig::name_of(gpu), one});
    }
  if (tasks_.empty()) return finish_pass();
  phase_ = Phase::kChecking;
  ports_.runner->check(tasks_);
}

void Partition::note(const std::string& gpu, const Error& error) {
  troubles_[gpu] = error.message;
  only_holders_ = only_holders_ && error.code == Code::kInUse;
  errors_.push_back(error);
}

// Opt-in. Each pod is asked once for a request; the next try sees whether it went.
void Partition::evict(const std::vector<mig::Holder>& holders) {
  if (ports_.evictor == nullptr) return;
  for (const mig::Holder& holder : holders) {
    if (holder.pod.empty() || !evicted_.insert(holder.pod_namespace + "/" + holder.pod).second)
      continue;
    log_.warning("MIG: pod {}/{} is in the way and is evicted", holder.pod_namespace, holder.pod);
    ports_.evictor->evict(holder.pod_namespace, holder.pod);
  }
}

// Everything is checked before the first GPU is touched; what nobody can make so stops all of it,
// somebody who holds an instance only that GPU.
void Partition::on_mig_checked(std::vector<MigChecked> checked) {
  if (phase_ != Phase::kChecking) return;
  phase_ = Phase::kIdle;
  if (overtaken()) return;
  std::vector<MigTask> todo;
  std::optional<Error> stops;
  for (const MigChecked& one : checked) {
    const bool held = one.refused && one.refused->code == Code::kInUse;
    if (one.refused) {
      if (!held && !stops) stops = one.refused;
      note(one.gpu.uuid, *one.refused);
      if (held) evict(one.holders);
      continue;
    }
    made_[one.gpu.uuid];
    if (one.as_wanted) continue;
    for (const MigTask& task : tasks_)
      if (task.gpu.uuid == one.gpu.uuid) todo.push_back(task);
  }
  tasks_ = std::move(todo);
  if (stops) {
    tasks_.clear();
    return fail_pass(*stops);
  }
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

void Partition::on_mig_done(mig::Report report) {
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
  set_withheld(going_);
  if (!report.error) {
    if (report.end == mig::End::kDone)
      log_.info("MIG: {}: done, {} instances kept: {}", report.gpu.text(),
                report.plan.steps.kept.size(), report.layout);
    return;
  }
  log_.error("MIG: {}: {}", mig::end_name(report.end), report.error->text());
  note(report.gpu.uuid, *report.error);
  if (report.error->code == Code::kInUse) evict(report.refusal.holders);
  needs_reboot_ = needs_reboot_ || report.end == mig::End::kWaitsForReset;
}

void Partition::finish_pass() {
  for (const ports::Gpu& gpu : gpus_)
    if (const auto made = made_.find(gpu.uuid); made != made_.end()) made->second = mig_text(gpu);
  if (errors_.empty()) {
    passing_ = false;
    retry_ = kFirstMigRetry;
    if (!unfinished_.empty()) retry_later(false);
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
  const bool waits = !errors_.empty() && only_holders_ && now() - request_at_ < options_.wait;
  retry_later(waits);
  std::string reason = error.text();
  if (errors_.size() > 1) reason += fmt::format(" (and {} more)", errors_.size() - 1);
  settle(waits ? kPending : kFailed, std::move(reason));
}

// One reboot for a request: a mode that is wrong after it is a failure.
void Partition::try_reboot(const Error& error) {
  passing_ = false;
  if (wanted_.rebooted_for(request_)) {
    retry_later(false);
    return settle(kFailed, error.text() + "; a reboot did not help");
  }
  wanted_.remember_reboot(request_);
  show(kRebooting, error.text());
  log_.warning("MIG: rebooting: {}", error.text());
  if (const Status asked = ports_.reboot->reboot(); !asked) {
    retry_later(false);
    return settle(kFailed, fmt::format("{}; and it cannot be rebooted: {}", error.text(),
                                       asked.error().text()));
  }
  settled_ = true;
}

void Partition::settle(std::string state, std::string reason) {
  settled_ = true;
  show(std::move(state), std::move(reason));
}

void Partition::show(std::string state, std::string reason) {
  ports::MigStatus next{wanted_.label(), std::move(state), std::move(reason), request_,
                        status_.since};
  if (next.label.empty()) next.request.clear();
  const bool turned = next.state != status_.state || next.request != status_.request;
  if (turned) {
    next.since = ports_.clock.wall();
    status_at_ = now();
  }
  if (next == status_) return;
  status_ = next;
  if (turned && !status_.state.empty()) {
    if (status_.state == kFailed)
      log_.error("MIG: label {}: {}: {}", status_.label, status_.state, status_.reason);
    else
      log_.info("MIG: label {}: {}{}", status_.label, status_.state,
                status_.reason.empty() ? "" : ": " + status_.reason);
  }
  if (ports_.board != nullptr) ports_.board->show(status_);
}

void Partition::retry_later(bool holders_only) {
  if (holders_only) {
    retry_at_ = now() + kHoldersRetry;
    return;
  }
  retry_at_ = now() + retry_;
  retry_ = std::min(retry_ * 2, kLongestMigRetry);
}

void Partition::notice_drift() {
  if (status_.state != kSuccess) return;
  for (const ports::Gpu& gpu : gpus_) {
    const auto made = made_.find(gpu.uuid);
    if (made == made_.end() || made->second == mig_text(gpu)) continue;
    show(kFailed, fmt::format("GPU {}: another program changed it: it was {}, and is {}; set the "
                              "label again to have it back",
                              gpu.index.value, made->second, mig_text(gpu)));
    return;
  }
}

}  // namespace gpuslice::agent
