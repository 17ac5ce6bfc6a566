#include "bin/agent_link.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace gpuslice::bin {
namespace {

using Json = nlohmann::ordered_json;

std::string text_in(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}
bool true_in(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

// The answer as an object, or the error that it is.
Result<Json> ask(host::LocalClient& client, const Json& question) {
  TRY_ASSIGN(const std::string text, client.ask(question.dump(), kAgentPatience));
  Json answer = Json::parse(text, nullptr, false);
  if (!answer.is_object())
    return fail(Code::kCorrupt, "the agent's answer is no JSON; is it of another version?");
  if (const auto error = answer.find("error"); error != answer.end() && error->is_object())
    return fail(Code::kUnavailable, "the agent refuses: {}", text_in(*error, "message"));
  return answer;
}

}  // namespace

Result<std::optional<std::string>> AgentLink::status() const {
  TRY_ASSIGN(std::optional<host::LocalClient> client, host::LocalClient::connect(path_));
  if (!client) return std::nullopt;
  return client->ask(R"({"ask":"status"})", kAgentPatience);
}

Result<std::optional<std::vector<GivenOut>>> AgentLink::ledger() const {
  TRY_ASSIGN(std::optional<host::LocalClient> client, host::LocalClient::connect(path_));
  if (!client) return std::nullopt;
  TRY_ASSIGN(const Json answer, ask(*client, Json::object({{"ask", "ledger"}})));
  const auto ids = answer.find("ledger");
  if (ids == answer.end() || !ids->is_array())
    return fail(Code::kCorrupt, "the agent's answer has no ledger; is it of another version?");
  std::vector<GivenOut> out;
  for (const Json& one : *ids)
    if (one.is_object()) out.push_back({text_in(one, "id"), true_in(one, "unlisted")});
  return out;
}

Result<AgentLink::Lease> AgentLink::withdraw(
    const std::map<std::string, std::set<std::string>>& gpus) const {
  TRY_ASSIGN(std::optional<host::LocalClient> client, host::LocalClient::connect(path_));
  if (!client) return Lease(std::nullopt);
  TRY_ASSIGN(const Json answer, ask(*client, Json::object({{"ask", "withdraw"}, {"gpus", gpus}})));
  if (true_in(answer, "withdrawn")) return Lease(std::move(client));
  return fail(Code::kCorrupt, "the agent does not say that it has withdrawn anything");
}

}  // namespace gpuslice::bin
