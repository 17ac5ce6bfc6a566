#include "api_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "api_texts.h"
#include "base/text.h"

namespace gpuslice::dst {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kBookmark = seconds(60);
constexpr const char* kNodes = "/api/v1/nodes";
constexpr const char* kPods = "/api/v1/pods";
constexpr std::string_view kEviction = "/eviction";

// The number after `key` in a target.
uint64_t number_after(const std::string& target, std::string_view key) {
  const size_t at = target.find(key);
  if (at == std::string::npos) return 0;
  const std::string_view rest = std::string_view(target).substr(at + key.size());
  return parse_u64(rest.substr(0, rest.find('&'))).value_or(0);
}

}  // namespace

// --- what the client holds
// -------------------------------------------------------------------------------------------------

class ApiServer::Wire final : public kube::Wire {
 public:
  explicit Wire(ApiServer& server) : server_(server) {}
  ~Wire() override { server_.close(id_); }
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;
  void send(kube::Request request, Answer& answer) override {
    server_.close(id_);
    id_ = ++server_.next_connection_;
    server_.open(id_, std::move(request), answer);
  }
  void cancel() override { server_.close(id_); }

 private:
  ApiServer& server_;
  uint64_t id_ = 0;
};

class ApiServer::Client final : public kube::Transport {
 public:
  explicit Client(ApiServer& server) : server_(server) {}
  [[nodiscard]] MonotonicTime now() const override { return server_.timeline_.now(); }
  [[nodiscard]] std::unique_ptr<kube::Wire> wire() override {
    return std::make_unique<ApiServer::Wire>(server_);
  }
  [[nodiscard]] std::unique_ptr<kube::Timer> timer() override {
    return server_.timeline_.kube_timer();
  }
  // On another thread, in a process: never from within the call.
  void post(std::function<void()> work) override {
    server_.called_();
    server_.timeline_.after({}, [alive = alive_, work = std::move(work)] {
      if (*alive) work();
    });
  }
  void stop() override { *alive_ = false; }

