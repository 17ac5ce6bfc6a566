// Changes and Events against a scripted API server on virtual time, and the port over both.
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "kube/event_book.h"
#include "kube/fake_transport_for_test.h"
#include "kube/node_kube.h"
#include "kube/sender.h"

namespace gpuslice::kube {
namespace {

using std::chrono::seconds;

std::string status(int code, std::string_view reason, std::string_view cause = {}) {
  return fmt::format(
      R"({{"kind":"Status","code":{},"reason":"{}","message":"said so","details":{{"causes":[{{"reason":"{}","field":"metadata.uid"}}]}}}})",
      code, reason, cause);
}

TEST(Requests, LabelsAreAppliedToTheNodeThatWasSeen) {
  const Request request = labels_request({"n1", "u-1"}, {{{"a/b", "c"}}, true});
  EXPECT_EQ(request.method, "PATCH");
  EXPECT_EQ(request.target, "/api/v1/nodes/n1?fieldManager=gpuslice&force=true");
  EXPECT_EQ(request.content_type, "application/apply-patch+yaml");
  EXPECT_EQ(
      request.body,
      R"({"apiVersion":"v1","kind":"Node","metadata":{"labels":{"a/b":"c"},"name":"n1","uid":"u-1"}})");
  EXPECT_EQ(labels_request({"n1", "u-1"}, {}).body,
            R"({"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","uid":"u-1"}})");
}

TEST(Requests, APatchNamesItsKeysOnly) {
  ports::NodePatch patch;
  patch.labels = {{"nvidia.com/mig.config.state", "success"}, {"old", std::nullopt}};
  patch.annotations = {{"a", "\"quoted\""}};
  patch.only_version = "12";
  const Request request = patch_request({"n1", "u"}, patch);
  EXPECT_EQ(request.content_type, "application/merge-patch+json");
  EXPECT_EQ(
      request.body,
      R"({"metadata":{"annotations":{"a":"\"quoted\""},"labels":{"nvidia.com/mig.config.state":"success","old":null},"resourceVersion":"12","uid":"u"}})");
}

TEST(Requests, AnEviction) {
  const Request request = evict_request({"ns", "p"}, "u");
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.target, "/api/v1/namespaces/ns/pods/p/eviction");
  EXPECT_EQ(
      request.body,
      R"({"apiVersion":"policy/v1","deleteOptions":{"preconditions":{"uid":"u"}},"kind":"Eviction","metadata":{"name":"p","namespace":"ns"}})");
}

TEST(Requests, NamesCannotLeaveTheirPlace) {
  EXPECT_EQ(percent_encoded("a/../b?c&d=e%"), "a%2F..%2Fb%3Fc%26d%3De%25");
  EXPECT_EQ(config_map_source({"a b", "c&d"}).path, "/api/v1/namespaces/a%20b/configmaps");
}

TEST(Refusals, MeanWhatTheySay) {
  struct Row {
    int status;
    std::string body;
    Code code;
    bool again;
  };
  for (const Row& row : std::vector<Row>{
           {400, "", Code::kInvalidConfig, false},
           {401, "", Code::kNoPermission, true},
           {403, "", Code::kNoPermission, false},
           {404, "", Code::kNotFound, false},
           {409, status(409, "Conflict", "FieldManagerConflict"), Code::kInUse, false},
           {409, status(409, "Conflict"), Code::kDiffers, false},
           {410, "", Code::kDiffers, false},
           {422, status(422, "Invalid", "FieldValueInvalid"), Code::kDiffers, false},
           {422, "{}", Code::kInvalidConfig, false},
           {429, "", Code::kUnavailable, true},
           {429, status(429, "TooManyRequests", "DisruptionBudget"), Code::kInUse, false},
           {500, "<html>", Code::kUnavailable, true},
           {504, "", Code::kUnavailable, true},
           {302, "", Code::kFailed, false}}) {
    const Refusal refusal = refusal_of(row.status, row.body, "patch", "node n1");
    EXPECT_EQ(refusal.error.code, row.code) << row.status << row.body;
    EXPECT_EQ(refusal.again, row.again) << row.status;
    EXPECT_TRUE(refusal.error.message.starts_with("node n1: patch refused by the API server: "));
  }
}

class SenderTest : public ::testing::Test {
 protected:
  void ask(const std::string& what) {
    Request request;
    request.verb = "patch";
    request.target = what;
    sender.add({request, what, [this, what](const Status& done) {
                  answers.push_back(
                      what + (done ? " ok" : " " + std::string(code_name(done.error().code))));
                }});
  }
  FakeTransport transport;
  std::vector<std::string> answers;
  Sender sender{transport, 3, {[](std::string_view, int) {}, [] {}}};
};

