#pragma once

// The device-plugin service of one resource on its own Unix socket, as the kubelet calls it.
//
// One thread for the server, asleep in its completion queue when nobody calls; streams own no
// thread. Every live ListAndWatch stream gets the newest list, and gets it again whenever publish()
// brings another; a stream whose client has gone is reaped when that happens, not at the next
// change. A client that reads slowly gets the newest list next, never a queue of old ones.
//
// Connections are accepted by a thread of their own, one for all servers (kubelet/acceptor.h, which
// says who goes when there are too many).

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/time.h"
#include "ports/kubelet.h"

namespace gpuslice::kubelet {

// Open connections of one resource. Beyond it one is closed, the new one or another, and counted.
// The kubelet has one.
inline constexpr size_t kMaxConnections = 64;
// Live ListAndWatch streams of one resource. One more is refused with RESOURCE_EXHAUSTED if it is
// of the process that has the most, or of one that is not known; else it takes the place of that
// process's oldest. The kubelet holds one.
inline constexpr size_t kMaxStreams = 64;
// gRPC's own default, which the kubelet has as well: a list that is longer cannot be sent.
inline constexpr int kMaxMessageBytes = 4 * 1024 * 1024;
// Calls at a time on one connection; more wait in the client.
inline constexpr int kMaxCallsPerConnection = 100;
// What gRPC's buffers of all servers that share a BufferMemory may take together.
inline constexpr size_t kMaxGrpcMemoryBytes = 64 * 1024 * 1024;
class BufferMemory;
[[nodiscard]] std::shared_ptr<const BufferMemory> make_buffer_memory();
class Acceptor;
// sun_path has 108 bytes with the terminating zero.
inline constexpr size_t kMaxSocketPathBytes = 107;

// What is counted of one call.
struct CallSeen {
  std::string_view method;  // "Allocate"
  Duration duration{};      // in the server, without the socket
  bool ok = false;
};

class PluginServer {
 public:
  using Seen = std::function<void(const CallSeen&)>;  // called on the server's thread

  struct Options {
    std::string socket_path;
    ports::PluginService* service = nullptr;  // outlives the server; called on the server's thread
    std::shared_ptr<const ports::DeviceList> list;
    Seen seen;
    std::shared_ptr<const BufferMemory> memory;  // null: one of its own
    std::shared_ptr<Acceptor> acceptor;          // null: one of its own
    // Part of a file name that no other server of this machine uses at the same time.
    std::string unique;
  };

  // Serves from the moment it returns. kInUse when another program answers on that socket (it is
  // left alone), kInvalidConfig when the path is too long, kNoPermission or kFailed when the socket
  // cannot be made. A stale socket is removed.
  [[nodiscard]] static Result<std::unique_ptr<PluginServer>> serve(Options options);
  PluginServer(const PluginServer&) = delete;
  PluginServer& operator=(const PluginServer&) = delete;
  // Ends all streams and calls, joins the thread and removes the socket: milliseconds.
  virtual ~PluginServer() = default;

  // Any thread. Every live stream is sent `list`.
  virtual void publish(std::shared_ptr<const ports::DeviceList> list) = 0;
  // Any thread.
  // Is the socket still where it was made?
  [[nodiscard]] virtual bool in_place() const = 0;
  // From one thread at a time. How long the server's thread has not answered a beat that waits for
  // it; the next beat is sent when none does. A thread that lives answers at once.
  [[nodiscard]] virtual Duration unanswered() = 0;
  // Any thread.
  [[nodiscard]] virtual size_t streams() const = 0;
  // Any thread. How many streams there have been, and whether one that came after the first `begun`
  // of them lives.
  [[nodiscard]] virtual uint64_t streams_begun() const = 0;
  [[nodiscard]] virtual bool watched_since(uint64_t begun) const = 0;
  [[nodiscard]] virtual uint64_t refused_streams() const = 0;
  // Any thread. Open now, and closed because there were too many.
  [[nodiscard]] virtual size_t connections() const = 0;
  [[nodiscard]] virtual uint64_t refused_connections() const = 0;
  [[nodiscard]] virtual uint64_t lists_sent() const = 0;

 protected:
  PluginServer() = default;
};

}  // namespace gpuslice::kubelet
