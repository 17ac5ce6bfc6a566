#pragma once

// Who holds a GPU or its instances beyond what NVML tells: the kubelet's pod-resources, the agent's
// ledger of Allocate; and of NVML's processes, which command and which pod.

#include <functional>
#include <string>
#include <vector>

#include "mig/change.h"

namespace gpuslice::bin {

// A device id that was given out.
struct GivenOut {
  std::string id;
  bool unlisted = true;  // the kubelet may not name it, although a pod has it
};
using LedgerSource = std::function<Result<std::vector<GivenOut>>()>;
// An entry of that age has been listed by the kubelet, or was given back (see
// agent::may_be_unlisted).
inline constexpr Duration kLedgerGrace = std::chrono::seconds(30);
// Of the agent's ledger file; `root`: for the boot id. No entry is younger than the file.
[[nodiscard]] std::vector<GivenOut> ledger_of_file(const std::string& root,
                                                   const std::string& path);

// Asks all three anew at each call: the kubelet's pod-resources if its socket is below
// `kubelet_dir`, the ledger, NVML with /proc. A kubelet that does not answer is an error: nobody
// may be put out because nobody could be asked. Where it answers, the ledger counts only for what
// it may not list yet: a pod that has just ended holds nothing.
[[nodiscard]] mig::HolderSource holder_source(std::string kubelet_dir, LedgerSource ledger);

}  // namespace gpuslice::bin
