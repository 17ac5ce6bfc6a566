#include "api_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/text.h"

namespace gpuslice::dst {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kBookmark = seconds(60);
constexpr const char* kNodes = "/api/v1/nodes";

// The number after `key` in a target.
uint64_t number_after(const std::string& target, std::string_view key) {
  const size_t at = target.find(key);
  if (at == std::string::npos) return 0;
  const std::string_view rest = std::string_view(target).substr(at + key.size());
  return parse_u64(rest.substr(0, rest.find('&'))).value_or(0);
}

std::string event_text(const char* type, const std::string& object) {
  return fmt::format("{{\"type\":\"{}\",\"object\":{}}}\n", type, object);
}

// As JSON; most of what Nodes are told needs no escapes.
void add_quoted(const std::string& text, std::string& out) {
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return c >= ' ' && c <= '~' && c != '"' && c != '\\';
  });
  if (!plain) {
    out += json(text).dump();
    return;
  }
  out += '"';
  out += text;
  out += '"';
}

std::string object_text(const ApiServer::Labels& values) {
  std::string out = "{";
  for (const auto& [key, value] : values) {
    if (out.size() > 1) out += ',';
    add_quoted(key, out);
    out += ':';
    add_quoted(value, out);
  }
  return out + "}";
}

std::string status_text(int status, const std::string& reason, const std::string& field) {
  json body = {{"kind", "Status"}, {"code", status}, {"reason", reason}, {"message", "as seeded"}};
  if (!field.empty()) body["details"]["causes"] = {{{"reason", reason}, {"field", field}}};
  return body.dump();
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

// --- the Node
// --------------------------------------------------------------------------------------------------------------

std::string ApiServer::label(const std::string& key) const {
  if (!node_) return "";
  const auto found = node_->labels.find(key);
  return found == node_->labels.end() ? "" : found->second;
}

const ApiServer::Labels& ApiServer::labels() const {
  static const Labels kNone;
  return node_ ? node_->labels : kNone;
}

std::set<std::string> ApiServer::owned() const {
  return node_ ? node_->ours : std::set<std::string>();
}

void ApiServer::set_labels(const Labels& changes) {
  if (!node_) return;
  for (const auto& [key, value] : changes) {
    if (value.empty())
      node_->labels.erase(key);
    else
      node_->labels[key] = value;
    node_->ours.erase(key);
  }
  changed("MODIFIED");
}

void ApiServer::replace_node() {
  if (!node_) return;
  changed("DELETED");
  node_.reset();
  timeline_.after(milliseconds(random_.between(1, 3000)), [this] {
    if (node_) return;
    node_.emplace();
    node_->uid = fmt::format("uid-{}", ++nodes_);
    changed("ADDED");
  });
}

// Whoever changes the Node says so by changed().
const std::string& ApiServer::node_text() {
  if (node_text_of_ == version_) return node_text_;
  node_text_of_ = version_;
  node_text_ = fmt::format(
      R"({{"apiVersion":"v1","kind":"Node","metadata":{{"annotations":{},"labels":{},)"
      R"("name":"{}","resourceVersion":"{}","uid":"{}"}}}})",
      object_text(node_->annotations), object_text(node_->labels), kNode, version_, node_->uid);
  return node_text_;
}

void ApiServer::changed(const char* type) {
  constexpr size_t kMostHistory = 64;
  ++version_;
  history_.push_back({version_, event_text(type, node_text())});
  if (history_.size() > kMostHistory) {
    oldest_ = history_.front().version;
    history_.pop_front();
  }
  for (const auto& [id, connection] : connections_)
    if (connection.watching) after(delay(), id, &ApiServer::deliver);
}

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
  if (node && request.verb == "list") return list(id);
  if (node && request.verb == "watch") return watch(id);
  if (node && request.method == "PATCH") return patch(id);
  answer(id, request.method == "POST" ? 201 : 200, "{}");  // an Event
}

void ApiServer::list(uint64_t id) {
  const std::string items = node_ ? node_text() : "";
  answer(id, 200,
         fmt::format("{{\"kind\":\"NodeList\",\"apiVersion\":\"v1\",\"metadata\":{{"
                     "\"resourceVersion\":\"{}\"}},\"items\":[{}]}}",
                     version_, items));
}

