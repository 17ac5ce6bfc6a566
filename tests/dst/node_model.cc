// Time, and the agent's life.

#include "node_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "places.h"

namespace gpuslice::dst {

using std::chrono::milliseconds;
using std::chrono::seconds;

void Trace::add(std::string_view text) {
  for (const char c : text) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  hash_ = (hash_ ^ '\n') * 1099511628211ULL;
  if (keep) lines_.emplace_back(text);
}

NodeModel::NodeModel(uint64_t seed, bool keep_trace)
    : random_(seed),
      hardware_(random_, time_),
      with_api_(random_.chance(2, 3)),
      api_(
          time_, random_, [this](Fault fault) { strike(fault); }, [this] { port_call(); }),
      log_([this](std::string_view line) { trace_.add(line.substr(0, line.size() - 1)); },
           [this] { return wall(); }) {
  trace_.keep = keep_trace;
  choose_patience();
  api_.set_evictions(
      [this](const std::string& name, const std::string& uid) { return evicted(name, uid); });
  first_wishes();
  start_agent();
}

NodeModel::~NodeModel() {
  killing_ = true;
  apply_.reset();
  kube_.reset();
  agent_.reset();
}

void NodeModel::note(std::string_view text) {
  trace_.add(fmt::format("{} {}", now().time_since_epoch().count() / 1'000'000, text));
}

void NodeModel::strike(Fault fault) {
  ++strikes_[static_cast<size_t>(fault)];
  note(fault_name(fault));
}

// --- time
// -----------------------------------------------------------------------------------------------------------

void NodeModel::after_for_agent(Duration d, Task task) {
  time_.after(d, [this, life = agent_life_, task = std::move(task)] {
    if (life == agent_life_ && agent_) task();
  });
}

void NodeModel::run_agent() {
  if (!agent_) return;
  agent_wakes_ = agent_->reconcile();
  withdrawals_.look(published_);
}

void NodeModel::run_until(MonotonicTime end) {
  for (;;) {
    const MonotonicTime task = time_.next();
    const MonotonicTime agent = agent_ ? agent_wakes_ : MonotonicTime::max();
    const MonotonicTime next = std::min(task, agent);
    if (next > end) break;
    time_.pass_until(next);
    guarded([&] {
      if (task <= agent) time_.run_next();
      run_agent();
    });
  }
  time_.pass_until(end);
}

void NodeModel::calm(Duration d) { run_until(now() + d); }

// --- the agent's life
// ---------------------------------------------------------------------------------------------------

void NodeModel::start_agent() {
  ++agent_life_;
  agent_born_ = now();
  pods_known_ = false;
  kept_from_looking_until(now());
  agent::AgentOptions options;
  options.config.path = kConfig;
  options.config.last_good_path = kLastGood;
  options.ledger_path = kLedger;
  options.partition.source.config_path = kMigConfig;
  options.partition.source.label_path = kMigLabelFile;
  options.partition.source.state_dir = kState;
  options.partition.wait = wait_;
  options.partition.journal_folder = std::string(kState) + "/mig";
  agent::AgentPorts ports{*this, *this, *this, *this};
  ports.mig = this;
  ports.mig_status = this;
  if (with_api_) {
    begin_api(options);
    if (api_node_->evictor() != nullptr) ports.evictor = this;
  }
  agent_ = std::make_unique<agent::Agent>(std::move(options), ports, log_);
  if (with_api_) {
    kube::NodeKube::Options kube;
    kube.node = ApiServer::kNode;
    kube.post = [this](Task work) { after_for_agent({}, std::move(work)); };
    kube.seed = random_.next();
    kube_ = std::make_unique<kube::NodeKube>(std::move(kube), api_.connect(), *api_node_);
    api_node_->begin(*kube_);
    choice_->start();
  }
  agent_->start();
  run_agent();
}

// As bin/agent_main.cc puts it together.
void NodeModel::begin_api(agent::AgentOptions& options) {
  options.config.path.clear();
  options.config.follows = true;
  options.partition.source.label_path.clear();
  options.partition.source.label_from_api = true;
  options.labels.to = agent::LabelsTo::kNode;
  options.labels.apply = [this](const agent::Labels& labels) {
    labels_wanted_ = labels;
    api_node_->labels().want(labels);
  };
  chosen_ = {key_path()};
  choice_ = std::make_unique<agent::ConfigChoice>(
      agent::ConfigFolderOptions{kConfigFolder, "", true}, time_,
      [this] { return list(kConfigFolder); },
      [this](Result<std::string> file) {
        wish_changed();
        agent_->on_config_file(std::move(file));
      });
  bin::ApiNode::Told told;
  told.labels_applied = [this](const Status& status) { agent_->on_labels_applied(status); };
  told.mig_label = [this](const std::optional<std::string>& label) {
    wish_changed();
    agent_->on_mig_label(label);
  };
  told.mig_asked_again = [this] {
    wish_changed();
    agent_->on_mig_asked_again();
  };
  if (evicts_)
    told.not_evicted = [this](const std::string& name_space, const std::string& pod,
                              const Error& why) { agent_->on_not_evicted(name_space, pod, why); };
  told.config_label = [this](const std::optional<std::string>& label) { choice_->on_label(label); };
  api_node_ = std::make_unique<bin::ApiNode>(time_, log_, std::move(told));
}

void NodeModel::kill_agent() {
  hardware_.in_change(false);  // what is asked from here on is asked by the worlds, not by it
  // Nothing is said goodbye to: streams break, sockets stay as files that nobody serves.
  forget_unwritten_marks();
  forget_unwritten_heat();
  killing_ = true;
  dies_in_calls_ = -1;
  if (api_node_) api_node_->end();
  kube_.reset();
  agent_.reset();
  api_node_.reset();
  choice_.reset();
  killing_ = false;
  ++agent_life_;
  agent_wakes_ = MonotonicTime::max();
  questions_.clear();
  driver_busy_ = false;
  events_paused_ = false;
  change_.reset();
  mig_status_ = {};
  shown_.clear();
  labels_wanted_.clear();
  withdrawals_.forget();
  kept_back_.forget();
  for (auto& [resource, served] : served_) drop_stream(resource);
  served_.clear();
  published_.clear();
}

void NodeModel::start_later(Duration d) {
  time_.after(d, [this] {
    if (!agent_) start_agent();
  });
}

void NodeModel::port_call() {
  if (killing_ || apply_at_work_ || dies_in_calls_ < 0) return;
  if (dies_in_calls_-- == 0) throw Died{dies_by_};
}

void NodeModel::guarded(const std::function<void()>& work) {
  try {
    work();
  } catch (const Died& died) {
    strike(died.how);
    if (died.how == Fault::kPowerCut) return reboot(true);
    kill_agent();
    start_later(milliseconds(random_.between(10, 5000)));
  }
}

void NodeModel::reboot(bool power_cut) {
  kill_agent();
  apply_.reset();
  if (power_cut) lose_unwritten();
  unwritten_.clear();
  std::erase_if(files_, [](const auto& file) { return file.first.starts_with("/run/"); });
  for (const Pod& pod : pods_) api_.remove_pod(pod.name);
  pods_.clear();
  forget_who_may_go();
  struck_.clear();
  ever_struck_.clear();
  hot_.clear();
  ++boot_;
  ++kubelet_life_;
  views_.clear();
  hardware_.reboot();
  taken_.clear();
  memoed_.clear();
  start_later(seconds(random_.between(1, 20)));
}

}  // namespace gpuslice::dst
