#pragma once

// What the agent shows of itself: an immutable snapshot for the page, /metrics, /readyz and `agent
// status`.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/device_table.h"
#include "agent/health.h"
#include "agent/labels.h"
#include "agent/partition.h"
#include "agent/withdrawals.h"
#include "ports/kubelet.h"

namespace gpuslice::agent {

struct ResourceStatus {
  std::string name;
  std::shared_ptr<const ResourceTable> table;
  bool registered = false;
  std::string trouble;  // why it is not; "" when it is
  uint64_t healthy = 0;
  uint64_t unhealthy = 0;
  uint64_t held = 0;
  uint64_t registrations = 0;
  uint64_t failures = 0;
};

// A snapshot is made in every turn of the loop, and what is large in it changes seldom: those that
// are the same share it.
struct AgentStatus {
  bool ready = false;
  std::string why_not_ready;
  std::string driver;  // version, or why there is none
  uint64_t config_generation = 0;
  uint64_t reloads_good = 0;
  uint64_t reloads_bad = 0;
  std::string config_from;
  std::string config_problem;  // why the newest text is not in force
  // Never null, as the two below.
  std::shared_ptr<const std::vector<ports::Gpu>> gpus =
      std::make_shared<const std::vector<ports::Gpu>>();
  std::map<std::string, std::string> unhealthy;  // UUID of a GPU or a MIG device -> why
  XidCounts xids;
  std::vector<TroubleMark> troubles;  // what GPUs tell of themselves
  std::map<std::string, ResourceStatus> resources;
  std::shared_ptr<const HeldIds> held = std::make_shared<const HeldIds>();
  std::shared_ptr<const std::vector<ports::PodDevices>> pods =  // as the kubelet told last
      std::make_shared<const std::vector<ports::PodDevices>>();
  ports::MigStatus mig;  // what is wanted of MIG, and what became of it
  PartitionCounts mig_counts;
  std::map<std::string, std::string> mig_troubles;  // GPU UUID -> why it is not as wanted
  uint64_t allocations = 0;
  uint64_t refusals = 0;
  uint64_t unhealthy_allocations = 0;  // devices given out although listed as unhealthy
  uint64_t preferred_calls = 0;
  uint64_t ledger_forgotten = 0;     // ids given out that a full ledger did not take
  uint64_t withdrawals_refused = 0;  // beyond kMaxWithdrawals
  uint64_t inventory_errors = 0;
  uint64_t reconciles = 0;
};

// What only a dump of all state shows, made when it is asked for.
struct AgentDetails {
  std::string config_file;         // that counts; "" for none
  std::string config_fingerprint;  // of the text in force
  std::string config_last_good;    // where the last good text lies
  std::set<std::string> withheld;  // devices that are given to nobody now, by UUID
  std::set<std::string> going;     // … of these, what a change of ours takes away
  std::vector<Withdrawal> withdrawals;
  std::optional<Labels> labels;  // said last
  size_t ledger = 0;             // ids in it
};

}  // namespace gpuslice::agent
