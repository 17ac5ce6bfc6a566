// The list + watch against a scripted API server on virtual time.
#include "kube/watcher.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kube/fake_transport_for_test.h"

namespace gpuslice::kube {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::string node(std::string_view version, std::string_view label = "1") {
  return fmt::format(
      R"({{"metadata":{{"name":"n1","uid":"u","resourceVersion":"{}","labels":{{"l":"{}"}}}}}})",
      version, label);
}
std::string list(std::string_view version, std::string_view items,
                 std::string_view continue_from = {}) {
  return fmt::format(
      R"({{"kind":"NodeList","metadata":{{"resourceVersion":"{}","continue":"{}"}},"items":[{}]}})",
      version, continue_from, items);
}
std::string event(std::string_view type, std::string_view object) {
  return fmt::format(R"({{"type":"{}","object":{}}})", type, object) + "\n";
}
std::string status(int code, std::string_view reason) {
  return fmt::format(R"({{"kind":"Status","code":{},"reason":"{}","message":"said so"}})", code,
                     reason);
}

class WatcherTest : public ::testing::Test, public Watcher::Sink {
 protected:
  void on_list_begins() override { told.emplace_back("list"); }
  void on_listed(ApiObject object) override { told.push_back("item " + object.labels["l"]); }
  void on_list_ends() override { told.emplace_back("end"); }
  void on_changed(ApiObject object) override { told.push_back("change " + object.labels["l"]); }
  void on_deleted(ApiObject object) override { told.push_back("gone " + object.labels["l"]); }
  void on_reachable(Status good) override {
    told.push_back(good ? "good" : "bad " + good.error().message);
  }
  std::vector<std::string> since() { return std::exchange(told, {}); }
  static bool lists(const Request& request) {
    return request.verb == "list" && !request.target.contains("watch=");
  }
  // Past the first list, watching from version 10.
  FakeTransport::Asked begin() {
    watcher.start();
    transport.take().wire->answer(200, list("10", node("9")));
    EXPECT_EQ(since(), (std::vector<std::string>{"list", "item 1", "end", "good"}));
    return transport.take();
  }

