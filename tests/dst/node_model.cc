#include "node_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "mig/holders.h"

namespace gpuslice::dst {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* kConfig = "/etc/gpuslice/config.yaml";
constexpr const char* kLastGood = "/var/lib/gpuslice/last-good.yaml";
constexpr const char* kLedger = "/run/gpuslice/ledger";
constexpr const char* kMigConfig = "/etc/gpuslice/mig.yaml";
constexpr const char* kMigLabel = "/etc/gpuslice/mig-label";
constexpr const char* kState = "/var/lib/gpuslice";
constexpr const char* kLabels[] = {"off",   "small",   "one",  "big",
                                   "first", "toomany", "typo", "nonsense"};

std::string sharing(uint32_t replicas, const std::string& more = "") {
  return fmt::format(
      "version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - name: nvidia.com/gpu\n      "
      "replicas: {}\n{}",
      replicas, more);
}

// A list in a line of the trace.
std::string shown(const ports::DeviceList& list) {
  std::string out = std::to_string(list.devices.size());
  for (const ports::Device& d : list.devices) out += (d.healthy ? " " : " !") + d.id.substr(32);
  return out;
}

constexpr std::string_view kBadTexts[] = {
    "version: v2\n",
    "version: v1\nsharing:\n  timeSlice: {}\n",
    "version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - name: nvidia.com/gpu\n      "
    "repilcas: 4\n",
    "sharing: [\n",
    "version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - {name: nvidia.com/gpu, replicas: "
    "900000}\n",
    "apiVersion: v1\nkind: ConfigMap\ndata: {}\n",
};

}  // namespace

std::string_view fault_name(Fault fault) {
  constexpr std::string_view kNames[] = {"bad edit",
                                         "kubelet restart",
                                         "folder wiped",
                                         "our socket removed",
                                         "stream drop",
                                         "registration refused",
                                         "GPU lost",
                                         "GPU restored",
                                         "driver slow",
                                         "driver fails",
                                         "driver away",
                                         "agent killed",
                                         "reboot",
                                         "disk full",
                                         "pods unknown",
                                         "clock jump",
                                         "bad MIG edit",
                                         "MIG calls fail",
                                         "killed in change",
                                         "foreign change",
                                         "XID"};
  static_assert(std::size(kNames) == kFaults);
  return kNames[static_cast<size_t>(fault)];
}

void Trace::add(std::string_view text) {
  for (const char c : text) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  hash_ = (hash_ ^ '\n') * 1099511628211ULL;
  if (keep) lines_.emplace_back(text);
}

NodeModel::NodeModel(uint64_t seed, bool keep_trace)
    : random_(seed),
      hardware_(random_),
      log_([this](std::string_view line) { trace_.add(line.substr(0, line.size() - 1)); },
           [this] { return wall(); }) {
  trace_.keep = keep_trace;
  good_text_ = sharing(4);
  files_[kConfig] = good_text_;
  good_mig_ = files_[kMigConfig] = hardware_.mig_config(0);
  start_agent();
}

NodeModel::~NodeModel() {
  killing_ = true;
  agent_.reset();
}

void NodeModel::note(std::string_view text) {
  trace_.add(fmt::format("{} {}", now_.time_since_epoch().count() / 1'000'000, text));
}

void NodeModel::strike(Fault fault) {
  ++strikes_[static_cast<size_t>(fault)];
  note(fault_name(fault));
}

// --- time
// -----------------------------------------------------------------------------------------------------------

void NodeModel::after(Duration d, Task task) { queue_.emplace(now_ + d, std::move(task)); }

void NodeModel::after_for_agent(Duration d, Task task) {
  after(d, [this, life = agent_life_, task = std::move(task)] {
    if (life == agent_life_ && agent_) task();
  });
}

void NodeModel::run_agent() {
  if (!agent_) return;
  agent_wakes_ = agent_->reconcile();
}

