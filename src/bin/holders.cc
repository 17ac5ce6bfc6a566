#include "bin/holders.h"

#include <unistd.h>

#include <algorithm>
#include <future>

#include "agent/ledger_file.h"
#include "host/node_host.h"
#include "host/processes.h"
#include "kubelet/client.h"

namespace gpuslice::bin {
namespace {

constexpr size_t kMaxLedgerBytes = 64 * 1024 * 1024;

// "GPU-…::3" is a part of "GPU-…".
std::string device_of(const std::string& id) { return id.substr(0, id.find("::")); }

// The instance that a device id names on this GPU; false if it names none of it.
bool locate(const mig::GpuState& state, const std::string& id, mig::Holder& holder) {
  const std::string device = device_of(id);
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

Result<std::vector<ports::PodDevices>> ask_kubelet(const std::string& kubelet_dir) {
  const std::string socket = kubelet_dir + "/pod-resources/kubelet.sock";
  if (::access(socket.c_str(), F_OK) != 0) return std::vector<ports::PodDevices>{};
  kubelet::Client client;
  std::promise<Result<std::vector<ports::PodDevices>>> answer;
  client.list_pods(socket, [&](Result<std::vector<ports::PodDevices>> pods) {
    answer.set_value(std::move(pods));
  });
  auto pods = answer.get_future().get();
  if (!pods)
    return fail(Code::kUnavailable,
                "{}: which pods hold devices cannot be asked: {}; nothing is changed", socket,
                pods.error().message);
  return pods;
}

std::vector<mig::Holder> of_pods(const mig::GpuState& state,
                                 const std::vector<ports::PodDevices>& pods) {
  std::vector<mig::Holder> out;
  for (const ports::PodDevices& pod : pods)
    for (const std::string& id : pod.ids) {
      mig::Holder holder;
      holder.source = mig::Holder::Source::kPod;
      holder.pod_namespace = pod.pod_namespace;
      holder.pod = pod.pod;
      holder.container = pod.container;
      holder.device = id;
      if (locate(state, id, holder)) out.push_back(std::move(holder));
    }
  return out;
}

std::vector<mig::Holder> of_ledger(const mig::GpuState& state, const HolderPlaces& places) {
  std::vector<mig::Holder> out;
  host::NodeFiles files(places.root);
  const auto text = files.read(places.ledger_path, kMaxLedgerBytes);
  if (!text) return out;
  const auto entries = agent::parse_ledger(*text, files.boot_id().value_or(""), MonotonicTime{});
  if (!entries) return out;
  for (const agent::LedgerEntry& entry : *entries) {
    mig::Holder holder;
    holder.source = mig::Holder::Source::kLedger;
    holder.device = entry.id;
    if (locate(state, entry.id, holder)) out.push_back(std::move(holder));
  }
  return out;
}

// NVML's processes with what /proc knows of them, and the pod where only one holds the instance.
std::vector<mig::Holder> of_processes(const mig::GpuState& state,
                                      const std::vector<mig::Holder>& pods) {
  std::vector<mig::Holder> out = mig::process_holders(state);
  for (mig::Holder& holder : out) {
    if (holder.pid == 0) continue;
    const auto pid = static_cast<pid_t>(holder.pid);
    if (const auto command = host::process_command(pid)) holder.command = *command;
    if (!host::process_pod(pid)) continue;
    const mig::Holder* only = nullptr;
    size_t several = 0;
    for (const mig::Holder& pod : pods)
      if (pod.gi == holder.gi && pod.ci == holder.ci) {
        only = &pod;
        ++several;
      }
    if (several != 1) continue;
    holder.pod_namespace = only->pod_namespace;
    holder.pod = only->pod;
    holder.container = only->container;
    holder.device = only->device;
  }
  return out;
}

}  // namespace

mig::HolderSource holder_source(HolderPlaces places) {
  return [places](const mig::GpuState& state) -> Result<std::vector<mig::Holder>> {
    TRY_ASSIGN(const std::vector<ports::PodDevices> pods, ask_kubelet(places.kubelet_dir));
    const std::vector<mig::Holder> by_pods = of_pods(state, pods);
    std::vector<mig::Holder> out = of_processes(state, by_pods);
    const auto add = [&](const mig::Holder& holder) {
      const bool told = std::any_of(out.begin(), out.end(), [&](const mig::Holder& h) {
        return h.device == holder.device && !h.device.empty();
      });
      if (!told) out.push_back(holder);
    };
    for (const mig::Holder& holder : by_pods) add(holder);
    for (const mig::Holder& holder : of_ledger(state, places)) add(holder);
    return out;
  };
}

}  // namespace gpuslice::bin