TEST_F(SenderTest, OneAtATimeInOrder) {
  ask("a");
  ask("b");
  ASSERT_EQ(transport.asked.size(), 1U);
  transport.take().wire->answer(200, "{}");
  EXPECT_EQ(answers, (std::vector<std::string>{"a ok"}));
  transport.take().wire->answer(201, std::string(kMaxAnswerBytes * 3, 'x'));
  EXPECT_EQ(answers, (std::vector<std::string>{"a ok", "b ok"}));
  EXPECT_EQ(sender.under_way(), 0U);
}

TEST_F(SenderTest, WhatMayPassIsTriedAgainABoundedNumberOfTimes) {
  ask("a");
  for (uint32_t i = 0; i < kMaxTries; ++i) {
    ASSERT_TRUE(answers.empty());
    EXPECT_LE(transport.until_asked(), kBackoffCeiling);
    i % 2 == 0 ? transport.take().wire->answer(503, "") : transport.take().wire->breaks();
  }
  EXPECT_EQ(answers, (std::vector<std::string>{"a unavailable"}));
  EXPECT_EQ(transport.until_asked(), Duration::zero());
  EXPECT_TRUE(transport.asked.empty());
}

TEST_F(SenderTest, AWaitThatIsTooLongIsNotWaited) {
  ask("a");
  transport.take().wire->answer(429, "", seconds(31));
  EXPECT_EQ(answers, (std::vector<std::string>{"a unavailable"}));
  ask("b");
  transport.take().wire->answer(429, "", seconds(5));
  EXPECT_EQ(transport.until_asked(), seconds(5));
  transport.take().wire->answer(200, "");
  EXPECT_EQ(answers.back(), "b ok");
}

TEST_F(SenderTest, ARefusalIsNotArguedWith) {
  ask("a");
  transport.take().wire->answer(403, status(403, "Forbidden"));
  ask("b");
  transport.take().wire->breaks(Code::kInvalidConfig);
  EXPECT_EQ(answers, (std::vector<std::string>{"a no-permission", "b invalid-config"}));
}

ports::KubeEvent said(std::string reason, int at = 0) {
  ports::KubeEvent event;
  event.reason = std::move(reason);
  event.message = "m";
  event.warning = true;
  event.at = WallTime(seconds(1764000000 + at));
  return event;
}

TEST(EventBook, CountsInsteadOfPilingUp) {
  EventBook book("n1", 1);
  MonotonicTime now{seconds(100)};
  ASSERT_TRUE(book.record(said("A"), now));
  EXPECT_FALSE(book.next(now));  // the node's uid is not known
  book.set_node_uid("u");
  const std::optional<Request> create = book.next(now);
  ASSERT_TRUE(create);
  EXPECT_EQ(create->target, "/api/v1/namespaces/default/events");
  EXPECT_TRUE(create->body.contains(R"("count":1,"firstTimestamp":"2025-11-24T16:00:00Z")"))
      << create->body;
  EXPECT_TRUE(create->body.contains(R"("type":"Warning")"));
  EXPECT_EQ(book.done({}, now), 1U);
  for (int i = 1; i <= 500; ++i) ASSERT_TRUE(book.record(said("A", i), now));
  EXPECT_FALSE(book.next(now));
  EXPECT_EQ(book.due(now), now + kEventPause);
  now += kEventPause;
  const std::optional<Request> count = book.next(now);
  ASSERT_TRUE(count);
  EXPECT_EQ(count->method, "PATCH");
  EXPECT_TRUE(count->target.starts_with("/api/v1/namespaces/default/events/n1."));
  EXPECT_EQ(count->body, R"({"count":501,"lastTimestamp":"2025-11-24T16:08:20Z"})");
  EXPECT_EQ(book.done({}, now), 500U);
  EXPECT_FALSE(book.due(now));
}

TEST(EventBook, AnEventWhoseHourIsOverIsMadeAnew) {
  EventBook book("n1", 1);
  book.set_node_uid("u");
  MonotonicTime now{seconds(100)};
  ASSERT_TRUE(book.record(said("A"), now));
  ASSERT_TRUE(book.next(now));
  book.done({}, now);
  now += seconds(60);
  ASSERT_TRUE(book.record(said("A", 60), now));
  ASSERT_EQ(book.next(now)->method, "PATCH");
  EXPECT_EQ(book.done(fail(Code::kNotFound, "gone"), now), 0U);
  std::optional<Request> again = book.next(now);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->method, "POST");
  EXPECT_TRUE(again->body.contains(R"("count":1,)"));
  book.done({}, now);
  now += kEventLife + seconds(1);
  ASSERT_TRUE(book.record(said("A", 9000), now));
  EXPECT_EQ(book.next(now)->method, "POST");
}

