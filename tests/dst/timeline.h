#pragma once

// Virtual time: what is due when. The same order for the same calls.

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "base/time.h"
#include "kube/transport.h"
#include "ports/timers.h"

namespace gpuslice::dst {

class Timeline final : public ports::Timers {
 public:
  using Task = std::function<void()>;
  using Entry = std::multimap<MonotonicTime, Task>::iterator;

  [[nodiscard]] MonotonicTime now() const { return now_; }
  // Those of one instant are called in the order of the asking.
  Entry after(Duration d, Task task) { return due_.emplace(now_ + d, std::move(task)); }
  // Of one that was not called yet.
  void cancel(Entry entry) { due_.erase(entry); }
  [[nodiscard]] MonotonicTime next() const {
    return due_.empty() ? MonotonicTime::max() : due_.begin()->first;
  }
  void pass_until(MonotonicTime when) { now_ = std::max(now_, when); }
  // The next one, at its time.
  void run_next() {
    pass_until(next());
    const Task task = std::move(due_.begin()->second);
    due_.erase(due_.begin());
    task();
  }
  [[nodiscard]] size_t size() const { return due_.size(); }

  [[nodiscard]] std::unique_ptr<ports::Timer> timer() override {
    return std::make_unique<OneTimer>(*this);
  }
  [[nodiscard]] std::unique_ptr<kube::Timer> kube_timer() {
    return std::make_unique<KubeTimer>(*this);
  }

 private:
  class OneTimer final : public ports::Timer {
   public:
    explicit OneTimer(Timeline& owner) : owner_(owner) {}
    ~OneTimer() override { stop(); }
    OneTimer(const OneTimer&) = delete;
    OneTimer& operator=(const OneTimer&) = delete;
    void after(Duration delay, std::function<void()> work) override {
      stop();
      entry_ = owner_.after(delay, [this, work = std::move(work)] {
        entry_.reset();
        work();
      });
    }
    void cancel() override { stop(); }
    [[nodiscard]] bool active() const override { return entry_.has_value(); }

   private:
    void stop() {
      if (entry_) owner_.cancel(*std::exchange(entry_, std::nullopt));
    }
    Timeline& owner_;
    std::optional<Entry> entry_;
  };

  class KubeTimer final : public kube::Timer {
   public:
    explicit KubeTimer(Timeline& owner) : timer_(owner) {}
    void after(Duration delay, std::function<void()> work) override {
      timer_.after(delay, std::move(work));
    }
    void cancel() override { timer_.cancel(); }

   private:
    OneTimer timer_;
  };

  MonotonicTime now_{std::chrono::seconds(1000)};
  std::multimap<MonotonicTime, Task> due_;
};

}  // namespace gpuslice::dst
