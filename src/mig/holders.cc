#include "mig/holders.h"

#include <algorithm>

namespace gpuslice::mig {
namespace {

// The instance that a device id names on this GPU; false if it names none of it. "GPU-…::3" is a
// part of "GPU-…".
bool locate(const GpuState& state, const std::string& id, Holder& holder) {
  const std::string device = id.substr(0, id.find("::"));
  if (device == state.gpu.uuid) return true;
  for (const ports::GpuInstance& gi : state.instances)
    for (const ports::ComputeInstance& ci : gi.cis)
      if (ci.uuid == device) {
        holder.gi = gi.id;
        holder.ci = ci.id;
        return true;
      }
  return false;
}

}  // namespace

std::vector<Holder> pod_holders(const GpuState& state, const std::vector<ports::PodDevices>& pods) {
  std::vector<Holder> out;
  for (const ports::PodDevices& pod : pods)
    for (const std::string& id : pod.ids) {
      Holder holder;
      holder.source = Holder::Source::kPod;
      holder.pod_namespace = pod.pod_namespace;
      holder.pod = pod.pod;
      holder.container = pod.container;
      holder.device = id;
      if (locate(state, id, holder)) out.push_back(std::move(holder));
    }
  return out;
}

std::vector<Holder> ledger_holders(const GpuState& state, const std::vector<std::string>& ids) {
  std::vector<Holder> out;
  for (const std::string& id : ids) {
    Holder holder;
    holder.source = Holder::Source::kLedger;
    holder.device = id;
    if (locate(state, id, holder)) out.push_back(std::move(holder));
  }
  return out;
}

std::vector<Holder> with_pods(std::vector<Holder> processes, const std::vector<Holder>& pods,
                              const std::function<bool(uint32_t pid)>& in_pod) {
  for (Holder& holder : processes) {
    if (holder.pid == 0 || !in_pod(holder.pid)) continue;
    const Holder* first = nullptr;
    for (const Holder& pod : pods) {
      if (pod.gi != holder.gi || pod.ci != holder.ci) continue;
      const bool other =
          first != nullptr && (pod.pod_namespace != first->pod_namespace || pod.pod != first->pod);
      holder.of_several = holder.of_several || other;
      if (first == nullptr) first = &pod;
    }
    if (first == nullptr || holder.of_several) continue;
    holder.pod_namespace = first->pod_namespace;
    holder.pod = first->pod;
    holder.container = first->container;
    holder.device = first->device;
  }
  return processes;
}

std::vector<Holder> merged(std::vector<Holder> first,
                           const std::vector<std::vector<Holder>>& others) {
  for (const std::vector<Holder>& list : others)
    for (const Holder& holder : list) {
      const bool told = std::any_of(first.begin(), first.end(), [&](const Holder& h) {
        return h.device == holder.device && !h.device.empty();
      });
      if (!told) first.push_back(holder);
    }
  return first;
}

}  // namespace gpuslice::mig
