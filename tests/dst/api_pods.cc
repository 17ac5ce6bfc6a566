// The Node's pods in the API server, and their evictions.

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "api_server.h"
#include "api_texts.h"

namespace gpuslice::dst {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::string ApiServer::pod_text(const PodObject& pod) const {
  const char* const owner = pod.daemon ? "DaemonSet" : pod.is_static ? "Node" : "StatefulSet";
  return fmt::format(
      R"({{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{}","namespace":"default",)"
      R"("ownerReferences":[{{"kind":"{}","name":"o"}}],"resourceVersion":"{}","uid":"{}"{}}},)"
      R"("status":{{"phase":"Running"}}}})",
      pod.name, owner, version_, pod.uid,
      pod.deleting ? R"(,"deletionTimestamp":"2026-01-01T00:00:00Z")" : "");
}

std::string ApiServer::pods_text() const {
  std::string out;
  for (const auto& [name, pod] : pod_objects_) out += (out.empty() ? "" : ",") + pod_text(pod);
  return out;
}

void ApiServer::put_pod(const PodObject& pod) {
  ++version_;
  const bool there = pod_objects_.contains(pod.name);
  pod_objects_[pod.name] = pod;
  remember(pod_watches_, event_text(there ? "MODIFIED" : "ADDED", pod_text(pod)));
}

void ApiServer::remove_pod(const std::string& name) {
  const auto pod = pod_objects_.find(name);
  if (pod == pod_objects_.end()) return;
  ++version_;
  const std::string text = event_text("DELETED", pod_text(pod->second));
  pod_objects_.erase(pod);
  remember(pod_watches_, text);
}

void ApiServer::evict(uint64_t id) {
  const nlohmann::json body = nlohmann::json::parse(connections_.at(id).request.body);
  const auto name = body.at("metadata").at("name").get<std::string>();
  const nlohmann::json::json_pointer uid("/deleteOptions/preconditions/uid");
  // By now the connection is one that a fault may break.
  const Evicted evicted = evictions_(name, body.contains(uid) ? body.at(uid) : nlohmann::json(""));
  if (!connections_.contains(id)) return;
  switch (evicted) {
    case Evicted::kGone:
      return refuse(id, 404, "NotFound");
    case Evicted::kAnother:
      return refuse(id, 409, "Conflict");
    case Evicted::kBudget:
      return answer(id, 429, status_text(429, "DisruptionBudget", "spec"), seconds(10));
    case Evicted::kYes:
      break;
  }
  if (!std::exchange(cut_eviction_, false)) return answer(id, 201, R"({"kind":"Status"})");
  strike_(Fault::kEvictionCut);
  set_away(true);
  timeline_.after(milliseconds(random_.between(10, 20'000)), [this] { set_away(false); });
}

}  // namespace gpuslice::dst
