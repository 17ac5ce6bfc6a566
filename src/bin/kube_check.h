#pragma once

// Does the API server answer, and does it show us our Node? For `agent --check`; changes nothing.

#include <string>

#include "base/result.h"
#include "kube/account.h"

namespace gpuslice::bin {

// Waits for as long as the agent would before it says that it does not answer. A sentence, or the
// client's error: kNoPermission, kUnavailable, …
[[nodiscard]] Result<std::string> ask_api_server(const kube::Account& account,
                                                 const std::string& node);

}  // namespace gpuslice::bin
