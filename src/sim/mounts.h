#pragma once

// A view of the node in a mount namespace of its own: for programs with hard-coded paths, and for
// pods, which see some device nodes and no others. Linux only; as root, or in a user namespace
// where the kernel allows one.

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace gpuslice::sim {

struct View {
  std::string root;  // of the node, absolute
  // Device nodes below <root>/dev that are seen ("nvidia0", "nvidiactl",
  // "nvidia-caps/nvidia-cap3"); nothing: all.
  std::optional<std::vector<std::string>> nodes;
  // Put the node's /dev/nvidia*, /proc/driver/nvidia*, /proc/devices, /proc/modules and
  // /sys/bus/pci/devices in the system's places too. What the kernel lets nobody cover is left out;
  // `left_out` says what.
  bool system_paths = true;
};

// Moves this process (single-threaded: call it in a child, before exec) into a new mount namespace
// with that view. kNoPermission with the next step where neither root nor a user namespace is to be
// had.
[[nodiscard]] Status enter_view(const View& view, std::vector<std::string>* left_out = nullptr);

}  // namespace gpuslice::sim
