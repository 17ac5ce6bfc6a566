#pragma once

// The verbs of gpuslice-sim that concern the kubelet stand-in: `kubelet` runs it, the others talk
// to a running one over <dir>/gpuslice-sim.sock, one JSON object a line each way.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace gpuslice::simkubelet {

struct KubeletCommand {
  std::string root;  // of the simulated node; may be empty: then pods see no devices
  std::string dir;
  Duration socket_latency{};
  Duration restart_every{};
  Duration grace = std::chrono::minutes(5);
};
// Until SIGTERM or SIGINT; then its pods end too.
[[nodiscard]] Result<int> run_kubelet(const KubeletCommand& command);

struct PodRunCommand {
  std::string dir;
  std::string name;
  std::map<std::string, uint32_t> request;
  uint32_t count = 1;                            // beyond 1: NAME-0, NAME-1 …
  std::string work;                              // arguments of `gpuslice-sim work`
  std::vector<std::string> command;              // instead of work
  Duration patience = std::chrono::seconds(10);  // until Running
};
// 0 when all run; kFailed with the first pod's reason otherwise.
[[nodiscard]] Result<int> run_pod_run(const PodRunCommand& command);
[[nodiscard]] Result<int> run_pod_rm(const std::string& dir, const std::vector<std::string>& names,
                                     bool all);
[[nodiscard]] Result<int> run_pod_ls(const std::string& dir, const std::string& output);
// Runs a command in the view of a running pod and shows what it prints.
[[nodiscard]] Result<int> run_pod_exec(const std::string& dir, const std::string& name,
                                       const std::vector<std::string>& command);
[[nodiscard]] Result<int> run_node(const std::string& dir, const std::string& output);
[[nodiscard]] Result<int> run_kubelet_restart(const std::string& dir, uint32_t times);

// "nvidia.com/gpu=1"
[[nodiscard]] Result<std::pair<std::string, uint32_t>> parse_request(const std::string& text);

}  // namespace gpuslice::simkubelet
