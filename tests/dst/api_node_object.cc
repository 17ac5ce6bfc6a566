// The Node in the API server: what it is, who changes it, and how.

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "api_server.h"
#include "api_texts.h"

namespace gpuslice::dst {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

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

}  // namespace

// --- as an administrator sees it
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
  if (node_text_of_ == node_version_) return node_text_;
  node_text_of_ = node_version_;
  node_text_ =
      fmt::format(R"({{"apiVersion":"v1","kind":"Node","metadata":{{"annotations":{},"labels":{},)"
                  R"("name":"{}","resourceVersion":"{}","uid":"{}"}}}})",
                  object_text(node_->annotations), object_text(node_->labels), kNode, node_version_,
                  node_->uid);
  return node_text_;
}

void ApiServer::changed(const char* type) {
  node_version_ = ++version_;
  remember(node_watches_, event_text(type, node_text()));
}

// --- as clients change it
// ------------------------------------------------------------------------------------------------

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

}  // namespace gpuslice::dst
