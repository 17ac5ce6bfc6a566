#include "agent/allocation.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace gpuslice::agent {

class AllocationDesk::Service final : public ports::PluginService {
 public:
  Service(AllocationDesk& desk, std::string resource)
      : desk_(desk), resource_(std::move(resource)) {}
  Result<ports::PreferredAnswer> preferred(const ports::PreferredRequest& request) override {
    return desk_.preferred_of(resource_, request);
  }
  Result<ports::AllocateAnswer> allocate(const ports::AllocateRequest& request) override {
    return desk_.allocate_of(resource_, request);
  }

 private:
  AllocationDesk& desk_;
  std::string resource_;
};

bool may_be_unlisted(const LedgerEntry& entry, MonotonicTime now, Duration grace) {
  return !entry.confirmed && now - entry.since < grace;
}

AllocationDesk::AllocationDesk(Now now, uint64_t seed) : now_(std::move(now)), random_(seed) {}
AllocationDesk::~AllocationDesk() = default;

bool AllocationDesk::set_tables(const DeviceTable& tables, AnswerRules rules, uint64_t ledger) {
  const std::lock_guard lock(mutex_);
  if (version_.load(std::memory_order_relaxed) != ledger) return false;
  tables_ = tables.resources;
  rules_ = std::move(rules);
  return true;
}

ports::PluginService& AllocationDesk::service(const std::string& resource) {
  const std::lock_guard lock(mutex_);
  auto& service = services_[resource];
  if (!service) service = std::make_unique<Service>(*this, resource);
  return *service;
}

Result<ports::PreferredAnswer> AllocationDesk::preferred_of(
    const std::string& resource, const ports::PreferredRequest& request) {
  std::shared_ptr<const ResourceTable> table;
  Policy policy = Policy::kDistributed;
  {
    const std::lock_guard lock(mutex_);
    const auto it = tables_.find(resource);
    if (it == tables_.end())
      return fail(Code::kNotFound, "{} is not offered on this node", resource);
    table = it->second;
    policy = rules_.policy;
    ++counts_.preferred;
  }
  ports::PreferredAnswer answer;
  for (const ports::PreferredContainer& container : request.containers) {
    TRY_ASSIGN(std::vector<std::string> ids, preferred(*table, container, policy));
    answer.containers.push_back(std::move(ids));
  }
  return answer;
}

Result<ports::AllocateAnswer> AllocationDesk::allocate_of(const std::string& resource,
                                                          const ports::AllocateRequest& request) {
  const MonotonicTime now = now_();
  const std::lock_guard lock(mutex_);
  const auto refused = [&](Error error) {
    ++counts_.refused;
    return std::unexpected(std::move(error));
  };
  const auto it = tables_.find(resource);
  if (it == tables_.end())
    return refused({Code::kNotFound, fmt::format("{} is not offered on this node", resource), {}});
  ports::AllocateAnswer answer;
  for (const std::vector<std::string>& ids : request.containers) {
    auto one = container(*it->second, ids);
    if (!one) return refused(std::move(one).error());
    answer.containers.push_back(std::move(*one));
  }
  for (const std::vector<std::string>& ids : request.containers)
    for (const std::string& id : ids)
      if (!it->second->bases[it->second->ids.find(id)->base].healthy) ++counts_.unhealthy;
  std::map<std::string, LedgerEntry>& held = ledger_[resource];
  for (const std::vector<std::string>& ids : request.containers) {
    for (const std::string& id : ids) {
      const bool known = held.contains(id);
      if (!known && ledger_size_ >= kMaxLedger) {
        ++counts_.forgotten;
        continue;
      }
      held[id] = {resource, id, now, false};
      if (!known) ++ledger_size_;
    }
  }
  ++counts_.allocated;
  version_.fetch_add(1, std::memory_order_release);
  return answer;
}

