#include "bin/agent_mig.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace gpuslice::bin {

using agent::MigChecked;
using agent::MigPrepared;
using agent::MigTask;

WorkerMig::WorkerMig(const std::string& root, const Places& places, std::string kubelet_dir,
                     WorkerDriver& driver, AgentEvents& events, host::EventLoop& loop,
                     LedgerSource ledger, MigAnswers answers)
    : driver_(driver),
      events_(events),
      loop_(loop),
      answers_(std::move(answers)),
      reset_(root),
      files_(root) {
  options_.journal_folder = places.journals();
  options_.lock_folder = places.locks();
  options_.holders = holder_source(std::move(kubelet_dir), std::move(ledger));
}

WorkerMig::~WorkerMig() = default;

namespace {

// The events' thread lets the driver go meanwhile.
class WithoutEvents {
 public:
  WithoutEvents(AgentEvents& events, AgentEvents::Changing gpu) : events_(events), gpu_(gpu) {
    (void)events_.pause(gpu_);
  }
  ~WithoutEvents() { events_.resume(gpu_); }
  WithoutEvents(const WithoutEvents&) = delete;
  WithoutEvents& operator=(const WithoutEvents&) = delete;

 private:
  AgentEvents& events_;
  const AgentEvents::Changing gpu_;
};

}  // namespace

mig::Ports WorkerMig::ports(nvml::Session& session) {
  return {session, session, reset_, files_, locks_, clock_, pause_};
}

void WorkerMig::run(const std::string& gpu, std::function<Answer(nvml::Session&)> work) {
  // One question is under way at a time: the worker's queue has room for it, unless the process
  // ends.
  (void)driver_.run(gpu, [this, work = std::move(work)](nvml::Session& session) {
    // Without a driver every call says so, and so does the answer.
    (void)session.open();
    Answer answer = work(session);
    session.close();
    CHECK(loop_.post(std::move(answer)), "the event loop has no room for an answer of the driver");
  });
}

void WorkerMig::recover(std::vector<std::string> gpus) {
  run("", [this, gpus = std::move(gpus)](nvml::Session& session) -> Answer {
    const WithoutEvents quiet(events_, {});  // a mode may have to be switched back
    return [this, reports = mig::recover_all(ports(session), options_, gpus)] {
      answers_.recovered(reports);
    };
  });
}

void WorkerMig::check(std::vector<MigTask> tasks) {
  run("", [this, tasks = std::move(tasks)](nvml::Session& session) -> Answer {
    std::vector<MigChecked> checked;
    for (const MigTask& task : tasks)
      checked.push_back(mig::check(session, options_.holders, task.gpu, task.wish));
    return [this, checked = std::move(checked)] { answers_.checked(checked); };
  });
}

void WorkerMig::prepare(MigTask task) {
  under_change_ = task.gpu.uuid;
  run(under_change_, [this, task = std::move(task)](nvml::Session& session) -> Answer {
    change_ = std::make_unique<mig::Change>(ports(session), options_, task.gpu);
    MigPrepared prepared = mig::prepare(*change_, task.wish);
    if (!prepared.ready) change_.reset();
    return [this, prepared = std::move(prepared)] { answers_.prepared(prepared); };
  });
}

WorkerMig::Answer WorkerMig::finish_change(bool execute) {
  if (execute) {
    std::optional<WithoutEvents> quiet;
    if (change_->report().plan.mode_changes)
      quiet.emplace(events_, change_->report().gpu.index.value);
    change_->execute();
  } else {
    change_->abandon();
  }
  mig::Report report = change_->report();
  change_.reset();
  return [this, report = std::move(report)] { answers_.done(report); };
}

void WorkerMig::execute() {
  run(under_change_, [this](nvml::Session&) { return finish_change(true); });
}

void WorkerMig::abandon() {
  run(under_change_, [this](nvml::Session&) { return finish_change(false); });
}

void MigStatusFile::write() {
  if (!unwritten_) return;
  const ports::MigStatus status = *std::exchange(unwritten_, std::nullopt);
  const nlohmann::ordered_json json = {{"config", status.label},
                                       {"state", status.state},
                                       {"reason", status.reason},
                                       {"request", status.request},
                                       {"since", format_utc(status.since)}};
  // The log says it as well: a file that cannot be written holds nothing up.
  (void)files_.write_atomic(
      path_, json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n",
      false);
}

}  // namespace gpuslice::bin
