// Health: XIDs, what GPUs tell of themselves, and what the kubelet must be shown of it.

#include <algorithm>
#include <iterator>
#include <utility>

#include "node_model.h"
#include "places.h"

namespace gpuslice::dst {

using std::chrono::milliseconds;
using std::chrono::seconds;

// --- XIDs
// -----------------------------------------------------------------------------------------------------------

// Told to an agent that is there; nobody hears it otherwise.
void NodeModel::xid() {
  if (!agent_) return;
  const std::vector<ports::Gpu>& gpus = hardware_.gpus();
  const ports::Gpu& gpu = gpus[random_.below(gpus.size())];
  ports::GpuEvent event;
  event.gpu = gpu.uuid;
  constexpr uint64_t kXids[] = {13, 31, 109, 48, 79, 94, 95, 999};
  event.xid = kXids[random_.below(std::size(kXids))];
  std::vector<std::string> marked = {gpu.uuid};
  if (!gpu.mig_devices.empty() && random_.chance(2, 3)) {
    const ports::MigDevice& device = gpu.mig_devices[random_.below(gpu.mig_devices.size())];
    event.gi = device.gi;
    if (random_.chance(2, 3)) event.ci = device.ci;
    marked.clear();
    for (const ports::MigDevice& one : gpu.mig_devices)
      if (one.gi == device.gi && (!event.ci || one.ci == device.ci)) marked.push_back(one.uuid);
  }
  strike(Fault::kXid);
  after_for_agent(milliseconds(1 + random_.below(50)), [this, event, marked] {
    // The driver is let go while a mode is switched, and what it had to say is gone with it.
    if (events_paused_) return;
    agent_->on_gpu_event(event);
    if (event.xid == 13 || event.xid == 31 || event.xid == 109) return;
    for (const std::string& uuid : marked) {
      ever_struck_[uuid] = {event.gpu, std::nullopt};
      struck_.try_emplace(uuid, event.gpu, hardware_.making(uuid), now() + seconds(2));
    }
  });
}

// May be healthy again: what was destroyed, also to be made anew; a GPU that was reset, and all of
// one that was lost.
void NodeModel::heal_struck() {
  std::erase_if(struck_, [&](const auto& one) {
    return hardware_.lost(one.second.gpu) || hardware_.making(one.first) != one.second.making;
  });
}

// Another program resets a GPU that an XID has marked; if none is, one will be.
void NodeModel::reset_a_marked_one() {
  for (uint32_t i = 0; i < hardware_.count(); ++i)
    if (struck_.contains(hardware_.gpus()[i].uuid) && reset_by_others(i)) return;
  xid();
}

// The agent is about to hear of this look: a counter that is less than looks since an XID have told
// began anew, with a reset of the GPU.
void NodeModel::look_at_counters(const ports::Inventory& inventory) {
  for (const ports::Gpu& gpu : inventory.gpus) {
    if (!gpu.energy_mj || !gpu.persistence_mode.value_or(false)) continue;
    const auto began_anew = [&](const EverStruck& struck) {
      return struck.gpu == gpu.uuid && struck.energy_mj && *gpu.energy_mj < *struck.energy_mj;
    };
    std::erase_if(ever_struck_, [&](const auto& one) { return began_anew(one.second); });
    for (auto& [uuid, struck] : ever_struck_)
      if (struck.gpu == gpu.uuid) struck.energy_mj = gpu.energy_mj;
  }
}

// The next life of the agent knows what the first look after an XID told, if that was written.
void NodeModel::forget_unwritten_counts(const agent::HealthRecord& written) {
  for (auto& [uuid, struck] : ever_struck_) {
    std::optional<uint64_t> least;
    bool all = true;
    for (const agent::HealthMark& mark : written.marks) {
      bool of_it = !mark.gi && mark.gpu == uuid;
      for (const ports::Gpu& gpu : hardware_.gpus())
        for (const ports::MigDevice& device : gpu.mig_devices)
          of_it = of_it || (device.uuid == uuid && mark.is_of(gpu, device));
      if (!of_it) continue;
      all = all && mark.energy_mj;
      if (mark.energy_mj) least = std::min(least.value_or(*mark.energy_mj), *mark.energy_mj);
    }
    struck.energy_mj = all ? least : std::nullopt;
  }
}

// Nor does it know that a mark was ended, if that was not written.
void NodeModel::remember_written_marks(const std::map<std::string, std::string>& written) {
  for (const ports::Gpu& gpu : hardware_.gpus()) {
    if (written.contains(gpu.uuid))
      ever_struck_.try_emplace(gpu.uuid, EverStruck{gpu.uuid, std::nullopt});
    for (const ports::MigDevice& device : gpu.mig_devices)
      if (written.contains(device.uuid))
        ever_struck_.try_emplace(device.uuid, EverStruck{gpu.uuid, std::nullopt});
  }
}

// A mark whose counter has begun anew since it was written is ended by the next life, which does
// not know of an XID that this one heard and had yet to write.
void NodeModel::forget_what_was_reset_since(agent::HealthRecord& written) {
  const auto counts = [](const agent::HealthMark& mark) { return mark.energy_mj.has_value(); };
  if (std::ranges::none_of(written.marks, counts)) return;
  const auto there = hardware_.inventory();
  if (!there) return;
  std::erase_if(written.marks, [&](const agent::HealthMark& mark) {
    return mark.energy_mj && std::ranges::any_of(there->gpus, [&](const ports::Gpu& gpu) {
             return gpu.uuid == mark.gpu && gpu.energy_mj && *gpu.energy_mj < *mark.energy_mj;
           });
  });
}

// A full disk keeps from the next life of the agent what this one knew.
void NodeModel::forget_unwritten_marks() {
  const auto file = files_.find(std::string(kLedger) + ".health");
  std::map<std::string, std::string> known;
  if (file != files_.end())
    if (auto record = agent::parse_health(file->second, *boot_id())) {
      record->troubles.clear();
      forget_what_was_reset_since(*record);
      known = agent::reasons_of(*record, hardware_.gpus());
      remember_written_marks(known);
      forget_unwritten_counts(*record);
    }
  std::erase_if(struck_, [&](const auto& one) { return !known.contains(one.first); });
}

// --- what a GPU tells of itself
// ---------------------------------------------------------------------------------------

void NodeModel::fall_ill(Fault fault) {
  const auto index = static_cast<uint32_t>(random_.below(hardware_.count()));
  strike(fault);
  hardware_.fall_ill(index, fault, random_.next() % 64);
  if (random_.chance(3, 4)) recover_later(index, fault, seconds(random_.between(2, 60)));
}

void NodeModel::recover_later(uint32_t index, Fault fault, Duration d) {
  time_.after(d, [this, index, fault] {
    if (!healed_) (void)recover(index, fault);
  });
}

// False: there was nothing of it, or it cannot be now.
bool NodeModel::recover(uint32_t index, Fault fault) {
  const bool over = hardware_.wants_reset(index, fault) ? reset_by_others(index)
                                                        : hardware_.recover(index, fault);
  if (!over) return false;
  strike(Fault::kTroubleOver);
  // It cools down by and by.
  if (fault == Fault::kTooHot) recover_later(index, fault, seconds(random_.between(1, 20)));
  return true;
}

void NodeModel::recover_one() {
  const auto first = static_cast<uint32_t>(random_.below(hardware_.count()));
  for (uint32_t i = 0; i < hardware_.count(); ++i)
    for (const Fault fault : kIllnesses)
      if (recover((first + i) % hardware_.count(), fault)) return;
}

bool NodeModel::reset_by_others(uint32_t index) {
  const bool marked = struck().contains(hardware_.gpus()[index].uuid);
  if (!hardware_.reset_by_others(index)) return false;
  strike(Fault::kResetByOthers);
  if (marked) strike(Fault::kMarkedReset);
  after_foreign();
  return true;
}

// After the last fault each GPU is well, or stays as it is.
void NodeModel::settle_illnesses() {
  for (uint32_t i = 0; i < hardware_.count(); ++i)
    for (const Fault fault : kIllnesses) {
      if (fault != Fault::kTooHot && random_.chance(1, 3)) continue;
      if (hardware_.wants_reset(i, fault)) (void)reset_by_others(i);
      while (hardware_.recover(i, fault)) {
      }
    }
}

// --- what must be seen of it
// ----------------------------------------------------------------------------------------------

// The agent has just been told what the driver showed then: from now on, and until it is told
// otherwise, no device of these GPUs is healthy.
void NodeModel::demand(const Illnesses& seen) {
  looked_at_ = now();
  const std::map<std::string, MonotonicTime> before = std::exchange(demanded_, {});
  troubles_.clear();
  for (const auto& [uuid, ill] : seen) {
    bool& hot = hot_[uuid];
    if (ill.lost) {
      // It says nothing: what it said last holds.
    } else if (ill.heat != Hardware::Heat::kWarm) {
      hot = ill.heat == Hardware::Heat::kHot;
    }
    const auto tells = [&](bool it_is, agent::GpuTrouble trouble) {
      if (it_is && !ill.lost) troubles_.emplace(uuid, trouble);
    };
    tells(ill.ecc, agent::GpuTrouble::kEcc);
    tells(ill.remap_pending, agent::GpuTrouble::kRemapPending);
    tells(ill.remap_failed, agent::GpuTrouble::kRemapFailed);
    tells(ill.recovery, agent::GpuTrouble::kRecovery);
    tells(hot, agent::GpuTrouble::kTemperature);
    // While there are instances, what the board's memory tells as a whole takes none of them away.
    const bool unhealthy = ill.lost || ill.remap_failed || ill.recovery || hot ||
                           ((ill.ecc || ill.remap_pending) && !ill.instances);
    if (!unhealthy) continue;
    const auto since = before.find(uuid);
    demanded_[uuid] = since == before.end() ? now() : since->second;
  }
  std::erase_if(hot_, [&](const auto& one) { return !one.second || !seen.contains(one.first); });
}

// The driver answers nothing.
void NodeModel::demand_all() {
  looked_at_ = now();
  for (const ports::Gpu& gpu : hardware_.gpus()) demanded_.try_emplace(gpu.uuid, now());
}

// A full disk keeps from the next life of the agent which GPU was so hot that it must cool down.
void NodeModel::forget_unwritten_heat() {
  const auto file = files_.find(std::string(kLedger) + ".health");
  std::set<std::string> known;
  if (file != files_.end())
    if (const auto record = agent::parse_health(file->second, *boot_id()))
      for (const agent::TroubleMark& one : record->troubles)
        if (one.seen.trouble == agent::GpuTrouble::kTemperature) known.insert(one.gpu);
  std::erase_if(hot_, [&](const auto& one) { return !known.contains(one.first); });
  demanded_.clear();
}

}  // namespace gpuslice::dst
