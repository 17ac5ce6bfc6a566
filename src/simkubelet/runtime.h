#pragma once

// The container runtime of the stand-in: starts a pod's process in a view of the node that shows
// its devices and no others, in a cgroup named as a kubelet names it. The process is a fresh
// execution of gpuslice-sim ("container …"), which enters the view and then becomes the pod's
// command; it dies with the kubelet's main thread, which must be the one that starts pods.
//
// The node's own file system is what lies below its root: host paths of mounts, device nodes and
// hooks are looked for there first.

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "simkubelet/cdi.h"
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

// What becomes of a Launch: the container's private view and its environment.
struct ContainerPlan {
  std::vector<std::string> nodes;  // below <root>/dev
  struct Mount {
    std::string host, at;
    bool read_only = false;
  };
  std::vector<Mount> mounts;  // in order
  std::vector<CdiHook> hooks;
  std::map<std::string, std::string> env;
};
// Reads the node: its devices, its CDI specs. Fails with the sentence of a container that cannot
// start.
[[nodiscard]] Result<ContainerPlan> plan_container(const Launch& launch);

struct Launched {
  int pid = 0;
  std::map<std::string, std::string> env;  // by Allocate and CDI
};
// Returns when the process has become the command, or with the sentence of what was in the way.
[[nodiscard]] Result<Launched> launch(const Launch& launch);

// What the hidden verb `container` does: enters the view, mounts, runs the createContainer hooks,
// becomes the command. Returns only on failure.
struct Container {
  std::string root;
  std::string plan;  // JSON, of launch()
  std::vector<std::string> command;
};
[[nodiscard]] Error become_container(const Container& container);

// Runs a hook with the OCI state on its standard input; one whose executable is not there is left
// out. kFailed when it fails or is not done in time.
[[nodiscard]] Status run_hook(const CdiHook& hook, const std::string& root,
                              const std::string& state);

// Removes the pod's cgroups; those of a pod whose process is gone.
void remove_cgroups(const std::string& uid);

}  // namespace gpuslice::simkubelet
