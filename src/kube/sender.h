#pragma once

// Changes, one after another in the order asked: each is tried a bounded number of times and then
// answered.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "kube/backoff.h"
#include "kube/requests.h"
#include "kube/transport.h"

namespace gpuslice::kube {

inline constexpr uint32_t kMaxTries = 5;
// From the first try on; a try that would begin later is not made.
inline constexpr Duration kChangeTime = std::chrono::seconds(30);
// What is read of an answer: a Node with all its images and managed fields is some 60 KiB, and only
// a refusal is looked at.
inline constexpr size_t kMaxAnswerBytes = 64 * 1024;

class Sender final : private Wire::Answer {
 public:
  struct Change {
    Request request;
    std::string what;                  // "node n1", for messages
    std::function<void(Status)> done;  // on the transport's thread, exactly once
  };
  struct Seen {
    std::function<void(std::string_view verb, int status)> answered;  // status 0: none came
    std::function<void()> retried;
  };

  Sender(Transport& transport, uint64_t seed, Seen seen);
  // Changes under way are dropped unanswered.
  ~Sender() override = default;

  void add(Change change);
  [[nodiscard]] size_t under_way() const { return queue_.size(); }

 private:
  void on_head(const Head& head) override;
  void on_body(std::string_view bytes) override;
  void on_end(Status status) override;

  void try_first();
  void again_or(Error error);
  void finish(Status status);

  Transport& transport_;
  Seen seen_;
  Backoff backoff_;
  std::unique_ptr<Wire> wire_;
  std::unique_ptr<Timer> timer_;
  std::deque<Change> queue_;  // the first is under way
  Head head_;
  std::string answer_;
  uint32_t tries_ = 0;
  MonotonicTime begun_{};
};

}  // namespace gpuslice::kube
