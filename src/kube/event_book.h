#pragma once

// Events that count instead of piling up: what was said before about the same object becomes a
// higher count of the same Event, at most once every kEventPause.
//
// Pure: the caller says what time it is and carries out what next() asks for, one at a time.

#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "base/random.h"
#include "base/result.h"
#include "base/time.h"
#include "kube/requests.h"
#include "ports/kube.h"

namespace gpuslice::kube {

// Different things that are remembered; the one that was said least recently is forgotten, and
// begins to count anew.
inline constexpr size_t kMaxEventsKept = 256;
inline constexpr Duration kEventPause = std::chrono::seconds(10);
// New Event objects: so many at once, then one each kEventRefill. What is beyond waits, counting.
inline constexpr int64_t kEventBurst = 25;
inline constexpr Duration kEventRefill = std::chrono::seconds(30);
// One that is refused for lack of a right is tried so often: a starting API server refuses
// everybody until it has read its roles.
inline constexpr uint32_t kMaxEventRefusals = 6;
// The API server keeps an Event for an hour; one that was not touched for longer is created anew.
inline constexpr Duration kEventLife = std::chrono::minutes(55);

class EventBook {
 public:
  // `node`: the own node's name; also who says it.
  EventBook(std::string node, uint64_t seed);

  // The node's uid, once it is known.
  void set_node_uid(std::string uid) { node_uid_ = std::move(uid); }

  // False: it was dropped, since kMaxEventsKept others wait to be written.
  [[nodiscard]] bool record(ports::KubeEvent event, MonotonicTime now);

  // What has to be sent now, if anything; done() follows before next() is asked again.
  [[nodiscard]] std::optional<Request> next(MonotonicTime now);
  // How many record() calls are in the API server now that were not before.
  uint64_t done(const Status& status, MonotonicTime now);
  // When next() would have something; nothing when nothing waits.
  [[nodiscard]] std::optional<MonotonicTime> due(MonotonicTime now) const;

 private:
  // Everything but the time.
  using Key =
      std::tuple<int, std::string, std::string, std::string, bool, std::string, std::string>;
  struct Entry {
    ports::KubeEvent event;  // as it was said last
    WallTime first{};
    std::string object;    // the Event's name; empty: not created
    uint64_t written = 0;  // the count in the API server
    uint64_t waiting = 0;  // said since
    uint32_t refused = 0;  // for lack of a right, since it was written last
    MonotonicTime not_before{};
    MonotonicTime touched{};  // last written
    std::list<Key>::iterator age;
  };

  [[nodiscard]] bool make_room();
  [[nodiscard]] int64_t tokens(MonotonicTime now) const;
  [[nodiscard]] Request create(Entry& entry);
  [[nodiscard]] Request count(const Entry& entry) const;
  [[nodiscard]] std::string name_space(const ports::KubeEvent& event) const;

  std::string node_;
  std::string node_uid_;
  Random random_;
  std::map<Key, Entry> entries_;
  std::list<Key> ages_;  // least recently said first
  std::optional<Key> sending_;
  uint64_t sending_count_ = 0;
  bool creating_ = false;
  // A bucket of tokens, kept as the time at which it was last known to be full.
  int64_t spent_ = 0;
  MonotonicTime spent_since_{};
};

}  // namespace gpuslice::kube
