#pragma once

// What others send to the stand-in, as its own values: plugins over gRPC, the pod verbs as one line
// of JSON. Pure. What is refused is refused with the kubelet's words.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "simkubelet/node.h"
#include "simkubelet/plugins.h"

namespace v1beta1 {
class AllocateResponse;
class ListAndWatchResponse;
class PreferredAllocationResponse;
class RegisterRequest;
}  // namespace v1beta1

namespace gpuslice::simkubelet {

// Checked by check_registration().
[[nodiscard]] Result<RegisterCall> read(const v1beta1::RegisterRequest& request);
// Checked by check_devices().
[[nodiscard]] Result<std::vector<DeviceSeen>> read(const v1beta1::ListAndWatchResponse& response);
// Of the first container; an answer without one is refused, as a kubelet does.
[[nodiscard]] Result<Allocated> read(const v1beta1::AllocateResponse& response);
// Of the first container; none is no preference.
[[nodiscard]] std::vector<std::string> read(const v1beta1::PreferredAllocationResponse& response);

struct PodCall {
  enum class Verb : uint8_t { kRun, kNode, kList, kRemove, kRestart } verb = Verb::kNode;
  std::string name;                         // run
  std::map<std::string, uint32_t> request;  // run: what the container wants
  std::map<std::string, uint32_t> init;     // run: what an init container before it wants
  std::string work;                         // run
  std::vector<std::string> command;         // run: instead of work
  std::vector<std::string> names;           // rm
  bool all = false;                         // rm
  uint32_t times = 1;                       // restart: one after another at once
};
inline constexpr uint32_t kMaxRequest = 1000;
inline constexpr uint32_t kMaxRestarts = 10;
[[nodiscard]] Result<PodCall> read_call(const std::string& line);

}  // namespace gpuslice::simkubelet
