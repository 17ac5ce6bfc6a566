// Who is asked to leave for a change of MIG.

#include <fmt/format.h>

#include <utility>

#include "agent/partition.h"

namespace gpuslice::agent {

// Of those in the way one that may not be put out, and why; "": all may. The others would go for
// nothing.
std::string Partition::who_stays(const std::vector<mig::Holder>& holders) const {
  std::string for_now;
  for (const mig::Holder& holder : holders) {
    if (holder.of_several) continue;  // the pods that it may be of are named as well
    std::string why;
    if (!holder.pod.empty()) {
      const Status may = ports_.evictor->evictable(holder.pod_namespace, holder.pod);
      if (may) continue;
      why = fmt::format("pod {}/{} cannot be evicted: {}", holder.pod_namespace, holder.pod,
                        may.error().message);
      if (may.error().code == Code::kImpossible) return why;
    } else if (holder.source == mig::Holder::Source::kProcess) {
      return holder.text() + ", is no pod's: end it";
    } else {
      why = holder.text() + ", is not named by the kubelet yet";
    }
    if (for_now.empty()) for_now = std::move(why);
  }
  return for_now;
}

// Opt-in. Each pod is asked once for a request; the next try sees whether it went.
void Partition::evict(const mig::GpuName& gpu, const std::vector<mig::Holder>& holders) {
  if (ports_.evictor == nullptr) return;
  const std::string key = "mig stays " + gpu.uuid;
  if (const std::string stays = who_stays(holders); !stays.empty()) {
    nobody_goes_.push_back(fmt::format("nobody is put out of {}: {}", gpu.text(), stays));
    return log_.once(Level::kWarning, key, "MIG: " + nobody_goes_.back());
  }
  log_.over(key);
  if (!waits_for_holders()) return;
  for (const mig::Holder& holder : holders) {
    if (holder.pod.empty() || !evicted_.insert(holder.pod_namespace + "/" + holder.pod).second)
      continue;
    log_.warning("MIG: pod {}/{} is in the way and is evicted", holder.pod_namespace, holder.pod);
    ports_.evictor->evict(holder.pod_namespace, holder.pod);
  }
}

void Partition::on_not_evicted(const std::string& name_space, const std::string& pod,
                               const Error& why) {
  const std::string name = name_space + "/" + pod;
  if (evicted_.erase(name) == 0) return;  // another request's
  if (auto& told = not_evicted_[name]; told != why.message) {
    told = why.message;
    log_.warning("MIG: pod {} is in the way and cannot be evicted: {}", name, why.text());
  }
}

}  // namespace gpuslice::agent
