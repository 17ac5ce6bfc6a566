#include "mig/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace gpuslice::mig {
namespace {

std::string device_text(GiId gi, ProfileId profile, gpu::Placement placement, CiId ci) {
  return fmt::format(" {}:{}@{}/{}", gi.value, profile.value, placement.start, ci.value);
}

std::string joined(bool mig, std::vector<std::string> devices) {
  std::sort(devices.begin(), devices.end());
  std::string out = mig ? "on" : "off";
  for (const std::string& one : devices) out += one;
  return out;
}

std::string devices_of(const GpuState& state) {
  std::vector<std::string> devices;
  for (const ports::GpuInstance& gi : state.instances)
    for (const ports::ComputeInstance& ci : gi.cis)
      devices.push_back(device_text(gi.id, gi.profile, gi.placement, ci.id));
  return joined(state.mode.current, std::move(devices));
}

}  // namespace

std::string devices_of(const ports::Gpu& gpu) {
  std::vector<std::string> devices;
  for (const ports::MigDevice& one : gpu.mig_devices)
    devices.push_back(device_text(one.gi, one.profile_id, one.placement, one.ci));
  return joined(gpu.mig_on(), std::move(devices));
}

bool off_as_wanted(const ports::MigMode& mode, const Wish& wish) {
  return !wish.mig && !mode.current && !mode.pending;
}

Checked check(ports::Mig& mig, const HolderSource& holders, const GpuName& gpu, const Wish& wish) {
  Checked out;
  out.gpu = gpu;
  if (const auto mode = mig.mig_mode(gpu.uuid); mode && off_as_wanted(*mode, wish)) {
    out.as_wanted = true;
    out.devices = joined(false, {});
    return out;
  }
  auto state = read_state(mig, gpu);
  if (!state) {
    out.refused = std::move(state).error();
    return out;
  }
  // Who holds what matters only where something is to be done: a start waits for no answer of the
  // kubelet for each of its GPUs.
  if (const Decision alone = decide(*state, wish, {}); alone.plan && alone.plan->nothing_to_do()) {
    out.as_wanted = true;
    out.devices = devices_of(*state);
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