 private:
  ApiServer& server_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

ApiServer::ApiServer(Timeline& timeline, Random& random, std::function<void(Fault)> strike,
                     std::function<void()> called)
    : timeline_(timeline), random_(random), strike_(std::move(strike)), called_(std::move(called)) {
  node_.emplace();
  node_->uid = fmt::format("uid-{}", ++nodes_);
}

ApiServer::~ApiServer() = default;

std::unique_ptr<kube::Transport> ApiServer::connect() { return std::make_unique<Client>(*this); }

// --- requests
// --------------------------------------------------------------------------------------------------------------

Duration ApiServer::delay() {
  Duration d = milliseconds(random_.between(1, 20));
  if (slow_ > Duration::zero()) d += Duration(random_.between(0, slow_.count()));
  return d;
}

void ApiServer::after(Duration d, uint64_t id, void (ApiServer::*work)(uint64_t)) {
  timeline_.after(d, [this, id, work] {
    if (connections_.contains(id)) (this->*work)(id);
  });
}

void ApiServer::open(uint64_t id, kube::Request request, kube::Wire::Answer& answer) {
  // What takes longer than the client waits is done all the same.
  const Duration d = std::min(delay(), request.idle);
  connections_[id] = {&answer, std::move(request)};
  after(d, id, &ApiServer::serve);
}

void ApiServer::serve(uint64_t id) {
  const kube::Request& request = connections_.at(id).request;
  if (away_) return end(id, fail(Code::kUnavailable, "connection refused"));
  if (busy_ > 0) {
    --busy_;
    strike_(Fault::kApiBusy);
    constexpr int kBusy[] = {429, 500, 503};
    const int status = kBusy[random_.below(3)];
    return answer(id, status, status_text(status, "Busy", ""),
                  status == 429 ? Duration(seconds(1 + random_.below(3))) : Duration());
  }
  const bool node = request.target.starts_with(kNodes);
  Collection* const of = node                                ? &node_watches_
                         : request.target.starts_with(kPods) ? &pod_watches_
                                                             : nullptr;
  if (of != nullptr && request.verb == "list") return list(id, *of);
  if (of != nullptr && request.verb == "watch") return watch(id, *of);
  if (node && request.method == "PATCH") return patch(id);
  if (request.target.ends_with(kEviction)) return evict(id);
  answer(id, request.method == "POST" ? 201 : 200, "{}");  // an Event
}

void ApiServer::list(uint64_t id, const Collection& of) {
  const std::string items = &of == &pod_watches_ ? pods_text() : node_ ? node_text() : "";
  answer(id, 200,
         fmt::format("{{\"kind\":\"{}List\",\"apiVersion\":\"v1\",\"metadata\":{{"
                     "\"resourceVersion\":\"{}\"}},\"items\":[{}]}}",
                     of.kind, version_, items));
}

void ApiServer::watch(uint64_t id, const Collection& of) {
  const std::string target = connections_.at(id).request.target;
  const uint64_t from = number_after(target, "resourceVersion=");
  if (from < of.oldest) {
    strike_(Fault::kWatchExpired);
    if (random_.chance(1, 2)) return refuse(id, 410, "Expired");
    connections_.at(id).answer->on_head({200, {}});
    say(id, event_text("ERROR", status_text(410, "Expired", "")));
    return end(id, {});
  }
  Connection& connection = connections_.at(id);
  connection.watched = &of;
  connection.seen = from;
  connection.answer->on_head({200, {}});
  after(delay(), id, &ApiServer::deliver);
  after(kBookmark, id, &ApiServer::bookmark);
  after(seconds(number_after(target, "timeoutSeconds=")), id, &ApiServer::end_watch);
}

void ApiServer::deliver(uint64_t id) {
  for (;;) {
    const auto at = connections_.find(id);
    if (at == connections_.end()) return;
    const std::deque<Event>& history = at->second.watched->history;
    const auto next = std::find_if(history.begin(), history.end(), [&](const Event& event) {
      return event.version > at->second.seen;
    });
    if (next == history.end()) return;
    at->second.seen = next->version;
    const std::string text = next->text;
    say(id, text);
  }
}

void ApiServer::bookmark(uint64_t id) {
  deliver(id);
  const auto at = connections_.find(id);
  if (at == connections_.end()) return;
  at->second.seen = version_;
  say(id, event_text("BOOKMARK", fmt::format("{{\"kind\":\"{}\",\"metadata\":{{"
                                             "\"resourceVersion\":\"{}\"}}}}",
                                             at->second.watched->kind, version_)));
  after(kBookmark, id, &ApiServer::bookmark);
}

void ApiServer::end_watch(uint64_t id) { end(id, {}); }

void ApiServer::remember(Collection& of, std::string event) {
  constexpr size_t kMostHistory = 64;
  of.history.push_back({version_, std::move(event)});
  if (of.history.size() > kMostHistory) {
    of.oldest = of.history.front().version;
    of.history.pop_front();
  }
  for (const auto& [id, connection] : connections_)
    if (connection.watched == &of) after(delay(), id, &ApiServer::deliver);
}

// --- answers
// ---------------------------------------------------------------------------------------------------------------

void ApiServer::say(uint64_t id, const std::string& bytes) {
  // In two pieces: what is cut there must be put together again.
  const size_t half = random_.below(bytes.size() + 1);
  for (const std::string_view piece :
       {std::string_view(bytes).substr(0, half), std::string_view(bytes).substr(half)}) {
    const auto at = connections_.find(id);
    if (at == connections_.end()) return;
    if (!piece.empty()) at->second.answer->on_body(piece);
  }
}

void ApiServer::end(uint64_t id, Status status) {
  const auto at = connections_.find(id);
  if (at == connections_.end()) return;
  kube::Wire::Answer& answer = *at->second.answer;
  connections_.erase(at);
  answer.on_end(std::move(status));
}

void ApiServer::answer(uint64_t id, int status, const std::string& body, Duration retry_after) {
  connections_.at(id).answer->on_head({status, retry_after});
  say(id, body);
  end(id, {});
}

void ApiServer::refuse(uint64_t id, int status, const std::string& reason,
                       const std::string& field) {
  answer(id, status, status_text(status, reason, field));
}

// --- faults
// ----------------------------------------------------------------------------------------------------------------

void ApiServer::break_all(bool watches_only) {
  std::vector<uint64_t> ids;
  for (const auto& [id, connection] : connections_)
    if (connection.watched != nullptr || !watches_only) ids.push_back(id);
  for (const uint64_t id : ids) {
    const auto at = connections_.find(id);
    if (at == connections_.end()) continue;
    // In the middle of an event, or between two.
    if (at->second.watched == &node_watches_ && node_ && random_.chance(1, 2)) {
      const std::string text = event_text("MODIFIED", node_text());
      at->second.answer->on_body(std::string_view(text).substr(0, random_.below(text.size())));
    }
    end(id, fail(Code::kUnavailable, "the connection broke"));
  }
}

void ApiServer::set_away(bool away) {
  away_ = away;
  if (away) break_all(false);
}

void ApiServer::cut_watches() {
  const bool any = std::any_of(connections_.begin(), connections_.end(),
                               [](const auto& one) { return one.second.watched != nullptr; });
  if (any) strike_(Fault::kWatchCut);
  break_all(true);
}

void ApiServer::compact() {
  ++version_;  // by another object
  for (Collection* const of : {&node_watches_, &pod_watches_}) {
    of->oldest = version_;
    of->history.clear();
  }
  break_all(true);
}

void ApiServer::heal() {
  away_ = false;
  slow_ = {};
  busy_ = refusing_ = 0;
}

}  // namespace gpuslice::dst
