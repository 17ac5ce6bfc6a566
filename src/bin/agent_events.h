#pragma once

// The thread that waits for the driver's events and posts them to T0.
//
// It holds the driver open, which on Ampere keeps everybody from switching MIG and resetting a GPU.
// So it lets go whenever somebody is about to: the agent itself (pause()), another gpuslice that
// has taken a GPU's lock, and whoever set a MIG mode that is pending now. It opens the driver anew,
// with every GPU that answers registered, when that is over, and when the GPUs of the inventory are
// others. A change that hangs is over for it: its GPU is silent, and the others' events are heard.
// It wakes once a second at most while nothing happens.

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "base/log.h"
#include "base/time.h"
#include "host/event_loop.h"
#include "nvml/events.h"
#include "ports/driver.h"

namespace gpuslice::bin {

class AgentEvents {
 public:
  // How long one wait for an event lasts: to be let go takes no longer.
  static constexpr Duration kSlice = std::chrono::seconds(1);
  static constexpr Duration kFirstRetry = std::chrono::seconds(1);
  static constexpr Duration kLongestRetry = std::chrono::seconds(30);
  // pause() returns after this at the latest: a driver that hangs answers nobody.
  static constexpr Duration kPausePatience = std::chrono::seconds(3);

  using Heard = std::function<void(const ports::GpuEvent&)>;  // called on T0

  // `lock_folder`: where changes of MIG take their locks. `loop` and `log` outlive it.
  AgentEvents(std::string root, std::string lock_folder, host::EventLoop& loop, Log& log,
              Heard heard);
  AgentEvents(const AgentEvents&) = delete;
  AgentEvents& operator=(const AgentEvents&) = delete;
  // Waits for the thread, however long the driver takes; see stop().
  ~AgentEvents();

  // T0. Which GPUs there are: nothing is opened before the first, or while there is no driver.
  void on_inventory(const Result<ports::Inventory>& inventory);

  // T0. Nothing is opened before this either: the owner's start has more urgent work.
  void begin();

  // By index; nothing: some that are not known by it.
  using Changing = std::optional<uint32_t>;
  // Any thread but its own. The driver is let go when it returns true, until the inventory tells
  // that GPU `gpu` is silent; false: it hangs, and is let go as soon as it answers. resume() of the
  // same GPU must follow.
  [[nodiscard]] bool pause(Changing gpu);
  void resume(Changing gpu);

  // T0. Ends the thread; false when the driver hangs and the process can only be left by _exit.
  [[nodiscard]] bool stop(Duration limit);

 private:
  void run();
  // On the thread. Returns how long to wait before the next round; zero: not at all.
  [[nodiscard]] Duration round();
  [[nodiscard]] Duration open(const std::set<uint32_t>& without);
  void close();
  [[nodiscard]] bool wanted_open() const;  // with the mutex held

  const std::string lock_folder_;
  host::EventLoop& loop_;
  Log& log_;
  const Heard heard_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string gpus_;           // those that answer; "" for none
  std::set<uint32_t> silent_;  // … and the others, by index
  bool mode_pending_ = false;
  bool begun_ = false;
  std::multiset<Changing> paused_;
  bool open_ = false;
  bool stopping_ = false;
  bool ended_ = false;

  // The thread's.
  nvml::EventReader reader_;
  std::string opened_for_;  // gpus_ then
  Duration retry_ = kFirstRetry;
  std::thread thread_;
};

}  // namespace gpuslice::bin
