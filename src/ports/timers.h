#pragma once

// Calls on thread T0 after a while. Behind it stands the event loop, or a test's virtual time.

#include <functional>
#include <memory>

#include "base/time.h"

namespace gpuslice::ports {

// At most one call is waited for. Destroyed, it calls nothing any more. T0.
class Timer {
 public:
  virtual ~Timer() = default;
  // Calls `work` once, `delay` from now; what was set before is dropped. Never from within this
  // call; `work` may set the timer anew.
  virtual void after(Duration delay, std::function<void()> work) = 0;
  virtual void cancel() = 0;
  // Set, and neither called nor cancelled since: false within `work`.
  [[nodiscard]] virtual bool active() const = 0;
};

class Timers {
 public:
  virtual ~Timers() = default;
  [[nodiscard]] virtual std::unique_ptr<Timer> timer() = 0;
};

}  // namespace gpuslice::ports
