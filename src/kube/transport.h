#pragma once

// How requests reach the API server, without saying by what: the seam between the machines of this
// folder (list + watch, changes) and the network. All on one thread, the transport's.

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"

namespace gpuslice::kube {

struct Request {
  std::string verb;          // "list", "watch", "patch", "create", "evict": for counts and messages
  std::string method;        // "GET"
  std::string target;        // "/api/v1/nodes?…", percent-encoded
  std::string content_type;  // of `body`
  std::string body;
  Duration idle = std::chrono::seconds(15);   // the longest silence
  Duration whole = std::chrono::seconds(60);  // until the answer's end; zero: no bound (a watch)
};

struct Head {
  int status = 0;
  Duration retry_after{};  // zero: the server did not say
};

// One connection that is kept, with one request on it at a time.
class Wire {
 public:
  // Called in this order: on_head once, on_body for each piece, on_end. on_end with an error may
  // come at any time: kUnavailable, kTimeout, kInvalidConfig (certificate), kNoPermission (a file
  // of the account may not be read). The Wire may be sent to, cancelled or destroyed from within.
  class Answer {
   public:
    virtual ~Answer() = default;
    virtual void on_head(const Head& head) = 0;
    virtual void on_body(std::string_view bytes) = 0;
    virtual void on_end(Status status) = 0;
  };
  virtual ~Wire() = default;
  // `answer` outlives the request, or the request is cancelled.
  virtual void send(Request request, Answer& answer) = 0;
  // Closes the connection; the answer hears nothing more.
  virtual void cancel() = 0;
};

class Timer {
 public:
  virtual ~Timer() = default;
  // Replaces what was set before.
  virtual void after(Duration delay, std::function<void()> work) = 0;
  virtual void cancel() = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;
  [[nodiscard]] virtual MonotonicTime now() const = 0;
  [[nodiscard]] virtual std::unique_ptr<Wire> wire() = 0;
  [[nodiscard]] virtual std::unique_ptr<Timer> timer() = 0;
  // Any thread: takes work to the transport's thread, in order.
  virtual void post(std::function<void()> work) = 0;
  // Not on the transport's thread: ends it, whatever is under way. Wires and timers may be
  // destroyed on any thread from then on; nothing is called any more.
  virtual void stop() = 0;
};

}  // namespace gpuslice::kube
