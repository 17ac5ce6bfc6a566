#pragma once

// What the agent shows over HTTP: /healthz, /readyz, /metrics and the page at /.
//
// Requests are answered on the server's thread from immutable snapshots, and never wait for T0.

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "bin/rpc_metrics.h"
#include "host/event_loop.h"
#include "http/page.h"
#include "http/server.h"
#include "metrics/family.h"

namespace gpuslice::bin {

struct WebState {
  bool ready = false;
  std::string why_not_ready;  // one line, when not ready
  std::vector<metrics::Family> families;
  http::PageModel page;
};

// It must outlive what it posts to the loop: end it when the loop runs no more.
class AgentWeb {
 public:
  // A thread (T0, or one of gRPC's) that has not answered for this long is dead to /healthz.
  static constexpr Duration kDeadAfter = std::chrono::seconds(15);

  struct Sources {
    // What there is to show; called on the server's thread.
    std::function<WebState()> state;
    // Called on T0 when somebody looked at the page or at /metrics: the time to sample what is
    // busy.
    std::function<void()> wanted;
    // Called on T0 at each look at /healthz: which other thread does not answer, and for how long;
    // "" when all do.
    std::function<std::string()> stuck;
    Duration dead_after = kDeadAfter;
  };
  static Result<std::unique_ptr<AgentWeb>> start(const std::string& listen, host::EventLoop& loop,
                                                 const RpcMetrics& rpcs, Sources sources);

  [[nodiscard]] std::string address() const { return server_->address(); }
  [[nodiscard]] size_t connections() const { return server_->connections(); }
  [[nodiscard]] uint64_t refused_connections() const { return server_->refused_connections(); }

 private:
  AgentWeb(host::EventLoop& loop, const RpcMetrics& rpcs, Sources sources)
      : loop_(loop), rpcs_(rpcs), sources_(std::move(sources)) {}

  // On the server's thread.
  http::Response answer(std::string_view path);
  http::Response health();
  http::Response ready(const WebState& state) const;
  http::Response metrics_text(const WebState& state) const;
  void look_again();

  host::EventLoop& loop_;
  const RpcMetrics& rpcs_;
  Sources sources_;
  std::atomic<bool> open_{false};     // server_ is set
  std::atomic<int64_t> asked_ns_{0};  // when /healthz last asked T0; 0: nothing is open
  std::mutex stuck_mutex_;
  std::string stuck_;                     // as T0 said last
  std::unique_ptr<http::Server> server_;  // last: its thread uses the rest
};

}  // namespace gpuslice::bin
