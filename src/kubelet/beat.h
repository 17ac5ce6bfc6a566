#pragma once

// Whether the thread of a completion queue lives: something is put into the queue, and it is
// measured for how long it has not come out. Private to this folder.

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/time.h"

namespace grpc {
class CompletionQueue;
}

namespace gpuslice::kubelet {

class Beat {
 public:
  Beat();
  ~Beat();
  Beat(const Beat&) = delete;
  Beat& operator=(const Beat&) = delete;

  // For how long the beat under way has waited; sends one, and returns zero, when there is none.
  // From one thread at a time, and not once the queue is shut. `tag` comes out of the queue, once
  // for each, at once: a beat lives until the queue has been emptied, for gRPC 1.51 uses an alarm
  // that ends while it fires.
  [[nodiscard]] Duration unanswered(grpc::CompletionQueue& queue, void* tag);
  // On the queue's thread: the tag has come.
  void heard() { since_.store(0); }

 private:
  struct Alarm;
  std::atomic<int64_t> since_{0};  // 0: none is under way
  std::unique_ptr<Alarm> alarm_;
};

}  // namespace gpuslice::kubelet
