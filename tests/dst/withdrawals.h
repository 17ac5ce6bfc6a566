#pragma once

// How often the agent took each device out of the lists since the last wish: once, and once more
// for every try that failed.

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "ports/kubelet.h"

namespace gpuslice::dst {

class Withdrawals {
 public:
  using Lists = std::map<std::string, std::shared_ptr<const ports::DeviceList>>;

  // Another wish, or another life of the agent.
  void begin() {
    gone_.clear();
    allowed_ = 1;
  }
  // A change failed, or somebody else changed what is there: it is tried again.
  void excuse() { ++allowed_; }
  // That life knows nothing of what was listed.
  void forget() {
    begin();
    last_.clear();
  }
  // What is listed now: after each reconcile(), which may take a list away and show it again.
  void look(const Lists& lists);
  // The sentence about a device that went twice, or "".
  [[nodiscard]] const std::string& twice() const { return twice_; }

 private:
  Lists last_;
  std::map<std::pair<std::string, std::string>, int> gone_;  // resource, id → how often
  int allowed_ = 1;
  std::string twice_;
};

}  // namespace gpuslice::dst
