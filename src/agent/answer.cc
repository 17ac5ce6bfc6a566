#include "agent/answer.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/device_nodes.h"
#include "base/text.h"

namespace gpuslice::agent {
namespace {

constexpr std::string_view kMountRoot = "/var/run/nvidia-container-devices";
constexpr const char* kVisibleDevices = "NVIDIA_VISIBLE_DEVICES";

std::string qualified(std::string_view cls, std::string_view name) {
  return fmt::format("{}/{}={}", kCdiVendor, cls, name);
}

void add_cdi(const std::vector<std::string>& names, const AnswerForm& form,
             std::string_view annotation_uuid, ports::ContainerAnswer& out) {
  std::vector<std::string> devices;
  for (const std::string& name : names) devices.push_back(qualified("gpu", name));
  for (const std::string& channel : form.imex_channels)
    devices.push_back(qualified("imex-channel", channel));
  for (const std::string& cls : form.cdi_classes) devices.push_back(qualified(cls, "all"));
  if (devices.empty()) return;
  if (form.cdi_annotations)
    out.annotations[fmt::format("{}nvidia-device-plugin_{}", form.cdi_annotation_prefix,
                                annotation_uuid)] = join(devices, ",");
  if (form.cdi_cri) out.cdi_devices = std::move(devices);
}

void add_mounts(const std::vector<std::string>& names, const AnswerForm& form,
                ports::ContainerAnswer& out) {
  out.envs[kVisibleDevices] = kMountRoot;
  // Never read-only: that is how NVIDIA's plugin sends them.
  for (const std::string& name : names)
    out.mounts.push_back({fmt::format("{}/{}", kMountRoot, name), "/dev/null", false});
  for (const std::string& channel : form.imex_channels)
    out.mounts.push_back({fmt::format("{}/imex/{}", kMountRoot, channel), "/dev/null", false});
}

void add_nodes(std::span<const AnswerDevice> devices, const AnswerForm& form,
               ports::ContainerAnswer& out) {
  std::vector<std::string> nodes = form.control_nodes;
  for (const AnswerDevice& device : devices)
    for (const std::string& node : device.nodes)
      if (std::find(nodes.begin(), nodes.end(), node) == nodes.end()) nodes.push_back(node);
  for (const std::string& channel : form.imex_channels) nodes.push_back(imex_node(channel));
  for (const std::string& node : nodes) out.devices.push_back({node, form.dev_root + node, "rw"});
}

}  // namespace

AnswerForm answer_form(const config::Effective& config) {
  using config::Flag;
  AnswerForm form;
  form.envvar = config.lists(Flag::kDeviceListStrategy, "envvar");
  form.volume_mounts = config.lists(Flag::kDeviceListStrategy, "volume-mounts");
  form.cdi_annotations = config.lists(Flag::kDeviceListStrategy, "cdi-annotations");
  form.cdi_cri = config.lists(Flag::kDeviceListStrategy, "cdi-cri");
  form.cdi_annotation_prefix = config.text(Flag::kCdiAnnotationPrefix);
  form.index_ids = config.text(Flag::kDeviceIdStrategy) == "index";
  form.pass_device_specs = config.on(Flag::kPassDeviceSpecs);
  for (const uint32_t channel : config.imex.channel_ids)
    form.imex_channels.push_back(std::to_string(channel));
  form.gdrcopy = config.on(Flag::kGdrcopyEnabled);
  form.gds = config.on(Flag::kGdsEnabled);
  form.mofed = config.on(Flag::kMofedEnabled);
  return form;
}

ports::ContainerAnswer answer(std::span<const AnswerDevice> devices, const AnswerForm& form,
                              std::string_view annotation_uuid) {
  std::vector<std::string> names;
  for (const AnswerDevice& device : devices)
    names.push_back(form.index_ids ? device.index : device.uuid);
  ports::ContainerAnswer out;
  if (form.any_cdi()) add_cdi(names, form, annotation_uuid, out);
  if (form.all_cdi()) return out;
  if (form.envvar) {
    out.envs[kVisibleDevices] = join(names, ",");
    if (!form.imex_channels.empty())
      out.envs["NVIDIA_IMEX_CHANNELS"] = join(form.imex_channels, ",");
  }
  if (form.volume_mounts) add_mounts(names, form, out);
  if (form.pass_device_specs) add_nodes(devices, form, out);
  if (form.gdrcopy) out.envs["NVIDIA_GDRCOPY"] = "enabled";
  if (form.gds) out.envs["NVIDIA_GDS"] = "enabled";
  if (form.mofed) out.envs["NVIDIA_MOFED"] = "enabled";
  return out;
}

std::string random_uuid(Random& random) {
  const uint64_t high = (random.next() & ~0xF000ULL) | 0x4000ULL;
  const uint64_t low = (random.next() & ~(3ULL << 62)) | (2ULL << 62);
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, (high >> 16) & 0xFFFF,
                     high & 0xFFFF, low >> 48, low & 0xFFFFFFFFFFFF);
}

}  // namespace gpuslice::agent
