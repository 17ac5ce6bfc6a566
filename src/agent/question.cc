#include "agent/question.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>

#include "base/text.h"

namespace gpuslice::agent {
namespace {

using Json = nlohmann::ordered_json;

std::unexpected<Error> not_understood(std::string_view what) {
  return fail(Code::kUsage,
              "the agent does not understand this question: {}; programs of the same version as "
              "the agent ask it",
              what);
}

// {"GPU-…": ["MIG-…", …], …}
Result<Withdrawal> read_withdrawal(const Json& gpus) {
  Withdrawal out;
  if (!gpus.is_object()) return not_understood("\"gpus\" is no object");
  for (const auto& [uuid, devices] : gpus.items()) {
    if (!devices.is_array()) return not_understood("the devices of a GPU are no array");
    std::set<std::string>& named = out.devices[uuid];
    for (const Json& device : devices) {
      if (!device.is_string()) return not_understood("a device is no text");
      named.insert(device.get<std::string>());
    }
  }
  return out;
}

}  // namespace

Result<Question> read_question(std::string_view line) {
  const Json question = Json::parse(line, nullptr, false);
  const auto ask = question.is_object() ? question.find("ask") : question.end();
  if (!question.is_object() || ask == question.end() || !ask->is_string())
    return not_understood("it is no JSON object with \"ask\"");
  const std::string what = ask->get<std::string>();
  if (what == "status") return Question{};
  if (what == "ledger") return Question{Question::Ask::kLedger, {}};
  if (what != "withdraw") return not_understood(json_escape(what));
  const auto gpus = question.find("gpus");
  TRY_ASSIGN(Withdrawal withdrawal, read_withdrawal(gpus == question.end() ? Json() : *gpus));
  return Question{Question::Ask::kWithdraw, std::move(withdrawal)};
}

}  // namespace gpuslice::agent
