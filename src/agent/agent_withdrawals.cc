// The part of the agent that answers other programs of this machine: what is, and that devices are
// taken away from everybody while they change GPUs.

#include <algorithm>

#include "agent/agent.h"

namespace gpuslice::agent {

bool Agent::nobody_gets(const std::set<std::string>& devices) const {
  if (tables_.resources.empty() && registrations_.empty()) return true;
  return std::includes(withheld_in_force_.begin(), withheld_in_force_.end(), devices.begin(),
                       devices.end());
}

bool Agent::withdrawn(Withdrawals::Id id) const {
  return nobody_gets(withdrawals_.withheld_for(id, hardware_.gpus));
}

AgentDetails Agent::details() const {
  AgentDetails out;
  out.config_file = config_.wanted_from();
  out.config_fingerprint = config_.fingerprint();
  out.config_last_good = config_.last_good_path();
  out.withheld = hardware_.withheld;
  out.going = partition_.going();
  out.withdrawals = withdrawals_.under_way();
  out.labels = labels_.said();
  out.ledger = desk_.ledger_size();
  return out;
}

void Agent::give_back(Withdrawals::Id id) {
  const std::set<std::string> gpus = withdrawals_.end(id, ports_.clock.now());
  if (gpus.empty()) return;
  partition_.on_left_by_others(gpus);
  next_inventory_ = ports_.clock.now();
}

}  // namespace gpuslice::agent
