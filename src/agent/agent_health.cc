// The part of the agent that says which devices are healthy: what does not answer, what XIDs have
// marked, and what a GPU tells of itself; none hides another.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "agent/agent.h"
#include "config/flags.h"

namespace gpuslice::agent {
namespace {

using Reasons = std::map<std::string, std::string>;

void add_silent(const Reasons& silent, Reasons& out) {
  for (const auto& [uuid, why] : silent) {
    std::string& text = out[uuid];
    text = text.empty() ? why : fmt::format("{}; {}", why, text);
  }
}

// "GPU 3 (GPU-…)", "GPU 3, MIG device 1g.5gb (MIG-…)", or the UUID of what is not known any more.
std::string name_of(const std::string& uuid, const std::vector<ports::Gpu>& gpus) {
  for (const ports::Gpu& gpu : gpus) {
    if (gpu.uuid == uuid) return fmt::format("GPU {} ({})", gpu.index.value, uuid);
    for (const ports::MigDevice& device : gpu.mig_devices)
      if (device.uuid == uuid)
        return fmt::format("GPU {}, MIG device {} ({})", gpu.index.value, device.profile, uuid);
  }
  return uuid;
}

}  // namespace

void Agent::on_gpu_event(const ports::GpuEvent& event) {
  if (health_.on_event(event, hardware_.gpus, ports_.clock.now(), ports_.clock.wall()))
    next_inventory_ = ports_.clock.now();
  merge_health();
}

void Agent::merge_health() {
  Reasons unhealthy = reasons_of(health_.record(), hardware_.gpus);
  add_silent(silent_, unhealthy);
  Reasons causes = reasons_of(health_.record(), hardware_.gpus, Since::kLeftOut);
  add_silent(silent_, causes);
  tell_health(causes);
  if (unhealthy == hardware_.unhealthy) return;
  hardware_.unhealthy = std::move(unhealthy);
  tables_dirty_ = true;
}

void Agent::all_silent(const std::string& why) {
  for (const ports::Gpu& gpu : hardware_.gpus) silent_[gpu.uuid] = why;
  merge_health();
}

// One Event for each device whose health has changed, and for each trouble that is only told; the
// carrier makes equal ones one that counts.
void Agent::tell_health(const Reasons& causes) {
  if (!options_.health_event) return;
  const auto tell = [&](bool warning, std::string reason, std::string message) {
    ports::KubeEvent event;
    event.warning = warning;
    event.reason = std::move(reason);
    event.message = std::move(message);
    event.at = ports_.clock.wall();
    options_.health_event(std::move(event));
  };
  for (const auto& [uuid, why] : causes) {
    const auto told = told_unhealthy_.find(uuid);
    if (told != told_unhealthy_.end() && told->second == why) continue;
    tell(true, "GpuUnhealthy",
         fmt::format("{}: unhealthy: {}", name_of(uuid, hardware_.gpus), why));
  }
  for (const auto& [uuid, why] : told_unhealthy_) {
    const std::string name = name_of(uuid, hardware_.gpus);
    // What is gone did not become healthy.
    if (!causes.contains(uuid) && name != uuid)
      tell(false, "GpuHealthy", fmt::format("{}: healthy again", name));
  }
  told_unhealthy_ = causes;
  std::map<std::pair<std::string, GpuTrouble>, std::string> troubles;
  for (const TroubleMark& one : health_.troubles()) {
    if (one.verdict != HealthPolicy::Verdict::kTold) continue;
    const auto key = std::pair(one.gpu, one.seen.trouble);
    troubles[key] = one.seen.text;
    const auto told = told_troubles_.find(key);
    if (told == told_troubles_.end() || told->second != one.seen.text)
      tell(true, "GpuTrouble",
           fmt::format("{}: {}; its MIG devices are given out all the same",
                       name_of(one.gpu, hardware_.gpus), one.seen.text));
  }
  told_troubles_ = std::move(troubles);
}

// A driver that hangs answers nobody: the devices stay listed, unhealthy, until it does.
MonotonicTime Agent::watch_driver(MonotonicTime now) {
  const MonotonicTime end = inventory_asked_at_ + options_.inventory_patience;
  if (now < end) return end;
  const std::string what = fmt::format(
      "has not answered for {} s",
      std::chrono::duration_cast<std::chrono::seconds>(options_.inventory_patience).count());
  log_.once(Level::kError, "driver",
            fmt::format("driver: {}; its devices are unhealthy until it does", what));
  driver_text_ = "the driver " + what;
  all_silent(driver_text_);
  return tables_dirty_ ? now : MonotonicTime::max();
}

void Agent::take_clean_probes() {
  const auto times =
      config::parse_xid_times(config_.in_force()->text(config::Flag::kXidCleanProbe));
  std::map<uint64_t, Duration> probes;
  if (times)
    for (const auto& [xid, ns] : *times) probes[xid] = Duration(ns);
  health_.set_clean_probes(std::move(probes));
}

void Agent::on_mig_recovered(const std::vector<mig::Report>& reports) {
  for (const mig::Report& report : reports)
    if (report.was_reset) health_.on_reset(report.gpu.uuid);
  merge_health();
  partition_.on_mig_recovered(reports);
}

void Agent::on_mig_done(const mig::Report& report) {
  if (report.was_reset) health_.on_reset(report.gpu.uuid);
  // What went was destroyed for certain only where all of the change was done; what is there after
  // any other end, the next inventory shows.
  if (report.end == mig::End::kDone) {
    health_.on_destroyed(partition_.going());
    // Where the GPU is lost before that look it is shown as it was known: without what went.
    for (ports::Gpu& gpu : known_)
      std::erase_if(gpu.mig_devices, [this](const ports::MigDevice& one) {
        return partition_.going().contains(one.uuid);
      });
    memo_dirty_ = true;
  }
  merge_health();
  partition_.on_mig_done(report);
}

}  // namespace gpuslice::agent
