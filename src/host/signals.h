#pragma once

// Signals as events of T0's loop: SIGTERM and SIGINT ask to end, SIGHUP to read the configuration
// again.

#include <functional>
#include <memory>

#include "base/result.h"
#include "host/event_loop.h"

namespace gpuslice::host {

class Signals {
 public:
  using Got = std::function<void(int signal)>;

  // Blocks SIGTERM, SIGINT and SIGHUP in the calling thread and ignores SIGPIPE. Call it before any
  // other thread starts: threads inherit the mask, so that only watch() sees these signals.
  static void block();

  // Calls `got` on T0 for each signal, once per loop turn for equal ones.
  [[nodiscard]] static Result<std::unique_ptr<Signals>> watch(EventLoop& loop, Got got);

 private:
  Signals(UniqueFd fd, Got got) : fd_(std::move(fd)), got_(std::move(got)) {}
  void read_all();

  UniqueFd fd_;
  Got got_;
  EventLoop::Token token_;
};

}  // namespace gpuslice::host
