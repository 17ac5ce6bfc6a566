#pragma once

// What other programs of this machine take away: `gpuslice apply` is about to change GPUs, and asks
// first that what goes is given to nobody. Each is a lease, given back by who has it (also by its
// death). While it lasts, what it names is not given out, nor any MIG device that appears on its
// GPUs meanwhile: a change is seen from outside with each of its steps. After it this goes on until
// a look at the hardware that began later.
//
// Pure; T0 only.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "ports/nvml.h"

namespace gpuslice::agent {

// Leases at a time, and UUIDs that one may name.
inline constexpr size_t kMaxWithdrawals = 16;
inline constexpr size_t kMaxWithdrawnDevices = 4096;

struct Withdrawal {
  std::string who;                                       // "gpuslice (PID 4242)"
  std::map<std::string, std::set<std::string>> devices;  // GPU's UUID → UUIDs of what goes: its own
                                                         // where all of it does
};

class Withdrawals {
 public:
  using Id = uint64_t;

  // `gpus`: what is known of the hardware now. kUnavailable: kMaxWithdrawals are under way;
  // kInvalidConfig: it names more than kMaxWithdrawnDevices.
  [[nodiscard]] Result<Id> begin(Withdrawal withdrawal, const std::vector<ports::Gpu>& gpus);
  // The GPUs that it was for; none if there is no such lease.
  std::set<std::string> end(Id id, MonotonicTime now);
  // The hardware was looked at; the look began then.
  void looked(MonotonicTime begun);

  // What must not be given out of these GPUs, by UUID of a GPU or of a MIG device.
  [[nodiscard]] std::set<std::string> withheld(const std::vector<ports::Gpu>& gpus) const;
  // The same of one lease.
  [[nodiscard]] std::set<std::string> withheld_for(Id id,
                                                   const std::vector<ports::Gpu>& gpus) const;
  // How often begin() said no.
  [[nodiscard]] uint64_t refused() const { return refused_; }
  // Those that are not ended.
  [[nodiscard]] std::vector<Withdrawal> under_way() const;

 private:
  struct Lease {
    Withdrawal withdrawal;
    std::set<std::string> known;  // MIG devices of its GPUs when it began
    bool ended = false;
    MonotonicTime ended_at{};
  };
  static void add(const Lease& lease, const std::vector<ports::Gpu>& gpus,
                  std::set<std::string>& out);

  Id next_ = 1;
  uint64_t refused_ = 0;
  std::map<Id, Lease> leases_;
};

}  // namespace gpuslice::agent
