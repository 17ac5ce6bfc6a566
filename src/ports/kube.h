#pragma once

// What the agent and the API server say to each other, as values, and the seams to whoever carries
// them.
//
// All of KubeApi is called on thread T0 and never blocks: answers arrive later as calls of
// KubeEvents on T0, never from within the call itself. Only the own node, single ConfigMaps by name
// and the own node's pods can be asked for: nothing here can list a cluster.
//
// A watch never fails: while the API server cannot be reached, the last object seen stays true and
// on_kube_reachable() tells of it. A change is tried a bounded number of times by the carrier
// (429, 5xx, a broken connection) and then answered with an error; whoever still wants it asks
// again at its own pace.
//
// Errors of changes: kUnavailable (no API server, or it is overloaded), kTimeout, kNoPermission
// (the message names the verb and the resource that the account lacks), kNotFound, kDiffers (the
// object is not the one that was seen: another uid or version), kInUse (another field manager owns
// a label and `force` was not given; a PodDisruptionBudget forbids an eviction now),
// kInvalidConfig (the API server finds the values invalid, with its reason), kFailed.

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace gpuslice::ports {

struct ObjectName {
  std::string name_space;  // empty for objects of the cluster
  std::string name;
  friend auto operator<=>(const ObjectName&, const ObjectName&) = default;
};

// The own node. Labels and annotations are everybody's, not only ours.
struct NodeObject {
  std::string name;
  std::string uid;      // another uid is another node of the same name
  std::string version;  // resourceVersion: equal or not, never less or more
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> annotations;
  bool unschedulable = false;  // cordoned
  friend bool operator==(const NodeObject&, const NodeObject&) = default;
};

struct ConfigMapObject {
  ObjectName name;
  std::string uid;
  std::string version;
  std::map<std::string, std::string> data;  // keys of binaryData are left out
  friend bool operator==(const ConfigMapObject&, const ConfigMapObject&) = default;
};

// A pod of the own node, as far as changes of devices care.
struct PodObject {
  ObjectName name;
  std::string uid;
  std::map<std::string, std::string> labels;
  std::string phase;       // "Pending", "Running", "Succeeded", "Failed", "Unknown"
  bool deleting = false;   // has a deletionTimestamp
  bool daemon = false;     // a DaemonSet's: an eviction is followed by the same pod again
  bool is_static = false;  // a file's on the node: cannot be evicted
  // Over its containers and init containers: extended resources ("nvidia.com/gpu" → 2, the largest
  // sum that is ever held at once is at most this).
  std::map<std::string, int64_t> limits;
  friend bool operator==(const PodObject&, const PodObject&) = default;
};

// Sorted by name.
using PodList = std::shared_ptr<const std::vector<PodObject>>;

// Single labels and annotations of the own node; no value: the key is removed. Keys that are not
// named stay. Takes them from whoever owns them.
struct NodePatch {
  std::map<std::string, std::optional<std::string>> labels;
  std::map<std::string, std::optional<std::string>> annotations;
  // Done only while the node still has this version (NodeObject::version), else kDiffers. Empty:
  // in any case. Every patch is held to the uid that was seen.
  std::string only_version;
};

// Server-side apply of labels of the own node, as field manager kFieldManager. Those of an earlier
// call that are missing now are removed (unless somebody else owns them too).
inline constexpr const char* kFieldManager = "gpuslice";
struct NodeLabels {
  std::map<std::string, std::string> labels;
  bool force = true;  // take a label from another field manager (NFD's, when taking a node over)
};

// An Event in the cluster. Equal ones (all but `at`) become one object that counts.
struct KubeEvent {
  enum class About { kNode, kPod };
  About about = About::kNode;
  ObjectName pod;       // of kPod
  std::string pod_uid;  // of kPod
  bool warning = false;
  std::string reason;   // CamelCase, ≤ kMaxEventReasonBytes: "MigChangeFailed"
  std::string message;  // cut at kMaxEventMessageBytes (the API server's own bounds)
  WallTime at{};
};
inline constexpr size_t kMaxEventReasonBytes = 128;
inline constexpr size_t kMaxEventMessageBytes = 1024;

// For metrics and the status page; counted over the life of the carrier.
struct KubeCounts {
  std::map<std::string, uint64_t> requests;  // by verb and status: "patch 200", "watch error"
  uint64_t retries = 0;
  uint64_t relists = 0;          // watches begun anew (410, or an answer that was no answer)
  uint64_t watch_events = 0;     // seen, bookmarks included
  uint64_t events_recorded = 0;  // record() calls that reached the API server, alone or in a sum
  uint64_t events_dropped = 0;   // record() calls beyond a limit
  uint64_t refused = 0;          // changes beyond kMaxChangesUnderWay
  size_t changes_under_way = 0;
  friend bool operator==(const KubeCounts&, const KubeCounts&) = default;
};

class KubeApi {
 public:
  virtual ~KubeApi() = default;

  // --- Watches: begun once, then for good. Saying it again changes nothing.
  // on_node() follows when the node is first seen, then at every change of it.
  virtual void watch_node() = 0;
  // on_config_map() follows, also with nothing when there is no such ConfigMap. One
  // more than kMaxConfigMapsWatched is refused with kUnavailable.
  [[nodiscard]] virtual Status watch_config_map(const ObjectName& name) = 0;
  virtual void unwatch_config_map(const ObjectName& name) = 0;
  // on_pods() follows.
  virtual void watch_pods() = 0;

  // --- Changes. Each is answered exactly once; answers of one kind come in the order of the calls,
  // but for those refused at once with kUnavailable: changes of the node before it was first seen,
  // and what is beyond kMaxChangesUnderWay.
  virtual void apply_labels(NodeLabels labels) = 0;                // on_labels_applied()
  virtual void patch_node(NodePatch patch) = 0;                    // on_node_patched()
  virtual void evict(const ObjectName& pod, std::string uid) = 0;  // on_evicted()
  // Not answered: an Event that cannot be written is counted and forgotten, and never holds
  // anything up.
  virtual void record(KubeEvent event) = 0;

  [[nodiscard]] virtual KubeCounts counts() const = 0;
};

inline constexpr size_t kMaxConfigMapsWatched = 4;
inline constexpr size_t kMaxChangesUnderWay = 64;

// What comes back, on T0.
class KubeEvents {
 public:
  virtual ~KubeEvents() = default;
  // The node as it is now. Nothing: it was deleted (it may come back under another uid).
  virtual void on_node(std::optional<NodeObject> node) = 0;
  // The ConfigMap as it is now. Nothing: there is none.
  virtual void on_config_map(const ObjectName& name, std::optional<ConfigMapObject> object) = 0;
  // All pods of the node as they are now; several changes may come as one call.
  virtual void on_pods(PodList pods) = 0;
  // Said when it changes: good from the first answer of the API server on; an error when a watch
  // was not answered for a while, with the cause (no connection, certificate, account).
  virtual void on_kube_reachable(Status status) = 0;

  virtual void on_labels_applied(Status status) = 0;
  virtual void on_node_patched(Status status) = 0;
  // kNotFound: it is gone already.
  virtual void on_evicted(const ObjectName& pod, Status status) = 0;
};

}  // namespace gpuslice::ports
