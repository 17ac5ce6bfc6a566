#pragma once

// What is asked of the API server, as requests, and what its refusals mean.

#include <cstdint>
#include <string>
#include <string_view>

#include "kube/objects.h"
#include "kube/transport.h"
#include "ports/kube.h"

namespace gpuslice::kube {

// One page of a list. Bounds what the API server has to hold for us, not what we hold.
inline constexpr int kListPage = 500;
// The API server says something at least every minute (a bookmark) or so; a watch that is silent
// for longer than this sits on a dead connection.
inline constexpr Duration kWatchIdle = std::chrono::seconds(180);
// The API server is asked to end a watch by itself after a while between these, spread so that the
// agents of a cluster do not come back together.
inline constexpr int64_t kWatchSecondsLeast = 240;
inline constexpr int64_t kWatchSecondsMost = 480;

[[nodiscard]] std::string percent_encoded(std::string_view text);

// What is listed and watched: a path and the selector that keeps it to what is ours.
struct Source {
  std::string path;      // "/api/v1/nodes"
  std::string selector;  // "fieldSelector=metadata.name%3Dn1"
  std::string what;      // "node n1", for messages
};
[[nodiscard]] Source node_source(std::string_view node);
[[nodiscard]] Source config_map_source(const ports::ObjectName& name);
[[nodiscard]] Source pods_source(std::string_view node);

[[nodiscard]] Request list_request(const Source& source, std::string_view continue_from);
[[nodiscard]] Request watch_request(const Source& source, std::string_view version,
                                    int64_t seconds);

// A node as it was seen: every change is held to its uid.
struct NodeId {
  std::string name;
  std::string uid;
};
[[nodiscard]] Request labels_request(const NodeId& node, const ports::NodeLabels& labels);
[[nodiscard]] Request patch_request(const NodeId& node, const ports::NodePatch& patch);
[[nodiscard]] Request evict_request(const ports::ObjectName& pod, std::string_view uid);

// What a refusal means. `what`: the object, for the message ("node n1"); `body`: the API server's
// Status object, or anything else.
struct Refusal {
  Error error;
  bool again = false;    // it may pass: 429, 5xx, 401 (the token may have been replaced)
  bool expired = false;  // 410: a version or a continuation that is too old
};
[[nodiscard]] Refusal refusal_of(int status, std::string_view body, std::string_view verb,
                                 std::string_view what);

}  // namespace gpuslice::kube