void NodeModel::run_until(MonotonicTime end) {
  for (;;) {
    const MonotonicTime task = queue_.empty() ? MonotonicTime::max() : queue_.begin()->first;
    const MonotonicTime agent = agent_ ? agent_wakes_ : MonotonicTime::max();
    const MonotonicTime next = std::min(task, agent);
    if (next > end) break;
    now_ = std::max(now_, next);
    if (task <= agent) {
      Task run = std::move(queue_.begin()->second);
      queue_.erase(queue_.begin());
      run();
    }
    run_agent();
  }
  now_ = std::max(now_, end);
}

// --- the agent's life
// ---------------------------------------------------------------------------------------------------

void NodeModel::start_agent() {
  ++agent_life_;
  pods_known_ = false;
  agent::AgentOptions options;
  options.config.path = kConfig;
  options.config.last_good_path = kLastGood;
  options.ledger_path = kLedger;
  options.partition.source.config_path = kMigConfig;
  options.partition.source.label_path = kMigLabel;
  options.partition.source.state_dir = kState;
  options.partition.journal_folder = std::string(kState) + "/mig";
  agent::AgentPorts ports{*this, *this, *this, *this};
  ports.mig = this;
  ports.mig_status = this;
  agent_ = std::make_unique<agent::Agent>(std::move(options), ports, log_);
  agent_->start();
  run_agent();
}

void NodeModel::kill_agent() {
  // Nothing is said goodbye to: streams break, sockets stay as files that nobody serves.
  forget_unwritten_marks();
  killing_ = true;
  agent_.reset();
  killing_ = false;
  ++agent_life_;
  agent_wakes_ = MonotonicTime::max();
  questions_.clear();
  driver_busy_ = false;
  change_.reset();
  hardware_.in_change(false);
  hardware_.drop_locks();
  mig_status_ = {};
  for (auto& [resource, served] : served_) drop_stream(resource);
  served_.clear();
  published_.clear();
}

// --- files
// --------------------------------------------------------------------------------------------------------------

Result<std::string> NodeModel::read(const std::string& path, size_t most) {
  const auto it = files_.find(path);
  if (it == files_.end()) return fail(Code::kNotFound, "{}: no such file", path);
  if (it->second.size() > most) return fail(Code::kInvalidConfig, "{}: too long", path);
  return it->second;
}
Status NodeModel::write_atomic(const std::string& path, const std::string& text, bool) {
  hardware_.count_call();
  if (disk_full_) return fail(Code::kFailed, "{}: no space left on device", path);
  files_[path] = text;
  return {};
}
Result<std::string> NodeModel::boot_id() { return fmt::format("boot-{}", boot_); }
bool NodeModel::exists(const std::string&) { return true; }
Status NodeModel::remove(const std::string& path, bool) {
  hardware_.count_call();
  files_.erase(path);
  return {};
}
Result<std::vector<std::string>> NodeModel::list(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& [path, text] : files_)
    if (path.starts_with(folder + "/") && path.find('/', folder.size() + 1) == std::string::npos)
      names.push_back(path.substr(folder.size() + 1));
  return names;
}

void NodeModel::set_config(const std::string& text) {
  files_[kConfig] = text;
  after_for_agent(milliseconds(random_.between(1, 200)), [this] { agent_->on_config_changed(); });
}

void NodeModel::edit_mig(bool good) {
  if (good)
    good_mig_ = files_[kMigConfig] = hardware_.mig_config(++mig_variant_);
  else
    files_[kMigConfig] = good_mig_ + "  broken: [\n";
  if (!good) strike(Fault::kBadMigEdit);
  after_for_agent(milliseconds(random_.between(1, 200)),
                  [this] { agent_->on_mig_files_changed(); });
}

void NodeModel::set_label() {
  mig_label_ = kLabels[random_.below(std::size(kLabels))];
  files_[kMigLabel] = mig_label_ + "\n";
  note("label " + mig_label_);
  after_for_agent(milliseconds(random_.between(1, 200)),
                  [this] { agent_->on_mig_files_changed(); });
}