TEST(EventBook, ALostAnswerCountsOnce) {
  EventBook book("n1", 1);
  book.set_node_uid("u");
  const MonotonicTime now{seconds(100)};
  ASSERT_TRUE(book.record(said("A"), now));
  ASSERT_TRUE(book.next(now));
  EXPECT_EQ(book.done(fail(Code::kDiffers, "there is one of that name"), now), 1U);
  ASSERT_TRUE(book.record(said("A", 1), now));
  EXPECT_TRUE(book.next(now + kEventPause)->body.contains(R"("count":2)"));
}

// A starting API server refuses everybody until it has read its roles.
TEST(EventBook, ARightThatIsMissingIsAskedForSomeTimesAndNotForEver) {
  EventBook book("n1", 1);
  book.set_node_uid("u-1");
  MonotonicTime now{seconds(100)};
  const Status refused = fail(Code::kNoPermission, "forbidden");
  ASSERT_TRUE(book.record(said("A"), now));
  for (uint32_t i = 0; i + 1 < kMaxEventRefusals; ++i) {
    ASSERT_TRUE(book.next(now)) << i;
    EXPECT_EQ(book.done(refused, now), 0u);
    EXPECT_FALSE(book.next(now)) << "not at once";
    ASSERT_EQ(book.due(now), now + kEventPause);
    now += kEventPause;
  }
  ASSERT_TRUE(book.next(now));
  EXPECT_EQ(book.done({}, now), 1u);
  // What is never allowed is dropped.
  now += kEventPause;
  ASSERT_TRUE(book.record(said("A"), now));
  for (uint32_t i = 0; i < kMaxEventRefusals; ++i) {
    ASSERT_TRUE(book.next(now)) << i;
    EXPECT_EQ(book.done(refused, now), 0u);
    now += kEventPause;
  }
  EXPECT_FALSE(book.next(now));
  EXPECT_FALSE(book.due(now));
}

TEST(EventBook, ManyDifferentOnesAreHeldBackAndBounded) {
  EventBook book("n1", 1);
  book.set_node_uid("u");
  MonotonicTime now{seconds(100)};
  int kept = 0;
  for (size_t i = 0; i < kMaxEventsKept + 40; ++i)
    kept += book.record(said("R" + std::to_string(i)), now) ? 1 : 0;
  EXPECT_EQ(kept, static_cast<int>(kMaxEventsKept));
  int sent = 0;
  while (book.next(now)) {
    ++sent;
    book.done({}, now);
  }
  EXPECT_EQ(sent, kEventBurst);
  EXPECT_EQ(book.due(now), now + kEventRefill);
  now += kEventRefill * 3;
  sent = 0;
  while (book.next(now)) {
    ++sent;
    book.done({}, now);
  }
  EXPECT_EQ(sent, 3);
}

TEST(EventBook, LongMessagesAreCutBetweenCharacters) {
  EventBook book("n1", 1);
  book.set_node_uid("u");
  ports::KubeEvent event = said("A");
  event.message.clear();
  for (int i = 0; i < 600; ++i) event.message += "é";
  event.message.insert(0, "x");
  ASSERT_TRUE(book.record(event, {}));
  const std::string body = book.next({})->body;
  EXPECT_FALSE(body.contains("\xEF\xBF\xBD"));
  EXPECT_TRUE(body.contains("éé"));
}

