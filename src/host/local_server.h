#pragma once

// A Unix socket for one question a connection: a line comes, a line goes back, and the connection
// is closed; or it is kept, and who asked holds something for as long as it lives. Only the owner
// of the file may connect (mode 0600).
//
// T0 only: nothing here has a thread, and nothing waits. Whatever clients do costs at most
// kMaxLocalConnections × (kMaxLocalRequestBytes + one answer), for kLocalPatience; a lease takes
// one of the connections and nothing else.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/time.h"
#include "host/event_loop.h"

namespace gpuslice::host {

// One more is closed at once, and counted.
inline constexpr size_t kMaxLocalConnections = 16;
// A longer question closes its connection, and is counted.
inline constexpr size_t kMaxLocalRequestBytes = 64 * 1024;
// sun_path has 108 bytes with the terminating zero.
inline constexpr size_t kMaxLocalPathBytes = 107;
// Within this a question must have come whole, and an answer must have been taken.
inline constexpr Duration kLocalPatience = std::chrono::seconds(5);

struct LocalCounts {
  size_t connections = 0;  // now
  uint64_t requests = 0;
  uint64_t refused = 0;  // connections beyond the limit
  uint64_t cut = 0;      // too long, too slow, or more than one line
};

class LocalServer {
 public:
  using Id = uint64_t;
  struct Peer {
    Id id = 0;
    int pid = 0;  // 0 where it cannot be seen
  };
  struct Events {
    // A whole line came. answer() must follow, now or later, unless gone() comes first.
    std::function<void(const Peer& peer, const std::string& line)> asked;
    // A connection that asked and was not closed by its answer is closed: by its client, or because
    // the answer was not taken.
    std::function<void(Id id)> gone;
  };

  // Makes folder and socket; a stale one is replaced. kInUse: another program answers there, which
  // is left alone. kInvalidConfig: the path is too long. kNoPermission, kFailed.
  [[nodiscard]] static Result<std::unique_ptr<LocalServer>> listen(
      EventLoop& loop, const std::string& path, Events events, Duration patience = kLocalPatience);
  LocalServer(const LocalServer&) = delete;
  LocalServer& operator=(const LocalServer&) = delete;
  // Closes all connections without a word and removes the socket.
  ~LocalServer();

  // `text` without its line's end. Kept: gone() tells when the client closes it.
  enum class Then : uint8_t { kClose, kKeep };
  void answer(Id id, std::string text, Then then);

  [[nodiscard]] LocalCounts counts() const;

 private:
  struct Connection {
    UniqueFd fd;
    int pid = 0;
    std::string in;
    std::string out;
    size_t sent = 0;
    bool asked = false;
    Then then = Then::kKeep;  // kClose: once `out` is taken
    EventLoop::Token ready;
    EventLoop::Token deadline;
  };

  LocalServer(EventLoop& loop, std::string path, Events events, Duration patience);
  [[nodiscard]] Status open();
  void accept_all();
  void read(Id id);
  void write(Id id);
  // Waits for what the connection is in need of; false: it cannot be watched and is gone.
  bool watch(Id id, Connection& connection);
  void cut(Id id);
  void close(Id id);

  EventLoop& loop_;
  const std::string path_;
  const Events events_;
  const Duration patience_;
  UniqueFd listener_;
  uint64_t device_ = 0, inode_ = 0;
  EventLoop::Token accepting_;
  EventLoop::Token accept_again_;
  std::map<Id, Connection> connections_;
  Id next_id_ = 1;
  LocalCounts counts_;
};

}  // namespace gpuslice::host
