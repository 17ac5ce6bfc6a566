#include "bin/agent_door.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "agent/question.h"
#include "base/text.h"

namespace gpuslice::bin {
namespace {

using Json = nlohmann::ordered_json;
using Then = host::LocalServer::Then;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

AgentDoor::AgentDoor(host::EventLoop& loop, Log& log, std::string path, Sources sources)
    : loop_(loop), log_(log), path_(std::move(path)), sources_(std::move(sources)) {
  open();
}

void AgentDoor::open() {
  host::LocalServer::Events events;
  events.asked = [this](const host::LocalServer::Peer& peer, const std::string& line) {
    asked(peer, line);
  };
  events.gone = [this](host::LocalServer::Id id) { gone(id); };
  auto server = host::LocalServer::listen(loop_, path_, std::move(events));
  if (server) {
    server_ = std::move(*server);
    log_.over("door");
    return;
  }
  log_.once(Level::kWarning, "door",
            fmt::format("{}; until then neither agent status nor gpuslice apply can ask this agent",
                        server.error().message));
  retry_ = loop_.after(kDoorRetry, [this] { open(); });
}

void AgentDoor::asked(const host::LocalServer::Peer& peer, const std::string& line) {
  auto question = agent::read_question(line);
  if (!question) return refuse(peer.id, question.error());
  switch (question->ask) {
    case agent::Question::Ask::kStatus:
      return server_->answer(peer.id, sources_.status(), Then::kClose);
    case agent::Question::Ask::kLedger: {
      Json ids = Json::array();
      for (const GivenOut& one : sources_.ledger())
        ids.push_back({{"id", one.id}, {"unlisted", one.unlisted}});
      return server_->answer(peer.id, dump(Json::object({{"ledger", std::move(ids)}})),
                             Then::kClose);
    }
    case agent::Question::Ask::kWithdraw:
      return withdraw(peer, std::move(question->withdrawal));
  }
}

void AgentDoor::withdraw(const host::LocalServer::Peer& peer, agent::Withdrawal withdrawal) {
  Lease lease;
  lease.who = peer.pid > 0 ? fmt::format("PID {}", peer.pid) : "another program";
  std::vector<std::string> gpus;
  for (const auto& [gpu, devices] : withdrawal.devices) gpus.push_back(gpu);
  withdrawal.who = lease.who;
  auto id = sources_.withdraw(std::move(withdrawal));
  if (!id) return refuse(peer.id, id.error());
  log_.info("MIG: {} is about to change {}: what goes is withdrawn", lease.who,
            json_escape(join(gpus, ", ")));
  lease.id = *id;
  leases_[peer.id] = std::move(lease);
}

void AgentDoor::look() {
  std::vector<host::LocalServer::Id> ready;
  for (auto& [connection, lease] : leases_) {
    if (lease.answered || !sources_.withdrawn(lease.id)) continue;
    lease.answered = true;
    ready.push_back(connection);
  }
  // Who has gone meanwhile is found out now, and is no lease any more.
  for (const host::LocalServer::Id connection : ready)
    server_->answer(connection, R"({"withdrawn":true})", Then::kKeep);
}

void AgentDoor::gone(host::LocalServer::Id id) {
  const auto it = leases_.find(id);
  if (it == leases_.end()) return;
  const Lease lease = std::move(it->second);
  leases_.erase(it);
  log_.info("MIG: {} has ended its change: looking at the hardware again", lease.who);
  sources_.give_back(lease.id);
}

void AgentDoor::refuse(host::LocalServer::Id id, const Error& error) {
  server_->answer(id,
                  dump(Json::object({{"error", Json::object({{"code", code_name(error.code)},
                                                             {"message", error.message}})}})),
                  Then::kClose);
}

host::LocalCounts AgentDoor::counts() const {
  return server_ ? server_->counts() : host::LocalCounts{};
}

}  // namespace gpuslice::bin