void NodeModel::edit_config(bool good) {
  if (!good) {
    strike(Fault::kBadEdit);
    set_config(std::string(kBadTexts[random_.below(std::size(kBadTexts))]));
    return;
  }
  constexpr const char* kStrategies[] = {"none", "mixed", "mixed", "single"};
  std::string text;
  switch (random_.below(5)) {
    case 0:
      text = "version: v1\n";
      break;
    case 1:
      text = sharing(static_cast<uint32_t>(2 + random_.below(12)));
      break;
    case 2:
      text = sharing(static_cast<uint32_t>(2 + random_.below(6)), "      devices: [0]\n");
      break;
    case 3:
      text = sharing(static_cast<uint32_t>(2 + random_.below(6)),
                     "      rename: nvidia.com/gpu-slice\n");
      break;
    default:
      text = sharing(static_cast<uint32_t>(2 + random_.below(6)), "    renameByDefault: true\n");
      break;
  }
  text += fmt::format("flags: {{migStrategy: {}}}\n", kStrategies[random_.below(4)]);
  good_text_ = text;
  note("edit");
  set_config(text);
}

// --- the driver
// ---------------------------------------------------------------------------------------------------------

// First in, first out, one at a time, as on the NVML worker.
void NodeModel::ask_driver(Question question) {
  questions_.push_back(std::move(question));
  if (!driver_busy_) next_question();
}

void NodeModel::next_question() {
  driver_busy_ = !questions_.empty();
  if (!driver_busy_) return;
  after_for_agent(driver_latency_ + milliseconds(random_.below(20)), [this] {
    const Question question = std::move(questions_.front());
    questions_.pop_front();
    Task answer;
    try {
      answer = question();
    } catch (const Died&) {
      strike(Fault::kKilledInChange);
      kill_agent();
      after(milliseconds(random_.between(10, 5000)), [this] {
        if (!agent_) start_agent();
      });
      return;
    }
    after_for_agent(hardware_.waited(), [this, answer = std::move(answer)] {
      answer();
      next_question();
    });
  });
}

void NodeModel::ask_inventory() {
  ask_driver([this]() -> Task {
    if (driver_away_)
      return
          [this] { agent_->on_inventory(fail(Code::kUnavailable, "NVIDIA driver: not loaded")); };
    if (driver_fails_ > 0) {
      --driver_fails_;
      return [this] {
        agent_->on_inventory(fail(Code::kFailed, "nvmlDeviceGetCount_v2: Unknown Error (999)"));
      };
    }
    return [this, inventory = hardware_.inventory(), uuids = hardware_.uuids()] {
      seen_uuids_ = uuids;
      agent_->on_inventory(inventory);
    };
  });
}

mig::Ports NodeModel::change_ports() {
  sim::WorldNvml& nvml = hardware_.nvml();
  return {nvml, nvml, nvml, *this, hardware_, *this, hardware_};
}

mig::Options NodeModel::change_options() {
  mig::Options options;
  options.journal_folder = std::string(kState) + "/mig";
  options.lock_folder = "/run/gpuslice/mig";
  options.holders = [this](const mig::GpuState& state) -> Result<std::vector<mig::Holder>> {
    std::vector<ports::PodDevices> pods;
    for (const Pod& pod : pods_)
      pods.push_back({"default", fmt::format("pod-{}", pod.number), "main", pod.resource, pod.ids});
    std::vector<std::string> ledger;
    const std::vector<agent::LedgerEntry> entries = agent_->ledger();
    for (const agent::LedgerEntry& entry : entries) ledger.push_back(entry.id);
    return mig::merged(mig::process_holders(state),
                       {mig::pod_holders(state, pods), mig::ledger_holders(state, ledger)});
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
    if (driver_away_) {
      std::vector<mig::Report> reports;
      for (const std::string& uuid : gpus) {
        mig::Report& report = reports.emplace_back();
        report.gpu.uuid = uuid;
        report.end = mig::End::kLost;
        report.error = Error{Code::kGpuLost, uuid + " does not answer", {}};
      }
      return [this, reports] { agent_->on_mig_recovered(reports); };
    }
    return in_change([&]() -> Task {
      std::vector<mig::Report> reports;
      const auto there = hardware_.inventory();
      for (const std::string& uuid : gpus) {
        const auto gpu = std::find_if(there->gpus.begin(), there->gpus.end(),
                                      [&](const ports::Gpu& g) { return g.uuid == uuid; });
        mig::Report report;
        report.gpu.uuid = uuid;
        report.end = mig::End::kLost;
        report.error = Error{Code::kGpuLost, uuid + " does not answer", {}};
        if (gpu != there->gpus.end()) {
          mig::Change change(change_ports(), change_options(), mig::name_of(*gpu));
          change.recover();
          report = change.report();
        }
        reports.push_back(report);
      }
      return [this, reports] { agent_->on_mig_recovered(reports); };
    });
  });
}

