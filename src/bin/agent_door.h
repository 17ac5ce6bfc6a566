#pragma once

// Where other programs of this machine ask the agent: `agent status`, and `apply`, `restore` before
// they change a GPU. One question a connection, JSON in a line each way (docs/formats.md):
//   {"ask": "status"}                            all state
//   {"ask": "ledger"}                            what was given out, and what the kubelet may not
//                                                list yet
//   {"ask": "withdraw", "gpus": {"GPU-…": ["MIG-…"]}}   answered once nobody can be given any of
//   it;
//                                                given back when the connection ends
//
// T0 only.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/withdrawals.h"
#include "base/log.h"
#include "bin/holders.h"
#include "host/event_loop.h"
#include "host/local_server.h"

namespace gpuslice::bin {

// While the socket cannot be made (another agent answers there): how often it is tried again.
inline constexpr Duration kDoorRetry = std::chrono::seconds(2);

class AgentDoor {
 public:
  struct Sources {
    std::function<std::string()> status;  // JSON without line ends
    std::function<std::vector<GivenOut>()> ledger;
    // See agent::Agent; reconciled soon after.
    std::function<Result<agent::Withdrawals::Id>(agent::Withdrawal)> withdraw;
    std::function<bool(agent::Withdrawals::Id)> withdrawn;
    std::function<void(agent::Withdrawals::Id)> give_back;
  };
  // Opened at once, or as soon as it can be.
  AgentDoor(host::EventLoop& loop, Log& log, std::string path, Sources sources);
  AgentDoor(const AgentDoor&) = delete;
  AgentDoor& operator=(const AgentDoor&) = delete;

  // After each reconcile(): whoever waits for a withdrawal may be answered.
  void look();
  [[nodiscard]] host::LocalCounts counts() const;

 private:
  struct Lease {
    agent::Withdrawals::Id id = 0;
    bool answered = false;
    std::string who;
  };
  void open();
  void asked(const host::LocalServer::Peer& peer, const std::string& line);
  void withdraw(const host::LocalServer::Peer& peer, agent::Withdrawal withdrawal);
  void gone(host::LocalServer::Id id);
  void refuse(host::LocalServer::Id id, const Error& error);

  host::EventLoop& loop_;
  Log& log_;
  const std::string path_;
  const Sources sources_;
  std::map<host::LocalServer::Id, Lease> leases_;
  host::EventLoop::Token retry_;
  std::unique_ptr<host::LocalServer> server_;
};

}  // namespace gpuslice::bin
