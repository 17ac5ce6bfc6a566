#pragma once

// Processes of this machine by PID, read from /proc: what they are called, and which pod they
// belong to. Always the real /proc, also on a simulated node: its processes are real.

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gpuslice::host {

struct PodOfProcess {
  std::string pod_uid;       // "8b1c7d3e-…", with dashes whatever the cgroup driver wrote
  std::string container_id;  // 64 hex digits, or empty for the pod's own cgroup
  friend bool operator==(const PodOfProcess&, const PodOfProcess&) = default;
};

// The pod that the content of a /proc/<pid>/cgroup file names, with either cgroup driver of the
// kubelet and cgroup v1 or v2:
//   0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<uid_>.slice/cri-containerd-<id>.scope
//   0::/kubepods/burstable/pod<uid>/<id>
[[nodiscard]] std::optional<PodOfProcess> pod_of_cgroup(std::string_view cgroup_file);

// Nothing when there is no such process (any more).
[[nodiscard]] std::optional<std::string> process_command(pid_t pid);
[[nodiscard]] std::optional<PodOfProcess> process_pod(pid_t pid);
// Clock ticks after boot at which it started: a PID given again has another.
[[nodiscard]] std::optional<uint64_t> process_start_ticks(pid_t pid);

// CAP_SYS_ADMIN in force in this process: what makes it root to NVIDIA's driver. False where /proc
// does not say.
[[nodiscard]] bool has_sys_admin();

}  // namespace gpuslice::host