void NodeModel::check(std::vector<agent::MigTask> tasks) {
  ask_driver([this, tasks = std::move(tasks)]() -> Task {
    std::vector<agent::MigChecked> checked;
    for (const agent::MigTask& task : tasks) {
      agent::MigChecked one;
      one.gpu = task.gpu;
      auto state = driver_away_ ? Result<mig::GpuState>(fail(Code::kUnavailable, "no driver"))
                                : mig::read_state(hardware_.nvml(), task.gpu);
      if (!state) {
        one.refused = state.error();
      } else {
        const auto holders = change_options().holders(*state);
        const mig::Decision decision = mig::decide(*state, task.wish, *holders);
        if (decision.refusal)
          one.refused = decision.refusal->error;
        else
          one.as_wanted = decision.plan->nothing_to_do();
      }
      checked.push_back(std::move(one));
    }
    return [this, checked] { agent_->on_mig_checked(checked); };
  });
}

void NodeModel::prepare(agent::MigTask task) {
  ask_driver([this, task = std::move(task)]() -> Task {
    return in_change([&]() -> Task {
      agent::MigPrepared prepared;
      change_ = std::make_unique<mig::Change>(change_ports(), change_options(), task.gpu);
      prepared.ready = change_->prepare(task.wish);
      if (prepared.ready) {
        prepared.going = change_->devices_that_go();
      } else {
        prepared.report = change_->report();
        change_.reset();
      }
      return [this, prepared] { agent_->on_mig_prepared(prepared); };
    });
  });
}

void NodeModel::execute() {
  ask_driver([this]() -> Task {
    return in_change([&]() -> Task {
      change_->execute();
      const mig::Report report = change_->report();
      change_.reset();
      if (report.end == mig::End::kDone) ++mig_changes_;
      return [this, report] { agent_->on_mig_done(report); };
    });
  });
}

void NodeModel::abandon() {
  ask_driver([this]() -> Task {
    return in_change([&]() -> Task {
      change_->abandon();
      const mig::Report report = change_->report();
      change_.reset();
      return [this, report] { agent_->on_mig_done(report); };
    });
  });
}

void NodeModel::show(const ports::MigStatus& status) {
  if (status.state != mig_status_.state || status.request != mig_status_.request)
    mig_status_at_ = now_;
  mig_status_ = status;
  note(fmt::format("MIG {} {}", status.label, status.state));
}

bool NodeModel::may_be_offered(const std::string& uuid) {
  return seen_uuids_.contains(uuid) || hardware_.uuids().contains(uuid);
}

// What others took away from pods is no fault of the agent's.
void NodeModel::after_foreign() {
  const std::set<std::string> there = hardware_.uuids();
  for (const Pod& pod : pods_)
    for (const auto& [uuid, generation] : pod.generations)
      if (!there.contains(uuid) || hardware_.generation(uuid) != generation) taken_.insert(uuid);
}

bool NodeModel::unknowable(const std::string& uuid) const {
  const auto memo = files_.find(std::string(kLedger) + ".gpus");
  return memo == files_.end() || memo->second.find(uuid) == std::string::npos;
}

// --- the kubelet's side
// -------------------------------------------------------------------------------------------------

