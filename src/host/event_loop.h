#pragma once

// The event loop of thread T0: file descriptors, timers and work posted by other threads, one at a
// time, on the thread that calls run(). It sleeps in epoll_wait without a time-out: idle means no
// wake-up at all.
//
// Everything but post(), stop(), posted() and posted_dropped() belongs to T0. Subscriptions are
// tokens: a token that is destroyed or reset cancels what it stands for, and its function is not
// called again, even when its event has already been read. Tokens must not outlive the loop.

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "base/unique_fd.h"

namespace gpuslice::host {

class EventLoop {
 public:
  using Work = std::function<void()>;
  using Ready = std::function<void(uint32_t epoll_events)>;

  // Work that may wait for T0. Who posts beyond it is told no, and the refusal is counted.
  static constexpr size_t kMaxPosted = 4096;

  class Token {
   public:
    Token() = default;
    Token(Token&& other) noexcept
        : loop_(std::exchange(other.loop_, nullptr)), id_(std::exchange(other.id_, 0)) {}
    Token& operator=(Token&& other) noexcept {
      if (this != &other) {
        reset();
        loop_ = std::exchange(other.loop_, nullptr);
        id_ = std::exchange(other.id_, 0);
      }
      return *this;
    }
    Token(const Token&) = delete;
    Token& operator=(const Token&) = delete;
    ~Token() { reset(); }

    void reset();
    [[nodiscard]] bool active() const { return loop_ != nullptr; }

   private:
    friend class EventLoop;
    Token(EventLoop* loop, uint64_t id) : loop_(loop), id_(id) {}
    EventLoop* loop_ = nullptr;
    uint64_t id_ = 0;
  };

  // Fails with kUnavailable when the process is out of file descriptors.
  [[nodiscard]] static Result<std::unique_ptr<EventLoop>> create();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;
  ~EventLoop();

  // Any thread, also from within work. False: the queue is full, the work was not taken.
  [[nodiscard]] bool post(Work work);
  // Any thread. What was posted and waits.
  [[nodiscard]] size_t posted() const {
    const std::lock_guard lock(mutex_);
    return posted_.size();
  }
  // Any thread. How often post() said no.
  [[nodiscard]] uint64_t posted_dropped() const { return dropped_.load(std::memory_order_relaxed); }

  // Calls `ready` whenever `fd` (not owned) is ready for `epoll_events`, level-triggered.
  [[nodiscard]] Result<Token> watch(int fd, uint32_t epoll_events, Ready ready);

  // Calls `work` once, not before `when` on the monotonic clock. The token dies with the call.
  [[nodiscard]] Token at(MonotonicTime when, Work work);
  [[nodiscard]] Token after(Duration delay, Work work) {
    return at(now() + delay, std::move(work));
  }

  // CLOCK_MONOTONIC.
  [[nodiscard]] static MonotonicTime now();

  // Runs until stop(). Work posted before stop() was called is still done.
  void run();
  // Any thread.
  void stop();

 private:
  struct Watched {
    int fd;
    Ready ready;
  };
  using TimerKey = std::pair<MonotonicTime, uint64_t>;

  EventLoop(UniqueFd epoll, UniqueFd wake, UniqueFd timer);
  void cancel(uint64_t id);
  void run_posted();
  void run_timers();
  void arm_timer();

  UniqueFd epoll_;
  UniqueFd wake_;
  UniqueFd timer_;
  uint64_t next_id_ = 16;  // below: the loop's own descriptors
  std::map<uint64_t, Watched> watched_;
  std::map<TimerKey, Work> timers_;
  std::map<uint64_t, MonotonicTime> timer_times_;
  MonotonicTime armed_ = MonotonicTime::max();

  mutable std::mutex mutex_;
  std::vector<Work> posted_;
  std::atomic<uint64_t> dropped_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace gpuslice::host
