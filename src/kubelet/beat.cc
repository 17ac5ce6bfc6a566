#include "kubelet/beat.h"

#include <grpc/support/time.h>
#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>

#include <chrono>

namespace gpuslice::kubelet {
namespace {

int64_t now() {
  return std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

struct Beat::Alarm {
  grpc::Alarm alarm;
};

Beat::Beat() = default;
Beat::~Beat() = default;

Duration Beat::unanswered(grpc::CompletionQueue& queue, void* tag) {
  if (const int64_t since = since_.load(); since != 0) return Duration(now() - since);
  since_.store(now());
  alarm_ = std::make_unique<Alarm>();
  alarm_->alarm.Set(&queue, gpr_inf_past(GPR_CLOCK_MONOTONIC), tag);
  return Duration::zero();
}

}  // namespace gpuslice::kubelet
