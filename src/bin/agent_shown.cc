#include "bin/agent_shown.h"

#include <chrono>
#include <utility>

#include "bin/agent_view.h"
#include "bin/version.h"
#include "host/event_loop.h"

namespace gpuslice::bin {
namespace {

// Samples younger than this are shown again, and nobody is asked.
constexpr Duration kSamplesFresh = std::chrono::seconds(2);

}  // namespace

void AgentShown::keep(std::map<std::string, kubelet::PluginCounts> plugins,
                      std::vector<QueueState> queues, std::optional<ports::KubeCounts> kube) {
  const std::lock_guard lock(mutex_);
  plugins_ = std::move(plugins);
  queues_ = std::move(queues);
  kube_ = std::move(kube);
}

void AgentShown::sample_if_stale(WorkerDriver& driver) {
  {
    const std::lock_guard lock(mutex_);
    if (samples_ && host::EventLoop::now() - samples_->taken < kSamplesFresh) return;
  }
  driver.ask_samples([this](std::shared_ptr<const Samples> samples) {
    const std::lock_guard lock(mutex_);
    samples_ = std::move(samples);
  });
}

WebState AgentShown::web_state(const agent::AgentStatus& status, const WorkerDriver& driver,
                               const Log& log) {
  std::shared_ptr<const Samples> samples;
  std::map<std::string, kubelet::PluginCounts> plugins;
  std::vector<QueueState> queues;
  std::optional<ports::KubeCounts> kube;
  {
    const std::lock_guard lock(mutex_);
    samples = samples_;
    plugins = plugins_;
    queues = queues_;
    kube = kube_;
  }
  return make_web_state({status, samples.get(), plugins, std::string(kVersion), queues, kube,
                         log.left_out(), std::chrono::duration<double>(driver.busy_for()).count(),
                         host::EventLoop::now()});
}

}  // namespace gpuslice::bin
