// Arbitrary bytes as a question that the agent's socket brings. What is understood can be said
// again, and means the same; what is not is refused with a sentence that can be sent.

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "agent/question.h"
#include "base/check.h"

using gpuslice::Code;
using gpuslice::agent::Question;
using gpuslice::agent::read_question;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto question = read_question({reinterpret_cast<const char*>(data), size});
  if (!question) {
    CHECK(question.error().code == Code::kUsage, "{}", question.error().message);
    CHECK(!question.error().message.empty(), "refused without a word");
    return 0;
  }
  if (question->ask != Question::Ask::kWithdraw) {
    CHECK(question->withdrawal.devices.empty(), "devices that nobody withdraws");
    return 0;
  }
  nlohmann::ordered_json gpus = nlohmann::ordered_json::object();
  for (const auto& [gpu, devices] : question->withdrawal.devices) gpus[gpu] = devices;
  const nlohmann::ordered_json again = {{"ask", "withdraw"}, {"gpus", gpus}};
  const auto same = read_question(again.dump());
  CHECK(same && same->ask == Question::Ask::kWithdraw &&
            same->withdrawal.devices == question->withdrawal.devices,
        "said again it is another: {}", again.dump());
  return 0;
}
