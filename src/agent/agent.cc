#include "agent/agent.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/gpu_memo.h"
#include "agent/ledger_file.h"
#include "base/text.h"

namespace gpuslice::agent {
namespace {

using config::Flag;

constexpr size_t kMaxLedgerBytes = 64 * 1024 * 1024;
// An unanswered question for the pods is asked again after this.
constexpr Duration kPodsPatience = std::chrono::seconds(15);

}  // namespace

Agent::Agent(AgentOptions options, AgentPorts ports, Log& log)
    : options_(std::move(options)),
      ports_(ports),
      log_(log),
      desk_([this] { return ports_.clock.now(); }, options_.seed),
      config_(options_.config, ports_.files, log_),
      labels_(
          options_.labels, ports_.files, log_,
          std::chrono::duration_cast<std::chrono::seconds>(ports_.clock.wall().time_since_epoch())
              .count()),
      cdi_(options_.cdi, options_.root, ports_.files, log_),
      partition_(options_.partition,
                 {ports_.files, ports_.clock, ports_.mig, ports_.mig_status, ports_.reboot,
                  ports_.evictor},
                 log_),
      health_(options_.health, options_.health_path(), ports_.files, log_),
      status_(std::make_shared<AgentStatus>()) {}

Agent::~Agent() { leave(); }

void Agent::leave() {
  for (auto& [resource, registration] : registrations_) ports_.kubelet.stop(resource);
  registrations_.clear();
}

void Agent::start() {
  if (auto boot = ports_.files.boot_id()) boot_id_ = *boot;
  read_ledger();
  read_memo();
  health_.start(boot_id_);
  look_at_config_ = true;
  partition_.start();
  next_inventory_ = ports_.clock.now();
  next_pods_ = ports_.clock.now();
  pods_heard_by_ =
      ports_.clock.now() + (desk_.held().empty() ? options_.pods_patience_without_ledger
                                                 : options_.pods_patience_at_start);
}

void Agent::read_ledger() {
  if (options_.ledger_path.empty()) return;
  const auto text = ports_.files.read(options_.ledger_path, kMaxLedgerBytes);
  if (!text) return;  // a first start
  // They count until the kubelet's first word: nothing that was given out before our start is still
  // under way.
  auto entries = parse_ledger(*text, boot_id_, ports_.clock.now() - options_.allocation_grace);
  if (!entries) {
    log_.warning("ledger: {}: {}; what pods hold is learnt from the kubelet", options_.ledger_path,
                 entries.error().message);
    return;
  }
  desk_.restore(*entries);
  ledger_written_ = ledger_seen_ = desk_.ledger_version();
}

void Agent::write_ledger() {
  const uint64_t version = desk_.ledger_version();
  if (options_.ledger_path.empty() || version == ledger_written_) return;
  const Status written = ports_.files.write_atomic(options_.ledger_path,
                                                   format_ledger(desk_.ledger(), boot_id_), false);
  if (!written) {
    log_.once(Level::kWarning, "ledger",
              fmt::format("ledger: {}; after a restart what pods hold is learnt from the kubelet",
                          written.error().message));
    return;
  }
  log_.over("ledger");
  ledger_written_ = version;
}

void Agent::read_memo() {
  if (options_.memo_path().empty()) return;
  const auto text = ports_.files.read(options_.memo_path(), kMaxLedgerBytes);
  if (!text) return;
  auto gpus = parse_gpu_memo(*text, boot_id_);
  if (gpus)
    known_ = std::move(*gpus);
  else
    log_.warning("{}: {}; a GPU that is lost now is listed once it answers", options_.memo_path(),
                 gpus.error().message);
}

void Agent::write_memo() {
  if (!memo_dirty_ || options_.ledger_path.empty() || known_.empty()) return;
  std::string text = format_gpu_memo(known_, boot_id_);
  if (text != memo_written_ && !ports_.files.write_atomic(options_.memo_path(), text, false))
    return;
  memo_written_ = std::move(text);
  memo_dirty_ = false;
}

void Agent::on_inventory(Result<ports::Inventory> inventory) {
  inventory_asked_ = false;
  const MonotonicTime now = ports_.clock.now();
  tables_dirty_ = true;
  if (!inventory) {
    ++inventory_errors_;
    next_inventory_ = now + options_.inventory_retry;
    driver_text_ = inventory.error().message;
    log_.once(Level::kWarning, "driver",
              fmt::format("driver: {}; waiting for it", inventory.error().message));
    all_silent("the driver does not answer: " + inventory.error().message);
    return;
  }
  log_.over("driver");
  read_cap_minors(*inventory);
  driver_seen_ = true;
  driver_text_ = inventory->driver.version;
  driver_ = inventory->driver;
  labels_dirty_ = true;
  Hardware fresh;
  silent_.clear();
  std::set<std::string> mute;  // silent, and not lost
  fresh.gpus = std::move(inventory->gpus);
  fresh.topology = std::move(inventory->topology);
  for (const ports::SilentGpu& silent : inventory->silent) {
    ++inventory_errors_;
    const auto seen = std::find_if(known_.begin(), known_.end(),
                                   [&](const ports::Gpu& g) { return g.index == silent.index; });
    const ports::Gpu* const known = seen != known_.end() ? &*seen
                                    : silent.gpu         ? &*silent.gpu
                                                         : nullptr;
    const std::string key = fmt::format("gpu {}", silent.index.value);
    log_.once(
        Level::kError, key,
        fmt::format("{}; {}", silent.error.message,
                    known == nullptr ? "it is not offered until it answers"
                                     : "its devices are unhealthy, the other GPUs are served"));
    if (known == nullptr) continue;
    const bool moved = std::any_of(fresh.gpus.begin(), fresh.gpus.end(),
                                   [&](const ports::Gpu& g) { return g.uuid == known->uuid; });
    if (moved) continue;
    silent_[known->uuid] = silent.error.message;
    if (silent.error.code != Code::kGpuLost) mute.insert(known->uuid);
    fresh.gpus.push_back(*known);
  }
  for (const ports::Gpu& gpu : fresh.gpus)
    if (!silent_.contains(gpu.uuid)) log_.over(fmt::format("gpu {}", gpu.index.value));
  std::sort(fresh.gpus.begin(), fresh.gpus.end(),
            [](const ports::Gpu& a, const ports::Gpu& b) { return a.index < b.index; });
  if (fresh.gpus.empty())
    log_.once(Level::kWarning, "gpus", "driver: it shows no GPU; waiting for one");
  else
    log_.over("gpus");
  fresh.withheld = hardware_.withheld;
  fresh.kind = hardware_.kind;
  hardware_ = std::move(fresh);
  gpus_shown_.reset();
  const MonotonicTime begun = inventory->begun == MonotonicTime{} ? now : inventory->begun;
  health_.on_inventory(
      {hardware_.gpus, silent_, mute, driver_.version, begun, now, ports_.clock.wall()});
  merge_health();
  withdrawals_.looked(begun);
  partition_.on_inventory(hardware_.gpus, silent_);
  known_ = hardware_.gpus;
  memo_dirty_ = true;
  next_inventory_ =
      now + (hardware_.gpus.empty() ? options_.inventory_retry : options_.inventory_interval);
}

void Agent::on_registered(const std::string& resource, Status status) {
  if (const auto it = registrations_.find(resource); it != registrations_.end())
    it->second->on_registered(status, ports_.clock.now());
  next_pods_ = std::min(next_pods_, ports_.clock.now());
}

void Agent::on_pods(Result<std::vector<ports::PodDevices>> pods) {
  pods_asked_ = false;
  // Before the first tables are made it is worth asking again, if something was given out: see
  // pods_patience_at_start.
  constexpr Duration kAskAgain = std::chrono::milliseconds(200);
  // Where nobody serves pod-resources and nothing was given out, there is nothing to wait for.
  const bool nobody = !pods && pods.error().code == Code::kUnavailable && desk_.held().empty();
  if (!pods && !pods_heard_ && !nobody) {
    next_pods_ = ports_.clock.now() + kAskAgain;
    return;
  }
  if (!pods_heard_) tables_dirty_ = true;
  pods_heard_ = true;
  const MonotonicTime now = ports_.clock.now();
  next_pods_ = now + (releases_awaited() ? options_.pods_interval_waiting : options_.pods_interval);
  if (!pods) {
    log_.once(
        Level::kInfo, "pods",
        fmt::format("kubelet: which pods hold devices is not known: {}", pods.error().message));
    return;
  }
  log_.over("pods");
  pods_ = std::make_shared<const std::vector<ports::PodDevices>>(std::move(*pods));
  desk_.reconcile(*pods_, options_.allocation_grace);
}

void Agent::on_kubelet_folder_changed() { next_pods_ = std::min(next_pods_, ports_.clock.now()); }

MonotonicTime Agent::reconcile() {
  ++reconciles_;
  const MonotonicTime now = ports_.clock.now();
  if (look_at_config_ || now >= look_again_at_) {
    look_at_config_ = false;
    config_.look();
    look_again_at_ = config_.look_again() ? now + options_.config_retry : MonotonicTime::max();
  }
  judge_config();
  if (const uint64_t version = desk_.ledger_version(); version != ledger_seen_) {
    ledger_seen_ = version;
    tables_dirty_ = true;
    next_pods_ = std::min(next_pods_, now + options_.pods_interval_waiting);
    tell_of_unhealthy_allocations();
  }
  // No kubelet, no pods: then the ledger is all there is to know.
  if (!pods_heard_ && (now >= pods_heard_by_ || ports_.kubelet.kubelet_socket().empty())) {
    pods_heard_ = true;
    tables_dirty_ = true;
  }
  const MonotonicTime partition_next = step_partition(now);
  if (tables_dirty_) make_tables(now);
  look_at_labels();
  // Once nobody is given any more what a change of MIG takes away, the change may begin.
  if (partition_.awaits_withdrawal() && nobody_gets(partition_.withheld())) partition_.withdrawn();
  MonotonicTime next = std::min(partition_next, step_registrations(now));
  next = std::min(next, look_again_at_);
  if (!pods_heard_) next = std::min(next, pods_heard_by_);
  if (tables_dirty_) next = now;
  next = std::min(next, ask_what_is_due(now));
  write_ledger();
  write_memo();
  health_.write();
  publish_status();
  return next;
}

MonotonicTime Agent::step_partition(MonotonicTime now) {
  const MonotonicTime next = partition_.step();
  if (partition_.wants_inventory()) {
    next_inventory_ = now;
    next_pods_ = std::min(next_pods_, now);  // what is not held any more leaves the lists with it
  }
  // What may be offered changes by the driver's answers and by time as well.
  std::set<std::string> withheld = withdrawals_.withheld(hardware_.gpus);
  withheld.insert(partition_.withheld().begin(), partition_.withheld().end());
  if (hardware_.withheld != withheld || may_offer_ != partition_.may_offer()) {
    hardware_.withheld = std::move(withheld);
    may_offer_ = partition_.may_offer();
    tables_dirty_ = true;
  }
  std::string kind = partition_.passing() ? tables_.kind : "";
  if (hardware_.kind != kind) {
    hardware_.kind = std::move(kind);
    tables_dirty_ = true;
  }
  return next;
}

void Agent::judge_config() {
  // Whether it holds on this node cannot be said before the first sight of the hardware, and
  // nothing could be served either.
  if (!config_.candidate() || !driver_seen_) return;
  Status fits = check_device_table(hardware_, *config_.candidate(), desk_.held());
  if (fits) {
    // MIG comes and goes: it must hold on the whole GPUs as well.
    Hardware whole = hardware_;
    for (ports::Gpu& gpu : whole.gpus) gpu.mig.reset();
    fits = check_device_table(whole, *config_.candidate(), {});
  }
  if (fits) {
    config_.accept();
    take_clean_probes();
  } else {
    config_.refuse(fits.error());
  }
  tables_dirty_ = labels_dirty_ = true;
}

void Agent::warn(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings)
    if (std::find(warned_.begin(), warned_.end(), warning) == warned_.end())
      log_.warning("{}", warning);
  warned_ = warnings;
}

