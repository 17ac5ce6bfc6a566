#pragma once

// How often the agent took each device out of the lists since the last wish: once for what is
// shared and once for MIG, and once more for every try that failed. An id that was listed for its
// pod alone leaves with it: that is no withdrawal.

#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "ports/kubelet.h"

namespace gpuslice::dst {

class Withdrawals {
 public:
  using Lists = std::map<std::string, std::shared_ptr<const ports::DeviceList>>;

  // Another wish. What a change for the last one has taken away comes back first.
  void begin() {
    gone_.clear();
    released_.clear();
    tries_ = going_.empty() && kept_.empty() ? 1 : 2;
  }
  // Another life of the agent, which knows nothing of what was listed.
  void forget() {
    going_.clear();
    kept_.clear();
    last_.clear();
    begin();
  }
  // A change failed, or somebody else changed what is there: it is tried again.
  void excuse() { ++tries_; }
  // What a change of MIG takes away, from its beginning to the lists that follow the first look
  // after it: UUIDs.
  void changing(std::set<std::string> going) { going_ = std::move(going); }
  void changed() { changed_ = true; }
  // What would go and is kept back while holders are waited for.
  void keeping(std::set<std::string> kept) { kept_ = std::move(kept); }
  // A pod that held this id has ended.
  void released(const std::string& resource, const std::string& id) {
    released_.emplace(resource, id);
  }
  // What is listed now: after each reconcile(), which may take a list away and show it again.
  void look(const Lists& lists);
  // The sentence about a device that went too often, or "".
  [[nodiscard]] const std::string& twice() const { return twice_; }

 private:
  Lists last_;
  std::map<std::tuple<std::string, std::string, bool>, int> gone_;  // resource, id, for MIG
  int tries_ = 1;
  std::set<std::string> going_;
  std::set<std::string> kept_;
  std::set<std::pair<std::string, std::string>> released_;
  bool changed_ = false;
  std::string twice_;
};

}  // namespace gpuslice::dst
