#include "follower.h"

#include <algorithm>

namespace gpuslice::mig_test {
namespace {

constexpr Duration kManagerRetry = std::chrono::seconds(5);

}  // namespace

// --- ours

void OurFollower::begin() {
  agent_.may_reboot = may_reboot;
  agent_.reboot_fails = reboot_fails;
  agent_.instead = [this](const std::string& question,
                          const mig::GpuName&) -> std::optional<mig::Report> {
    auto error = question == "prepare" ? strike(Stage::kBefore) : std::nullopt;
    if (!error) return std::nullopt;
    mig::Report report;
    report.end = mig::End::kRefused;
    report.error = std::move(error);
    return report;
  };
  before();
  agent_.start();
}

// After a change the hardware is looked at.
void OurFollower::before() { agent_.looks = !strike(Stage::kAfter); }

void OurFollower::label(std::optional<std::string> label) {
  before();
  agent_.label(std::move(label));
}
void OurFollower::config(const std::string& text) {
  before();
  agent_.config(text);
}
void OurFollower::pass(Duration duration) {
  before();
  agent_.pass(duration);
}
ports::MigStatus OurFollower::status() const {
  return agent_.shown.empty() ? ports::MigStatus{} : agent_.shown.back();
}
bool OurFollower::serves() {
  const std::set<std::string>& withheld = agent_.partition().withheld();
  return agent_.partition().may_offer() && withheld.empty();
}

// --- the MIG manager in small

void Manager::label(std::optional<std::string> label) {
  const bool same = label == label_;
  label_ = std::move(label);
  if (same && has(Defect::kM8)) return;
  text_ = newest_;
  reconfigure();
}

void Manager::config(const std::string& text) {
  newest_ = text;
  if (has(Defect::kM9) || !label_) return;
  text_ = newest_;
  reconfigure();
}

void Manager::pass(Duration duration) {
  const MonotonicTime until = node.time + duration;
  while (retry_at_ <= until) {
    node.time = std::max(node.time, retry_at_);
    reconfigure();
  }
  node.time = std::max(node.time, until);
}

void Manager::reconfigure() {
  retry_at_ = MonotonicTime::max();
  if (!label_) {
    if (has(Defect::kM6)) return failed("the selected configuration is empty");
    return show("", "");
  }
  const auto wish = wishes_of(node, text_, *label_);
  if (!wish) return failed(wish.error().message);
  if (as_wanted(*wish)) {
    if (!has(Defect::kM3)) paused_ = false;
    succeeded_once_ = true;
    return show("success", "");
  }
  show("pending", "");
  paused_ = true;
  if (const auto error = strike(Stage::kBefore)) {
    if (has(Defect::kM1)) return;
    return failed(error->message);
  }
  if (const auto error = change(*wish, true)) {
    if (may_reboot) {
      show("rebooting", "");
      if (!reboot_fails || has(Defect::kM5)) return;
      return failed(error->message + "; and the node cannot be rebooted");
    }
    if (!has(Defect::kM7)) return failed(error->message);
  }
  if (const auto error = change(*wish, false)) return failed(error->message);
  if (const auto error = strike(Stage::kAfter)) {
    if (has(Defect::kM4)) return;
    return failed(error->message);
  }
  paused_ = false;
  succeeded_once_ = true;
  show("success", "");
}

bool Manager::as_wanted(const mig::NodeWish& wish) {
  return std::all_of(wish.gpus.begin(), wish.gpus.end(), [&](const auto& one) {
    const mig::Decision decision = mig::decide(node.look(one.first), one.second, {});
    return decision.plan && decision.plan->nothing_to_do();
  });
}

std::optional<Error> Manager::change(const mig::NodeWish& wish, bool mode_only) {
  mig::Options options = Node::options();
  options.mode_only = mode_only;
  for (const auto& [index, one] : wish.gpus) {
    if (!mode_only && node.look(index).mode.current != one.mig)
      return Error{
          Code::kFailed, fmt::format("GPU {}: creating instances: Not Supported", index), {}};
    mig::Change change(node.ports(), options, node.gpu(index));
    change.run(one);
    if (change.report().error) return change.report().error;
  }
  return std::nullopt;
}

void Manager::failed(const std::string& reason) {
  const bool stays = succeeded_once_ && (has(Defect::kM2) || has(Defect::kM3));
  if (!stays) paused_ = false;
  show("failed", reason);
  if (!has(Defect::kM8)) retry_at_ = node.time + kManagerRetry;
}

void Manager::show(std::string state, std::string reason) {
  status_.label = label_.value_or("");
  status_.state = std::move(state);
  status_.reason = std::move(reason);
}

}  // namespace gpuslice::mig_test