Status NodeModel::serve(const std::string& resource, ports::PluginService& service,
                        std::shared_ptr<const ports::DeviceList> list) {
  note(fmt::format("serve {} {}", resource, shown(*list)));
  served_[resource] = {&service, true};
  published_[resource] = std::move(list);
  return {};
}
void NodeModel::publish(const std::string& resource,
                        std::shared_ptr<const ports::DeviceList> list) {
  note(fmt::format("publish {} {}", resource, shown(*list)));
  published_[resource] = std::move(list);
  after_for_agent(milliseconds(1 + random_.below(5)), [this, resource] { deliver(resource); });
}
void NodeModel::stop(const std::string& resource) {
  if (killing_) return;
  served_.erase(resource);
  published_.erase(resource);
  drop_stream(resource);
}
bool NodeModel::socket_in_place(const std::string& resource) const {
  const auto it = served_.find(resource);
  return it != served_.end() && it->second.socket;
}
bool NodeModel::watched(const std::string& resource) const {
  const auto it = views_.find(resource);
  return it != views_.end() && it->second.connected;
}
void NodeModel::deliver(const std::string& resource) {
  const auto view = views_.find(resource);
  const auto list = published_.find(resource);
  if (view == views_.end() || !view->second.connected || list == published_.end()) return;
  view->second.list = list->second;
}
void NodeModel::drop_stream(const std::string& resource) {
  if (const auto it = views_.find(resource); it != views_.end()) it->second.connected = false;
}
void NodeModel::register_plugin(const std::string& resource) {
  const uint64_t turn = ++turns_;
  asked_[resource] = turn;
  after_for_agent(
      milliseconds(1 + random_.below(30)), [this, resource, turn, life = kubelet_life_] {
        if (asked_[resource] != turn) return;
        if (!kubelet_up_ || life != kubelet_life_)
          return agent_->on_registered(resource,
                                       fail(Code::kUnavailable, "kubelet: connection refused"));
        if (refuse_ > 0) {
          --refuse_;
          return agent_->on_registered(resource, fail(Code::kFailed, "kubelet: internal error"));
        }
        agent_->on_registered(resource, {});
        views_[resource].connected = served_.contains(resource);
        deliver(resource);
      });
}
void NodeModel::list_pods() {
  after_for_agent(milliseconds(1 + random_.below(20)), [this] {
    if (kubelet_up_ && pods_unknown_ > 0) {
      --pods_unknown_;
      return agent_->on_pods(fail(Code::kTimeout, "pod-resources: no answer within 5 s"));
    }
    if (!kubelet_up_) {
      return agent_->on_pods(fail(Code::kUnavailable, "pod-resources: connection refused"));
    }
    std::vector<ports::PodDevices> out;
    for (const Pod& pod : pods_)
      out.push_back({"default", fmt::format("pod-{}", pod.number), "main", pod.resource, pod.ids});
    pods_known_ = true;
    agent_->on_pods(std::move(out));
  });
}
std::string NodeModel::kubelet_socket() const {
  return kubelet_up_ ? fmt::format("life {}", kubelet_life_) : "";
}

void NodeModel::pod_comes() {
  std::vector<std::string> names;
  for (const auto& [name, view] : views_)
    if (view.connected && view.list && served_.contains(name)) names.push_back(name);
  if (names.empty() || !kubelet_up_) return;
  const std::string& resource = names[random_.below(names.size())];
  std::set<std::string> taken;
  for (const Pod& pod : pods_)
    if (pod.resource == resource) taken.insert(pod.ids.begin(), pod.ids.end());
  ports::PreferredContainer container;
  for (const ports::Device& device : views_[resource].list->devices)
    if (device.healthy && !taken.contains(device.id)) container.available.push_back(device.id);
  container.size = static_cast<uint32_t>(1 + random_.below(2));
  if (container.available.size() < container.size) return;
  ports::PluginService& service = *served_[resource].service;
  std::vector<std::string> ids(container.available.begin(),
                               container.available.begin() + container.size);
  if (const auto answer = service.preferred({{container}}); answer) ids = answer->containers.at(0);
  const auto allocated = service.allocate({{ids}});
  note(fmt::format("pod {} {}", resource, allocated ? "admitted" : "refused"));
  // A device that another program has just destroyed: the container cannot be started.
  const bool there = std::all_of(ids.begin(), ids.end(), [&](const std::string& id) {
    return hardware_.uuids().contains(id.substr(0, id.find("::")));
  });
  if (allocated && there) {
    Pod pod;
    pod.number = next_pod_++;
    pod.resource = resource;
    pod.ids = ids;
    for (const std::string& id : ids) {
      const std::string device = id.substr(0, id.find("::"));
      if (device.starts_with("MIG-")) pod.generations[device] = hardware_.generation(device);
      if (const auto client = hardware_.work(device)) pod.clients.push_back(*client);
    }
    pods_.push_back(std::move(pod));
  }
  run_agent();
}

