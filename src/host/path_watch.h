#pragma once

// Tells T0 that what a path names may have changed: the file was written in place, replaced by
// rename, created, removed; a symbolic link on the way was swapped (a ConfigMap's `..data`); a
// folder on the way was renamed, removed or made again. Level-triggered: the callback says "look
// again", never what happened, and changes within kSettle come as one call.
//
// No polling: inotify watches stand on every step of the path's resolution, and are set anew after
// each event. What inotify cannot see is a mount over a folder on the way.

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "host/event_loop.h"

namespace gpuslice::host {

class PathWatch {
 public:
  using Changed = std::function<void()>;

  // Editors write in several steps (truncate, write, write): wait for quiet this long, but never
  // longer than kSettleMost after the first event.
  static constexpr Duration kSettle = std::chrono::milliseconds(20);
  static constexpr Duration kSettleMost = std::chrono::milliseconds(200);
  // Symbolic links followed on one path, as Linux does.
  static constexpr int kMaxLinks = 40;

  // Watches `path` (absolute; it need not exist). `changed` runs on T0. With settle = false it runs
  // at once and for every batch of events: for sockets, which are never written in steps. Fails
  // with kUnavailable when the limits of inotify are reached.
  [[nodiscard]] static Result<std::unique_ptr<PathWatch>> watch(EventLoop& loop, std::string path,
                                                                bool settle, Changed changed);
  PathWatch(const PathWatch&) = delete;
  PathWatch& operator=(const PathWatch&) = delete;

 private:
  // One inode that is watched, and which names in it matter (if it is a folder).
  struct Watched {
    std::set<std::string, std::less<>> names;
    bool itself = false;  // its own removal, renaming or content matters
  };
  using Wanted = std::map<std::string, std::pair<uint32_t, Watched>>;  // by path: mask, what for

  PathWatch(EventLoop& loop, UniqueFd fd, std::string path, bool settle, Changed changed);
  [[nodiscard]] Wanted resolve() const;
  [[nodiscard]] Status rearm();
  void read_events();
  void settled();

  EventLoop& loop_;
  UniqueFd fd_;
  std::string path_;
  bool settle_;
  Changed changed_;
  std::map<int, Watched> watched_;  // by inotify descriptor
  MonotonicTime first_event_{};
  EventLoop::Token readable_;
  EventLoop::Token timer_;
  EventLoop::Token unsteady_;
};

}  // namespace gpuslice::host
