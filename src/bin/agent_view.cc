#include "bin/agent_view.h"

#include <algorithm>
#include <utility>

namespace gpuslice::bin {
namespace {

using metrics::Family;
using metrics::Label;
using metrics::Type;

constexpr uint64_t kMiB = 1024 * 1024;

Family one(std::string name, std::string help, Type type, uint64_t value) {
  return {std::move(name), std::move(help), type, {{{}, static_cast<double>(value)}}, {}};
}

void add_resource_families(const View& view, std::vector<Family>& out) {
  Family devices{"gpuslice_devices",
                 "Devices offered to the kubelet, by resource and state.",
                 Type::kGauge,
                 {},
                 {}};
  Family held{
      "gpuslice_devices_held", "Devices that pods hold, by resource.", Type::kGauge, {}, {}};
  Family registered{"gpuslice_resource_registered",
                    "Whether the kubelet knows the resource (1) or not (0).",
                    Type::kGauge,
                    {},
                    {}};
  Family registrations{"gpuslice_registrations_total",
                       "Registrations that the kubelet took, by resource.",
                       Type::kCounter,
                       {},
                       {}};
  Family failures{"gpuslice_registration_failures_total",
                  "Registrations and sockets that failed, by resource.",
                  Type::kCounter,
                  {},
                  {}};
  Family streams{"gpuslice_list_streams",
                 "ListAndWatch streams that are open, by resource.",
                 Type::kGauge,
                 {},
                 {}};
  Family refused{"gpuslice_list_streams_refused_total",
                 "ListAndWatch streams beyond the limit, by resource.",
                 Type::kCounter,
                 {},
                 {}};
  Family lists{"gpuslice_lists_sent_total",
               "Device lists sent to the kubelet, by resource.",
               Type::kCounter,
               {},
               {}};
  for (const auto& [name, resource] : view.status.resources) {
    const Label label{"resource", name};
    devices.samples.push_back(
        {{label, {"state", "healthy"}}, static_cast<double>(resource.healthy)});
    devices.samples.push_back(
        {{label, {"state", "unhealthy"}}, static_cast<double>(resource.unhealthy)});
    held.samples.push_back({{label}, static_cast<double>(resource.held)});
    registered.samples.push_back({{label}, resource.registered ? 1.0 : 0.0});
    registrations.samples.push_back({{label}, static_cast<double>(resource.registrations)});
    failures.samples.push_back({{label}, static_cast<double>(resource.failures)});
  }
  for (const auto& [name, counts] : view.plugins) {
    const Label label{"resource", name};
    streams.samples.push_back({{label}, static_cast<double>(counts.streams)});
    refused.samples.push_back({{label}, static_cast<double>(counts.refused_streams)});
    lists.samples.push_back({{label}, static_cast<double>(counts.lists_sent)});
  }
  for (Family* family :
       {&devices, &held, &registered, &registrations, &failures, &streams, &refused, &lists}) {
    out.push_back(std::move(*family));
  }
}

void add_mig_families(const agent::AgentStatus& status, std::vector<Family>& out) {
  Family state{"gpuslice_mig_state",
               "The MIG layout that is wanted, and what became of it: 1 for the state it is in.",
               Type::kGauge,
               {},
               {}};
  if (!status.mig.label.empty())
    for (const char* name : {"pending", "success", "failed", "rebooting"})
      state.samples.push_back(
          {{{"config", status.mig.label}, {"state", name}}, status.mig.state == name ? 1.0 : 0.0});
  Family changes{"gpuslice_mig_changes_total",
                 "Changes of a GPU's MIG layout, by how they ended.",
                 Type::kCounter,
                 {},
                 {}};
  for (const auto& [end, count] : status.mig_counts.changes)
    changes.samples.push_back({{{"end", end}}, static_cast<double>(count)});
  out.push_back(one("gpuslice_mig_passes_total",
                    "Times that all GPUs were compared with the MIG layout that is wanted.",
                    Type::kCounter, status.mig_counts.passes));
  for (Family* family : {&state, &changes})
    if (!family->samples.empty()) out.push_back(std::move(*family));
}

void add_kube_families(const ports::KubeCounts& counts, std::vector<Family>& out) {
  Family requests{"gpuslice_kube_requests_total",
                  "Answers of the API server, by verb and status.",
                  Type::kCounter,
                  {},
                  {}};
  for (const auto& [what, count] : counts.requests)
    requests.samples.push_back({{{"request", what}}, static_cast<double>(count)});
  if (!requests.samples.empty()) out.push_back(std::move(requests));
  out.push_back(one("gpuslice_kube_retries_total", "Changes that were tried again.", Type::kCounter,
                    counts.retries));
  out.push_back(one("gpuslice_kube_relists_total", "Watches that were begun anew.", Type::kCounter,
                    counts.relists));
  out.push_back(one("gpuslice_kube_events_dropped_total",
                    "Events beyond a limit, that nobody was told.", Type::kCounter,
                    counts.events_dropped));
}

std::vector<Family> make_families(const View& view) {
  const agent::AgentStatus& status = view.status;
  std::vector<Family> out;
  out.push_back({"gpuslice_build_info",
                 "What runs.",
                 Type::kGauge,
                 {{{{"version", view.version}, {"driver", status.driver}}, 1}},
                 {}});
  out.push_back(one("gpuslice_ready",
                    "Whether the node serves what it is configured to (1) or not (0).",
                    Type::kGauge, status.ready ? 1 : 0));
  Family gpus{"gpuslice_gpus", "GPUs of the node, by state.", Type::kGauge, {}, {}};
  const auto bad = static_cast<size_t>(
      std::count_if(status.gpus->begin(), status.gpus->end(),
                    [&](const ports::Gpu& gpu) { return status.unhealthy.contains(gpu.uuid); }));
  const size_t good = status.gpus->size() - bad;
  gpus.samples.push_back({{{"state", "healthy"}}, static_cast<double>(good)});
  gpus.samples.push_back({{{"state", "unhealthy"}}, static_cast<double>(bad)});
  out.push_back(std::move(gpus));
  Family sick{"gpuslice_device_unhealthy",
              "GPUs and MIG devices that are not healthy, by UUID and reason: 1.",
              Type::kGauge,
              {},
              {}};
  for (const auto& [uuid, why] : status.unhealthy)
    sick.samples.push_back({{{"device", uuid}, {"reason", why}}, 1.0});
  if (!sick.samples.empty()) out.push_back(std::move(sick));
  add_resource_families(view, out);
  out.push_back(one("gpuslice_config_generation", "Configurations put in force since the start.",
                    Type::kGauge, status.config_generation));
  Family reloads{
      "gpuslice_config_reloads_total", "Configurations read, by result.", Type::kCounter, {}, {}};
  reloads.samples.push_back({{{"result", "good"}}, static_cast<double>(status.reloads_good)});
  reloads.samples.push_back({{{"result", "refused"}}, static_cast<double>(status.reloads_bad)});
  out.push_back(std::move(reloads));
  out.push_back(one("gpuslice_config_error", "Whether the newest configuration was refused (1).",
                    Type::kGauge, status.config_problem.empty() ? 0 : 1));
  Family allocations{"gpuslice_allocations_total",
                     "Devices asked for by Allocate, by result.",
                     Type::kCounter,
                     {},
                     {}};
  allocations.samples.push_back(
      {{{"result", "allocated"}}, static_cast<double>(status.allocations)});
  allocations.samples.push_back({{{"result", "refused"}}, static_cast<double>(status.refusals)});
  out.push_back(std::move(allocations));
  out.push_back(one("gpuslice_unhealthy_allocations_total",
                    "Devices given out although listed as unhealthy.", Type::kCounter,
                    status.unhealthy_allocations));
  out.push_back(one("gpuslice_driver_errors_total",
                    "Times that the driver or a GPU did not answer.", Type::kCounter,
                    status.inventory_errors));
  out.push_back({"gpuslice_driver_busy_seconds",
                 "How long the driver has not answered the question under way.",
                 Type::kGauge,
                 {{{}, view.driver_busy_seconds}},
                 {}});
  Family xids{"gpuslice_xid_errors_total",
              "XIDs that the driver reported, by GPU and XID, also those that are ignored.",
              Type::kCounter,
              {},
              {}};
  for (const auto& [what, count] : status.xids)
    xids.samples.push_back(
        {{{"gpu", what.first}, {"xid", std::to_string(what.second)}}, static_cast<double>(count)});
  if (!xids.samples.empty()) out.push_back(std::move(xids));
  Family troubles{
      "gpuslice_gpu_trouble",
      "What a GPU tells of its own state: 1 while it does, also where that makes nothing "
      "unhealthy.",
      Type::kGauge,
      {},
      {}};
  for (const agent::TroubleMark& one : status.troubles)
    troubles.samples.push_back(
        {{{"gpu", one.gpu}, {"trouble", std::string(agent::word_of(one.seen.trouble))}}, 1});
  if (!troubles.samples.empty()) out.push_back(std::move(troubles));
  add_mig_families(status, out);
  if (view.kube) add_kube_families(*view.kube, out);
  out.push_back(one("gpuslice_log_lines_left_out_total",
                    "Lines that were not logged because they had just been, some times.",
                    Type::kCounter, view.log_left_out));
  for (Family& family : queue_families(view.queues)) out.push_back(std::move(family));
  out.push_back(one("gpuslice_reconciles_total",
                    "Times that the agent compared what is with what is wanted.", Type::kCounter,
                    status.reconciles));
  return out;
}

const ports::Gpu* sample_of(const View& view, const std::string& uuid) {
  if (view.samples == nullptr || view.now - view.samples->taken >= kSamplesShown) return nullptr;
  const auto& gpus = view.samples->gpus;
  const auto found = std::find_if(gpus.begin(), gpus.end(),
                                  [&](const ports::Gpu& gpu) { return gpu.uuid == uuid; });
  return found == gpus.end() ? nullptr : &*found;
}

void add_gpus(const View& view, http::PageModel& page) {
  for (const ports::Gpu& gpu : *view.status.gpus) {
    http::PageGpu row;
    row.index = gpu.index.value;
    row.uuid = gpu.uuid;
    row.name = gpu.name;
    const auto why = view.status.unhealthy.find(gpu.uuid);
    row.health = why == view.status.unhealthy.end() ? "healthy" : why->second;
    for (const agent::TroubleMark& one : view.status.troubles)
      if (one.gpu == gpu.uuid && !one.unhealthy()) row.health += "; " + one.seen.text;
    row.memory_total_mib = gpu.memory_total_bytes / kMiB;
    if (const ports::Gpu* sample = sample_of(view, gpu.uuid)) {
      if (sample->memory_used_bytes) row.memory_used_mib = *sample->memory_used_bytes / kMiB;
      row.utilisation_percent = sample->utilisation_percent;
    }
    page.gpus.push_back(std::move(row));
  }
}

void add_slices_and_pods(const View& view, http::PageModel& page) {
  std::map<std::pair<std::string, std::string>, std::string> holders;  // (resource, id) → pod
  for (const ports::PodDevices& pod : *view.status.pods) {
    if (!view.status.resources.contains(pod.resource)) continue;
    const std::string name = pod.pod_namespace + "/" + pod.pod;
    for (const std::string& id : pod.ids) holders[{pod.resource, id}] = name;
    page.pods.push_back({name, pod.container, pod.resource, pod.ids});
  }
  for (const auto& [name, resource] : view.status.resources) {
    if (!resource.table) continue;
    for (const agent::OfferedDevice& device : resource.table->devices) {
      const agent::BaseDevice& base = resource.table->bases[device.base];
      http::PageSlice row;
      row.resource = name;
      row.id = device.id;
      row.gpu = base.index;
      row.health = base.healthy ? "healthy" : base.why_unhealthy;
      const auto holder = holders.find({name, std::string(device.id)});
      if (holder != holders.end()) {
        row.pod = holder->second;
      } else if (const auto held = view.status.held->find(name);
                 held != view.status.held->end() && held->second.contains(std::string(device.id))) {
        row.pod = "a pod that is starting or ending";
      }
      page.slices.push_back(std::move(row));
    }
  }
}

}  // namespace

WebState make_web_state(const View& view) {
  const agent::AgentStatus& status = view.status;
  WebState state;
  state.ready = status.ready;
  state.why_not_ready = status.why_not_ready;
  state.families = make_families(view);
  state.page.version = view.version;
  state.page.driver = status.driver;
  state.page.state = status.ready ? "ready" : "not ready: " + status.why_not_ready;
  state.page.configuration =
      status.config_generation == 0
          ? "none in force yet"
          : fmt::format("{}, generation {}",
                        status.config_from.empty() ? "defaults" : status.config_from,
                        status.config_generation);
  state.page.problem = status.config_problem;
  if (!status.mig.label.empty())
    state.page.mig = fmt::format("label {}: {}", status.mig.label, status.mig.state);
  state.page.mig_problem = status.mig.reason;
  add_gpus(view, state.page);
  add_slices_and_pods(view, state.page);
  return state;
}

}  // namespace gpuslice::bin
