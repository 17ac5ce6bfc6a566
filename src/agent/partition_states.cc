// What the controller of MIG layouts shows, and when.

#include <fmt/format.h>

#include <utility>

#include "agent/partition.h"
#include "agent/partition_words.h"

namespace gpuslice::agent {

std::string mig_text(const ports::Gpu& gpu) {
  if (!gpu.mig_on()) return "MIG off";
  std::string out = "MIG on";
  for (const ports::MigDevice& device : gpu.mig_devices)
    out += fmt::format(", {} (GPU instance {})", device.profile, device.gi.value);
  return out;
}

// A wish of which nothing has been said yet, while something else is under way or the driver does
// not answer: whoever asked must not read the last wish's state as its own, and the deadline of
// what is pending counts from here. When it is to be told.
MonotonicTime Partition::tell_of_what_is_under_way() {
  if (looked_ && phase_ == Phase::kIdle) {
    under_way_since_ = MonotonicTime::max();
    return MonotonicTime::max();
  }
  if (under_way_since_ == MonotonicTime::max()) under_way_since_ = now();
  if (wanted_.label().empty() || status_.request == wanted_.request()) return MonotonicTime::max();
  const MonotonicTime at =
      status_.label.empty() ? under_way_since_ + kFirstWordPatience : under_way_since_;
  if (now() < at) return at;
  if (!looked_)
    show(kPending, "the driver has not answered yet");
  else if (phase_ == Phase::kRecovering)
    show(kPending, "what was interrupted is being finished");
  else if (phase_ == Phase::kChecking)
    show(kPending, "it is being checked against the hardware");
  else
    show(kPending, "the change that is under way ends first");
  return MonotonicTime::max();
}

// Neither pending nor rebooting is shown for ever. When it is to be called again.
MonotonicTime Partition::keep_deadline() {
  if (status_.state != kPending && status_.state != kRebooting) return MonotonicTime::max();
  const MonotonicTime at =
      status_at_ + (status_.state == kPending ? kPendingDeadline + options_.wait : kRebootPatience);
  if (now() < at) return at;
  if (status_.state == kPending) {
    show(kFailed, "not finished in time: " + status_.reason + "; it goes on");
    return MonotonicTime::max();
  }
  show(kFailed, "a reboot was asked for, and the machine has not restarted");
  retry_later(false);
  return retry_at_;
}

// One reboot for a request: a mode that is wrong after it is a failure. Without a memory of it
// there is none: the machine would reboot again and again.
void Partition::try_reboot(const Error& error) {
  passing_ = false;
  const auto failed = [&](const std::string& why) {
    retry_later(false);
    settle(kFailed, error.text() + "; " + why);
  };
  if (wanted_.rebooted_for(request_)) return failed("a reboot did not help");
  if (!wanted_.remember_reboot(request_))
    return failed(
        "it is not rebooted, because the state folder cannot keep that it was: make room there");
  show(kRebooting, error.text());
  log_.warning("MIG: rebooting: {}", error.text());
  if (const Status asked = ports_.reboot->reboot(); !asked) {
    (void)wanted_.remember_reboot("");
    return failed("and it cannot be rebooted: " + asked.error().text());
  }
  settled_ = true;
}

void Partition::settle(std::string state, std::string reason) {
  settled_ = true;
  show(std::move(state), std::move(reason));
}

void Partition::show(std::string state, std::string reason) {
  ports::MigStatus next{wanted_.label(), std::move(state), std::move(reason), wanted_.request(),
                        status_.since};
  if (next.label.empty()) next.request.clear();
  const bool turned = next.state != status_.state || next.request != status_.request;
  if (turned) {
    next.since = ports_.clock.wall();
    status_at_ = now();
  }
  // Said once also when it is nothing: an earlier life's word may still be shown.
  if (std::exchange(shown_, true) && next == status_) return;
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

std::optional<std::string> Partition::drift() const {
  for (const ports::Gpu& gpu : gpus_) {
    const auto made = made_.find(gpu.uuid);
    if (made == made_.end() || made->second.text == mig_text(gpu)) continue;
    const Made& was = made->second;
    if (was.text.empty() && (was.devices.empty() || !was.looked)) continue;
    return fmt::format("GPU {}: another program changed it: it was {}, and is {}; {}",
                       gpu.index.value, was.text.empty() ? "as the label wants it" : was.text,
                       mig_text(gpu), options_.how_to_ask_again);
  }
  return std::nullopt;
}

void Partition::notice_drift() {
  if (status_.state != kSuccess) return;
  if (const auto changed = drift()) show(kFailed, *changed);
}

}  // namespace gpuslice::agent
