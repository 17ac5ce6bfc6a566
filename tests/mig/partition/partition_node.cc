#include "partition_node.h"

#include <fmt/format.h>

#include <algorithm>

#include "mig/holders.h"

namespace gpuslice::mig_test {

PartitionNode::PartitionNode(Node& the_node) : node(the_node) {
  options.source.config_path = kMigConfig;
  options.source.label_from_api = true;
  options.source.state_dir = kStateDir;
  options.journal_folder = Node::options().journal_folder;
}

void PartitionNode::start() {
  questions_.clear();
  change_.reset();
  inventory_due_ = false;
  partition_ = std::make_unique<agent::Partition>(
      options,
      agent::PartitionPorts{node.files, node, this, this, may_reboot ? this : nullptr,
                            may_evict ? this : nullptr},
      log_);
  partition_->start();
  inventory_due_ = true;
  settle();
}

void PartitionNode::label(std::optional<std::string> label) {
  partition_->on_label(std::move(label));
  settle();
}

void PartitionNode::config(const std::string& text) {
  node.files.files[kMigConfig] = text;
  if (partition_ == nullptr) return;
  partition_->on_files_changed();
  settle();
}

std::vector<ports::Gpu> PartitionNode::gpus() {
  sim::WorldNvml quiet(*node.world);
  std::vector<ports::Gpu> out;
  const uint32_t count = quiet.gpu_count().value();
  for (uint32_t i = 0; i < count; ++i)
    if (auto gpu = quiet.gpu(GpuIndex{i}, ports::Detail::kInventory)) out.push_back(*gpu);
  return out;
}

// A GPU that does not answer is told as it was when it last did, as the agent tells it.
void PartitionNode::look() {
  const std::vector<ports::Gpu> there = gpus();
  std::vector<ports::Gpu> all = there;
  std::map<std::string, std::string> silent;
  for (const ports::Gpu& known : known_) {
    if (std::any_of(there.begin(), there.end(),
                    [&](const ports::Gpu& g) { return g.uuid == known.uuid; }))
      continue;
    all.push_back(known);
    silent[known.uuid] = "GPU is lost";
  }
  std::sort(all.begin(), all.end(),
            [](const ports::Gpu& a, const ports::Gpu& b) { return a.index < b.index; });
  known_ = all;
  partition_->on_inventory(all, silent);
}

void PartitionNode::lose(uint32_t gpu, bool lost) {
  const auto done = node.world->write([&](sim::State& state) {
    state.gpus[gpu].lost = lost ? 1 : 0;
    return true;
  });
  CHECK(done.value_or(false), "a simulated GPU cannot be lost");
}

void PartitionNode::settle() {
  for (int i = 0; i < 10'000; ++i) {
    bool moved = false;
    next_ = partition_->step();
    if (partition_->wants_inventory()) inventory_due_ = true;
    if (partition_->awaits_withdrawal() && withdraws) {
      withdrawals.push_back(partition_->withheld());
      partition_->withdrawn();
      moved = true;
    } else if (inventory_due_ && looks) {
      inventory_due_ = false;
      look();
      moved = true;
    } else if (!questions_.empty() && answers && questions_.front().first != hangs_at) {
      auto [question, answer] = std::move(questions_.front());
      questions_.pop_front();
      if (before_answer) before_answer(question);
      answer();
      moved = true;
    }
    if (!moved) return;
  }
  CHECK(false, "the controller never comes to rest");
}

void PartitionNode::pass(Duration duration) {
  const MonotonicTime until = node.time + duration;
  settle();
  for (int i = 0; next_ <= until; ++i) {
    CHECK(i < 100'000, "the controller wants to be called again and again");
    node.time = std::max(node.time, next_);
    settle();
  }
  node.time = std::max(node.time, until);
  settle();
}

std::vector<std::string> PartitionNode::states() const {
  std::vector<std::string> out;
  for (const ports::MigStatus& one : shown)
    if (out.empty() || out.back() != one.state) out.push_back(one.state);
  return out;
}

std::string PartitionNode::layout(uint32_t gpu) {
  const mig::GpuState state = node.look(gpu);
  return mig::layout_text(state.layout(), state);
}

void PartitionNode::ask(std::string question, std::function<void()> answer) {
  CHECK(questions_.empty(), "two questions to the driver at once");
  questions_.emplace_back(std::move(question), std::move(answer));
}

void PartitionNode::recover(std::vector<std::string> gpus) {
  asked.push_back("recover");
  ask("recover", [this, gpus = std::move(gpus)] {
    std::vector<mig::Report> reports;
    for (const ports::Gpu& gpu : known_) {
      if (std::find(gpus.begin(), gpus.end(), gpu.uuid) == gpus.end()) continue;
      const mig::GpuName name = mig::name_of(gpu);
      if (auto said = instead ? instead("recover", name) : std::nullopt) {
        reports.push_back(*said);
        continue;
      }
      mig::Change change(node.ports(), Node::options(), name);
      change.recover();
      reports.push_back(change.report());
    }
    partition_->on_mig_recovered(reports);
  });
}

std::vector<mig::Holder> PartitionNode::holders_of(const mig::GpuState& state) const {
  const std::vector<mig::Holder> by_pods = mig::pod_holders(state, pods);
  return mig::merged(mig::with_pods(mig::process_holders(state), by_pods,
                                    [this](uint32_t) { return processes_in_pods; }),
                     {by_pods, mig::ledger_holders(state, unlisted)});
}

void PartitionNode::check(std::vector<agent::MigTask> tasks) {
  asked.push_back("check");
  ask("check", [this, tasks = std::move(tasks)] {
    std::vector<agent::MigChecked> checked;
    const auto holders = [this](const mig::GpuState& state) { return holders_of(state); };
    for (const agent::MigTask& task : tasks)
      checked.push_back(mig::check(*node.nvml, holders, task.gpu, task.wish));
    partition_->on_mig_checked(checked);
  });
}

void PartitionNode::prepare(agent::MigTask task) {
  asked.push_back("prepare " + task.gpu.text());
  ask("prepare", [this, task = std::move(task)] {
    changed_ = task.gpu;
    if (auto said = instead ? instead("prepare", task.gpu) : std::nullopt) {
      agent::MigPrepared prepared;
      prepared.report = *said;
      prepared.report.gpu = task.gpu;
      return partition_->on_mig_prepared(prepared);
    }
    change_ = std::make_unique<mig::Change>(node.ports(), Node::options(), task.gpu);
    const agent::MigPrepared prepared = mig::prepare(*change_, task.wish);
    if (!prepared.ready) change_.reset();
    partition_->on_mig_prepared(prepared);
  });
}

void PartitionNode::finish(bool execute) {
  if (execute)
    change_->execute();
  else
    change_->abandon();
  mig::Report report = change_->report();
  change_.reset();
  if (auto said = instead && execute ? instead("execute", changed_) : std::nullopt) {
    report = *said;
    report.gpu = changed_;
  }
  partition_->on_mig_done(report);
}

void PartitionNode::execute() {
  asked.push_back("execute " + changed_.text());
  ask("execute", [this] { finish(true); });
}

void PartitionNode::abandon() {
  asked.push_back("abandon " + changed_.text());
  ask("abandon", [this] { finish(false); });
}

Status PartitionNode::evictable(const std::string& name_space, const std::string& pod) const {
  const auto found = stay.find(name_space + "/" + pod);
  if (found != stay.end()) return std::unexpected(found->second);
  return {};
}

void PartitionNode::evict(const std::string& name_space, const std::string& pod) {
  evicted.push_back(name_space + "/" + pod);
  if (on_evict) on_evict(name_space, pod);
}

Status PartitionNode::reboot() {
  ++reboots;
  if (reboot_fails) return fail(Code::kFailed, "systemctl reboot: exit status 1");
  return {};
}

}  // namespace gpuslice::mig_test