void NodeModel::pod_ends() {
  if (pods_.empty()) return;
  const size_t which = random_.below(pods_.size());
  note(fmt::format("pod {} ends", pods_[which].number));
  for (const uint16_t client : pods_[which].clients) hardware_.end_work(client);
  pods_.erase(pods_.begin() + static_cast<std::ptrdiff_t>(which));
}

// --- chance
// ---------------------------------------------------------------------------------------------------------------

void NodeModel::fault_event(uint64_t which) {
  const auto some = [&]() -> std::string {
    if (served_.empty()) return "";
    auto it = served_.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(random_.below(served_.size())));
    return it->first;
  };
  const auto folder_changed = [this] {
    after_for_agent(milliseconds(1), [this] { agent_->on_kubelet_folder_changed(); });
  };
  switch (which) {
    case 0:
      edit_config(false);
      break;
    case 1:
    case 2: {
      strike(which == 1 ? Fault::kKubeletRestart : Fault::kFolderWiped);
      kubelet_up_ = false;
      for (auto& [name, view] : views_) view.connected = false;
      if (which == 2)
        for (auto& [name, served] : served_) served.socket = false;
      folder_changed();
      after(milliseconds(random_.between(5, 4000)), [this, folder_changed] {
        kubelet_up_ = true;
        ++kubelet_life_;
        views_.clear();
        folder_changed();
      });
      break;
    }
    case 3:
      if (const std::string name = some(); !name.empty()) {
        strike(Fault::kOurSocketRemoved);
        served_[name].socket = false;
        folder_changed();
      }
      break;
    case 4:
      if (const std::string name = some(); !name.empty()) {
        strike(Fault::kStreamDrop);
        drop_stream(name);
      }
      break;
    case 5:
      strike(Fault::kRegistrationRefused);
      refuse_ += static_cast<int>(1 + random_.below(3));
      ++kubelet_life_;
      for (auto& [name, view] : views_) view.connected = false;
      folder_changed();
      break;
    case 6:
      strike(Fault::kGpuLost);
      hardware_.lose(static_cast<uint32_t>(random_.next() % 64));
      break;
    case 7:
      if (hardware_.restore_one()) strike(Fault::kGpuRestored);
      break;
    case 8:
      strike(Fault::kDriverSlow);
      driver_latency_ = milliseconds(random_.between(100, 8000));
      after(seconds(random_.between(5, 30)), [this] { driver_latency_ = milliseconds(5); });
      break;
    case 9:
      strike(Fault::kDriverFails);
      driver_fails_ += static_cast<int>(1 + random_.below(3));
      break;
    case 10:
      strike(Fault::kDriverAway);
      driver_away_ = true;
      after(seconds(random_.between(1, 30)), [this] { driver_away_ = false; });
      break;
    case 11:
      if (agent_) {
        strike(Fault::kAgentKilled);
        kill_agent();
        after(milliseconds(random_.between(10, 5000)), [this] {
          if (!agent_) start_agent();
        });
      }
      break;
    case 12:
      strike(Fault::kReboot);
      kill_agent();
      pods_.clear();
      files_.erase(kLedger);
      files_.erase(std::string(kLedger) + ".gpus");
      files_.erase(std::string(kLedger) + ".health");
      struck_.clear();
      ever_struck_.clear();
      ++boot_;
      ++kubelet_life_;
      views_.clear();
      hardware_.reboot();
      taken_.clear();
      after(seconds(random_.between(1, 20)), [this] {
        if (!agent_) start_agent();
      });
      break;
    case 13:
      strike(Fault::kDiskFull);
      disk_full_ = true;
      after(seconds(random_.between(1, 30)), [this] { disk_full_ = false; });
      break;
    case 14:
      strike(Fault::kPodsUnknown);
      pods_unknown_ += static_cast<int>(1 + random_.below(3));
      break;
    case 15:
      strike(Fault::kClockJump);
      wall_offset_ += seconds(random_.between(-100'000, 100'000));
      break;
    case 16:
      edit_mig(false);
      break;
    case 17:
      strike(Fault::kMigCallsFail);
      hardware_.fail_changes(static_cast<int>(1 + random_.below(12)));
      break;
    case 18:
      // Strikes when a change gets there; a label makes one.
      hardware_.die_in_change(static_cast<int>(random_.below(60)));
      set_label();
      break;
    case 19:
      if (hardware_.foreign_change(random_)) {
        strike(Fault::kForeignChange);
        after_foreign();
      }
      break;
    default:
      xid();
      break;
  }
}

