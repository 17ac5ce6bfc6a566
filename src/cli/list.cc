#include "cli/list.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace gpuslice::cli {
namespace {

using Json = nlohmann::ordered_json;

// "" for a healthy one.
std::string why_unhealthy(const NodeView& node, const ports::Gpu& gpu) {
  const auto why = node.unhealthy.find(gpu.uuid);
  return why == node.unhealthy.end() ? "" : why->second;
}

Json gpu_json(const NodeView& node, const ports::Gpu& gpu) {
  Json out;
  out["index"] = gpu.index.value;
  out["minor"] = gpu.minor.value;
  out["uuid"] = gpu.uuid;
  out["name"] = gpu.name;
  out["busId"] = gpu.bus_id;
  out["numaNode"] = gpu.numa_node;
  out["memoryMiB"] = gpu.memory_total_bytes >> 20;
  if (gpu.mig)
    out["migMode"] = {{"current", gpu.mig->current ? "enabled" : "disabled"},
                      {"pending", gpu.mig->pending ? "enabled" : "disabled"}};
  else
    out["migMode"] = nullptr;
  out["migDevices"] = gpu.mig_devices.size();
  const std::string why = why_unhealthy(node, gpu);
  out["health"] = why.empty() ? "Healthy" : "Unhealthy";
  if (!why.empty()) out["reason"] = why;
  return out;
}

Json silent_json(const SilentGpu& gpu) {
  return {{"index", gpu.index}, {"health", "Unhealthy"}, {"reason", gpu.error.message}};
}

std::string dumped(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string mig_text(const ports::Gpu& gpu) {
  if (!gpu.mig) return "-";
  if (gpu.mig->current != gpu.mig->pending)
    return gpu.mig->pending ? "off (on pending)" : "on (off pending)";
  return gpu.mig->current ? fmt::format("on, {} device{}", gpu.mig_devices.size(),
                                        gpu.mig_devices.size() == 1 ? "" : "s")
                          : "off";
}

}  // namespace

std::string list_gpus(const NodeView& node, Format format) {
  if (format != Format::kTable) {
    std::map<uint32_t, Json> rows;
    for (const ports::Gpu& gpu : node.gpus) rows[gpu.index.value] = gpu_json(node, gpu);
    for (const SilentGpu& gpu : node.silent) rows[gpu.index] = silent_json(gpu);
    Json out = Json::array();
    for (auto& [index, row] : rows) out.push_back(std::move(row));
    return print_json(dumped(out), format);
  }
  std::string out = fmt::format("{:<5} {:<32} {:<40} {:<16} {:>10} {:<16} {}\n", "INDEX", "NAME",
                                "UUID", "BUS-ID", "MEMORY", "MIG", "HEALTH");
  std::map<uint32_t, std::string> rows;
  for (const ports::Gpu& gpu : node.gpus) {
    const std::string why = why_unhealthy(node, gpu);
    rows[gpu.index.value] =
        fmt::format("{:<5} {:<32} {:<40} {:<16} {:>7}MiB {:<16} {}\n", gpu.index.value, gpu.name,
                    gpu.uuid, gpu.bus_id, gpu.memory_total_bytes >> 20, mig_text(gpu),
                    why.empty() ? "Healthy" : "Unhealthy: " + why);
  }
  for (const SilentGpu& gpu : node.silent)
    rows[gpu.index] = fmt::format("{:<5} {:<32} {:<40} {:<16} {:>10} {:<16} {}\n", gpu.index, "-",
                                  "-", "-", "-", "-", "Unhealthy: " + gpu.error.message);
  for (const auto& [index, row] : rows) out += row;
  return out;
}

std::string list_devices(const std::vector<DeviceRow>& devices, Format format) {
  if (format != Format::kTable) {
    Json out = Json::array();
    for (const DeviceRow& d : devices) {
      Json row = {{"resource", d.resource},
                  {"id", d.id},
                  {"health", d.healthy ? "Healthy" : "Unhealthy"},
                  {"gpuUuid", d.gpu_uuid},
                  {"index", d.index},
                  {"held", d.held}};
      if (!d.healthy) row["reason"] = d.reason;
      out.push_back(std::move(row));
    }
    return print_json(dumped(out), format);
  }
  std::string out =
      fmt::format("{:<28} {:<46} {:<6} {:<5} {}\n", "RESOURCE", "ID", "GPU", "HELD", "HEALTH");
  for (const DeviceRow& d : devices)
    out += fmt::format("{:<28} {:<46} {:<6} {:<5} {}\n", d.resource, d.id, d.index,
                       d.held ? "yes" : "no", d.healthy ? "Healthy" : "Unhealthy: " + d.reason);
  return out;
}

}  // namespace gpuslice::cli
