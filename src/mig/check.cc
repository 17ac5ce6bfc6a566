#include "mig/check.h"

#include <algorithm>
#include <utility>

namespace gpuslice::mig {

Checked check(ports::Mig& mig, const HolderSource& holders, const GpuName& gpu, const Wish& wish) {
  Checked out;
  out.gpu = gpu;
  auto state = read_state(mig, gpu);
  if (!state) {
    out.refused = std::move(state).error();
    return out;
  }
  // Who holds what matters only where something is to be done: a start waits for no answer of the
  // kubelet for each of its GPUs.
  if (const Decision alone = decide(*state, wish, {}); alone.plan && alone.plan->nothing_to_do()) {
    out.as_wanted = true;
    return out;
  }
  auto held = holders ? holders(*state) : Result<std::vector<Holder>>();
  if (!held) {
    out.refused = std::move(held).error();
    return out;
  }
  Decision decision = decide(*state, wish, *held);
  if (decision.refusal) {
    out.refused = std::move(decision.refusal->error);
    out.holders = std::move(decision.refusal->holders);
    out.going = std::move(decision.refusal->going);
  } else {
    out.as_wanted = decision.plan->nothing_to_do();
  }
  return out;
}

Prepared prepare(Change& change, const Wish& wish) {
  Prepared out;
  out.ready = change.prepare(wish);
  if (out.ready)
    out.going = change.devices_that_go();
  else
    out.report = change.report();
  return out;
}

std::vector<Report> recover_all(const Ports& ports, const Options& options,
                                const std::vector<std::string>& gpus) {
  std::vector<Report> reports;
  const uint32_t count = ports.nvml.gpu_count().value_or(0);
  for (uint32_t i = 0; i < count; ++i) {
    const auto gpu = ports.nvml.gpu(GpuIndex{i}, ports::Detail::kInventory);
    if (!gpu || std::find(gpus.begin(), gpus.end(), gpu->uuid) == gpus.end()) continue;
    Change change(ports, options, name_of(*gpu));
    change.recover();
    reports.push_back(change.report());
  }
  for (const std::string& uuid : gpus) {
    const bool told = std::any_of(reports.begin(), reports.end(),
                                  [&](const Report& r) { return r.gpu.uuid == uuid; });
    if (told) continue;
    Report& report = reports.emplace_back();
    report.gpu.uuid = uuid;
    report.end = End::kLost;
    report.error = Error{Code::kGpuLost, uuid + " does not answer; its journal is kept", {}};
  }
  return reports;
}

}  // namespace gpuslice::mig
