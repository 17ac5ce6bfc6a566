#include "host/event_loop.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace gpuslice::host {
namespace {

constexpr uint64_t kWakeId = 1;
constexpr uint64_t kTimerId = 2;
constexpr int kEventsPerWait = 32;

bool add_to_epoll(int epoll, int fd, uint32_t events, uint64_t id) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

void drain_counter(int fd) {
  uint64_t count = 0;
  // Non-blocking: EAGAIN means that somebody drained it already.
  [[maybe_unused]] const ssize_t got = ::read(fd, &count, sizeof count);
}

}  // namespace

void EventLoop::Token::reset() {
  if (loop_ != nullptr) std::exchange(loop_, nullptr)->cancel(std::exchange(id_, 0));
}

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  UniqueFd timer(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!epoll.valid() || !wake.valid() || !timer.valid() ||
      !add_to_epoll(epoll.get(), wake.get(), EPOLLIN, kWakeId) ||
      !add_to_epoll(epoll.get(), timer.get(), EPOLLIN, kTimerId)) {
    return fail(Code::kUnavailable,
                "event loop: cannot be made: {}; raise the limit of open files (ulimit -n)",
                std::strerror(errno));
  }
  return std::unique_ptr<EventLoop>(
      new EventLoop(std::move(epoll), std::move(wake), std::move(timer)));
}

EventLoop::EventLoop(UniqueFd epoll, UniqueFd wake, UniqueFd timer)
    : epoll_(std::move(epoll)), wake_(std::move(wake)), timer_(std::move(timer)) {}

EventLoop::~EventLoop() {
  CHECK(watched_.empty() && timers_.empty(), "event loop: {} watches and {} timers outlive it",
        watched_.size(), timers_.size());
}

bool EventLoop::post(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (posted_.size() >= kMaxPosted) {
      dropped_.fetch_add(1, std::memory_order_relaxed);
      return false;
    }
    posted_.push_back(std::move(work));
    if (posted_.size() > 1) return true;  // the first one has woken T0
  }
  const uint64_t one = 1;
  // Fails only when the counter is about to overflow, and then T0 is awake anyway.
  [[maybe_unused]] const ssize_t put = ::write(wake_.get(), &one, sizeof one);
  return true;
}

Result<EventLoop::Token> EventLoop::watch(int fd, uint32_t epoll_events, Ready ready) {
  const uint64_t id = next_id_++;
  if (!add_to_epoll(epoll_.get(), fd, epoll_events, id)) {
    return fail(Code::kInternal, "event loop: file descriptor {} cannot be watched: {}", fd,
                std::strerror(errno));
  }
  watched_.emplace(id, Watched{fd, std::move(ready)});
  return Token(this, id);
}

EventLoop::Token EventLoop::at(MonotonicTime when, Work work) {
  const uint64_t id = next_id_++;
  timers_.emplace(TimerKey{when, id}, std::move(work));
  timer_times_.emplace(id, when);
  arm_timer();
  return Token(this, id);
}

MonotonicTime EventLoop::now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return MonotonicTime(Duration(static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec));
}

void EventLoop::cancel(uint64_t id) {
  if (const auto timer = timer_times_.find(id); timer != timer_times_.end()) {
    timers_.erase({timer->second, id});
    timer_times_.erase(timer);
    arm_timer();
    return;
  }
  if (const auto watched = watched_.find(id); watched != watched_.end()) {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, watched->second.fd, nullptr);
    watched_.erase(watched);
  }
}

void EventLoop::arm_timer() {
  const MonotonicTime first = timers_.empty() ? MonotonicTime::max() : timers_.begin()->first.first;
  if (first == armed_) return;
  armed_ = first;
  itimerspec spec{};
  if (!timers_.empty()) {
    // Zero would disarm it; 1 ns after boot is long past.
    const int64_t ns = std::max<int64_t>(first.time_since_epoch().count(), 1);
    spec.it_value.tv_sec = ns / 1'000'000'000;
    spec.it_value.tv_nsec = ns % 1'000'000'000;
  }
  CHECK(timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr) == 0, "timerfd: {}",
        std::strerror(errno));
}

void EventLoop::run_posted() {
  drain_counter(wake_.get());
  std::vector<Work> batch;
  {
    const std::lock_guard lock(mutex_);
    batch.swap(posted_);
  }
  for (Work& work : batch) work();
}

void EventLoop::run_timers() {
  drain_counter(timer_.get());
  armed_ = MonotonicTime::max();
  const MonotonicTime until = now();
  while (!timers_.empty() && timers_.begin()->first.first <= until) {
    auto node = timers_.extract(timers_.begin());
    timer_times_.erase(node.key().second);
    node.mapped()();
  }
  arm_timer();
}

void EventLoop::run() {
  std::array<epoll_event, kEventsPerWait> events;
  while (!stopping_.load(std::memory_order_acquire)) {
    const int count = epoll_wait(epoll_.get(), events.data(), kEventsPerWait, -1);
    if (count < 0) {
      CHECK(errno == EINTR, "epoll_wait: {}", std::strerror(errno));
      continue;
    }
    for (int i = 0; i < count; ++i) {
      // Copies: the struct is packed, and its members are not aligned.
      const uint64_t id = events[static_cast<size_t>(i)].data.u64;
      const uint32_t ready_for = events[static_cast<size_t>(i)].events;
      if (id == kWakeId) {
        run_posted();
      } else if (id == kTimerId) {
        run_timers();
      } else if (const auto found = watched_.find(id); found != watched_.end()) {
        // A copy: the function may cancel its own token.
        const Ready ready = found->second.ready;
        ready(ready_for);
      }
    }
  }
  run_posted();
  stopping_.store(false, std::memory_order_release);
}

void EventLoop::stop() {
  stopping_.store(true, std::memory_order_release);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t put = ::write(wake_.get(), &one, sizeof one);
}

}  // namespace gpuslice::host
