#pragma once

// A pod of the node, as the kubelet knows it.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace gpuslice::dst {

struct Pod {
  uint64_t number = 0;
  std::string name;
  std::string resource;
  std::vector<std::string> ids;
  bool daemon = false;     // a DaemonSet's
  bool is_static = false;  // a file's
  bool leaving = false;    // it was evicted, and its grace period runs
  bool stuck = false;      // … for ever
  // The making of each MIG device that it holds, and who computes there.
  std::map<std::string, uint64_t> generations;
  std::vector<uint16_t> clients;

  // Nobody can put it out: it would be back at once.
  [[nodiscard]] bool stays() const { return daemon || is_static; }
};

}  // namespace gpuslice::dst
