#pragma once

// Watches the kubelet's socket, and ours while they are served. T0 only.

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/log.h"
#include "host/event_loop.h"
#include "host/path_watch.h"
#include "kubelet/node_kubelet.h"

namespace gpuslice::bin {

class SocketWatches {
 public:
  // All outlive it. `changed` is called when one of the sockets may have come, gone or been
  // replaced.
  SocketWatches(host::EventLoop& loop, Log& log, std::function<void()> changed)
      : loop_(loop), log_(log), changed_(std::move(changed)) {}

  // Those of `served` as it is now, and no others.
  void look(const kubelet::NodeKubelet& served);
  void clear() { watches_.clear(); }

 private:
  host::EventLoop& loop_;
  Log& log_;
  const std::function<void()> changed_;
  std::map<std::string, std::unique_ptr<host::PathWatch>> watches_;  // by path
};

}  // namespace gpuslice::bin
