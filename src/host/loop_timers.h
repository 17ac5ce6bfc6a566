#pragma once

// The port Timers of a real process, over its event loop. T0.

#include <functional>
#include <memory>
#include <utility>

#include "host/event_loop.h"
#include "ports/timers.h"

namespace gpuslice::host {

class LoopTimers final : public ports::Timers {
 public:
  // `loop` outlives every timer.
  explicit LoopTimers(EventLoop& loop) : loop_(loop) {}
  [[nodiscard]] std::unique_ptr<ports::Timer> timer() override {
    return std::make_unique<OneTimer>(loop_);
  }

 private:
  class OneTimer final : public ports::Timer {
   public:
    explicit OneTimer(EventLoop& loop) : loop_(loop) {}
    void after(Duration delay, std::function<void()> work) override {
      work_ = std::move(work);
      // A token stays active after its call; this timer does not.
      token_ = loop_.after(delay, [this] {
        token_.reset();
        std::exchange(work_, nullptr)();
      });
    }
    void cancel() override {
      token_.reset();
      work_ = nullptr;
    }
    [[nodiscard]] bool active() const override { return token_.active(); }

   private:
    EventLoop& loop_;
    EventLoop::Token token_;
    std::function<void()> work_;
  };

  EventLoop& loop_;
};

}  // namespace gpuslice::host
