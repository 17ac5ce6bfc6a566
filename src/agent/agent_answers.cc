// The part of the agent that says how the desk answers and what labels tell: from the configuration
// in force and from what lies below the driver's root.

#include <fmt/format.h>

#include <algorithm>

#include "agent/agent.h"
#include "agent/device_nodes.h"

namespace gpuslice::agent {
namespace {

using config::Flag;

}  // namespace

// A hundred kilobytes: read when there is a MIG device to look up in it, and again with another
// driver.
void Agent::read_cap_minors(const ports::Inventory& inventory) {
  const bool mig = std::any_of(inventory.gpus.begin(), inventory.gpus.end(),
                               [](const ports::Gpu& gpu) { return !gpu.mig_devices.empty(); });
  if (!mig || caps_of_ == inventory.driver.version) return;
  caps_of_ = inventory.driver.version;
  caps_ = {};
  const auto text =
      ports_.files.read(options_.root + std::string(kMigMinorsFile), gpu::kMaxMigMinorsBytes);
  if (!text) return;
  auto minors = gpu::parse_mig_minors(*text);
  if (minors)
    caps_ = CapMinors(std::move(*minors));
  else
    log_.warning("{}; device nodes of MIG devices are named by the usual scheme instead",
                 minors.error().message);
}

std::string Agent::host_root(const config::Effective& config, Flag flag) const {
  if (options_.host_root) return *options_.host_root;
  std::string root = config.text(flag);
  if (root.empty()) root = config.text(Flag::kNvidiaDriverRoot);
  while (root.ends_with('/')) root.pop_back();
  return root;
}

AnswerRules Agent::answer_rules(const config::Effective& config) const {
  AnswerRules rules;
  const std::string& policy = config.text(Flag::kSharedDevicesAllocationPolicy);
  rules.policy = policy == "packed"   ? Policy::kPacked
                 : policy == "spread" ? Policy::kSpread
                                      : Policy::kDistributed;
  rules.require_distinct = options_.require_distinct;
  if (rules.require_distinct) rules.policy = Policy::kSpread;
  rules.caps = caps_;
  rules.form = answer_form(config);
  rules.form.dev_root = host_root(config, Flag::kNvidiaDevRoot);
  std::erase_if(rules.form.imex_channels, [&](const std::string& channel) {
    return !ports_.files.exists(options_.root + imex_node(channel));
  });
  if (rules.form.pass_device_specs)
    for (const std::string_view node : kControlNodes)
      if (ports_.files.exists(options_.root + std::string(node)))
        rules.form.control_nodes.emplace_back(node);
  return rules;
}

// A channel without its device node is left out of the answers; one that is required makes the
// agent not ready, as NVIDIA's plugin does not start then.
void Agent::judge_imex(const config::Effective& config, const AnswerForm& form) {
  imex_trouble_.clear();
  if (form.imex_channels.size() == config.imex.channel_ids.size()) {
    log_.over("imex");
    return;
  }
  const std::string what = fmt::format("IMEX: {} is not there", options_.root + imex_node("0"));
  log_.once(config.imex.required ? Level::kError : Level::kWarning, "imex",
            what + (config.imex.required ? ", and imex.required is true"
                                         : ": containers do not get the channel"));
  if (config.imex.required) imex_trouble_ = what + ", and imex.required is true";
}

void Agent::look_at_labels() {
  if (!labels_dirty_ || !config_.in_force() || !driver_seen_) return;
  labels_dirty_ = false;
  labels_.look(driver_, hardware_, *config_.in_force());
}

void Agent::tell_of_unhealthy_allocations() {
  const uint64_t count = desk_.counts().unhealthy;
  if (count == unhealthy_told_) return;
  log_.warning(
      "allocate: {} devices were given out that are listed as unhealthy: the kubelet chose them "
      "before it heard; their pods may fail",
      count - unhealthy_told_);
  unhealthy_told_ = count;
}

}  // namespace gpuslice::agent
