#include "agent/health_policy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/text.h"

namespace gpuslice::agent {
namespace {

constexpr auto kWords = std::to_array<std::string_view>(
    {"ecc", "remap-pending", "remap-failed", "recovery", "temperature"});

// NVML's enum of recovery actions.
constexpr uint32_t kReset = 1;
constexpr uint32_t kReboot = 2;
constexpr uint32_t kDrainP2p = 3;
constexpr uint32_t kDrainAndReset = 4;

std::string recovery_text(uint32_t action) {
  switch (action) {
    case kReset:
      return "the driver says that it needs a reset";
    case kReboot:
      return "the driver says that the node needs a reboot";
    case kDrainP2p:
      return "the driver says that its peer-to-peer traffic is to be drained";
    case kDrainAndReset:
      return "the driver says that it is to be drained and reset";
    default:
      return fmt::format("the driver wants recovery action {}", action);
  }
}

}  // namespace

std::string_view word_of(GpuTrouble trouble) { return kWords.at(static_cast<size_t>(trouble)); }

bool asks_for_reset(const ports::Gpu& gpu) {
  return gpu.recovery_action == kReset || gpu.recovery_action == kDrainAndReset;
}

std::vector<TroubleSeen> troubles_of(const ports::Gpu& gpu, bool was_hot) {
  std::vector<TroubleSeen> out;
  if (const uint64_t errors = gpu.ecc_uncorrected.value_or(0); errors > 0)
    out.push_back(
        {GpuTrouble::kEcc, fmt::format("{} uncorrectable ECC error{} since its last reset", errors,
                                       errors == 1 ? "" : "s")});
  if (gpu.remap_pending.value_or(false))
    out.push_back(
        {GpuTrouble::kRemapPending, "bad memory waits for a reset of the GPU to be replaced"});
  if (gpu.remap_failed.value_or(false))
    out.push_back({GpuTrouble::kRemapFailed,
                   "bad memory could not be replaced: the board itself is to be exchanged"});
  if (const uint32_t action = gpu.recovery_action.value_or(0); action != 0)
    out.push_back({GpuTrouble::kRecovery, recovery_text(action)});
  if (gpu.temperature_c && gpu.shutdown_c.value_or(0) > 0 &&
      *gpu.temperature_c + (was_hot ? kCoolAgain : 0) >= *gpu.shutdown_c)
    out.push_back(
        {GpuTrouble::kTemperature,
         fmt::format("it has reached {} °C, at which it switches itself off", *gpu.shutdown_c)});
  return out;
}

HealthPolicy::HealthPolicy(std::string_view disable, std::string_view enable,
                           std::vector<std::string>& problems) {
  read("DP_DISABLE_HEALTHCHECKS", disable, disabled_, problems);
  read("DP_ENABLE_HEALTHCHECKS", enable, enabled_, problems);
}

void HealthPolicy::read(std::string_view name, std::string_view list, Words& words,
                        std::vector<std::string>& problems) {
  for (const std::string_view part : split(list, ',')) {
    const std::string word = to_lower(trim(part));
    if (word.empty()) continue;
    const auto* const trouble = std::find(kWords.begin(), kWords.end(), word);
    if (word == "all")
      words.all = true;
    else if (word == "xids")
      words.xids = true;
    else if (trouble != kWords.end())
      words.troubles.insert(static_cast<GpuTrouble>(trouble - kWords.begin()));
    else if (const auto xid = parse_u64(word))
      words.numbers.insert(*xid);
    else
      problems.push_back(fmt::format(
          "{}: \"{}\" is none of all, xids, {} and the number of an XID: it is left out", name,
          json_escape(word.substr(0, 40)), fmt::join(kWords, ", ")));
  }
}

bool HealthPolicy::ignores(uint64_t xid) const {
  if (enabled_.all || enabled_.xids || enabled_.numbers.contains(xid)) return false;
  return disabled_.all || disabled_.xids || disabled_.numbers.contains(xid);
}

std::optional<Duration> HealthPolicy::clean_probe(uint64_t xid) const {
  const auto found = probes_.find(xid);
  return found == probes_.end() ? std::nullopt : std::optional(found->second);
}

HealthPolicy::Verdict HealthPolicy::judge(GpuTrouble trouble, bool with_instances) const {
  if (enabled_.all || enabled_.troubles.contains(trouble)) return Verdict::kUnhealthy;
  if (disabled_.all || disabled_.troubles.contains(trouble)) return Verdict::kIgnored;
  const bool of_memory = trouble == GpuTrouble::kEcc || trouble == GpuTrouble::kRemapPending;
  return of_memory && with_instances ? Verdict::kTold : Verdict::kUnhealthy;
}

}  // namespace gpuslice::agent
