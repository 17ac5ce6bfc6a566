#include "bin/kube_check.h"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <random>
#include <utility>

#include "base/check.h"
#include "host/event_loop.h"
#include "kube/https_transport.h"
#include "kube/node_kube.h"
#include "kube/watcher.h"

namespace gpuslice::bin {
namespace {

class Answer final : public ports::KubeEvents {
 public:
  explicit Answer(host::EventLoop& loop) : loop_(loop) {}
  void on_node(std::optional<ports::NodeObject> node) override {
    end(node ? Status() : fail(Code::kNotFound, "it knows no Node of this name; see --node-name"));
  }
  void on_kube_reachable(Status status) override {
    if (!status) end(std::move(status));
  }
  void on_config_map(const ports::ObjectName&, std::optional<ports::ConfigMapObject>) override {}
  void on_pods(ports::PodList) override {}
  void on_labels_applied(Status) override {}
  void on_node_patched(Status) override {}
  void on_evicted(const ports::ObjectName&, Status) override {}

  void end(Status status) {
    if (!ended_) ended_ = std::move(status);
    loop_.stop();
  }
  [[nodiscard]] const std::optional<Status>& ended() const { return ended_; }

 private:
  host::EventLoop& loop_;
  std::optional<Status> ended_;
};

}  // namespace

Result<std::string> ask_api_server(const kube::Account& account, const std::string& node) {
  const std::string where = fmt::format("{}:{}", account.host, account.port);
  TRY_ASSIGN(const std::unique_ptr<host::EventLoop> loop, host::EventLoop::create());
  Answer answer(*loop);
  {
    kube::NodeKube::Options options;
    options.node = node;
    options.seed = std::random_device()();
    options.post = [&loop](std::function<void()> work) {
      CHECK(loop->post(std::move(work)), "the loop has no room for an answer");
    };
    kube::NodeKube kube(std::move(options), kube::https_transport(account), answer);
    kube.watch_node();
    const host::EventLoop::Token late =
        loop->after(kube::kToldAfter + std::chrono::seconds(2),
                    [&] { answer.end(fail(Code::kTimeout, "it does not answer")); });
    loop->run();
  }
  if (!answer.ended())
    return fail(Code::kInternal, "{}: the question was dropped without an answer", where);
  if (const Status& ended = *answer.ended(); !ended)
    return std::unexpected(Error(ended.error()).in(where));
  return fmt::format("{}: answers, and shows the Node {}", where, node);
}

}  // namespace gpuslice::bin
