#pragma once

// `gpuslice list gpus` and `list devices`: tables for people, JSON and YAML for programs
// (docs/formats.md).

#include <string>
#include <vector>

#include "cli/format.h"
#include "cli/node_view.h"

namespace gpuslice::cli {

[[nodiscard]] std::string list_gpus(const NodeView& node, Format format);

// One id that the kubelet is offered.
struct DeviceRow {
  std::string resource;
  std::string id;
  bool healthy = true;
  std::string reason;  // why it is not
  std::string gpu_uuid;
  std::string index;  // "0", "0:1"
  bool held = false;  // a pod has it, by the ledger
};
[[nodiscard]] std::string list_devices(const std::vector<DeviceRow>& devices, Format format);

}  // namespace gpuslice::cli
