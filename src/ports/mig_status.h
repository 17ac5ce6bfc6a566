#pragma once

// What NVIDIA's MIG manager says in node labels, and why: whoever shows it (the API server, a file)
// gets the whole each time it changes. T0; does not wait.

#include <string>

#include "base/time.h"

namespace gpuslice::ports {

struct MigStatus {
  std::string label;    // what was asked for (nvidia.com/mig.config); "" when nothing is
  std::string state;    // nvidia.com/mig.config.state: "pending", "success", "failed", "rebooting"
  std::string reason;   // one sentence; "" with success
  std::string request;  // names label and meaning: another request is another text
  WallTime since{};     // when this state began
  friend bool operator==(const MigStatus&, const MigStatus&) = default;
};

class MigStatusBoard {
 public:
  virtual ~MigStatusBoard() = default;
  virtual void show(const MigStatus& status) = 0;
};

}  // namespace gpuslice::ports
