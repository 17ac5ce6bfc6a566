#pragma once

// Who holds a GPU or its instances beyond what NVML tells: the kubelet's pod-resources, the agent's
// ledger of Allocate; and of NVML's processes, which command and which pod.

#include <memory>
#include <string>
#include <vector>

#include "mig/change.h"

namespace gpuslice::bin {

struct HolderPlaces {
  std::string root;         // for the boot id
  std::string kubelet_dir;  // its pod-resources are asked if the socket is there
  std::string ledger_path;
};

// Asks all three anew at each call. A kubelet that does not answer is an error: nobody may be put
// out because nobody could be asked.
[[nodiscard]] mig::HolderSource holder_source(HolderPlaces places);

}  // namespace gpuslice::bin
