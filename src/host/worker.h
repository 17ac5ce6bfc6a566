#pragma once

// One thread for calls that may block (NVML, the reset of a GPU): first in, first out, bounded. T0
// posts work here, the work posts its result back to T0.

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/time.h"

namespace gpuslice::host {

class Worker {
 public:
  using Work = std::function<void()>;

  // Work that may wait. Who posts beyond it is told no.
  static constexpr size_t kMaxWaiting = 256;

  // `name`: of the thread, as /proc shows it (15 characters).
  explicit Worker(const std::string& name);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  // Waits for the work that is under way, however long it takes; see stop().
  ~Worker();

  // Any thread. False: too much waits already, or the worker was stopped; the work was not taken.
  [[nodiscard]] bool post(Work work);

  // Drops what waits and ends the thread. False when the work under way did not end within `limit`
  // (a driver that hangs obeys nobody): then the process can only be left by _exit.
  [[nodiscard]] bool stop(Duration limit);

  // Any thread. How long the work under way has been running; zero when none is.
  [[nodiscard]] Duration busy_for() const;
  [[nodiscard]] size_t waiting() const;
  // Any thread. How often post() said no because too much waited.
  [[nodiscard]] uint64_t refused() const;

 private:
  void run();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> queue_;
  bool stopping_ = false;
  bool ended_ = false;
  uint64_t refused_ = 0;
  MonotonicTime busy_since_{};
  std::thread thread_;
};

}  // namespace gpuslice::host
