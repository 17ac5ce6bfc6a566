#include "kube/requests.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace gpuslice::kube {
namespace {

using nlohmann::json;

// What is not UTF-8 is replaced rather than thrown about.
std::string text_of(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

bool has_cause(const ApiObject& status, std::string_view reason) {
  for (const ApiObject::Cause& cause : status.causes)
    if (cause.reason == reason) return true;
  return false;
}
bool about_uid(const ApiObject& status) {
  for (const ApiObject::Cause& cause : status.causes)
    if (cause.field == "metadata.uid") return true;
  return false;
}

// The message of a server may be long; a log line should not.
constexpr size_t kMaxCauseBytes = 512;

}  // namespace

std::string percent_encoded(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                       (byte >= '0' && byte <= '9') || byte == '-' || byte == '.' || byte == '_' ||
                       byte == '~';
    if (plain) {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  return out;
}

Source node_source(std::string_view node) {
  return {"/api/v1/nodes",
          "fieldSelector=" + percent_encoded(fmt::format("metadata.name={}", node)),
          fmt::format("node {}", node)};
}

Source config_map_source(const ports::ObjectName& name) {
  return {fmt::format("/api/v1/namespaces/{}/configmaps", percent_encoded(name.name_space)),
          "fieldSelector=" + percent_encoded(fmt::format("metadata.name={}", name.name)),
          fmt::format("ConfigMap {}/{}", name.name_space, name.name)};
}

Source pods_source(std::string_view node) {
  return {"/api/v1/pods", "fieldSelector=" + percent_encoded(fmt::format("spec.nodeName={}", node)),
          fmt::format("pods of node {}", node)};
}

Request list_request(const Source& source, std::string_view continue_from) {
  Request request;
  request.verb = "list";
  request.method = "GET";
  request.target = fmt::format("{}?{}&limit={}", source.path, source.selector, kListPage);
  if (!continue_from.empty()) request.target += "&continue=" + percent_encoded(continue_from);
  return request;
}

Request watch_request(const Source& source, std::string_view version, int64_t seconds) {
  Request request;
  request.verb = "watch";
  request.method = "GET";
  request.target =
      fmt::format("{}?{}&watch=true&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={}",
                  source.path, source.selector, percent_encoded(version), seconds);
  request.idle = kWatchIdle;
  request.whole = Duration::zero();
  return request;
}

Request labels_request(const NodeId& node, const ports::NodeLabels& labels) {
  Request request;
  request.verb = "patch";
  request.method = "PATCH";
  request.target = fmt::format("/api/v1/nodes/{}?fieldManager={}&force={}",
                               percent_encoded(node.name), ports::kFieldManager, labels.force);
  request.content_type = "application/apply-patch+yaml";
  // The uid keeps an apply from making a Node that is not there: applying creates otherwise.
  json metadata = {{"name", node.name}, {"uid", node.uid}};
  if (!labels.labels.empty()) metadata["labels"] = labels.labels;
  request.body = text_of({{"apiVersion", "v1"}, {"kind", "Node"}, {"metadata", metadata}});
  return request;
}

Request patch_request(const NodeId& node, const ports::NodePatch& patch) {
  Request request;
  request.verb = "patch";
  request.method = "PATCH";
  request.target = fmt::format("/api/v1/nodes/{}?fieldManager={}", percent_encoded(node.name),
                               ports::kFieldManager);
  request.content_type = "application/merge-patch+json";
  json metadata = {{"uid", node.uid}};
  if (!patch.only_version.empty()) metadata["resourceVersion"] = patch.only_version;
  const auto put = [&](const char* name,
                       const std::map<std::string, std::optional<std::string>>& values) {
    for (const auto& [key, value] : values)
      metadata[name][key] = value ? json(*value) : json(nullptr);
  };
  put("labels", patch.labels);
  put("annotations", patch.annotations);
  request.body = text_of({{"metadata", metadata}});
  return request;
}

Request evict_request(const ports::ObjectName& pod, std::string_view uid) {
  Request request;
  request.verb = "evict";
  request.method = "POST";
  request.target = fmt::format("/api/v1/namespaces/{}/pods/{}/eviction",
                               percent_encoded(pod.name_space), percent_encoded(pod.name));
  request.content_type = "application/json";
  json body = {{"apiVersion", "policy/v1"},
               {"kind", "Eviction"},
               {"metadata", {{"name", pod.name}, {"namespace", pod.name_space}}}};
  if (!uid.empty()) body["deleteOptions"] = {{"preconditions", {{"uid", uid}}}};
  request.body = text_of(body);
  return request;
}

Refusal refusal_of(int status, std::string_view body, std::string_view verb,
                   std::string_view what) {
  ApiObject said;
  if (Result<ApiObject> read = read_object(body); read && read->kind == "Status")
    said = std::move(*read);
  if (said.message.size() > kMaxCauseBytes) said.message.resize(kMaxCauseBytes);
  const std::string cause = said.message.empty() ? fmt::format("HTTP {}", status) : said.message;
  const auto refused = [&](Code code, std::string_view next) {
    return Refusal{
        {code, fmt::format("{}: {} refused by the API server: {}{}", what, verb, cause, next), {}},
        false,
        false};
  };
  const auto again = [&](Code code, std::string_view next) {
    Refusal refusal = refused(code, next);
    refusal.again = true;
    return refusal;
  };
  switch (status) {
    case 400:
    case 422:
      // A uid cannot be changed: the object is another one than the one that was seen.
      if (about_uid(said)) return refused(Code::kDiffers, "");
      return refused(Code::kInvalidConfig, "");
    case 401:
      return again(Code::kNoPermission,
                   "; the account's token or certificate is not accepted (any more)");
    case 403:
      return refused(Code::kNoPermission,
                     "; give the agent's account this right (its ClusterRole)");
    case 404:
      return refused(Code::kNotFound, "");
    case 409:
      if (has_cause(said, "FieldManagerConflict"))
        return refused(Code::kInUse, "; somebody else owns it");
      return refused(Code::kDiffers, "");
    case 410: {
      Refusal refusal = refused(Code::kDiffers, "");
      refusal.expired = true;
      return refusal;
    }
    case 429:
      // Not overload: a PodDisruptionBudget says no to an eviction.
      if (has_cause(said, "DisruptionBudget")) return refused(Code::kInUse, "");
      return again(Code::kUnavailable, "");
    default:
      break;
  }
  if (status >= 500) return again(Code::kUnavailable, "");
  return refused(Code::kFailed, "");
}

}  // namespace gpuslice::kube
