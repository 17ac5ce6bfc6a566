#pragma once

// One list + watch that never ends: lists, watches from the list's version on, resumes a broken
// watch where it broke, lists anew when the API server has forgotten that version (410).

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "kube/backoff.h"
#include "kube/json_cutter.h"
#include "kube/requests.h"
#include "kube/transport.h"

namespace gpuslice::kube {

// A failure that lasts this long is told; shorter ones are the network's weather.
inline constexpr Duration kToldAfter = std::chrono::seconds(10);
// A watch that lived this long, or said anything, counts as one that works.
inline constexpr Duration kWatchSettled = std::chrono::seconds(5);
// What is read of a refusal; more is cut.
inline constexpr size_t kMaxRefusalBytes = 64 * 1024;
// So often may a watch break at the same version before the list is asked for again.
inline constexpr uint32_t kMaxResumes = 5;
inline constexpr uint32_t kMaxListPages = 100;

class Watcher final : private Wire::Answer {
 public:
  // What it tells, on the transport's thread.
  class Sink {
   public:
    virtual ~Sink() = default;
    virtual void on_list_begins() = 0;
    virtual void on_listed(ApiObject object) = 0;
    virtual void on_list_ends() = 0;  // what was not listed is not there
    virtual void on_changed(ApiObject object) = 0;
    virtual void on_deleted(ApiObject object) = 0;
    // Good, or not for kToldAfter (at once for what time does not cure). Said when it changes.
    virtual void on_reachable(Status status) = 0;
  };
  // Counts a request: "list 200", "watch error".
  struct Seen {
    std::function<void(std::string_view verb, int status)> answered;  // status 0: none came
    std::function<void()> relisted;
    std::function<void()> event;
    std::function<void()> retried;
  };

  Watcher(Transport& transport, Source source, uint64_t seed, Sink& sink, Seen seen);

  void start() { list(); }

 private:
  enum class Doing { kListing, kWatching };
  enum class Failure { kPasses, kRelist };

  void on_head(const Head& head) override;
  void on_body(std::string_view bytes) override;
  void on_end(Status status) override;

  void list();
  void watch();
  void list_over();
  void watch_over();
  void next(Duration delay);
  [[nodiscard]] Status take(std::string_view json);
  [[nodiscard]] Status take_event(std::string_view json);
  void reachable();
  // The API server answered, and not as one that is merely busy would.
  [[nodiscard]] bool odd() const;
  void failed(Error error, Failure failure);

  Transport& transport_;
  Source source_;
  Sink& sink_;
  Seen seen_;
  Random random_;
  Backoff backoff_;
  std::unique_ptr<Wire> wire_;
  std::unique_ptr<Timer> timer_;

  Doing doing_ = Doing::kListing;
  Head head_;
  std::optional<JsonCutter> cutter_;
  std::string refusal_;
  std::string continue_from_;
  uint32_t pages_ = 0;
  std::string version_;
  bool heard_ = false;  // this watch said something
  uint32_t resumes_ = 0;
  MonotonicTime asked_{};
  std::optional<MonotonicTime> failing_since_;
  std::optional<bool> told_good_;
  std::string told_;
};

}  // namespace gpuslice::kube