Result<ports::ContainerAnswer> AllocationDesk::container(const ResourceTable& table,
                                                         const std::vector<std::string>& ids) {
  std::set<size_t> bases;  // in the order of GPU and MIG indices, each once
  size_t shared = 0;
  for (const std::string& id : ids) {
    const std::optional<OfferedIds::Place> device = table.ids.find(id);
    if (!device)
      return fail(Code::kNotFound,
                  "{}: device {} is not offered (any more); the pod must be admitted anew",
                  table.name, json_escape(id));
    // Who held it may just have ended, and it is still listed: it goes all the same.
    if (table.bases[device->base].withheld)
      return fail(Code::kUnavailable,
                  "{}: device {} is about to go, by a change of MIG; the pod must be admitted anew",
                  table.name, json_escape(id));
    if (device->shared) ++shared;
    bases.insert(device->base);
  }
  if (table.fail_requests_greater_than_one && shared > 0 && ids.size() > 1)
    return fail(Code::kInvalidConfig,
                "{}: {} replicas asked for, and this node gives one at a time "
                "(failRequestsGreaterThanOne): more replicas are no more of a GPU; ask for 1",
                table.name, ids.size());
  if (rules_.require_distinct && bases.size() < ids.size())
    return fail(Code::kInvalidConfig,
                "{}: {} replicas asked for, some of one and the same device: more replicas of one "
                "are no more of it (--require-distinct); ask for fewer, or wait until more devices "
                "have a free one",
                table.name, ids.size());
  std::vector<AnswerDevice> devices;
  for (const size_t index : bases) {
    const BaseDevice& base = table.bases[index];
    const GpuMinor minor{base.minor};
    devices.push_back({base.uuid, base.index,
                       base.is_mig ? mig_nodes(minor, base.gi, base.ci, rules_.caps)
                                   : std::vector{gpu_node(minor)}});
  }
  return answer(devices, rules_.form,
                rules_.form.cdi_annotations ? random_uuid(random_) : std::string());
}

HeldIds AllocationDesk::held() const {
  const std::lock_guard lock(mutex_);
  HeldIds out;
  for (const auto& [resource, entries] : ledger_)
    for (const auto& [id, entry] : entries) out[resource].insert(id);
  return out;
}

std::vector<LedgerEntry> AllocationDesk::ledger() const {
  const std::lock_guard lock(mutex_);
  std::vector<LedgerEntry> out;
  for (const auto& [resource, entries] : ledger_)
    for (const auto& [id, entry] : entries) out.push_back(entry);
  return out;
}

size_t AllocationDesk::ledger_size() const {
  const std::lock_guard lock(mutex_);
  return ledger_size_;
}

void AllocationDesk::restore(const std::vector<LedgerEntry>& entries) {
  const std::lock_guard lock(mutex_);
  for (const LedgerEntry& entry : entries) {
    if (ledger_size_ >= kMaxLedger) break;
    if (ledger_[entry.resource].emplace(entry.id, entry).second) ++ledger_size_;
  }
  version_.fetch_add(1, std::memory_order_release);
}

void AllocationDesk::reconcile(const std::vector<ports::PodDevices>& pods, Duration grace) {
  const MonotonicTime now = now_();
  const std::lock_guard lock(mutex_);
  HeldIds named;
  for (const ports::PodDevices& pod : pods)
    named[pod.resource].insert(pod.ids.begin(), pod.ids.end());
  bool changed = false;
  for (auto& [resource, entries] : ledger_) {
    const auto it = named.find(resource);
    for (auto entry = entries.begin(); entry != entries.end();) {
      const bool is_named = it != named.end() && it->second.contains(entry->first);
      if (is_named) {
        entry->second.confirmed = true;
        ++entry;
      } else if (may_be_unlisted(entry->second, now, grace)) {
        ++entry;
      } else {
        entry = entries.erase(entry);
        --ledger_size_;
        changed = true;
      }
    }
  }
  for (const auto& [resource, ids] : named) {
    if (!resource.starts_with("nvidia.com/")) continue;
    for (const std::string& id : ids) {
      if (ledger_size_ >= kMaxLedger || ledger_[resource].contains(id)) continue;
      ledger_[resource][id] = {resource, id, now, true};
      ++ledger_size_;
      changed = true;
    }
  }
  if (changed) version_.fetch_add(1, std::memory_order_release);
}

AllocationDesk::Counts AllocationDesk::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace gpuslice::agent
