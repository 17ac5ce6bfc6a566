#include "bin/socket_watches.h"

#include <set>
#include <utility>

#include "kubelet/socket_path.h"

namespace gpuslice::bin {

void SocketWatches::look(const kubelet::NodeKubelet& served) {
  std::set<std::string> wanted = {served.registration_socket()};
  for (const auto& [resource, counts] : served.counts()) {
    if (auto path = kubelet::plugin_socket_path(served.plugin_dir(), resource)) {
      wanted.insert(std::move(*path));
    }
  }
  std::erase_if(watches_, [&](const auto& watch) { return !wanted.contains(watch.first); });
  for (const std::string& path : wanted) {
    if (watches_.contains(path)) continue;
    auto watch = host::PathWatch::watch(loop_, path, false, changed_);
    if (watch) {
      watches_[path] = std::move(*watch);
      log_.over("watch");
    } else {
      log_.once(Level::kWarning, "watch", watch.error().text());
    }
  }
}

}  // namespace gpuslice::bin
