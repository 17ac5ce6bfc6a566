#pragma once

// The ledger of Allocate as a file under /run: which ids were given out in this life of the
// machine. Lines of text:
//   gpuslice-ledger 1 <boot id>
//   <resource> <id>
// A file of another boot counts as empty: no pod has outlived it.

#include <string>
#include <string_view>
#include <vector>

#include "agent/allocation.h"
#include "base/result.h"

namespace gpuslice::agent {

[[nodiscard]] std::string format_ledger(const std::vector<LedgerEntry>& entries,
                                        std::string_view boot_id);
// kCorrupt for a text that is no ledger. Entries count from `now`.
[[nodiscard]] Result<std::vector<LedgerEntry>> parse_ledger(std::string_view text,
                                                            std::string_view boot_id,
                                                            MonotonicTime now);

}  // namespace gpuslice::agent
