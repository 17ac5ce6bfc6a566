#include "bin/agent_web.h"

#include <utility>

namespace gpuslice::bin {

Result<std::unique_ptr<AgentWeb>> AgentWeb::start(const std::string& listen, host::EventLoop& loop,
                                                  const RpcMetrics& rpcs, Sources sources) {
  std::unique_ptr<AgentWeb> web(new AgentWeb(loop, rpcs, std::move(sources)));
  TRY_ASSIGN(web->server_, http::Server::listen(listen, [raw = web.get()](std::string_view path) {
               return raw->answer(path);
             }));
  web->open_.store(true, std::memory_order_release);
  return web;
}

http::Response AgentWeb::answer(std::string_view path) {
  if (path == "/healthz") return health();
  if (path == "/readyz") return ready(sources_.state());
  if (path == "/metrics") {
    // The server counts its own requests; its pointer is there in a moment.
    if (!open_.load(std::memory_order_acquire)) return {503, "text/plain", "starting\n"};
    look_again();
    return metrics_text(sources_.state());
  }
  if (path == "/") {
    look_again();
    return {200, "text/html; charset=utf-8", http::page(sources_.state().page)};
  }
  return {404, "text/plain; charset=utf-8", "there are /, /metrics, /healthz and /readyz\n"};
}

// T0 is asked to answer by the next time; that it did not for dead_after is what dead means. Of the
// other threads it tells what it saw when it was asked last.
http::Response AgentWeb::health() {
  const int64_t now = host::EventLoop::now().time_since_epoch().count();
  int64_t open = 0;
  if (asked_ns_.compare_exchange_strong(open, now)) {
    const bool posted = loop_.post([this] {
      std::string stuck = sources_.stuck ? sources_.stuck() : "";
      const std::lock_guard lock(stuck_mutex_);
      stuck_ = std::move(stuck);
      asked_ns_.store(0);
    });
    if (!posted) asked_ns_.store(0);
  } else if (Duration(now - open) > sources_.dead_after) {
    return {503, "text/plain; charset=utf-8",
            fmt::format("the agent's main thread has not answered for {} s\n",
                        (now - open) / 1'000'000'000)};
  }
  const std::lock_guard lock(stuck_mutex_);
  if (!stuck_.empty()) return {503, "text/plain; charset=utf-8", stuck_ + "\n"};
  return {200, "text/plain; charset=utf-8", "ok\n"};
}

http::Response AgentWeb::ready(const WebState& state) const {
  if (state.ready) return {200, "text/plain; charset=utf-8", "ready\n"};
  return {503, "text/plain; charset=utf-8",
          (state.why_not_ready.empty() ? "starting" : state.why_not_ready) + "\n"};
}

http::Response AgentWeb::metrics_text(const WebState& state) const {
  std::vector<metrics::Family> families = state.families;
  for (metrics::Family& family : rpcs_.families()) families.push_back(std::move(family));
  families.push_back({"gpuslice_event_loop_refused_total",
                      "Work that the main thread's full queue refused.",
                      metrics::Type::kCounter,
                      {{{}, static_cast<double>(loop_.posted_dropped())}},
                      {}});
  families.push_back({"gpuslice_http_requests_total",
                      "HTTP requests answered.",
                      metrics::Type::kCounter,
                      {{{}, static_cast<double>(server_->requests())}},
                      {}});
  families.push_back({"gpuslice_http_refused_connections_total",
                      "HTTP connections closed because there were more than the limit.",
                      metrics::Type::kCounter,
                      {{{}, static_cast<double>(server_->refused_connections())}},
                      {}});
  return {200, "text/plain; version=0.0.4; charset=utf-8", metrics::text(families)};
}

void AgentWeb::look_again() {
  // A refusal is counted by the loop; the next request asks again.
  [[maybe_unused]] const bool posted = loop_.post([this] { sources_.wanted(); });
}

}  // namespace gpuslice::bin
