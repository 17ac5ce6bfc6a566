#include "bin/agent_status.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"

namespace gpuslice::bin {
namespace {

using Json = nlohmann::ordered_json;

double seconds(Duration duration) {
  return static_cast<double>(
             std::chrono::duration_cast<std::chrono::milliseconds>(duration).count()) /
         1000;
}

// An array of at most kMaxStatusRows, and how many were left out.
class Rows {
 public:
  // False: it is full, the row need not be made.
  bool room() {
    if (rows_.size() < kMaxStatusRows) return true;
    ++left_out_;
    return false;
  }
  void add(Json row) { rows_.push_back(std::move(row)); }
  void put(Json& into, const std::string& name) && {
    into[name] = std::move(rows_);
    if (left_out_ > 0) into[name + "LeftOut"] = left_out_;
  }

 private:
  Json rows_ = Json::array();
  uint64_t left_out_ = 0;
};

Json configuration(const StatusView& view) {
  const agent::AgentStatus& status = view.status;
  Json out = {{"file", view.details.config_file}};
  if (!view.config_key.empty()) out["key"] = view.config_key;
  out["inForce"] = status.config_from;
  out["fingerprint"] = view.details.config_fingerprint;
  out["generation"] = status.config_generation;
  out["problem"] = status.config_problem;
  out["lastGood"] = view.details.config_last_good;
  out["reloads"] = {{"good", status.reloads_good}, {"refused", status.reloads_bad}};
  return out;
}

Json gpu_row(const agent::AgentStatus& status, const ports::Gpu& gpu) {
  const auto health = [&](Json& row, const std::string& uuid) {
    const auto why = status.unhealthy.find(uuid);
    row["health"] = why == status.unhealthy.end() ? "Healthy" : "Unhealthy";
    if (why != status.unhealthy.end()) row["reason"] = why->second;
  };
  Json row = {{"index", gpu.index.value}, {"uuid", gpu.uuid}, {"name", gpu.name}};
  health(row, gpu.uuid);
  row["migMode"] = nullptr;
  if (gpu.mig)
    row["migMode"] = {{"current", gpu.mig->current ? "enabled" : "disabled"},
                      {"pending", gpu.mig->pending ? "enabled" : "disabled"}};
  row["migDevices"] = Json::array();
  for (const ports::MigDevice& device : gpu.mig_devices) {
    Json one = {{"uuid", device.uuid},
                {"profile", device.profile},
                {"gi", device.gi.value},
                {"ci", device.ci.value}};
    health(one, device.uuid);
    row["migDevices"].push_back(std::move(one));
  }
  return row;
}

// (resource, id) → "namespace/pod/container", as the kubelet told last.
using Holders = std::map<std::pair<std::string, std::string>, std::string>;

Holders holders_of(const agent::AgentStatus& status) {
  Holders out;
  for (const ports::PodDevices& pod : *status.pods)
    for (const std::string& id : pod.ids)
      out[{pod.resource, id}] = pod.pod_namespace + "/" + pod.pod + "/" + pod.container;
  return out;
}

Json resource_row(const StatusView& view, const agent::ResourceStatus& resource,
                  const Holders& holders) {
  Json row = {{"name", resource.name},
              {"registered", resource.registered},
              {"trouble", resource.trouble},
              {"healthy", resource.healthy},
              {"unhealthy", resource.unhealthy},
              {"held", resource.held},
              {"registrations", resource.registrations},
              {"failures", resource.failures}};
  if (const auto plugin = view.plugins.find(resource.name); plugin != view.plugins.end()) {
    row["streams"] = plugin->second.streams;
    row["listsSent"] = plugin->second.lists_sent;
  }
  Rows devices;
  const auto held = view.status.held->find(resource.name);
  if (resource.table)
    for (const agent::OfferedDevice& device : resource.table->devices) {
      if (!devices.room()) continue;
      const agent::BaseDevice& base = resource.table->bases[device.base];
      const std::string id(device.id);
      Json one = {
          {"id", id}, {"index", base.index}, {"health", base.healthy ? "Healthy" : "Unhealthy"}};
      if (!base.healthy) one["reason"] = base.why_unhealthy;
      if (base.withheld) one["withheld"] = true;
      if (const auto holder = holders.find({resource.name, id}); holder != holders.end())
        one["heldBy"] = holder->second;
      else if (held != view.status.held->end() && held->second.contains(id))
        one["heldBy"] = "a pod that is starting or ending";
      devices.add(std::move(one));
    }
  std::move(devices).put(row, "devices");
  return row;
}

Json mig(const StatusView& view) {
  const agent::AgentStatus& status = view.status;
  Json withdrawals = Json::array();
  for (const agent::Withdrawal& one : view.details.withdrawals) {
    Json gpus = Json::array();
    for (const auto& [gpu, devices] : one.devices) gpus.push_back(gpu);
    withdrawals.push_back({{"by", one.who}, {"gpus", std::move(gpus)}});
  }
  return {{"label", status.mig.label},
          {"state", status.mig.state},
          {"reason", status.mig.reason},
          {"request", status.mig.request},
          {"since", status.mig.label.empty() ? "" : format_utc(status.mig.since)},
          {"passes", status.mig_counts.passes},
          {"changes", status.mig_counts.changes},
          {"troubles", status.mig_troubles},
          {"withheld", view.details.withheld},
          {"going", view.details.going},
          {"withdrawals", std::move(withdrawals)},
          {"journals", view.journals}};
}

Json kube(const StatusView& view) {
  if (!view.kube) return {{"asked", false}, {"why", view.without_kube}};
  const ports::KubeCounts& counts = view.kube->counts;
  return {{"asked", true},
          {"node", view.kube->node},
          {"nodeSeen", view.kube->seen},
          {"trouble", view.kube->trouble},
          {"requests", counts.requests},
          {"retries", counts.retries},
          {"relists", counts.relists},
          {"watchEvents", counts.watch_events},
          {"eventsRecorded", counts.events_recorded},
          {"eventsDropped", counts.events_dropped}};
}

Json queues(const StatusView& view) {
  Json out = Json::array();
  for (const QueueState& queue : view.queues)
    out.push_back({{"name", queue.name},
                   {"length", queue.length},
                   {"limit", queue.limit},
                   {"refused", queue.refused}});
  return out;
}

}  // namespace

std::string status_json(const StatusView& view) {
  const agent::AgentStatus& status = view.status;
  Json out = {{"version", view.version},
              {"pid", view.pid},
              {"uptimeSeconds", seconds(view.uptime)},
              {"ready", status.ready},
              {"whyNotReady", status.why_not_ready},
              {"driver", {{"version", status.driver}, {"busySeconds", seconds(view.driver_busy)}}},
              {"configuration", configuration(view)}};
  out["gpus"] = Json::array();
  for (const ports::Gpu& gpu : *status.gpus) out["gpus"].push_back(gpu_row(status, gpu));
  const Holders holders = holders_of(status);
  out["resources"] = Json::array();
  for (const auto& [name, resource] : status.resources)
    out["resources"].push_back(resource_row(view, resource, holders));
  Rows pods;
  for (const ports::PodDevices& pod : *status.pods)
    if (pods.room())
      pods.add({{"namespace", pod.pod_namespace},
                {"pod", pod.pod},
                {"container", pod.container},
                {"resource", pod.resource},
                {"ids", pod.ids}});
  std::move(pods).put(out, "pods");
  out["allocations"] = {{"allocated", status.allocations},
                        {"refused", status.refusals},
                        {"unhealthy", status.unhealthy_allocations}};
  out["mig"] = mig(view);
  out["labels"] = {{"to", view.labels_to}, {"said", Json::object()}};
  if (view.details.labels) out["labels"]["said"] = *view.details.labels;
  out["apiServer"] = kube(view);
  out["queues"] = queues(view);
  out["folders"] = {{"state", view.places.state_dir}, {"run", view.places.run_dir}};
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace gpuslice::bin
