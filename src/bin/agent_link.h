#pragma once

// The agent of this node, as another gpuslice asks it (bin/agent_door.h). Blocks, within bounds.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "bin/holders.h"
#include "host/local_client.h"

namespace gpuslice::bin {

// The agent answers from memory, at once; a withdrawal when the kubelet's list has been made anew.
inline constexpr Duration kAgentPatience = std::chrono::seconds(5);

class AgentLink {
 public:
  explicit AgentLink(std::string path) : path_(std::move(path)) {}

  // Nothing: no agent runs. Errors: see host::LocalClient; one that does not answer is an error,
  // and not "no agent".
  [[nodiscard]] Result<std::optional<std::string>> status() const;
  [[nodiscard]] Result<std::optional<std::vector<GivenOut>>> ledger() const;

  // Devices that nobody is given while it lives.
  class Lease {
   public:
    explicit Lease(std::optional<host::LocalClient> connection)
        : connection_(std::move(connection)) {}
    // False: no agent runs, there was nobody to ask.
    [[nodiscard]] bool from_agent() const { return connection_.has_value(); }

   private:
    std::optional<host::LocalClient> connection_;
  };
  // GPU's UUID → UUIDs of what goes: see agent::Withdrawal.
  [[nodiscard]] Result<Lease> withdraw(
      const std::map<std::string, std::set<std::string>>& gpus) const;

 private:
  std::string path_;
};

}  // namespace gpuslice::bin
