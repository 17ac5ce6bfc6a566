#pragma once

// What Allocate answers for one container: NVIDIA's device plugin v0.20, field by field. Pure; the
// random part of the annotation's key is given in.
//
//   envvar           NVIDIA_VISIBLE_DEVICES=<devices>, NVIDIA_IMEX_CHANNELS
//   volume-mounts    NVIDIA_VISIBLE_DEVICES=/var/run/nvidia-container-devices and /dev/null mounted
//                    there under each device's name; beside envvar it wins
//   cdi-annotations  <prefix>nvidia-device-plugin_<uuid>=<qualified names>
//   cdi-cri          the same names as CDI devices
//
// With CDI strategies alone nothing else is in the answer: the specs hold the rest.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "config/effective.h"
#include "ports/kubelet.h"

namespace gpuslice::agent {

// Of our specs and of the names that ask for their devices: "k8s.device-plugin.nvidia.com/gpu=…".
inline constexpr std::string_view kCdiVendor = "k8s.device-plugin.nvidia.com";

// In which form the answers of a node are given.
struct AnswerForm {
  bool envvar = true;
  bool volume_mounts = false;
  bool cdi_annotations = false;
  bool cdi_cri = false;

  bool index_ids = false;                  // deviceIDStrategy: index
  bool pass_device_specs = false;          // beside strategies that are not CDI
  std::string dev_root;                    // goes before host paths; "" for "/"
  std::vector<std::string> control_nodes;  // of kControlNodes, those that exist
  std::vector<std::string> imex_channels;  // "0"
  bool gdrcopy = false, gds = false, mofed = false;
  std::string cdi_annotation_prefix = "cdi.k8s.io/";
  std::vector<std::string> cdi_classes;  // of "gds", "mofed", "gdrcopy", those with a spec

  [[nodiscard]] bool any_cdi() const { return cdi_annotations || cdi_cri; }
  [[nodiscard]] bool all_cdi() const { return any_cdi() && !envvar && !volume_mounts; }
};

// A GPU or MIG device that the container gets; replicas of one device are one.
struct AnswerDevice {
  std::string uuid;
  std::string index;               // "0", "0:1"
  std::vector<std::string> nodes;  // "/dev/nvidia0", for a MIG device its capabilities too
};

// What the configuration says of it; device nodes and specs are for whoever sees the node.
[[nodiscard]] AnswerForm answer_form(const config::Effective& config);

[[nodiscard]] ports::ContainerAnswer answer(std::span<const AnswerDevice> devices,
                                            const AnswerForm& form,
                                            std::string_view annotation_uuid);

// A version 4 UUID as text.
[[nodiscard]] std::string random_uuid(Random& random);

}  // namespace gpuslice::agent
