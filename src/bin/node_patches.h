#pragma once

// Single labels and annotations of the own Node that the agent sets by hand: asked for at any time,
// written once the node was seen, one patch at a time, the newest value of each key only, again
// after a failure. What the node shows already is not written; what somebody else makes of it
// afterwards is left alone. T0.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/log.h"
#include "ports/kube.h"
#include "ports/timers.h"

namespace gpuslice::bin {

// After a failure, unless the API server is heard of earlier.
inline constexpr Duration kPatchPause = std::chrono::seconds(10);

class NodePatches {
 public:
  using Values = std::map<std::string, std::optional<std::string>>;  // nothing: without the key

  NodePatches(ports::Timers& timers, Log& log) : log_(log), pause_(timers.timer()) {}

  // `kube` is asked until end().
  void begin(ports::KubeApi& kube) { kube_ = &kube; }
  void end() {
    kube_ = nullptr;
    pause_->cancel();
  }
  void want(const Values& labels, const Values& annotations);
  // What others have made of these labels is not left alone: what is wanted next is written.
  void forget(const std::vector<std::string>& labels) {
    for (const std::string& key : labels) labels_.written.erase(key);
  }

  // Nothing, or another uid: what was written on the old node is forgotten; who wants it on the new
  // one says so again.
  void on_node(const std::optional<ports::NodeObject>& node);
  void on_reachable() { go(); }
  void on_patched(const Status& status);

 private:
  // Labels, or annotations.
  struct Kind {
    Values wanted;                 // not written yet
    Values sent;                   // under way
    Values written;                // by us, on this node: newer than what it shows
    std::set<std::string> unsure;  // sent and not confirmed: it may have been done all the same
    std::map<std::string, std::string> shown;  // as the node was seen last
    void drop_what_is_there();
    void answered(bool ok);
  };
  void go();

  Log& log_;
  ports::KubeApi* kube_ = nullptr;
  std::string uid_;  // of the node that was seen; "" for none
  Kind labels_;
  Kind annotations_;
  bool under_way_ = false;
  std::string sent_to_;  // the uid
  std::unique_ptr<ports::Timer> pause_;
};

}  // namespace gpuslice::bin
