// The worker of NVML: first in, first out, one question at a time.

#include <fmt/format.h>

#include <algorithm>

#include "mig/check.h"
#include "mig/holders.h"
#include "node_model.h"
#include "places.h"

namespace gpuslice::dst {

using std::chrono::milliseconds;
using std::chrono::seconds;

void NodeModel::ask_driver(Question question) {
  port_call();
  questions_.push_back(std::move(question));
  if (!driver_busy_) next_question();
}

void NodeModel::next_question() {
  driver_busy_ = !questions_.empty();
  if (!driver_busy_) return;
  if (driver_latency_ > kQuickDriver) kept_from_looking_until(now() + driver_latency_);
  after_for_agent(driver_latency_ + milliseconds(random_.below(20)), [this] { begin_question(); });
}

void NodeModel::begin_question() {
  if (now() < driver_hangs_until_) {
    kept_from_looking_until(now() + seconds(1));
    return after_for_agent(seconds(1), [this] { begin_question(); });
  }
  const Question question = std::move(questions_.front());
  questions_.pop_front();
  Task answer = question();
  const Duration waited = hardware_.waited();
  kept_from_looking_until(now() + waited);
  after_for_agent(waited, [this, answer = std::move(answer)] {
    answer();
    next_question();
  });
}

void NodeModel::ask_inventory() {
  ask_driver([this]() -> Task {
    if (driver_fails_ > 0) {
      --driver_fails_;
      return [this] {
        demand_all();
        agent_->on_inventory(fail(Code::kFailed, "nvmlDeviceGetCount_v2: Unknown Error (999)"));
      };
    }
    return [this, inventory = hardware_.inventory(), uuids = hardware_.uuids(),
            ill = hardware_.illnesses()]() mutable {
      if (!inventory) demand_all();
      if (inventory) {
        demand(ill);
        look_at_counters(*inventory);
        seen_uuids_ = std::move(uuids);
        for (const ports::Gpu& gpu : inventory->gpus) {
          shown_.insert(gpu.uuid);
          for (const ports::MigDevice& device : gpu.mig_devices) shown_.insert(device.uuid);
        }
        if (!change_) withdrawals_.changed();
      }
      agent_->on_inventory(std::move(inventory));
    };
  });
}

// --- changes of MIG
// -------------------------------------------------------------------------------------------------

mig::Ports NodeModel::change_ports() {
  sim::WorldNvml& nvml = hardware_.nvml();
  return {nvml, nvml, nvml, *this, hardware_, *this, hardware_};
}

std::vector<std::string> NodeModel::unlisted_ids() const {
  std::vector<std::string> out;
  const Duration grace = agent::AgentOptions{}.allocation_grace;
  const std::vector<agent::LedgerEntry> entries = agent_->ledger();
  for (const agent::LedgerEntry& entry : entries)
    if (agent::may_be_unlisted(entry, now(), grace)) out.push_back(entry.id);
  return out;
}

mig::Options NodeModel::change_options() {
  mig::Options options;
  options.journal_folder = std::string(kState) + "/mig";
  options.lock_folder = "/run/gpuslice/mig";
  // As bin/holders.cc asks.
  options.holders = [this](const mig::GpuState& state) -> Result<std::vector<mig::Holder>> {
    if (!agent_ || !kubelet_up_ || pods_unknown_ > 0)
      return fail(Code::kUnavailable, "which pods hold devices cannot be asked");
    std::vector<ports::PodDevices> pods;
    for (const Pod& pod : pods_)
      pods.push_back({"default", pod.name, "main", pod.resource, pod.ids});
    const std::vector<mig::Holder> by_pods = mig::pod_holders(state, pods);
    // Whoever computes here does so in a pod.
    return mig::merged(
        mig::with_pods(mig::process_holders(state), by_pods, [](uint32_t) { return true; }),
        {by_pods, mig::ledger_holders(state, unlisted_ids())});
  };
  return options;
}

NodeModel::Task NodeModel::in_change(const std::function<Task()>& work) {
  hardware_.in_change(true);
  Task answer = work();
  hardware_.in_change(false);
  return answer;
}

void NodeModel::recover(std::vector<std::string> gpus) {
  ask_driver([this, gpus = std::move(gpus)]() -> Task {
    return in_change([&]() -> Task {
      events_paused_ = true;
      const auto reports = mig::recover_all(change_ports(), change_options(), gpus);
      return [this, reports] {
        events_paused_ = false;
        withdrawals_.excuse();
        agent_->on_mig_recovered(reports);
      };
    });
  });
}

void NodeModel::check(std::vector<agent::MigTask> tasks) {
  ask_driver([this, tasks = std::move(tasks), wishes = wishes_]() -> Task {
    std::vector<agent::MigChecked> checked;
    std::set<std::string> kept;
    forget_who_may_go();
    for (const agent::MigTask& task : tasks) {
      const agent::MigChecked& one = checked.emplace_back(
          mig::check(hardware_.nvml(), change_options().holders, task.gpu, task.wish));
      if (wait_ == Duration::zero() || !one.refused || one.refused->code != Code::kInUse) continue;
      kept.insert(one.going.begin(), one.going.end());
      judge_holders(hardware_.state_of(task.gpu), task.wish, one.holders);
    }
    if (!kept.empty()) strike(Fault::kHoldersWaited);
    // One GPU after another is looked at, and other things happen meanwhile.
    if (evicts_) hardware_.wait(milliseconds(random_.between(0, 2000)));
    return [this, checked, kept, wishes] {
      if (wait_ > Duration::zero()) withdrawals_.keeping(kept);
      agent_->on_mig_checked(checked);
      keep_back(checked, wishes);
    };
  });
}

// The agent has just heard of this look: where it waits for holders, what would go is kept back.
// Not if there was another wish meanwhile, nor while the API server's word is awaited. The agent
// waits from the wish on: the newest may be about something else than MIG, or unheard.
void NodeModel::keep_back(const std::vector<agent::MigChecked>& checked, uint64_t wishes) {
  kept_back_.wish_is_over();
  const bool awaits_word = now() < agent_born_ + agent::kFirstLabelPatience;
  if (wishes != wishes_ || awaits_word || mig_status_.state != "pending" ||
      now() >= std::min(wished_at_, request_shown_at_) + wait_)
    return;
  for (const agent::MigChecked& one : checked)
    if (one.refused && one.refused->code == Code::kInUse)
      kept_back_.waits(one.gpu.uuid, {one.going.begin(), one.going.end()});
}

void NodeModel::prepare(agent::MigTask task) {
  ask_driver([this, task = std::move(task)]() -> Task {
    return in_change([&]() -> Task {
      change_ = std::make_unique<mig::Change>(change_ports(), change_options(), task.gpu);
      const agent::MigPrepared prepared = mig::prepare(*change_, task.wish);
      if (!prepared.ready) change_.reset();
      forget_who_may_go();
      // Who holds its lock is no holder, and the GPU may be lost.
      if (!prepared.ready && !prepared.report.refusal.holders.empty())
        judge_holders(hardware_.state_of(task.gpu), task.wish, prepared.report.refusal.holders);
      return [this, prepared] {
        prepared_ = {prepared.going.begin(), prepared.going.end()};
        if (prepared.ready)
          withdrawals_.changing(prepared_);
        else
          tell(prepared.report);
        agent_->on_mig_prepared(prepared);
      };
    });
  });
}

// What failed is tried again, and may take the same away again.
void NodeModel::tell(const mig::Report& report) {
  if (report.end != mig::End::kDone && report.end != mig::End::kAlready) withdrawals_.excuse();
  if (report.end != mig::End::kRefused) kept_back_.waits_no_more(report.gpu.uuid);
  kept_back_.has_ended("a change");
}

void NodeModel::execute() {
  kept_back_.goes("a change", prepared_);
  ask_driver([this]() -> Task {
    return in_change([&]() -> Task {
      events_paused_ = change_->report().plan.mode_changes;
      change_->execute();
      const mig::Report report = change_->report();
      change_.reset();
      return [this, report] {
        events_paused_ = false;
        tell(report);
        agent_->on_mig_done(report);
      };
    });
  });
}

void NodeModel::abandon() {
  ask_driver([this]() -> Task {
    return in_change([&]() -> Task {
      change_->abandon();
      const mig::Report report = change_->report();
      change_.reset();
      return [this, report] {
        tell(report);
        agent_->on_mig_done(report);
      };
    });
  });
}

void NodeModel::show(const ports::MigStatus& status) {
  port_call();
  if (status.state != mig_status_.state || status.request != mig_status_.request)
    mig_status_at_ = now();
  if (status.request != mig_status_.request) request_shown_at_ = now();
  mig_status_ = status;
  if (status.state != "pending") {
    withdrawals_.changed();
    kept_back_.wish_is_over();
  }
  // What was kept back is offered again, and goes once more when nobody is in the way.
  if (status.state == "failed" && wait_ > Duration::zero()) withdrawals_.excuse();
  note(fmt::format("MIG {} {}", status.label, status.state));
  if (api_node_) api_node_->mig_board()->show(status);
}

// --- what the hardware does
// -----------------------------------------------------------------------------------------

bool NodeModel::may_be_offered(const std::string& uuid) {
  return seen_uuids_.contains(uuid) || hardware_.uuids().contains(uuid);
}

// What others took away from pods is no fault of the agent's.
void NodeModel::after_foreign() {
  const std::set<std::string>& there = hardware_.uuids();
  for (const Pod& pod : pods_)
    for (const auto& [uuid, generation] : pod.generations)
      if (!there.contains(uuid) || hardware_.generation(uuid) != generation) taken_.insert(uuid);
  withdrawals_.excuse();
}

}  // namespace gpuslice::dst
