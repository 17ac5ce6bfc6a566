#pragma once

// What other programs of this machine ask the agent, as it comes over its socket: one JSON object
// in a line (docs/formats.md). Pure.

#include <cstdint>
#include <string_view>

#include "agent/withdrawals.h"
#include "base/result.h"

namespace gpuslice::agent {

struct Question {
  enum class Ask : uint8_t { kStatus, kLedger, kWithdraw };
  Ask ask = Ask::kStatus;
  Withdrawal withdrawal;  // kWithdraw; `who` is not in the question
};

// Any bytes. kUsage, with what is not understood: members that it does not know are none of it.
[[nodiscard]] Result<Question> read_question(std::string_view line);

}  // namespace gpuslice::agent