void Agent::make_tables(MonotonicTime now) {
  tables_dirty_ = false;
  if (!config_.in_force() || !driver_seen_ || !pods_heard_ || !partition_.may_offer()) return;
  const uint64_t ledger = desk_.ledger_version();
  // There may be more hardware than when the configuration was accepted: then what fits is offered.
  auto tables = make_device_table(hardware_, *config_.in_force(), desk_.held(), Oversize::kCut);
  if (!tables) return log_.error("{}", tables.error().message);
  warn(tables->warnings);
  AnswerRules rules = answer_rules(*config_.in_force());
  // A spec is there before a device of it is offered.
  cdi_.look({hardware_, driver_.version, rules.caps, *config_.in_force(), rules.form.dev_root,
             host_root(*config_.in_force(), Flag::kNvidiaDriverRoot)},
            rules.form);
  judge_imex(*config_.in_force(), rules.form);
  if (!desk_.set_tables(*tables, std::move(rules), ledger)) {
    tables_dirty_ = true;  // something was given out meanwhile: it must be in them
    return;
  }
  tables_ = std::move(*tables);
  withheld_in_force_ = hardware_.withheld;
  for (const auto& [name, table] : tables_.resources) {
    auto& registration = registrations_[name];
    if (!registration)
      registration =
          std::make_unique<Registration>(name, desk_.service(name), ports_.kubelet, log_);
    registration->show(table->list);
  }
  for (auto& [name, registration] : registrations_)
    if (!tables_.resources.contains(name)) registration->leave(now);
  // What goes when its pod ends is asked after from now on, not when it would have been asked
  // anyway.
  const MonotonicTime soon = now + options_.pods_interval_waiting;
  if (next_pods_ > soon && releases_awaited()) next_pods_ = soon;
}