  FakeTransport transport;
  std::vector<std::string> told;
  int relists = 0;
  int retries = 0;
  Watcher watcher{
      transport,
      node_source("n1"),
      7,
      *this,
      {[](std::string_view, int) {}, [this] { ++relists; }, [] {}, [this] { ++retries; }}};
};

TEST_F(WatcherTest, AsksForTheOwnNodeOnly) {
  watcher.start();
  const Request listing = transport.take().request;
  EXPECT_EQ(listing.method, "GET");
  EXPECT_EQ(listing.target, "/api/v1/nodes?fieldSelector=metadata.name%3Dn1&limit=500");
}

TEST_F(WatcherTest, ListsThenWatchesFromThere) {
  const FakeTransport::Asked watch = begin();
  EXPECT_TRUE(watch.request.target.starts_with(
      "/api/v1/nodes?fieldSelector=metadata.name%3Dn1&watch=true&allowWatchBookmarks=true&"
      "resourceVersion=10&timeoutSeconds="))
      << watch.request.target;
  EXPECT_EQ(watch.request.whole, Duration::zero());
  watch.wire->head(200);
  watch.wire->body(event("MODIFIED", node("11", "2")) + event("DELETED", node("12", "2")));
  EXPECT_EQ(since(), (std::vector<std::string>{"change 2", "gone 2"}));
}

TEST_F(WatcherTest, ListsOfSeveralPagesAreOneList) {
  watcher.start();
  transport.take().wire->answer(200, list("10", node("1", "a"), "go/on="));
  const FakeTransport::Asked second = transport.take();
  EXPECT_TRUE(second.request.target.ends_with("&limit=500&continue=go%2Fon%3D"));
  second.wire->answer(200, list("10", node("2", "b") + "," + node("3", "c")));
  EXPECT_EQ(since(),
            (std::vector<std::string>{"list", "item a", "item b", "item c", "end", "good"}));
}

TEST_F(WatcherTest, AContinuationThatIsTooOldBeginsTheListAnew) {
  watcher.start();
  transport.take().wire->answer(200, list("10", node("1", "a"), "x"));
  transport.take().wire->answer(410, status(410, "Expired"));
  transport.until_asked();
  const FakeTransport::Asked again = transport.take();
  EXPECT_TRUE(again.request.target.ends_with("&limit=500"));
  again.wire->answer(200, list("11", node("1", "b")));
  EXPECT_EQ(since(), (std::vector<std::string>{"list", "item a", "list", "item b", "end", "good"}));
}

TEST_F(WatcherTest, AListWithoutAnEndIsLeft) {
  watcher.start();
  for (uint32_t page = 0; page < kMaxListPages; ++page)
    transport.take().wire->answer(200, list("10", "", "more"));
  EXPECT_TRUE(transport.asked.empty());
  EXPECT_EQ(retries, 1);
}

TEST_F(WatcherTest, AWatchThatEndsIsResumedAtOnceFromWhatWasSeenLast) {
  FakeTransport::Asked watch = begin();
  watch.wire->head(200);
  watch.wire->body(event("BOOKMARK", R"({"metadata":{"resourceVersion":"55"}})"));
  watch.wire->end();
  watch = transport.take();
  EXPECT_TRUE(watch.request.target.contains("resourceVersion=55&"));
  EXPECT_EQ(relists, 1);
  EXPECT_TRUE(since().empty());
}

TEST_F(WatcherTest, ABreakInTheMiddleOfAnObjectLosesNothing) {
  FakeTransport::Asked watch = begin();
  const std::string change = event("MODIFIED", node("11", "2"));
  for (size_t at = 1; at < change.size() - 2; at += 7) {
    watch.wire->head(200);
    watch.wire->body(event("BOOKMARK", R"({"metadata":{"resourceVersion":"10"}})"));
    watch.wire->body(change.substr(0, at));
    watch.wire->breaks();
    EXPECT_LE(transport.until_asked(), kBackoffFirst);
    watch = transport.take();
    ASSERT_TRUE(watch.request.target.contains("resourceVersion=10&"));
  }
  watch.wire->head(200);
  watch.wire->body(change);
  EXPECT_EQ(since(), (std::vector<std::string>{"change 2"}));
  EXPECT_EQ(relists, 1);
}

TEST_F(WatcherTest, AVersionThatIsTooOldIsListedAnew) {
  FakeTransport::Asked watch = begin();
  watch.wire->head(200);
  watch.wire->body(event("MODIFIED", node("11", "2")));
  watch.wire->body(event("ERROR", status(410, "Expired")));
  EXPECT_EQ(transport.until_asked(), Duration::zero());
  FakeTransport::Asked again = transport.take();
  EXPECT_TRUE(lists(again.request));
  again.wire->answer(200, list("20", node("19", "3")));
  EXPECT_EQ(since(), (std::vector<std::string>{"change 2", "list", "item 3", "end"}));
  // The other way to say it: as the answer's status.
  transport.take().wire->answer(410, status(410, "Gone"));
  transport.until_asked();
  EXPECT_TRUE(lists(transport.take().request));
}

TEST_F(WatcherTest, AServerThatForgetsAtOnceIsNotHammered) {
  watcher.start();
  const MonotonicTime start = transport.now();
  for (int i = 0; i < 20; ++i) {
    transport.until_asked();
    transport.take().wire->answer(200, list("10", node("9")));
    transport.take().wire->answer(410, status(410, "Expired"));
  }
  EXPECT_GT(transport.now() - start, seconds(120));
}

TEST_F(WatcherTest, WaitsGrowToACeilingAndAreSpread) {
  watcher.start();
  std::vector<Duration> waits;
  for (int i = 0; i < 14; ++i) {
    transport.take().wire->breaks();
    waits.push_back(transport.until_asked());
  }
  Duration whole = kBackoffFirst;
  for (const Duration wait : waits) {
    EXPECT_GE(wait, whole / 2);
    EXPECT_LE(wait, whole);
    whole = std::min(kBackoffCeiling, whole * 2);
  }
  EXPECT_NE(waits[12], waits[13]);
  EXPECT_GE(waits[13], kBackoffCeiling / 2);
}

TEST_F(WatcherTest, RetryAfterIsObeyedUpToALimit) {
  watcher.start();
  transport.take().wire->answer(429, status(429, "TooManyRequests"), seconds(7));
  EXPECT_EQ(transport.until_asked(), seconds(7));
  transport.take().wire->answer(503, "busy", std::chrono::hours(24 * 365));
  EXPECT_EQ(transport.until_asked(), kMaxRetryAfter);
}

TEST_F(WatcherTest, AnOutageIsToldOnceAndItsEndToo) {
  FakeTransport::Asked watch = begin();
  watch.wire->head(200);
  watch.wire->breaks();
  const MonotonicTime start = transport.now();
  while (transport.now() - start < std::chrono::minutes(1)) {
    transport.until_asked();
    transport.take().wire->breaks();
    if (transport.now() - start < kToldAfter) {
      EXPECT_TRUE(told.empty());
    }
  }
  EXPECT_EQ(since(), (std::vector<std::string>{"bad node n1: the connection broke"}));
  transport.until_asked();
  watch = transport.take();
  // Back where it was: an outage alone makes nobody list.
  EXPECT_TRUE(watch.request.target.contains("resourceVersion=10&")) << watch.request.target;
  watch.wire->head(200);
  EXPECT_EQ(since(), (std::vector<std::string>{"good"}));
  EXPECT_EQ(relists, 1);
}

TEST_F(WatcherTest, AMissingRightIsToldAtOnceAndAskedForAgain) {
  watcher.start();
  transport.take().wire->answer(403, status(403, "Forbidden"));
  EXPECT_EQ(since(), (std::vector<std::string>{
                         "list",
                         "bad node n1: list refused by the API server: said so; give the "
                         "agent's account this right (its ClusterRole)"}));
  transport.until_asked();
  transport.take().wire->answer(200, list("10", node("9")));
  EXPECT_EQ(since(), (std::vector<std::string>{"list", "item 1", "end", "good"}));
}

TEST_F(WatcherTest, ATokenThatWasReplacedAMomentAgoIsNoOutage) {
  watcher.start();
  transport.take().wire->answer(401, status(401, "Unauthorized"));
  EXPECT_EQ(since(), (std::vector<std::string>{"list"}));
  EXPECT_LE(transport.until_asked(), kBackoffFirst);
}

TEST_F(WatcherTest, GarbageIsNoNews) {
  watcher.start();
  for (const std::string_view garbage :
       {"<html>", "{}", R"({"items":[{]})", R"({"items":[7]})",
        R"({"metadata":{"resourceVersion":"1"},"items":[{"a":tru}]})",
        R"({"metadata":{"resourceVersion":"1"})"}) {
    transport.until_asked();
    transport.take().wire->answer(200, garbage);
  }
  EXPECT_EQ(std::count(told.begin(), told.end(), "end"), 0);
  transport.until_asked();
  transport.take().wire->answer(200, list("10", node("9")));
  told.clear();
  FakeTransport::Asked watch = transport.take();
  watch.wire->head(200);
  watch.wire->body("]");
  EXPECT_FALSE(watch.wire->open());
  transport.until_asked();
  EXPECT_TRUE(transport.take().request.target.contains("resourceVersion=10&"));
}

TEST_F(WatcherTest, AnObjectThatIsTooLargeEndsTheWatchNotTheProcess) {
  FakeTransport::Asked watch = begin();
  for (uint32_t i = 0; i <= kMaxResumes; ++i) {
    watch.wire->head(200);
    watch.wire->body(R"({"type":"ADDED","object":{"x":")");
    const std::string part(1024 * 1024, 'x');
    for (int mib = 0; mib < 5 && watch.wire->open(); ++mib) watch.wire->body(part);
    ASSERT_FALSE(watch.wire->open());
    transport.until_asked();
    watch = transport.take();
  }
  // It never gets past it: the list is asked for.
  EXPECT_TRUE(lists(watch.request));
}

TEST_F(WatcherTest, AWatchThatAlwaysEndsAtOnceIsNotHammered) {
  FakeTransport::Asked watch = begin();
  const MonotonicTime start = transport.now();
  for (int i = 0; i < 10; ++i) {
    watch.wire->answer(200, "");
    transport.until_asked();
    watch = transport.take();
    if (lists(watch.request)) {
      watch.wire->answer(200, list("10", node("9")));
      watch = transport.take();
    }
  }
  EXPECT_GT(transport.now() - start, seconds(10));
}

// Whatever the server does, in the end the newest object is what was told, and nothing is asked
// twice at a time.
TEST_F(WatcherTest, AnyOrderOfFaultsEndsWithTheTruth) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    Random random(seed);
    FakeTransport world;
    told.clear();
    Watcher machine(world, node_source("n1"), seed, *this,
                    {[](std::string_view, int) {}, [] {}, [] {}, [] {}});
    machine.start();
    int version = 10;
    const auto step = [&](bool faults) {
      world.until_asked();
      ASSERT_EQ(world.asked.size(), 1U);
      FakeTransport::Asked asked = world.take();
      if (random.chance(1, 3)) ++version;
      const std::string now = std::to_string(version);
      const uint64_t what = faults ? random.below(8) : 7;
      if (what == 0) return asked.wire->breaks();
      if (what == 1) return asked.wire->breaks(Code::kTimeout);
      if (what == 2) return asked.wire->answer(500 + static_cast<int>(random.below(4)), "oops");
      if (what == 3) return asked.wire->answer(429, "{}", seconds(random.below(5)));
      if (what == 4) return asked.wire->answer(410, status(410, "Expired"));
      if (what == 5) return asked.wire->answer(401, "");
      const std::string text =
          lists(asked.request) ? list(now, node(now, now)) : event("MODIFIED", node(now, now));
      asked.wire->head(200);
      if (what == 6) {
        asked.wire->body(text.substr(0, random.below(text.size())));
        asked.wire->breaks();
        return;
      }
      asked.wire->body(text);
      asked.wire->end();
    };
    for (int i = 0; i < 60; ++i) step(true);
    for (int i = 0; i < 3; ++i) step(false);
    const std::string now = std::to_string(version);
    ASSERT_FALSE(told.empty());
    std::string last;
    for (const std::string& line : told)
      if (line.starts_with("item ") || line.starts_with("change "))
        last = line.substr(line.find(' ') + 1);
    EXPECT_EQ(last, now) << "seed " << seed;
  }
}

}  // namespace
}  // namespace gpuslice::kube
