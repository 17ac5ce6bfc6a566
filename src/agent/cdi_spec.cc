#include "agent/cdi_spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/answer.h"
#include "base/text.h"

namespace gpuslice::agent {
namespace {

using Json = nlohmann::ordered_json;

Json device_node(const std::string& path, const std::string& dev_root) {
  Json out = {{"path", path}};
  if (!dev_root.empty()) out["hostPath"] = dev_root + path;
  return out;
}

Json device(const std::string& name, const std::vector<std::string>& nodes,
            const std::string& dev_root) {
  Json list = Json::array();
  for (const std::string& node : nodes) list.push_back(device_node(node, dev_root));
  return {{"name", name}, {"containerEdits", {{"deviceNodes", std::move(list)}}}};
}

Json mount(const std::string& host, const std::string& container,
           std::vector<std::string> options) {
  return {{"hostPath", host}, {"containerPath", container}, {"options", std::move(options)}};
}

Json driver_mount(const CdiSource& source, const std::string& path) {
  return mount(source.driver_root + path, path, {"ro", "nosuid", "nodev", "rbind", "rprivate"});
}

Json all_mounts(const CdiSource& source) {
  Json out = Json::array();
  const DriverFiles& files = source.files;
  for (const auto* list : {&files.libraries, &files.programs, &files.firmware})
    for (const std::string& path : *list) out.push_back(driver_mount(source, path));
  // A socket is used, not run from.
  for (const std::string& path : files.sockets)
    out.push_back(mount(source.driver_root + path, path,
                        {"ro", "nosuid", "nodev", "rbind", "rprivate", "noexec"}));
  for (const ExtraMount& extra : source.extra_mounts)
    out.push_back(
        mount(extra.host, extra.container, {extra.writable ? "rw" : "ro", "rbind", "rprivate"}));
  return out;
}

bool hook_is_on(const CdiSource& source, std::string_view name) {
  const auto& off = source.disabled_hooks;
  return !source.hook.empty() && std::find(off.begin(), off.end(), name) == off.end() &&
         std::find(off.begin(), off.end(), "all") == off.end();
}

Json hook(const CdiSource& source, const char* name, const char* option,
          const std::vector<std::string>& values) {
  Json args = {"gpuslice", "hook", name};
  for (const std::string& value : values) {
    args.push_back(option);
    args.push_back(value);
  }
  return {{"hookName", "createContainer"}, {"path", source.hook}, {"args", std::move(args)}};
}

Json all_hooks(const CdiSource& source) {
  Json out = Json::array();
  std::vector<std::string> links;
  for (const DriverFiles::Link& link : source.files.links)
    links.push_back(link.target + "::" + link.path);
  if (!links.empty() && hook_is_on(source, "create-symlinks"))
    out.push_back(hook(source, "create-symlinks", "--link", links));
  if (!source.files.library_folders.empty() && hook_is_on(source, "update-ldcache"))
    out.push_back(hook(source, "update-ldcache", "--folder", source.files.library_folders));
  return out;
}

Json common_edits(const CdiSource& source) {
  Json edits = {{"env", {"NVIDIA_VISIBLE_DEVICES=void"}}};
  Json nodes = Json::array();
  for (const std::string& node : source.control_nodes)
    nodes.push_back(device_node(node, source.dev_root));
  if (!nodes.empty()) edits["deviceNodes"] = std::move(nodes);
  if (Json hooks = all_hooks(source); !hooks.empty()) edits["hooks"] = std::move(hooks);
  if (Json mounts = all_mounts(source); !mounts.empty()) edits["mounts"] = std::move(mounts);
  return edits;
}

Json gpu_devices(const CdiSource& source) {
  Json out = Json::array();
  for (const ports::Gpu& gpu : source.gpus) {
    const std::string index = std::to_string(gpu.index.value);
    if (!gpu.mig_on() || source.whole_gpus)
      out.push_back(
          device(source.index_ids ? index : gpu.uuid, {gpu_node(gpu.minor)}, source.dev_root));
    if (!gpu.mig_on()) continue;
    for (const ports::MigDevice& mig : gpu.mig_devices)
      out.push_back(device(source.index_ids ? fmt::format("{}:{}", index, mig.index) : mig.uuid,
                           mig_nodes(gpu.minor, mig.gi, mig.ci, source.caps), source.dev_root));
  }
  return out;
}

std::string spec(std::string_view cls, Json devices, Json edits) {
  Json out = {{"cdiVersion", kCdiVersion},
              {"kind", fmt::format("{}/{}", kCdiVendor, cls)},
              {"devices", std::move(devices)}};
  if (!edits.empty()) out["containerEdits"] = std::move(edits);
  // A file name on a disk may hold bytes that are no UTF-8.
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

Result<ExtraMount> parse_extra_mount(const std::string& text) {
  const auto parts = split(text, ':');
  const bool whole = parts.size() == 2 || (parts.size() == 3 && parts[2] == "rw") ||
                     (parts.size() == 3 && parts[2] == "ro");
  if (!whole || !parts[0].starts_with("/") || !parts[1].starts_with("/"))
    return fail(Code::kUsage,
                "--cdi-extra-mount {}: must be HOST:CONTAINER or HOST:CONTAINER:rw, both absolute "
                "paths",
                json_escape(text));
  return ExtraMount{std::string(parts[0]), std::string(parts[1]),
                    parts.size() == 3 && parts[2] == "rw"};
}

std::string cdi_file_name(std::string_view cls) {
  return fmt::format("{}-{}.json", kCdiVendor, cls);
}

std::map<std::string, std::string> cdi_specs(const CdiSource& source) {
  std::map<std::string, std::string> out;
  if (Json devices = gpu_devices(source); !devices.empty())
    out[cdi_file_name("gpu")] = spec("gpu", std::move(devices), common_edits(source));
  Json channels = Json::array();
  for (const std::string& channel : source.imex_channels)
    channels.push_back(device(channel, {imex_node(channel)}, source.dev_root));
  if (!channels.empty())
    out[cdi_file_name("imex-channel")] = spec("imex-channel", std::move(channels), Json());
  for (const auto& [cls, extras] : source.extras) {
    if (extras.nodes.empty()) continue;
    Json all = device("all", extras.nodes, source.dev_root);
    for (const std::string& path : extras.mounts)
      all["containerEdits"]["mounts"].push_back(
          mount(source.driver_root + path, path, {"ro", "nosuid", "nodev", "rbind", "rprivate"}));
    out[cdi_file_name(cls)] = spec(cls, Json::array({std::move(all)}), Json());
  }
  return out;
}

}  // namespace gpuslice::agent