MonotonicTime Agent::step_registrations(MonotonicTime now) {
  MonotonicTime next = MonotonicTime::max();
  for (auto it = registrations_.begin(); it != registrations_.end();) {
    next = std::min(next, it->second->step(now));
    it = it->second->gone() ? registrations_.erase(it) : std::next(it);
  }
  return next;
}

bool Agent::releases_awaited() const { return tables_.awaits_releases && desk_.ledger_size() > 0; }

MonotonicTime Agent::ask_what_is_due(MonotonicTime now) {
  MonotonicTime next = MonotonicTime::max();
  if (!inventory_asked_) {
    if (now >= next_inventory_) {
      inventory_asked_ = true;  // before asking: an answer may come at once
      inventory_asked_at_ = now;
      ports_.driver.ask_inventory();
    } else {
      next = next_inventory_;
    }
  } else if (!partition_.at_work()) {
    next = watch_driver(now);
  }
  if (pods_asked_ && now - pods_asked_at_ >= kPodsPatience) pods_asked_ = false;
  const bool interested = !registrations_.empty() || !pods_heard_;
  if (pods_asked_) {
    next = std::min(next, pods_asked_at_ + kPodsPatience);
  } else if (interested) {
    if (now >= next_pods_ && !ports_.kubelet.kubelet_socket().empty()) {
      pods_asked_ = true;
      pods_asked_at_ = now;
      next_pods_ = now + options_.pods_interval;
      ports_.kubelet.list_pods();
      next = std::min(next, pods_asked_ ? pods_asked_at_ + kPodsPatience : next_pods_);
    } else {
      next = std::min(next, pods_heard_ ? std::max(next_pods_, now + options_.pods_interval_waiting)
                                        : next_pods_);
    }
  }
  return next;
}

