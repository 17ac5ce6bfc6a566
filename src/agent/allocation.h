#pragma once

// The desk where the kubelet's calls are answered: GetPreferredAllocation and Allocate of every
// resource, from the newest table, without a call to NVML, the API server or T0. It keeps the
// ledger of what was allocated.
//
// Thread-safe: the servers' threads call, T0 changes tables. A withdrawal and an Allocate cannot
// pass each other: after set_tables() returns, no id that it withdrew is allocated, nor one that is
// about to go and still listed for those who hold it.

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "agent/answer.h"
#include "agent/device_nodes.h"
#include "agent/device_table.h"
#include "agent/preferred.h"
#include "base/random.h"
#include "base/time.h"
#include "ports/kubelet.h"

namespace gpuslice::agent {

// How the desk answers: from the flags, and from what device nodes exist.
struct AnswerRules {
  AnswerForm form;
  CapMinors caps;
  Policy policy = Policy::kDistributed;
  // A container that asks for several replicas gets them of as many devices, or is refused.
  bool require_distinct = false;
};

struct LedgerEntry {
  std::string resource;
  std::string id;
  MonotonicTime since{};
  bool confirmed = false;  // the kubelet's pod-resources have named it
};

// True while the kubelet may not name it yet although a pod has it: it lists a pod shortly after
// its Allocate. What it named once, or had the time to, and does not name now has been given back.
[[nodiscard]] bool may_be_unlisted(const LedgerEntry& entry, MonotonicTime now, Duration grace);

class AllocationDesk {
 public:
  // Ids in the ledger; more are not remembered (and counted).
  static constexpr size_t kMaxLedger = 200'000;

  using Now = std::function<MonotonicTime()>;
  // `seed`: of the names of CDI annotations, which only have to differ within a pod.
  AllocationDesk(Now now, uint64_t seed);
  ~AllocationDesk();
  AllocationDesk(const AllocationDesk&) = delete;
  AllocationDesk& operator=(const AllocationDesk&) = delete;

  // T0. False when the ledger has moved since `ledger`: what was just given out may be missing from
  // these tables, and the old ones stay.
  [[nodiscard]] bool set_tables(const DeviceTable& tables, AnswerRules rules, uint64_t ledger);
  // The service to hand to the kubelet's port; lives as long as the desk.
  [[nodiscard]] ports::PluginService& service(const std::string& resource);

  // What pods hold, by the ledger.
  [[nodiscard]] HeldIds held() const;
  [[nodiscard]] std::vector<LedgerEntry> ledger() const;
  [[nodiscard]] size_t ledger_size() const;
  // Moves with every change of the ledger.
  [[nodiscard]] uint64_t ledger_version() const { return version_.load(std::memory_order_acquire); }
  // Ledger entries read from disk at start; they count until the kubelet says otherwise.
  void restore(const std::vector<LedgerEntry>& entries);
  // What the kubelet says is held: entries that it names are confirmed or added; entries that it
  // does not name are released, except those that it may not list yet.
  void reconcile(const std::vector<ports::PodDevices>& pods, Duration grace);

  struct Counts {
    uint64_t allocated = 0, refused = 0, preferred = 0;
    uint64_t unhealthy = 0;  // devices given out although listed as unhealthy
    uint64_t forgotten = 0;  // ids given out that a full ledger did not take
  };
  [[nodiscard]] Counts counts() const;

 private:
  class Service;

  [[nodiscard]] Result<ports::PreferredAnswer> preferred_of(const std::string& resource,
                                                            const ports::PreferredRequest& request);
  [[nodiscard]] Result<ports::AllocateAnswer> allocate_of(const std::string& resource,
                                                          const ports::AllocateRequest& request);
  // Under mutex_.
  [[nodiscard]] Result<ports::ContainerAnswer> container(const ResourceTable& table,
                                                         const std::vector<std::string>& ids);

  Now now_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const ResourceTable>> tables_;
  AnswerRules rules_;
  Random random_;
  std::map<std::string, std::map<std::string, LedgerEntry>> ledger_;  // resource -> id -> entry
  size_t ledger_size_ = 0;
  Counts counts_;
  std::map<std::string, std::unique_ptr<Service>> services_;
  std::atomic<uint64_t> version_{0};
};

}  // namespace gpuslice::agent