// Told to an agent that is there; nobody hears it otherwise.
void NodeModel::xid() {
  if (!agent_) return;
  const std::vector<ports::Gpu> gpus = hardware_.gpus();
  const ports::Gpu& gpu = gpus[random_.below(gpus.size())];
  ports::GpuEvent event;
  event.gpu = gpu.uuid;
  constexpr uint64_t kXids[] = {13, 31, 109, 48, 79, 94, 95, 999};
  event.xid = kXids[random_.below(std::size(kXids))];
  std::vector<std::string> marked = {gpu.uuid};
  if (!gpu.mig_devices.empty() && random_.chance(2, 3)) {
    const ports::MigDevice& device = gpu.mig_devices[random_.below(gpu.mig_devices.size())];
    event.gi = device.gi;
    if (random_.chance(2, 3)) event.ci = device.ci;
    marked.clear();
    for (const ports::MigDevice& one : gpu.mig_devices)
      if (one.gi == device.gi && (!event.ci || one.ci == device.ci)) marked.push_back(one.uuid);
  }
  strike(Fault::kXid);
  after_for_agent(milliseconds(1 + random_.below(50)), [this, event, marked] {
    agent_->on_gpu_event(event);
    if (event.xid == 13 || event.xid == 31 || event.xid == 109) return;
    for (const std::string& uuid : marked) {
      ever_struck_.insert(uuid);
      struck_.try_emplace(uuid, event.gpu, hardware_.making(uuid), now_ + seconds(2));
    }
  });
}

// May be healthy again: what was destroyed, also to be made anew; a GPU that was reset, and all of
// one that was lost.
void NodeModel::heal_struck() {
  std::erase_if(struck_, [&](const auto& one) {
    return hardware_.lost(one.second.gpu) || hardware_.making(one.first) != one.second.making;
  });
}

// A full disk keeps from the next life of the agent what this one knew.
void NodeModel::forget_unwritten_marks() {
  if (struck_.empty()) return;
  const auto file = files_.find(std::string(kLedger) + ".health");
  std::map<std::string, std::string> known;
  if (file != files_.end())
    if (const auto marks = agent::parse_health(file->second, *boot_id()))
      known = agent::reasons_of(*marks, hardware_.gpus());
  std::erase_if(struck_, [&](const auto& one) { return !known.contains(one.first); });
}

void NodeModel::chance_event() {
  ++events_;
  const uint64_t dice = random_.below(100);
  if (dice < 35) {
    pod_comes();
  } else if (dice < 55) {
    pod_ends();
  } else if (dice < 61) {
    edit_config(true);
  } else if (dice < 67) {
    set_label();
  } else if (dice < 68) {
    edit_mig(true);
  } else {
    fault_event(random_.below(kFaults));
  }
  run_agent();
  run_until(now_ + milliseconds(random_.chance(1, 3) ? random_.between(0, 20)
                                                     : random_.between(20, 5000)));
}

void NodeModel::heal() {
  note("heal");
  hardware_.restore_all();
  hardware_.fail_changes(0);
  hardware_.die_in_change(-1);
  driver_away_ = disk_full_ = false;
  driver_fails_ = refuse_ = pods_unknown_ = 0;
  driver_latency_ = milliseconds(5);
  set_config(good_text_);
  files_[kMigConfig] = good_mig_;
  after_for_agent(milliseconds(300), [this] { agent_->on_mig_files_changed(); });
}

void NodeModel::calm(Duration d) { run_until(now_ + d); }

}  // namespace gpuslice::dst
