#pragma once

// What an XID does to a GPU, and for how long. An XID that is not ignored marks the whole GPU, or
// the instance that it names; the mark stays until the hardware itself has changed:
//   a MIG device   when it is gone, or was destroyed by us; what is made there anew is another one;
//   a GPU          when it was lost and came back, when we reset it, after a reboot.
// Marks lie in a file under /run keyed by the boot id, so that no restart of the agent or of the
// kubelet makes a dead GPU healthy. Lines of text:
//   gpuslice-health 1 <boot id>
//   <GPU's UUID> <GPU instance or -> <compute instance or -> <XID> <seconds since 1970> <0 or 1:
//   lost>
//
// T0 only; touches nothing but its file.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "base/time.h"
#include "ports/host.h"
#include "ports/nvml.h"
#include "ports/nvml_events.h"

namespace gpuslice::agent {

// XIDs that tell of a program's mistake, not of the GPU's: those that NVIDIA's plugin ignores.
inline constexpr uint64_t kIgnoredXids[] = {13, 31, 43, 45, 68, 109};
// A double-bit ECC error is XID 48, also where the driver tells it as an event of its own.
inline constexpr uint64_t kXidOfDoubleBitEcc = 48;

class XidPolicy {
 public:
  XidPolicy() = default;
  // DP_DISABLE_HEALTHCHECKS and DP_ENABLE_HEALTHCHECKS: "all", "xids" (the same), or XIDs joined by
  // commas. What is enabled wins over what is disabled. `problems`: what of them means nothing.
  XidPolicy(std::string_view disable, std::string_view enable, std::vector<std::string>& problems);
  [[nodiscard]] bool ignores(uint64_t xid) const;

 private:
  bool none_ = false;  // disable all
  bool all_ = false;   // enable all
  std::set<uint64_t> disabled_{std::begin(kIgnoredXids), std::end(kIgnoredXids)};
  std::set<uint64_t> enabled_;
};

// Something of a GPU that is not to be used any more.
struct HealthMark {
  std::string gpu;
  std::optional<GiId> gi;  // nothing: all of the GPU
  std::optional<CiId> ci;  // nothing: all of the GPU instance
  uint64_t xid = 0;
  WallTime since{};
  bool lost = false;  // the GPU has not answered since

  bool back = false;              // … and now it does
  std::set<std::string> devices;  // MIG devices that it was seen to be; not in the file
  uint32_t misses = 0;            // inventories that did not show what it names

  [[nodiscard]] bool is_of(const ports::Gpu& of, const ports::MigDevice& device) const {
    return gpu == of.uuid && gi && *gi == device.gi && (!ci || *ci == device.ci);
  }
  [[nodiscard]] std::string reason() const;  // "XID 79 at 2026-11-24T10:16:37Z"
};

[[nodiscard]] std::string format_health(const std::vector<HealthMark>& marks,
                                        std::string_view boot_id);
// kCorrupt for a text that is none; empty for one of another boot.
[[nodiscard]] Result<std::vector<HealthMark>> parse_health(std::string_view text,
                                                           std::string_view boot_id);
// UUID of a GPU or of a MIG device → why it is not healthy.
[[nodiscard]] std::map<std::string, std::string> reasons_of(const std::vector<HealthMark>& marks,
                                                            const std::vector<ports::Gpu>& gpus);

struct HealthOptions {
  std::string disable, enable;  // DP_DISABLE_HEALTHCHECKS, DP_ENABLE_HEALTHCHECKS
};

// (GPU's UUID, XID) → how often it was told.
using XidCounts = std::map<std::pair<std::string, uint64_t>, uint64_t>;

class Health {
 public:
  Health(const HealthOptions& options, std::string path, ports::HostFiles& files, Log& log);

  // Reads the file. `boot_id`: names this life of the machine.
  void start(std::string boot_id);
  void on_event(const ports::GpuEvent& event, const std::vector<ports::Gpu>& known, WallTime now);
  // A fresh look: the GPUs that are known, why some of them do not answer, and which of these are
  // there all the same; what else does not answer is lost.
  void on_inventory(const std::vector<ports::Gpu>& gpus,
                    const std::map<std::string, std::string>& silent,
                    const std::set<std::string>& mute);
  // We reset this GPU.
  void on_reset(const std::string& gpu);
  // We destroyed these MIG devices.
  void on_destroyed(const std::set<std::string>& devices);
  // Writes what changed since it was written last.
  void write();

  [[nodiscard]] const std::vector<HealthMark>& marks() const { return marks_; }
  [[nodiscard]] const XidCounts& counts() const { return counts_; }

 private:
  void forget(const HealthMark& mark, std::string_view why);
  void count(const std::string& gpu, uint64_t xid);

  std::vector<std::string> problems_;
  XidPolicy policy_;
  std::string path_;  // "" for none
  ports::HostFiles& files_;
  Log& log_;
  std::string boot_id_;
  std::vector<HealthMark> marks_;  // in the order in which they came
  std::string written_;
  XidCounts counts_;
};

}  // namespace gpuslice::agent
