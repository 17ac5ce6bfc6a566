#pragma once

// What the API server's JSON says, as far as it matters here. Read by SAX: what does not matter is
// never stored, and a text that lies about a type is read as if the key were not there.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "ports/kube.h"

namespace gpuslice::kube {

// Any object: a Node, ConfigMap, Pod, a list without its items, or a Status.
struct ApiObject {
  std::string kind;
  std::string name;
  std::string name_space;
  std::string uid;
  std::string version;        // metadata.resourceVersion
  std::string continue_from;  // metadata.continue of a list's page
  bool deleting = false;
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> annotations;
  std::map<std::string, std::string> data;
  std::vector<std::string> owner_kinds;
  bool unschedulable = false;
  std::string phase;
  std::map<std::string, int64_t> limits;  // of all containers, extended resources only
  // Status:
  int64_t code = 0;
  std::string reason;
  std::string message;
  struct Cause {
    std::string reason;
    std::string field;
  };
  std::vector<Cause> causes;
};

struct WatchEvent {
  std::string type;  // "ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"
  ApiObject object;
};

// kFailed: not JSON, or not an object.
[[nodiscard]] Result<ApiObject> read_object(std::string_view json);
[[nodiscard]] Result<WatchEvent> read_watch_event(std::string_view json);

[[nodiscard]] ports::NodeObject node_of(ApiObject object);
[[nodiscard]] ports::ConfigMapObject config_map_of(ApiObject object);
[[nodiscard]] ports::PodObject pod_of(ApiObject object);

}  // namespace gpuslice::kube
