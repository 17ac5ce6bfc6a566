#include "node_model.h"

#include <fmt/format.h>

#include <algorithm>

namespace gpuslice::dst {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* kConfig = "/etc/gpuslice/config.yaml";
constexpr const char* kLastGood = "/var/lib/gpuslice/last-good.yaml";
constexpr const char* kLedger = "/run/gpuslice/ledger";

std::string sharing(uint32_t replicas, const std::string& more = "") {
  return fmt::format(
      "version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - name: nvidia.com/gpu\n      "
      "replicas: {}\n{}",
      replicas, more);
}

// A list in a line of the trace.
std::string shown(const ports::DeviceList& list) {
  std::string out = std::to_string(list.devices.size());
  for (const ports::Device& d : list.devices) out += (d.healthy ? " " : " !") + d.id.substr(30);
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
  constexpr std::string_view kNames[] = {"bad edit",     "kubelet restart",
                                         "folder wiped", "our socket removed",
                                         "stream drop",  "registration refused",
                                         "GPU lost",     "GPU restored",
                                         "driver slow",  "driver fails",
                                         "driver away",  "agent killed",
                                         "reboot",       "disk full",
                                         "pods unknown", "clock jump"};
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
      log_([this](std::string_view line) { trace_.add(line.substr(0, line.size() - 1)); },
           [this] { return wall(); }) {
  trace_.keep = keep_trace;
  const uint64_t count = 1 + random_.below(8);
  for (uint32_t i = 0; i < count; ++i) {
    ports::Gpu gpu;
    gpu.index = GpuIndex{i};
    gpu.minor = GpuMinor{i};
    gpu.uuid = fmt::format("GPU-{:08x}-0000-5000-8000-{:012x}", random_.next() & 0xffffffff, i);
    gpu.name = "NVIDIA A100-SXM4-40GB";
    gpu.numa_node = i / 4;
    gpu.memory_total_bytes = 40ULL << 30;
    gpus_.push_back(gpu);
  }
  good_text_ = sharing(4);
  files_[kConfig] = good_text_;
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
  agent_ = std::make_unique<agent::Agent>(std::move(options),
                                          agent::AgentPorts{*this, *this, *this, *this}, log_);
  agent_->start();
  run_agent();
}

void NodeModel::kill_agent() {
  // Nothing is said goodbye to: streams break, sockets stay as files that nobody serves.
  killing_ = true;
  agent_.reset();
  killing_ = false;
  ++agent_life_;
  agent_wakes_ = MonotonicTime::max();
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
  if (disk_full_) return fail(Code::kFailed, "{}: no space left on device", path);
  files_[path] = text;
  return {};
}
Result<std::string> NodeModel::boot_id() { return fmt::format("boot-{}", boot_); }
bool NodeModel::exists(const std::string&) { return true; }
Status NodeModel::remove(const std::string& path, bool) {
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

void NodeModel::edit_config(bool good) {
  if (!good) {
    strike(Fault::kBadEdit);
    set_config(std::string(kBadTexts[random_.below(std::size(kBadTexts))]));
    return;
  }
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
  good_text_ = text;
  note("edit");
  set_config(text);
}

// --- the driver
// ---------------------------------------------------------------------------------------------------------

void NodeModel::ask_inventory() {
  after_for_agent(driver_latency_ + milliseconds(random_.below(20)), [this] {
    if (driver_away_)
      return agent_->on_inventory(fail(Code::kUnavailable, "NVIDIA driver: not loaded"));
    if (driver_fails_ > 0) {
      --driver_fails_;
      return agent_->on_inventory(
          fail(Code::kFailed, "nvmlDeviceGetCount_v2: Unknown Error (999)"));
    }
    ports::Inventory inventory;
    inventory.driver.version = "580.65.06";
    for (const ports::Gpu& gpu : gpus_) {
      if (lost_.contains(gpu.index.value))
        inventory.silent.push_back(
            {gpu.index, {Code::kGpuLost, "nvmlDeviceGetHandleByIndex_v2: GPU is lost (15)", {}}});
      else
        inventory.gpus.push_back(gpu);
    }
    agent_->on_inventory(std::move(inventory));
  });
}

std::set<std::string> NodeModel::gpu_uuids() const {
  std::set<std::string> out;
  for (const ports::Gpu& gpu : gpus_) out.insert(gpu.uuid);
  return out;
}

std::vector<ports::Gpu> NodeModel::visible_gpus() const { return gpus_; }

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
  after_for_agent(milliseconds(1 + random_.below(30)), [this, resource, life = kubelet_life_] {
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
  if (allocated) pods_.push_back({next_pod_++, resource, ids});
  run_agent();
}

void NodeModel::pod_ends() {
  if (pods_.empty()) return;
  const size_t which = random_.below(pods_.size());
  note(fmt::format("pod {} ends", pods_[which].number));
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
      lost_.insert(static_cast<uint32_t>(random_.below(gpus_.size())));
      break;
    case 7:
      if (!lost_.empty()) {
        strike(Fault::kGpuRestored);
        lost_.erase(lost_.begin());
      }
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
      ++boot_;
      ++kubelet_life_;
      views_.clear();
      lost_.clear();
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
    default:
      strike(Fault::kClockJump);
      wall_offset_ += seconds(random_.between(-100'000, 100'000));
      break;
  }
}

void NodeModel::chance_event() {
  ++events_;
  const uint64_t dice = random_.below(100);
  if (dice < 35) {
    pod_comes();
  } else if (dice < 55) {
    pod_ends();
  } else if (dice < 65) {
    edit_config(true);
  } else {
    fault_event(random_.below(kFaults));
  }
  run_agent();
  run_until(now_ + milliseconds(random_.chance(1, 3) ? random_.between(0, 20)
                                                     : random_.between(20, 5000)));
}

void NodeModel::heal() {
  note("heal");
  lost_.clear();
  driver_away_ = disk_full_ = false;
  driver_fails_ = refuse_ = pods_unknown_ = 0;
  driver_latency_ = milliseconds(5);
  set_config(good_text_);
}

void NodeModel::calm(Duration d) { run_until(now_ + d); }

}  // namespace gpuslice::dst
