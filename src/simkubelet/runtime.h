#pragma once

// The container runtime of the stand-in: starts a pod's process in a view of the node that shows
// its devices and no others, in a cgroup named as a kubelet names it. The process is a fresh
// execution of gpuslice-sim ("container …"), which enters the view and then becomes the pod's
// command; it dies with the kubelet's main thread, which must be the one that starts pods.

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "simkubelet/plugins.h"

namespace gpuslice::simkubelet {

// Device nodes below <root>/dev for what a container asks for by NVIDIA_VISIBLE_DEVICES: "all",
// "none", "void", indices, GPU UUIDs, "0:1", MIG UUIDs, joined by commas. Control nodes are part of
// it unless nothing is visible. kNotFound names what does not exist.
[[nodiscard]] Result<std::vector<std::string>> nodes_of(const std::string& root,
                                                        const std::string& visible_devices);

struct Launch {
  std::string root;  // of the simulated node; "": the pod sees no devices at all
  std::string uid;
  Allocated allocated;
  std::vector<std::string> command;
};
// The PID of the pod's process. What happens after that (also a view that cannot be made) is seen
// by wait().
[[nodiscard]] Result<int> launch(const Launch& launch);

// What the hidden verb `container` does: enters the view, joins nothing else, becomes the command.
// Returns only on failure.
struct Container {
  std::string root;
  std::vector<std::string> nodes;
  std::vector<std::string> mounts;  // HOST:CONTAINER[:ro]
  std::vector<std::string> command;
};
[[nodiscard]] Error become_container(const Container& container);

// Removes the pod's cgroups; those of a pod whose process is gone.
void remove_cgroups(const std::string& uid);

}  // namespace gpuslice::simkubelet
