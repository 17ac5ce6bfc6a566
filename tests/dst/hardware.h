#pragma once

// The hardware of a node on virtual time: a simulated world in memory behind the ports, one
// question at a time as the NVML worker answers them, and what is done to it on purpose.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/mig_runner.h"
#include "base/random.h"
#include "fault.h"
#include "ports/driver.h"
#include "sim/mig.h"
#include "sim/nvml_port.h"
#include "sim/world.h"
#include "timeline.h"

namespace gpuslice::dst {

// The agent has died at a call of a port.
struct Died {
  Fault how;
};

class Hardware final : public ports::Locks, public ports::Pause {
 public:
  // `timeline`: what its counters run by.
  Hardware(Random& random, const Timeline& timeline);

  // --- as the driver shows it
  [[nodiscard]] Result<ports::Inventory> inventory();
  [[nodiscard]] sim::WorldNvml& nvml() { return *nvml_; }

  // --- as it is, without a fault
  [[nodiscard]] const std::vector<ports::Gpu>& gpus();
  [[nodiscard]] mig::GpuState state_of(const mig::GpuName& gpu);
  // GPUs and MIG devices that are there, by UUID.
  [[nodiscard]] const std::set<std::string>& uuids();
  // Names one making of a MIG device; 0 where there is none of that UUID.
  [[nodiscard]] uint64_t generation(const std::string& uuid);
  // The same; of a GPU: how often it was reset.
  [[nodiscard]] uint64_t making(const std::string& uuid);
  [[nodiscard]] bool lost(const std::string& gpu);
  // What a GPU tells of itself, and whether it tells anything (by UUID; those that are well are
  // left out).
  enum class Heat : uint8_t { kCool, kWarm, kHot };  // kWarm: less than five degrees below kHot
  struct Illness {
    bool lost = false;
    bool ecc = false, remap_pending = false, remap_failed = false, recovery = false;
    Heat heat = Heat::kCool;
    bool instances = false;  // it has MIG devices
  };
  [[nodiscard]] std::map<std::string, Illness> illnesses();

  // --- who computes
  // On the GPU or the MIG device of this UUID, until end_work().
  [[nodiscard]] std::optional<uint16_t> work(const std::string& uuid);
  void end_work(const std::vector<uint16_t>& clients);

  // --- faults
  void lose(uint32_t index);
  [[nodiscard]] bool restore_one();
  void restore_all();
  void reboot();
  // Another program makes or destroys an instance that nobody uses. The UUIDs that are gone.
  [[nodiscard]] bool foreign_change(Random& random);
  // One of the faults that a GPU tells of itself strikes the GPU of this index; `dice`: how.
  void fall_ill(uint32_t index, Fault fault, uint64_t dice);
  // … and is over, if that is possible without a reset of the GPU. False: it is not, or there was
  // nothing of it. What was hot cools down in steps.
  [[nodiscard]] bool recover(uint32_t index, Fault fault);
  // A reset of the GPU is what ends it.
  [[nodiscard]] bool wants_reset(uint32_t index, Fault fault);
  // False where the driver refuses, because somebody computes there.
  [[nodiscard]] bool reset_by_others(uint32_t index);
  [[nodiscard]] uint32_t count() const { return world_->snapshot()->node.gpu_count; }
  void fail_changes(int calls) { failing_changes_ = calls; }
  // No driver is loaded: every question says so.
  void set_away(bool away) { away_ = away; }
  // The agent dies at this call of NVML inside a change, counted from now.
  void die_in_change(int calls) { dies_in_ = calls; }
  [[nodiscard]] bool about_to_die() const { return dies_in_ >= 0; }
  // The calls inside a change of another program's, which dies at the call `dies_in`; below 0:
  // never.
  void in_apply(bool on, int dies_in) {
    in_apply_ = on;
    apply_dies_in_ = dies_in;
  }
  void count_call();  // of a port inside a change: throws Died when it is the one
  void in_change(bool on) {
    in_change_ = on;
    if (!on) dies_in_ = -1;
  }

  // --- the labels of a configuration that fits the boards
  [[nodiscard]] std::string mig_config(uint32_t variant) const;

  // Ports of a change.
  [[nodiscard]] Result<std::unique_ptr<Held>> take(const std::string& path) override;
  void wait(Duration duration) override { waited_ += duration; }
  // How long the change has waited since the last call.
  [[nodiscard]] Duration waited() { return std::exchange(waited_, Duration{}); }
  void drop_locks() { locked_.clear(); }

 private:
  // Who a UUID names, as long as the world stays as it is.
  struct Names {
    uint64_t sequence = 0;
    std::map<std::string, uint64_t> devices;  // MIG devices: their generation
    std::set<std::string> all;
  };

  // How long the driver has kept a GPU initialised since it was reset.
  struct Counter {
    uint64_t generation = 0;
    MonotonicTime since{};
  };
  void begin_counters(Random& random);
  void settle_counters();
  void tell_energy(ports::Gpu& gpu);

  [[nodiscard]] std::optional<Error> before(std::string_view call);
  [[nodiscard]] const Names& names();

  const Timeline& timeline_;
  std::unique_ptr<sim::World> world_;
  std::unique_ptr<sim::WorldNvml> nvml_;
  const gpu::Board* mig_board_ = nullptr;
  uint32_t mig_gpus_ = 0;
  Names names_;
  uint64_t gpus_sequence_ = 0;
  std::vector<ports::Gpu> gpus_;
  std::set<std::string> locked_;
  Duration waited_{};
  bool in_change_ = false;
  int dies_in_ = -1;
  bool in_apply_ = false;
  int apply_dies_in_ = -1;
  int failing_changes_ = 0;
  bool away_ = false;
  int32_t next_pid_ = 5000;
  std::vector<Counter> counters_;  // by index
  bool tells_energy_ = false;
  bool keeps_initialised_ = false;
};

}  // namespace gpuslice::dst
