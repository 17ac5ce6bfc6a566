#include "bin/agent_events.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <utility>

#include "host/node_host.h"

namespace gpuslice::bin {

AgentEvents::AgentEvents(std::string root, std::string lock_folder, host::EventLoop& loop, Log& log,
                         Heard heard)
    : lock_folder_(std::move(lock_folder)),
      loop_(loop),
      log_(log),
      heard_(std::move(heard)),
      reader_(std::move(root)),
      thread_([this] { run(); }) {
  pthread_setname_np(thread_.native_handle(), "nvml-events");
}

AgentEvents::~AgentEvents() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void AgentEvents::on_inventory(const Result<ports::Inventory>& inventory) {
  std::string gpus;
  std::set<uint32_t> silent;
  bool pending = false;
  if (inventory) {
    for (const ports::Gpu& gpu : inventory->gpus) {
      gpus += gpu.uuid + " ";
      pending = pending || (gpu.mig && gpu.mig->current != gpu.mig->pending);
    }
    for (const ports::SilentGpu& one : inventory->silent) silent.insert(one.index.value);
    if (!gpus.empty()) gpus += inventory->driver.version;
  }
  const std::lock_guard lock(mutex_);
  if (gpus == gpus_ && silent == silent_ && pending == mode_pending_) return;
  gpus_ = std::move(gpus);
  silent_ = std::move(silent);
  mode_pending_ = pending;
  changed_.notify_all();
}

void AgentEvents::begin() {
  const std::lock_guard lock(mutex_);
  if (!std::exchange(begun_, true)) changed_.notify_all();
}

bool AgentEvents::pause(Changing gpu) {
  std::unique_lock lock(mutex_);
  paused_.insert(gpu);
  changed_.notify_all();
  return changed_.wait_for(lock, kPausePatience, [this] { return !open_; });
}

void AgentEvents::resume(Changing gpu) {
  const std::lock_guard lock(mutex_);
  paused_.erase(paused_.find(gpu));
  changed_.notify_all();
}

bool AgentEvents::stop(Duration limit) {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
  return changed_.wait_for(lock, limit, [this] { return ended_; });
}

bool AgentEvents::wanted_open() const {
  const bool nobody_changes_on = std::ranges::all_of(
      paused_, [this](const Changing& gpu) { return gpu && silent_.contains(*gpu); });
  return begun_ && nobody_changes_on && !mode_pending_ && !gpus_.empty();
}

void AgentEvents::run() {
  for (;;) {
    const Duration pause = round();
    std::unique_lock lock(mutex_);
    if (stopping_) break;
    if (pause > Duration::zero())
      changed_.wait_for(lock, pause, [this] { return stopping_ || !wanted_open(); });
    // Who waits for a reason to open the driver needs no clock.
    if (!open_) changed_.wait(lock, [this] { return stopping_ || wanted_open(); });
    if (stopping_) break;
  }
  close();
  // The last touch: the owner may be waiting to go.
  const std::lock_guard lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

Duration AgentEvents::round() {
  std::string gpus;
  std::set<uint32_t> without;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return {};
    if (wanted_open()) gpus = gpus_;
    without = silent_;
  }
  if (gpus.empty() || (reader_.is_open() && gpus != opened_for_)) close();
  if (gpus.empty()) return {};
  if (host::locked_by_others(lock_folder_)) {
    close();
    return kSlice;
  }
  if (!reader_.is_open()) {
    {
      // From here on who pauses us waits until it is closed again.
      const std::lock_guard lock(mutex_);
      if (!wanted_open()) return {};
      open_ = true;
    }
    opened_for_ = gpus;
    if (const Duration wait = open(without); wait > Duration::zero()) return wait;
  }
  auto event = reader_.wait(kSlice);
  if (!event) {
    log_.once(
        Level::kWarning, "events",
        fmt::format("health: {}; waiting for the driver's events again", event.error().message));
    close();
    return std::exchange(retry_, std::min(retry_ * 2, kLongestRetry));
  }
  retry_ = kFirstRetry;
  log_.over("events");
  if (!*event) return {};
  // A queue of thousands is full: the events of a storm are alike.
  if (!loop_.post([this, heard = **event] { heard_(heard); }))
    log_.once(Level::kWarning, "events lost", "health: too many events at once: some were dropped");
  return {};
}

Duration AgentEvents::open(const std::set<uint32_t>& without) {
  auto refused = reader_.open(without);
  if (!refused) {
    log_.once(Level::kWarning, "events",
              fmt::format("health: {}; XIDs are not seen meanwhile", refused.error().message));
    close();
    return std::exchange(retry_, std::min(retry_ * 2, kLongestRetry));
  }
  for (const Error& error : *refused)
    log_.once(Level::kWarning, "events " + error.message,
              fmt::format("health: {}: its XIDs are not seen", error.message));
  return {};
}

void AgentEvents::close() {
  reader_.close();
  const std::lock_guard lock(mutex_);
  open_ = false;
  changed_.notify_all();
}

}  // namespace gpuslice::bin
