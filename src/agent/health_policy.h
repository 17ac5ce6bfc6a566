#pragma once

// What makes a GPU unhealthy, as a policy: which XIDs, for how long, and which states that the GPU
// tells of itself. Pure; docs/operations.md says it in words.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "ports/nvml.h"

namespace gpuslice::agent {

// XIDs that tell of a program's mistake, not of the GPU's: those that NVIDIA's plugin ignores.
inline constexpr uint64_t kIgnoredXids[] = {13, 31, 43, 45, 68, 109};
// A double-bit ECC error is XID 48, also where the driver tells it as an event of its own.
inline constexpr uint64_t kXidOfDoubleBitEcc = 48;

// What a GPU can tell of itself beside XIDs.
enum class GpuTrouble : uint8_t {
  kEcc,           // errors that ECC could not correct, since the GPU was reset last
  kRemapPending,  // bad memory waits for a reset to be replaced
  kRemapFailed,   // … and there is nothing left to replace it with
  kRecovery,      // the driver's own verdict: reset it, reboot the node, drain it
  kTemperature,   // so hot that it switches itself off
};
// "ecc", "remap-pending", "remap-failed", "recovery", "temperature".
[[nodiscard]] std::string_view word_of(GpuTrouble trouble);

// NVML's enum of recovery actions (field 230): those after which a GPU is whole again by a reset.
[[nodiscard]] bool asks_for_reset(const ports::Gpu& gpu);

struct TroubleSeen {
  GpuTrouble trouble{};
  std::string text;  // "3 uncorrectable ECC errors since its last reset"
};
// A GPU that was too hot is so until it is cooler by this.
inline constexpr uint32_t kCoolAgain = 5;
// By the order of the enum. `was_hot`: at the look before.
[[nodiscard]] std::vector<TroubleSeen> troubles_of(const ports::Gpu& gpu, bool was_hot);

class HealthPolicy {
 public:
  HealthPolicy() = default;
  // DP_DISABLE_HEALTHCHECKS and DP_ENABLE_HEALTHCHECKS: "all", "xids" (all XIDs), XIDs, words of
  // GpuTrouble, joined by commas. What is enabled wins over what is disabled. `problems`: what of
  // them means nothing.
  HealthPolicy(std::string_view disable, std::string_view enable,
               std::vector<std::string>& problems);
  // After which XIDs a GPU or an instance is healthy again by itself, and how long it has to be
  // without a further one and without trouble for that.
  void set_clean_probes(std::map<uint64_t, Duration> probes) { probes_ = std::move(probes); }

  [[nodiscard]] bool ignores(uint64_t xid) const;
  // Nothing: until the hardware itself has changed.
  [[nodiscard]] std::optional<Duration> clean_probe(uint64_t xid) const;

  enum class Verdict : uint8_t {
    kUnhealthy,
    kTold,     // in log, page, metrics and Events; its devices are given out all the same
    kIgnored,  // in the metrics alone
  };
  // `with_instances`: the GPU has MIG devices. An error in one of them shows in what the board as a
  // whole tells of its memory, and the XID says which it was: the others are not to suffer for it.
  [[nodiscard]] Verdict judge(GpuTrouble trouble, bool with_instances) const;

 private:
  struct Words {
    bool xids = false;
    bool all = false;
    std::set<uint64_t> numbers;
    std::set<GpuTrouble> troubles;
  };
  static void read(std::string_view name, std::string_view list, Words& words,
                   std::vector<std::string>& problems);

  Words disabled_{false, false, {std::begin(kIgnoredXids), std::end(kIgnoredXids)}, {}};
  Words enabled_;
  std::map<uint64_t, Duration> probes_;
};

}  // namespace gpuslice::agent
