// The part of the agent that says which devices are healthy: what does not answer, and what XIDs
// have marked; neither hides the other.

#include <fmt/format.h>

#include "agent/agent.h"

namespace gpuslice::agent {

void Agent::on_gpu_event(const ports::GpuEvent& event) {
  health_.on_event(event, hardware_.gpus, ports_.clock.wall());
  merge_health();
}

void Agent::merge_health() {
  std::map<std::string, std::string> unhealthy = reasons_of(health_.marks(), hardware_.gpus);
  for (const auto& [uuid, why] : silent_) {
    std::string& text = unhealthy[uuid];
    text = text.empty() ? why : fmt::format("{}; {}", why, text);
  }
  if (unhealthy == hardware_.unhealthy) return;
  hardware_.unhealthy = std::move(unhealthy);
  tables_dirty_ = true;
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
  if (report.end == mig::End::kDone) health_.on_destroyed(partition_.going());
  merge_health();
  partition_.on_mig_done(report);
}

}  // namespace gpuslice::agent
