#pragma once

// What of the node's GPUs can be offered at all, by the MIG strategy: GPUs and MIG devices before
// anything is shared. Pure; private to device_table.cc.

#include <string>
#include <vector>

#include "agent/device_table.h"

namespace gpuslice::agent {

class BaseDevices {
 public:
  // What is left out is said in `warnings`, which outlives this.
  BaseDevices(const Hardware& hardware, std::string strategy, std::vector<std::string>& warnings);

  [[nodiscard]] const std::vector<BaseDevice>& offered() const { return offered_; }
  // DeviceTable::kind; "" unless the strategy is single.
  [[nodiscard]] const std::string& kind() const { return kind_; }
  // There, and not offered; what pods hold of them stays all the same.
  [[nodiscard]] const std::vector<BaseDevice>& kept_back() const { return kept_back_; }

 private:
  void add(const ports::Gpu& gpu);
  void add_mig(const ports::Gpu& gpu, const ports::MigDevice& device,
               std::vector<BaseDevice>& bases);
  void odd(const ports::Gpu& gpu, const std::string& what);

  const Hardware& hardware_;
  const std::string strategy_;
  std::string kind_;
  std::vector<std::string>& warnings_;
  std::vector<BaseDevice> offered_, kept_back_;
};

}  // namespace gpuslice::agent
