#pragma once

// The CDI specs of a node: what a container runtime edits into a container that asks for one of our
// devices. Pure.
//
//   k8s.device-plugin.nvidia.com-gpu.json           GPUs and MIG devices, by UUID or index
//   k8s.device-plugin.nvidia.com-imex-channel.json  IMEX channels, by number
//   k8s.device-plugin.nvidia.com-{gds,mofed,gdrcopy}.json   "all", where its device nodes are there
//
// The names are NVIDIA's device plugin's; the hooks are ours (`gpuslice hook …`), so no toolkit of
// NVIDIA's has to be installed.

#include <map>
#include <string>
#include <vector>

#include "agent/device_nodes.h"
#include "agent/driver_files.h"
#include "base/result.h"
#include "ports/nvml.h"

namespace gpuslice::agent {

inline constexpr std::string_view kCdiVersion = "0.5.0";  // the first with hostPath of device nodes

struct ExtraMount {
  std::string host, container;
  bool writable = false;
  friend bool operator==(const ExtraMount&, const ExtraMount&) = default;
};
// "HOST:CONTAINER" or "HOST:CONTAINER:rw"; kUsage says what is wrong with it.
[[nodiscard]] Result<ExtraMount> parse_extra_mount(const std::string& text);

// A class beside "gpu" that is on or off as a whole.
struct CdiExtras {
  std::vector<std::string> nodes;   // "/dev/gdrdrv"; empty: no such spec
  std::vector<std::string> mounts;  // "/run/udev"
};

struct CdiSource {
  std::vector<ports::Gpu> gpus;
  CapMinors caps;
  bool index_ids = false;
  bool whole_gpus = false;                 // migStrategy none: they are offered with MIG on as well
  std::string dev_root;                    // goes before host paths of device nodes; "" for "/"
  std::string driver_root;                 // goes before host paths of driver files
  std::vector<std::string> control_nodes;  // of kControlNodes, those that exist
  DriverFiles files;
  std::vector<ExtraMount> extra_mounts;
  std::string hook;                         // gpuslice as the host has it; "": no hooks
  std::vector<std::string> disabled_hooks;  // "create-symlinks", "update-ldcache", "all"
  std::vector<std::string> imex_channels;   // those whose node exists
  std::map<std::string, CdiExtras> extras;  // by class: "gds", "mofed", "gdrcopy"
};

// Of one class.
[[nodiscard]] std::string cdi_file_name(std::string_view cls);
// File name -> JSON text, ending in a newline. A class without devices has no file; a MIG-enabled
// GPU has an entry only with `whole_gpus`, its MIG devices have always.
[[nodiscard]] std::map<std::string, std::string> cdi_specs(const CdiSource& source);

}  // namespace gpuslice::agent