void ApiServer::watch(uint64_t id) {
  const std::string target = connections_.at(id).request.target;
  const uint64_t from = number_after(target, "resourceVersion=");
  if (from < oldest_) {
    strike_(Fault::kWatchExpired);
    if (random_.chance(1, 2)) return refuse(id, 410, "Expired");
    connections_.at(id).answer->on_head({200, {}});
    say(id, event_text("ERROR", status_text(410, "Expired", "")));
    return end(id, {});
  }
  Connection& connection = connections_.at(id);
  connection.watching = true;
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
    const auto next = std::find_if(history_.begin(), history_.end(), [&](const Event& event) {
      return event.version > at->second.seen;
    });
    if (next == history_.end()) return;
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
  say(id, event_text("BOOKMARK", fmt::format("{{\"kind\":\"Node\",\"metadata\":{{"
                                             "\"resourceVersion\":\"{}\"}}}}",
                                             version_)));
  after(kBookmark, id, &ApiServer::bookmark);
}

void ApiServer::end_watch(uint64_t id) { end(id, {}); }

void ApiServer::patch(uint64_t id) {
  const kube::Request& request = connections_.at(id).request;
  const bool applied = request.content_type.starts_with("application/apply-patch");
  if (refusing_ > 0) {
    --refusing_;
    strike_(Fault::kPatchRefused);
    constexpr int kRefusals[] = {403, 409, 422};
    const int status = kRefusals[random_.below(3)];
    return refuse(id, status, status == 409 && applied ? "FieldManagerConflict" : "Refused",
                  "metadata.labels");
  }
  if (!node_) return refuse(id, 404, "NotFound");
  const json metadata = json::parse(request.body).at("metadata");
  if (metadata.value("uid", node_->uid) != node_->uid)
    return refuse(id, 422, "Invalid", "metadata.uid");
  Node next = *node_;
  if (apply_to(next, metadata, applied)) {
    node_ = std::move(next);
    ++writes_;
    changed("MODIFIED");
  }
  // The client has given up waiting for the answer.
  if (slow_ > request.idle && random_.chance(1, 2))
    return end(id, fail(Code::kTimeout, "no answer"));
  answer(id, 200, node_text());
}

// True when it changes anything.
bool ApiServer::apply_to(Node& node, const json& metadata, bool applied) const {
  const Labels labels = node.labels;
  const Labels annotations = node.annotations;
  const std::set<std::string> ours = node.ours;
  const json none = json::object();
  const json& said = metadata.contains("labels") ? metadata.at("labels") : none;
  if (applied) {
    for (const std::string& key : ours)
      if (!said.contains(key)) node.labels.erase(key);
    node.ours.clear();
  }
  for (const auto& [key, value] : said.items()) {
    if (value.is_null())
      node.labels.erase(key);
    else
      node.labels[key] = value.get<std::string>();
    if (applied) node.ours.insert(key);
  }
  const json& notes = metadata.contains("annotations") ? metadata.at("annotations") : none;
  for (const auto& [key, value] : notes.items()) {
    if (value.is_null())
      node.annotations.erase(key);
    else
      node.annotations[key] = value.get<std::string>();
  }
  return labels != node.labels || annotations != node.annotations || ours != node.ours;
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
    if (connection.watching || !watches_only) ids.push_back(id);
  for (const uint64_t id : ids) {
    const auto at = connections_.find(id);
    if (at == connections_.end()) continue;
    // In the middle of an event, or between two.
    if (at->second.watching && node_ && random_.chance(1, 2)) {
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
                               [](const auto& one) { return one.second.watching; });
  if (any) strike_(Fault::kWatchCut);
  break_all(true);
}

void ApiServer::compact() {
  ++version_;  // by another object
  oldest_ = version_;
  history_.clear();
  break_all(true);
}

void ApiServer::heal() {
  away_ = false;
  slow_ = {};
  busy_ = refusing_ = 0;
}

}  // namespace gpuslice::dst
