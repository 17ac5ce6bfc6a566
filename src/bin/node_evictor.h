#pragma once

// Evictions through the API server (--mig-evict), so that PodDisruptionBudgets and grace periods
// hold. Only what can help is asked for: a pod of a file on the node cannot be evicted, and one of
// a DaemonSet would be back before the change. Each eviction is held to the uid that was seen,
// before the look that found the pod in the way: whoever came since under its name is another one.
// T0.

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/error.h"
#include "ports/evictor.h"
#include "ports/kube.h"
#include "ports/timers.h"

namespace gpuslice::bin {

class NodeEvictor final : public ports::Evictor {
 public:
  // `failed`: called on T0, never from within evict(), for what cannot be evicted, now or ever.
  using Failed =
      std::function<void(const std::string& name_space, const std::string& pod, const Error& why)>;
  NodeEvictor(ports::Timers& timers, Failed failed)
      : failed_(std::move(failed)), refusals_(timers.timer()) {}

  // `kube` is asked until end().
  void begin(ports::KubeApi& kube);
  void end() {
    kube_ = nullptr;
    refusals_->cancel();
  }

  void before_look() override { looked_at_ = pods_; }
  [[nodiscard]] Status evictable(const std::string& name_space,
                                 const std::string& pod) const override;
  void evict(const std::string& name_space, const std::string& pod) override;
  void on_pods(ports::PodList pods) { pods_ = std::move(pods); }
  void on_evicted(const ports::ObjectName& pod, const Status& status);

 private:
  void refuse(const ports::ObjectName& pod, Error why);
  [[nodiscard]] static const ports::PodObject* find(const ports::PodList& pods,
                                                    const ports::ObjectName& name);

  Failed failed_;
  ports::KubeApi* kube_ = nullptr;
  ports::PodList pods_;                         // null before the first list
  ports::PodList looked_at_;                    // … as they were at before_look()
  std::map<ports::ObjectName, Error> refused_;  // to be told at the next turn
  std::unique_ptr<ports::Timer> refusals_;
};

}  // namespace gpuslice::bin
