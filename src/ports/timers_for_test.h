#pragma once

// Timers on a time that a test lets pass.

#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "ports/timers.h"

namespace gpuslice::ports {

class TimersForTest final : public Timers {
 public:
  [[nodiscard]] std::unique_ptr<Timer> timer() override { return std::make_unique<One>(*this); }

  void pass(Duration time) {
    const Duration end = now_ + time;
    while (!due_.empty() && due_.begin()->first.first <= end) {
      auto first = due_.extract(due_.begin());
      now_ = first.key().first;
      first.mapped()();
    }
    now_ = end;
  }

 private:
  using Key = std::pair<Duration, uint64_t>;

  class One final : public Timer {
   public:
    explicit One(TimersForTest& owner) : owner_(owner) {}
    ~One() override { cancel(); }
    One(const One&) = delete;
    One& operator=(const One&) = delete;
    void after(Duration delay, std::function<void()> work) override {
      cancel();
      key_ = {owner_.now_ + delay, ++owner_.next_};
      owner_.due_[key_] = std::move(work);
    }
    void cancel() override { owner_.due_.erase(key_); }
    [[nodiscard]] bool active() const override { return owner_.due_.contains(key_); }

   private:
    TimersForTest& owner_;
    Key key_{};
  };

  Duration now_{};
  uint64_t next_ = 0;
  std::map<Key, std::function<void()>> due_;
};

}  // namespace gpuslice::ports
