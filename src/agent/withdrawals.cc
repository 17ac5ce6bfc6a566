#include "agent/withdrawals.h"

#include <algorithm>
#include <utility>

namespace gpuslice::agent {

Result<Withdrawals::Id> Withdrawals::begin(Withdrawal withdrawal,
                                           const std::vector<ports::Gpu>& gpus) {
  const auto under_way = static_cast<size_t>(std::count_if(
      leases_.begin(), leases_.end(), [](const auto& one) { return !one.second.ended; }));
  if (under_way >= kMaxWithdrawals) {
    ++refused_;
    return fail(Code::kUnavailable,
                "{} withdrawals of devices are under way already; try again when one has ended",
                kMaxWithdrawals);
  }
  size_t named = 0;
  for (const auto& [gpu, devices] : withdrawal.devices) named += 1 + devices.size();
  if (named > kMaxWithdrawnDevices) {
    ++refused_;
    return fail(Code::kInvalidConfig, "a withdrawal names at most {} devices, this names {}",
                kMaxWithdrawnDevices, named);
  }
  Lease lease;
  for (const ports::Gpu& gpu : gpus)
    if (withdrawal.devices.contains(gpu.uuid))
      for (const ports::MigDevice& device : gpu.mig_devices) lease.known.insert(device.uuid);
  lease.withdrawal = std::move(withdrawal);
  const Id id = next_++;
  leases_.emplace(id, std::move(lease));
  return id;
}

std::set<std::string> Withdrawals::end(Id id, MonotonicTime now) {
  std::set<std::string> gpus;
  const auto it = leases_.find(id);
  if (it == leases_.end() || it->second.ended) return gpus;
  it->second.ended = true;
  it->second.ended_at = now;
  for (const auto& [gpu, devices] : it->second.withdrawal.devices) gpus.insert(gpu);
  return gpus;
}

void Withdrawals::looked(MonotonicTime begun) {
  std::erase_if(leases_, [begun](const auto& one) {
    return one.second.ended && one.second.ended_at <= begun;
  });
}

void Withdrawals::add(const Lease& lease, const std::vector<ports::Gpu>& gpus,
                      std::set<std::string>& out) {
  for (const auto& [uuid, devices] : lease.withdrawal.devices) {
    out.insert(devices.begin(), devices.end());
    for (const ports::Gpu& gpu : gpus)
      if (gpu.uuid == uuid)
        for (const ports::MigDevice& device : gpu.mig_devices)
          if (!lease.known.contains(device.uuid)) out.insert(device.uuid);
  }
}

std::set<std::string> Withdrawals::withheld(const std::vector<ports::Gpu>& gpus) const {
  std::set<std::string> out;
  for (const auto& [id, lease] : leases_) add(lease, gpus, out);
  return out;
}

std::set<std::string> Withdrawals::withheld_for(Id id, const std::vector<ports::Gpu>& gpus) const {
  std::set<std::string> out;
  if (const auto it = leases_.find(id); it != leases_.end()) add(it->second, gpus, out);
  return out;
}

std::vector<Withdrawal> Withdrawals::under_way() const {
  std::vector<Withdrawal> out;
  for (const auto& [id, lease] : leases_)
    if (!lease.ended) out.push_back(lease.withdrawal);
  return out;
}

}  // namespace gpuslice::agent