class PortTest : public ::testing::Test, public ports::KubeEvents {
 protected:
  void on_node(std::optional<ports::NodeObject> node) override {
    told.push_back(node ? "node " + node->version : "no node");
  }
  void on_config_map(const ports::ObjectName& name,
                     std::optional<ports::ConfigMapObject> map) override {
    told.push_back(name.name + (map ? " " + map->data["k"] : " none"));
  }
  void on_pods(ports::PodList pods) override {
    std::string line = "pods";
    for (const ports::PodObject& pod : *pods) line += " " + pod.name.name;
    told.push_back(line);
  }
  void on_kube_reachable(Status good) override {
    told.push_back(good ? "good" : "bad " + good.error().message);
  }
  void on_labels_applied(Status done) override { answer("labels", done); }
  void on_node_patched(Status done) override { answer("patched", done); }
  void on_evicted(const ports::ObjectName& pod, Status done) override {
    answer("evicted " + pod.name, done);
  }
  void answer(const std::string& line, const Status& done) {
    told.push_back(line + (done ? " ok" : " " + std::string(code_name(done.error().code))));
  }
  // Runs T0.
  std::vector<std::string> since() {
    while (!posted.empty()) {
      const std::function<void()> work = std::move(posted.front());
      posted.pop_front();
      work();
    }
    return std::exchange(told, {});
  }
  void see_node() {
    kube->watch_node();
    transport->take().wire->answer(
        200,
        R"({"metadata":{"resourceVersion":"5"},"items":[{"metadata":{"name":"n1","uid":"u","resourceVersion":"4"}}]})");
    EXPECT_EQ(since(), (std::vector<std::string>{"node 4", "good"}));
    watch = transport->take().wire;
    watch->head(200);
  }

  std::deque<std::function<void()>> posted;
  std::vector<std::string> told;
  std::unique_ptr<FakeTransport> owned = std::make_unique<FakeTransport>();
  FakeTransport* transport = owned.get();
  FakeTransport::FakeWire* watch = nullptr;
  std::unique_ptr<NodeKube> kube = std::make_unique<NodeKube>(
      NodeKube::Options{
          "n1", [this](std::function<void()> work) { posted.push_back(std::move(work)); }, 1},
      std::move(owned), *this);
};

TEST_F(PortTest, NothingOfTheNodeIsChangedBeforeItWasSeen) {
  kube->apply_labels({});
  kube->patch_node({});
  EXPECT_TRUE(told.empty());
  EXPECT_EQ(since(), (std::vector<std::string>{"labels unavailable", "patched unavailable"}));
  EXPECT_TRUE(transport->asked.empty());
  see_node();
  kube->apply_labels({{{"a", "b"}}, true});
  FakeTransport::Asked asked = transport->take();
  EXPECT_TRUE(asked.request.body.contains(R"("uid":"u")"));
  asked.wire->answer(200, "{}");
  EXPECT_EQ(since(), (std::vector<std::string>{"labels ok"}));
}

TEST_F(PortTest, T0HearsTheNewestOnly) {
  see_node();
  for (int version = 10; version < 200; ++version)
    watch->body(fmt::format(
        R"({{"type":"MODIFIED","object":{{"metadata":{{"name":"n1","uid":"u","resourceVersion":"{}"}}}}}})",
        version));
  EXPECT_EQ(posted.size(), 1U);
  EXPECT_EQ(since(), (std::vector<std::string>{"node 199"}));
  // Another's node is not ours, whatever a server says.
  watch->body(R"({"type":"DELETED","object":{"metadata":{"name":"n2","resourceVersion":"300"}}})");
  EXPECT_TRUE(since().empty());
  watch->body(R"({"type":"DELETED","object":{"metadata":{"name":"n1","resourceVersion":"301"}}})");
  EXPECT_EQ(since(), (std::vector<std::string>{"no node"}));
  kube->apply_labels({});
  EXPECT_EQ(since(), (std::vector<std::string>{"labels unavailable"}));
}

TEST_F(PortTest, ChangesAreBounded) {
  see_node();
  for (size_t i = 0; i < ports::kMaxChangesUnderWay + 3; ++i) kube->patch_node({});
  EXPECT_EQ(since(), (std::vector<std::string>(3, "patched unavailable")));
  EXPECT_EQ(kube->counts().refused, 3U);
  for (size_t i = 0; i < ports::kMaxChangesUnderWay; ++i) transport->take().wire->answer(200, "{}");
  EXPECT_EQ(since(), (std::vector<std::string>(ports::kMaxChangesUnderWay, "patched ok")));
  EXPECT_EQ(kube->counts().changes_under_way, 0U);
  EXPECT_EQ(kube->counts().requests["patch 200"], ports::kMaxChangesUnderWay);
}