void Agent::publish_status() {
  auto status = std::make_shared<AgentStatus>();
  status->driver = driver_text_;
  status->config_generation = config_.generation();
  status->reloads_good = config_.reloads_good();
  status->reloads_bad = config_.reloads_bad();
  status->config_from = config_.from();
  status->config_problem = config_.problem();
  if (gpus_shown_ == nullptr)
    gpus_shown_ = std::make_shared<const std::vector<ports::Gpu>>(hardware_.gpus);
  status->gpus = gpus_shown_;
  status->unhealthy = hardware_.unhealthy;
  status->xids = health_.counts();
  status->troubles = health_.troubles();
  // The version first: what is given out meanwhile is seen at the next turn.
  if (const uint64_t version = desk_.ledger_version();
      held_shown_ == nullptr || held_shown_version_ != version) {
    held_shown_ = std::make_shared<const HeldIds>(desk_.held());
    held_shown_version_ = version;
  }
  status->held = held_shown_;
  status->mig = partition_.status();
  status->mig_counts = partition_.counts();
  status->mig_troubles = partition_.troubles();
  status->pods = pods_;
  status->reconciles = reconciles_;
  status->inventory_errors = inventory_errors_;
  const AllocationDesk::Counts counts = desk_.counts();
  status->allocations = counts.allocated;
  status->unhealthy_allocations = counts.unhealthy;
  status->refusals = counts.refused;
  status->preferred_calls = counts.preferred;
  status->ledger_forgotten = counts.forgotten;
  status->withdrawals_refused = withdrawals_.refused();
  std::string unregistered;
  for (const auto& [name, registration] : registrations_) {
    ResourceStatus& resource = status->resources[name];
    resource.name = name;
    resource.registered = registration->registered();
    resource.trouble = registration->trouble();
    resource.registrations = registration->registrations();
    resource.failures = registration->failures();
    if (const auto it = tables_.resources.find(name); it != tables_.resources.end()) {
      resource.table = it->second;
      for (const ports::Device& device : it->second->list->devices)
        ++(device.healthy ? resource.healthy : resource.unhealthy);
    }
    if (const auto it = status->held->find(name); it != status->held->end())
      resource.held = it->second.size();
    if (!resource.registered && !registration->leaving() && unregistered.empty())
      unregistered = fmt::format(
          "{} is not registered: {}", name,
          resource.trouble.empty() ? "the kubelet has not answered yet" : resource.trouble);
  }
  if (!config_.in_force() && !config_.candidate())
    status->why_not_ready = config_.problem().empty() ? "no configuration yet" : config_.problem();
  else if (!driver_seen_)
    status->why_not_ready = "no driver: " + driver_text_;
  else if (registrations_.empty())
    status->why_not_ready =
        hardware_.gpus.empty()
            ? "no GPU on this node"
            : "nothing is offered" + (warned_.empty() ? "" : ": " + warned_.front());
  else if (!imex_trouble_.empty())
    status->why_not_ready = imex_trouble_;
  else if (!cdi_.trouble().empty())
    status->why_not_ready = cdi_.trouble();
  else
    status->why_not_ready = unregistered;
  status->ready = status->why_not_ready.empty();
  const std::lock_guard lock(status_mutex_);
  status_ = std::move(status);
}

std::shared_ptr<const AgentStatus> Agent::status() const {
  const std::lock_guard lock(status_mutex_);
  return status_;
}

}  // namespace gpuslice::agent
