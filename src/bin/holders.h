#pragma once

// Who holds a GPU or its instances beyond what NVML tells: the kubelet's pod-resources, the agent's
// ledger of Allocate; and of NVML's processes, which command and which pod.

#include <functional>
#include <string>
#include <vector>

#include "mig/change.h"

namespace gpuslice::bin {

// What was given out, as far as is known: device ids.
using LedgerSource = std::function<std::vector<std::string>()>;
// Of the agent's ledger file; `root`: for the boot id.
[[nodiscard]] std::vector<std::string> ledger_of_file(const std::string& root,
                                                      const std::string& path);

// Asks all three anew at each call: the kubelet's pod-resources if its socket is below
// `kubelet_dir`, the ledger, NVML with /proc. A kubelet that does not answer is an error: nobody
// may be put out because nobody could be asked.
[[nodiscard]] mig::HolderSource holder_source(std::string kubelet_dir, LedgerSource ledger);

}  // namespace gpuslice::bin
