#pragma once

// Which GPUs and instances are not to be used, why, and for how long.
//
// An XID that is not ignored marks the whole GPU, or the instance that it names. The mark stays
// until the hardware itself has changed:
//   a MIG device   when it is gone, or was destroyed by us; what is made there anew is another one;
//   a GPU          when it was lost and came back, when we reset it, when somebody else did (it
//                  asked for a reset and does not any more; its counter of energy began anew), when
//                  another driver took the place of the one it failed under, after a reboot;
// or, for XIDs of which the policy says so, until a clean probe: the GPU has answered every look
// for so long, without a further XID and without trouble.
//
// What a GPU tells of itself (GpuTrouble) counts as long as it tells it.
//
// Both lie in a file under /run keyed by the boot id, so that no restart of the agent or of the
// kubelet makes a dead GPU healthy. Lines of text:
//   gpuslice-health 3 <boot id> <driver's version or ->
//   xid <GPU's UUID> <GPU instance or -> <compute instance or -> <XID> <seconds since 1970>
//       <0 or 1: lost> <0 or 1: it asked for a reset> <millijoules counted then, or ->
//   trouble <GPU's UUID> <word of the trouble> <seconds since 1970> <text to the end of the line>
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

#include "agent/health_policy.h"
#include "base/log.h"
#include "base/result.h"
#include "base/time.h"
#include "ports/host.h"
#include "ports/nvml.h"
#include "ports/nvml_events.h"

namespace gpuslice::agent {

// Reasons are told with the time at which they came, but where equal ones are to count.
enum class Since : uint8_t { kSaid, kLeftOut };

// Something of a GPU that is not to be used any more.
struct HealthMark {
  std::string gpu;
  std::optional<GiId> gi;  // nothing: all of the GPU
  std::optional<CiId> ci;  // nothing: all of the GPU instance
  uint64_t xid = 0;
  WallTime since{};
  bool lost = false;   // the GPU has not answered since
  bool asked = false;  // the GPU has asked for a reset since
  // What the first look after it read of the GPU's counter; only of one that the driver keeps
  // initialised: the counter of another begins anew with whoever opens it.
  std::optional<uint64_t> energy_mj;

  bool back = false;              // … and now it does
  bool kept = false;              // from before this start, and not said since
  std::set<std::string> devices;  // MIG devices that it was seen to be; not in the file
  uint32_t misses = 0;            // inventories that did not show what it names
  uint64_t most_mj = 0;           // of that counter, since the agent runs
  MonotonicTime told{};           // the newest XID of it; not in the file

  [[nodiscard]] bool is_of(const ports::Gpu& of, const ports::MigDevice& device) const {
    return gpu == of.uuid && gi && *gi == device.gi && (!ci || *ci == device.ci);
  }
  [[nodiscard]] std::string reason(Since since) const;  // "XID 79 at 2026-11-24T10:16:37Z"
};

// What a GPU tells of itself, as it was judged.
struct TroubleMark {
  std::string gpu;
  TroubleSeen seen;
  WallTime since{};
  HealthPolicy::Verdict verdict = HealthPolicy::Verdict::kUnhealthy;

  [[nodiscard]] bool unhealthy() const { return verdict == HealthPolicy::Verdict::kUnhealthy; }
};

struct HealthRecord {
  std::string driver;  // that the marks are of; "" where none was seen
  std::vector<HealthMark> marks;
  std::vector<TroubleMark> troubles;  // those that make a GPU unhealthy
};

[[nodiscard]] std::string format_health(const HealthRecord& record, std::string_view boot_id);
// kCorrupt for a text that is none; empty for one of another boot.
[[nodiscard]] Result<HealthRecord> parse_health(std::string_view text, std::string_view boot_id);
// UUID of a GPU or of a MIG device → why it is not healthy.
[[nodiscard]] std::map<std::string, std::string> reasons_of(const HealthRecord& record,
                                                            const std::vector<ports::Gpu>& gpus,
                                                            Since since = Since::kSaid);

struct HealthOptions {
  std::string disable, enable;  // DP_DISABLE_HEALTHCHECKS, DP_ENABLE_HEALTHCHECKS
};

// (GPU's UUID, XID) → how often it was told.
using XidCounts = std::map<std::pair<std::string, uint64_t>, uint64_t>;

// A fresh look at the hardware.
struct HealthLook {
  const std::vector<ports::Gpu>& gpus;               // that are known
  const std::map<std::string, std::string>& silent;  // why some of them do not answer
  const std::set<std::string>& mute;  // … which of these are there all the same; others are lost
  std::string_view driver;            // its version
  MonotonicTime begun{};              // what is told of a GPU is not from before it
  MonotonicTime now{};
  WallTime wall{};
};

class Health {
 public:
  Health(const HealthOptions& options, std::string path, ports::HostFiles& files, Log& log);

  // Reads the file. `boot_id`: names this life of the machine.
  void start(std::string boot_id);
  void set_clean_probes(std::map<uint64_t, Duration> probes) {
    policy_.set_clean_probes(std::move(probes));
  }
  // True: another look at the hardware now makes certain that a reset from here on is seen.
  bool on_event(const ports::GpuEvent& event, const std::vector<ports::Gpu>& known,
                MonotonicTime now, WallTime wall);
  void on_inventory(const HealthLook& look);
  // We reset this GPU.
  void on_reset(const std::string& gpu);
  // We destroyed these MIG devices.
  void on_destroyed(const std::set<std::string>& devices);
  // Writes what changed since it was written last.
  void write();

  [[nodiscard]] const HealthRecord& record() const { return record_; }
  // All that the GPUs tell of themselves, also what makes nothing unhealthy.
  [[nodiscard]] const std::vector<TroubleMark>& troubles() const { return troubles_; }
  [[nodiscard]] const XidCounts& counts() const { return counts_; }

 private:
  void look_at_marks(const HealthLook& look);
  void look_for_resets(const HealthLook& look);
  void tell_of_kept(const HealthLook& look);
  void look_at_driver(std::string_view driver);
  void look_at_troubles(const HealthLook& look);
  void tell_of(const ports::Gpu& gpu, const TroubleMark& mark);
  void probe(const HealthLook& look);
  template <class Matches>
  void forget_all(Matches matches, std::string_view why);
  void count(const std::string& gpu, uint64_t xid);

  std::vector<std::string> problems_;
  HealthPolicy policy_;
  std::string path_;  // "" for none
  ports::HostFiles& files_;
  Log& log_;
  std::string boot_id_;
  HealthRecord record_;  // marks in the order in which they came
  std::vector<TroubleMark> troubles_;
  std::map<std::string, MonotonicTime> clean_since_;  // by GPU: a probe is under way
  MonotonicTime looked_{};
  std::string written_;
  XidCounts counts_;
};

}  // namespace gpuslice::agent
