#include "kube/sender.h"

#include <utility>

namespace gpuslice::kube {

Sender::Sender(Transport& transport, uint64_t seed, Seen seen)
    : transport_(transport),
      seen_(std::move(seen)),
      backoff_(seed),
      wire_(transport.wire()),
      timer_(transport.timer()) {}

void Sender::add(Change change) {
  queue_.push_back(std::move(change));
  if (queue_.size() > 1) return;
  tries_ = 0;
  begun_ = transport_.now();
  try_first();
}

void Sender::try_first() {
  ++tries_;
  head_ = {};
  answer_.clear();
  wire_->send(queue_.front().request, *this);
}

void Sender::on_head(const Head& head) {
  head_ = head;
  seen_.answered(queue_.front().request.verb, head.status);
}

void Sender::on_body(std::string_view bytes) {
  answer_.append(bytes.substr(0, kMaxAnswerBytes - answer_.size()));
}

void Sender::on_end(Status status) {
  const Change& change = queue_.front();
  if (!status) {
    if (head_.status == 0) seen_.answered(change.request.verb, 0);
    Error error = Error(status.error()).in(change.what);
    const bool passes = error.code == Code::kUnavailable || error.code == Code::kTimeout;
    return passes ? again_or(std::move(error)) : finish(std::unexpected(std::move(error)));
  }
  if (head_.status >= 200 && head_.status < 300) return finish({});
  Refusal refusal = refusal_of(head_.status, answer_, change.request.verb, change.what);
  if (refusal.again) return again_or(std::move(refusal.error));
  finish(std::unexpected(std::move(refusal.error)));
}

void Sender::again_or(Error error) {
  const Duration wait = backoff_.next(head_.retry_after);
  if (tries_ >= kMaxTries || transport_.now() + wait - begun_ > kChangeTime)
    return finish(std::unexpected(std::move(error)));
  seen_.retried();
  timer_->after(wait, [this] { try_first(); });
}

void Sender::finish(Status status) {
  backoff_.succeeded();
  const std::function<void(Status)> done = std::move(queue_.front().done);
  queue_.pop_front();
  if (!queue_.empty()) {
    tries_ = 0;
    begun_ = transport_.now();
    try_first();
  }
  done(std::move(status));
}

}  // namespace gpuslice::kube