TEST_F(PortTest, ConfigMapsByNameAndTheirAbsence) {
  ASSERT_TRUE(kube->watch_config_map({"gpu", "plugin"}));
  FakeTransport::Asked asked = transport->take();
  EXPECT_EQ(asked.request.target,
            "/api/v1/namespaces/gpu/configmaps?fieldSelector=metadata.name%3Dplugin&limit=500");
  asked.wire->answer(200, R"({"metadata":{"resourceVersion":"5"},"items":[]})");
  EXPECT_EQ(since(), (std::vector<std::string>{"plugin none", "good"}));
  asked = transport->take();
  asked.wire->head(200);
  asked.wire->body(
      R"({"type":"ADDED","object":{"metadata":{"name":"plugin","namespace":"gpu","resourceVersion":"6"},"data":{"k":"v"}}})");
  EXPECT_EQ(since(), (std::vector<std::string>{"plugin v"}));
  asked.wire->body(
      R"({"type":"DELETED","object":{"metadata":{"name":"plugin","namespace":"gpu","resourceVersion":"7"}}})");
  kube->unwatch_config_map({"gpu", "plugin"});
  EXPECT_TRUE(since().empty());
  for (size_t i = 0; i < ports::kMaxConfigMapsWatched; ++i)
    ASSERT_TRUE(kube->watch_config_map({"gpu", std::to_string(i)}));
  EXPECT_FALSE(kube->watch_config_map({"gpu", "x"}));
}

TEST_F(PortTest, PodsComeAsOneListAfterABurst) {
  kube->watch_pods();
  FakeTransport::Asked asked = transport->take();
  EXPECT_EQ(asked.request.target, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&limit=500");
  asked.wire->answer(
      200,
      R"({"metadata":{"resourceVersion":"5"},"items":[{"metadata":{"name":"b","namespace":"x"}},{"metadata":{"name":"a","namespace":"x"}}]})");
  transport->pass(kPodsPause);
  EXPECT_EQ(since(), (std::vector<std::string>{"good", "pods a b"}));
  asked = transport->take();
  asked.wire->head(200);
  asked.wire->body(
      R"({"type":"DELETED","object":{"metadata":{"name":"a","namespace":"x","resourceVersion":"6"}}})"
      R"({"type":"ADDED","object":{"metadata":{"name":"c","namespace":"x","resourceVersion":"7"}}})");
  transport->pass(kPodsPause);
  EXPECT_EQ(since(), (std::vector<std::string>{"pods b c"}));
}

// A sanitizer keeps what was freed, and shadows of all memory.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMemoryIsOurs = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kMemoryIsOurs = false;
#else
constexpr bool kMemoryIsOurs = true;
#endif
#else
constexpr bool kMemoryIsOurs = true;
#endif

// The memory of this process that is in use at its highest since the last call.
size_t peak_kib() {
  size_t peak = 0;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) peak = std::stoul(line.substr(6));
  std::ofstream("/proc/self/clear_refs") << "5";
  return peak;
}

// A server that pays no heed to the page's size and sends 5,000 pods of 20 KiB at once.
TEST_F(PortTest, FiveThousandPodsInOneAnswerAreNeverHeldAtOnce) {
  const std::string padding(20 * 1024, 'x');
  kube->watch_pods();
  FakeTransport::FakeWire* wire = transport->take().wire;
  peak_kib();
  const size_t before = peak_kib();
  wire->head(200);
  wire->body(R"({"metadata":{"resourceVersion":"5"},"items":[)");
  for (int i = 0; i < 5000; ++i)
    wire->body(fmt::format(
        R"({}{{"metadata":{{"name":"p{}","namespace":"x","uid":"u"}},"spec":{{"padding":"{}"}},"status":{{"phase":"Running"}}}})",
        i == 0 ? "" : ",", i, padding));
  wire->body("]}");
  wire->end();
  transport->pass(kPodsPause);
  const size_t after = peak_kib();
  ASSERT_EQ(since().size(), 2U);
  // 100 MiB went through; what is kept is some 400 bytes of each pod, twice while it is told.
  if (kMemoryIsOurs) {
    EXPECT_LT(after - before, 16U * 1024);
  }
}

TEST_F(PortTest, AnswersAfterItsEndAreForgotten) {
  see_node();
  kube->patch_node({});
  transport->take().wire->answer(200, "{}");
  kube.reset();
  EXPECT_TRUE(since().empty());
}

TEST_F(PortTest, EventsGoTheirOwnWay) {
  see_node();
  kube->record(said("A"));
  FakeTransport::Asked event = transport->take();
  EXPECT_EQ(event.request.verb, "create");
  // It hangs; changes do not.
  kube->evict({"x", "p"}, "u");
  transport->take().wire->answer(404, "");
  EXPECT_EQ(since(), (std::vector<std::string>{"evicted p not-found"}));
  event.wire->answer(201, "{}");
  EXPECT_EQ(kube->counts().events_recorded, 1U);
}

}  // namespace
}  // namespace gpuslice::kube
