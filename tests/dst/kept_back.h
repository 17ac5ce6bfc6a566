#pragma once

// What the agent has withdrawn for changes of MIG, and must give to nobody new: for a wish that
// waits for holders, from the look that found them on; for a change, its own or another program's,
// from its word that nobody is given any of it.

#include <map>
#include <set>
#include <string>
#include <vector>

#include "ports/nvml.h"

namespace gpuslice::dst {

class KeptBack {
 public:
  using Devices = std::set<std::string>;  // UUIDs of MIG devices, or of a GPU: then all of it

  // The wish on this GPU waits for who holds these.
  void waits(const std::string& gpu, Devices devices) { waiting_[gpu] = std::move(devices); }
  void waits_no_more(const std::string& gpu) { waiting_.erase(gpu); }
  // It is another wish by now, or it waits no more.
  void wish_is_over() { waiting_.clear(); }
  // A change of this name is under way.
  void goes(const std::string& change, Devices devices) { going_[change] = std::move(devices); }
  void has_ended(const std::string& change) { going_.erase(change); }
  // The agent has died, and the next one begins with a look of its own.
  void forget() {
    waiting_.clear();
    going_.clear();
  }
  // The ids of an Allocate that was answered, and what is there.
  void given(const std::vector<std::string>& ids, const std::vector<ports::Gpu>& gpus);
  // The sentence about a device that was given out although it was kept back, or "".
  [[nodiscard]] const std::string& wrong() const { return wrong_; }

 private:
  std::map<std::string, Devices> waiting_;  // by GPU
  std::map<std::string, Devices> going_;    // by change
  std::string wrong_;
};

}  // namespace gpuslice::dst
