#pragma once

// Who may connect to the plugin sockets. One thread accepts for all of them, asleep when nobody
// comes or goes; a socket has at most kMaxConnections, whatever its clients do, and a kubelet gets
// in all the same. Private to this folder.
//
// When one more comes than there may be, somebody has to go, and it is somebody of the process that
// has the most connections: the new one, if it is of that process; else that process's oldest one
// that holds no ListAndWatch stream. So a client that floods loses what it brings, at the price of
// an accept() each, and the kubelet, with its one connection or two, is never the one: also not
// where each of the others comes from a process of its own, once its PID is known (set_kubelet()).
// Processes of other PID namespaces cannot be told apart: they count as one, and lose their oldest
// connection without a stream to the new one, which has the time of kMaxConnections others to ask
// for its own.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "base/unique_fd.h"
#include "kubelet/plugin_server.h"

namespace gpuslice::kubelet {

// Connections that wait to be accepted.
inline constexpr int kBacklog = 1024;
// Out of file descriptors, or gRPC has yet to close kMaxConnections others: the next try. Who comes
// meanwhile waits in the backlog.
inline constexpr Duration kAcceptPause = std::chrono::milliseconds(20);

// One of those that a limit is about, the oldest first.
struct Guest {
  int pid = 0;  // 0: of another PID namespace
  bool streams = false;
};
// Who goes when one more comes, of process `pid`: its place in `guests`, or nothing: the new one. A
// guest that streams goes only if its process is known and has more than one, or for the kubelet,
// which is process `kubelet` (0: not known); none of the kubelet's goes for another.
[[nodiscard]] std::optional<size_t> who_goes(std::span<const Guest> guests, int pid,
                                             int kubelet = 0);

class Acceptor {
 public:
  // Takes a connection, which does not block, to gRPC; called on the acceptor's thread. The
  // descriptor's number says later who a call's peer is ("fd:17"), and whether gRPC is done with
  // it.
  using Take = std::function<void(UniqueFd connection)>;
  struct Counts {
    size_t connections = 0;
    uint64_t refused = 0;  // closed for want of room, the new one or another
  };
  struct Client {
    uint64_t connection = 0;
    int pid = 0;
  };

  Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;
  ~Acceptor();  // no door is left by then

  // Everything below: any thread, not from within Take.
  // Accepts from `listener`, which does not block, until it is closed. A door's number is not 0.
  [[nodiscard]] Result<uint32_t> open(UniqueFd listener, Take take);
  // Closes the listener; the connections are gRPC's. Nothing is taken when it returns.
  void close(uint32_t door);
  // A stream of the client that gRPC calls `peer` begins or has ended. A connection that has gone
  // meanwhile is no error.
  [[nodiscard]] Client stream_begun(uint32_t door, std::string_view peer);
  void stream_ended(uint32_t door, const Client& client);
  [[nodiscard]] Counts counts(uint32_t door) const;
  // The process that the kubelet is; 0: of another PID namespace.
  void set_kubelet(int pid) { kubelet_.store(pid); }
  [[nodiscard]] int kubelet() const { return kubelet_.load(); }

 private:
  struct Connection {
    uint32_t number = 0;  // of its door, from 1 on
    int pid = 0;
    size_t streams = 0;
    int given = -1;  // gRPC's descriptor
    uint64_t device = 0, inode = 0;
    UniqueFd ours;  // the same socket: to hear of its end, and to end it
  };
  struct Door {
    UniqueFd listener;
    Take take;
    uint32_t last_number = 0;
    std::vector<Connection> open;    // the oldest first
    std::vector<Connection> ending;  // gRPC has yet to close them
    uint64_t refused = 0;
  };

  void run();
  // False: not now, but after a pause.
  [[nodiscard]] bool accept_one(Door& door, uint32_t number);
  // False: there is no room for one more of `pid`.
  [[nodiscard]] bool make_room(Door& door, int pid);
  void end(Door& door, size_t place);
  [[nodiscard]] bool watch(int fd, uint32_t door, uint32_t connection, uint32_t events) const;
  void pause() const;

  UniqueFd epoll_;
  UniqueFd stop_;
  std::atomic<int> kubelet_{0};
  mutable std::mutex mutex_;
  std::map<uint32_t, Door> doors_;  // under mutex_
  uint32_t last_door_ = 0;          // under mutex_
  std::thread thread_;
};

}  // namespace gpuslice::kubelet
