#pragma once

// A small HTTP/1.1 server for /healthz, /readyz, /metrics and the page: GET and HEAD only, answers
// from a function, everything bounded. It runs on one thread of its own that sleeps when nobody
// asks.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"

namespace gpuslice::http {

struct Response {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

struct Limits {
  // One more takes the place of the one that has waited longest for its client, which is closed and
  // counted.
  size_t connections = 64;
  size_t header_bytes = 8 * 1024;  // more is answered with 431
  size_t target_bytes = 2 * 1024;  // more is answered with 414
  // A request must have come whole, and an answer must have been taken, within this time; an idle
  // connection is closed after it.
  Duration time = std::chrono::seconds(10);
};

class Server {
 public:
  // `path` is the target without its query. Called on the server's thread; must not block for long.
  using Answer = std::function<Response(std::string_view path)>;

  // Listens on `address`: "127.0.0.1:9400", ":9400" (all interfaces), "[::1]:9400"; port 0 takes a
  // free one. kUsage when it is no such address, kUnavailable when the port is taken, kNoPermission
  // when it may not be had. A name is not resolved: only addresses and "localhost".
  [[nodiscard]] static Result<std::unique_ptr<Server>> listen(std::string_view address,
                                                              Answer answer, Limits limits = {});
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  // Closes all connections and joins the thread: milliseconds, unless an answer is being made.
  virtual ~Server() = default;

  // Where it listens, with the real port: "127.0.0.1:9400".
  [[nodiscard]] virtual std::string address() const = 0;
  // Any thread.
  [[nodiscard]] virtual size_t connections() const = 0;  // now
  [[nodiscard]] virtual uint64_t refused_connections() const = 0;
  [[nodiscard]] virtual uint64_t requests() const = 0;

 protected:
  Server() = default;
};

}  // namespace gpuslice::http
