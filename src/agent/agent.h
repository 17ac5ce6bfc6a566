#pragma once

// The node agent: one state, one reconcile(). Everything that happens is an event that updates what
// is observed or what is wanted; reconcile() then brings the node nearer to it and says when it
// wants to be called again. Level-triggered: it may be called at any time and as often as anybody
// likes.
//
// T0 only, but for status() and the plugin services. It sees ports alone, so it runs unchanged on
// real adapters and on virtual time (tests/dst).

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/allocation.h"
#include "agent/cdi_keeper.h"
#include "agent/config_keeper.h"
#include "agent/health.h"
#include "agent/label_keeper.h"
#include "agent/partition.h"
#include "agent/registration.h"
#include "agent/status.h"
#include "agent/withdrawals.h"
#include "base/log.h"
#include "ports/driver.h"
#include "ports/host.h"
#include "ports/kube.h"
#include "ports/kubelet.h"
#include "ports/nvml_events.h"

namespace gpuslice::agent {

struct AgentOptions {
  ConfigSource config;
  LabelOptions labels;
  CdiOptions cdi;
  // The driver's root as the host has it, where that is not what the configuration says (--root).
  std::optional<std::string> host_root;
  bool require_distinct = false;  // see AnswerRules
  std::string root;               // goes before the driver's paths (/proc/driver, /dev); "" for "/"
  uint64_t seed = 0;              // of names that only have to differ
  std::string ledger_path;        // on a file system that a reboot empties (/run); "" for none
  PartitionOptions partition;
  HealthOptions health;
  // Beside it: which GPUs this life of the machine has shown (gpu_memo.h).
  [[nodiscard]] std::string memo_path() const {
    return ledger_path.empty() ? "" : ledger_path + ".gpus";
  }
  // … and which GPUs and MIG devices XIDs have marked (health.h).
  [[nodiscard]] std::string health_path() const {
    return ledger_path.empty() ? "" : ledger_path + ".health";
  }
  // A device became unhealthy, or is healthy again, as an Event of the Node. Null: nobody hears.
  std::function<void(ports::KubeEvent)> health_event;
  // A driver that has not answered for so long is taken for one that hangs; changes of MIG, which
  // come before an inventory, have a deadline of their own.
  Duration inventory_patience = std::chrono::seconds(30);
  // How often the hardware is asked for again without being told of a change, and while there is
  // none.
  Duration inventory_interval = std::chrono::seconds(5);
  Duration inventory_retry = std::chrono::seconds(1);
  // A configuration's file that could not be read for want of something else is read again after
  // it.
  Duration config_retry = std::chrono::seconds(1);
  // An Allocate that the kubelet's pod-resources do not name after this long is taken for released.
  Duration allocation_grace = std::chrono::seconds(30);
  // How long the first tables wait for the kubelet's word about who holds what, which is newer than
  // the ledger.
  // Shorter where the ledger knows of nothing.
  Duration pods_patience_at_start = std::chrono::seconds(3);
  Duration pods_patience_without_ledger = std::chrono::seconds(1);
  // How often pod-resources are asked for while ids wait to be released, and otherwise while any is
  // held.
  Duration pods_interval_waiting = std::chrono::seconds(1);
  Duration pods_interval = std::chrono::seconds(10);
};

struct AgentPorts {
  ports::HostFiles& files;
  ports::Clock& clock;
  ports::Driver& driver;
  ports::Kubelet& kubelet;
  MigRunner* mig = nullptr;                     // null: this agent changes no MIG
  ports::MigStatusBoard* mig_status = nullptr;  // null: nobody but status() is told
  Reboot* reboot = nullptr;                     // null: it never restarts the machine
  ports::Evictor* evictor = nullptr;            // null: it puts no pod out
};

class Agent final : public ports::KubeletEvents,
                    public ports::DriverEvents,
                    public ports::GpuEvents {
 public:
  Agent(AgentOptions options, AgentPorts ports, Log& log);
  ~Agent() override;
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  // Stops serving all resources. The kubelet's port is not called after it; nothing but ledger()
  // and status() may be.
  void leave();

  // Reads configuration and ledger and asks for the hardware. Call reconcile() after it.
  void start();
  // The configuration's file (or the folder it lies in) has changed, or SIGHUP.
  void on_config_changed() { look_at_config_ = true; }
  // Which file it is, where ConfigSource::follows is set; also: look at it again.
  void on_config_file(Result<std::string> path) {
    config_.use(std::move(path));
    look_at_config_ = true;
  }
  // The MIG configuration's or the label's file has changed, or SIGHUP.
  void on_mig_files_changed() { partition_.on_files_changed(); }
  // The node's label nvidia.com/mig.config, each time that it is said.
  void on_mig_label(const std::optional<std::string>& label) { partition_.on_label(label); }
  void on_mig_asked_again() { partition_.ask_again(); }
  // See Partition::on_not_evicted().
  void on_not_evicted(const std::string& name_space, const std::string& pod, const Error& why) {
    partition_.on_not_evicted(name_space, pod, why);
  }
  void on_mig_recovered(const std::vector<mig::Report>& reports);
  void on_mig_checked(const std::vector<MigChecked>& checked) {
    partition_.on_mig_checked(checked);
  }
  void on_mig_prepared(MigPrepared prepared) { partition_.on_mig_prepared(std::move(prepared)); }
  void on_mig_done(const mig::Report& report);
  // Another program is about to change GPUs: what it takes away is withdrawn at the next
  // reconcile(). give_back() must follow. Errors: see Withdrawals::begin().
  [[nodiscard]] Result<Withdrawals::Id> withdraw(Withdrawal withdrawal) {
    return withdrawals_.begin(std::move(withdrawal), hardware_.gpus);
  }
  // From now on nobody is given any of it.
  [[nodiscard]] bool withdrawn(Withdrawals::Id id) const;
  // The hardware is looked at again, and what is there then is offered; what was left half-way is
  // finished first.
  void give_back(Withdrawals::Id id);
  // Any thread. What was given out, for whoever looks who is in the way of a change.
  [[nodiscard]] std::vector<LedgerEntry> ledger() const { return desk_.ledger(); }
  void on_inventory(Result<ports::Inventory> inventory) override;
  void on_gpu_event(const ports::GpuEvent& event) override;
  void on_registered(const std::string& resource, Status status) override;
  void on_pods(Result<std::vector<ports::PodDevices>> pods) override;
  void on_kubelet_folder_changed() override;
  // What became of LabelOptions::apply.
  void on_labels_applied(const Status& status) { labels_.applied(status); }

  // Returns the time at which it wants to be called again even if nothing happens.
  [[nodiscard]] MonotonicTime reconcile();

  // T0. What status() leaves out.
  [[nodiscard]] AgentDetails details() const;
  // Any thread. Never null.
  [[nodiscard]] std::shared_ptr<const AgentStatus> status() const;

 private:
  void read_ledger();
  void write_ledger();
  void read_memo();
  void read_cap_minors(const ports::Inventory& inventory);
  void write_memo();
  // hardware_.unhealthy, from what is silent and what XIDs and troubles have marked.
  void merge_health();
  void all_silent(const std::string& why);
  void tell_health(const std::map<std::string, std::string>& causes);
  [[nodiscard]] MonotonicTime watch_driver(MonotonicTime now);
  void take_clean_probes();
  void tell_of_unhealthy_allocations();
  void judge_config();
  [[nodiscard]] MonotonicTime step_partition(MonotonicTime now);
  // In force: the tables are made without it.
  [[nodiscard]] bool nobody_gets(const std::set<std::string>& devices) const;
  void make_tables(MonotonicTime now);
  void judge_imex(const config::Effective& config, const AnswerForm& form);
  void look_at_labels();
  // The driver's root, or that of its device nodes, as the host has it; "" for "/".
  [[nodiscard]] std::string host_root(const config::Effective& config, config::Flag flag) const;
  [[nodiscard]] AnswerRules answer_rules(const config::Effective& config) const;
  void warn(const std::vector<std::string>& warnings);
  [[nodiscard]] MonotonicTime step_registrations(MonotonicTime now);
  [[nodiscard]] MonotonicTime ask_what_is_due(MonotonicTime now);
  [[nodiscard]] bool releases_awaited() const;
  void publish_status();

  AgentOptions options_;
  AgentPorts ports_;
  Log& log_;
  AllocationDesk desk_;
  ConfigKeeper config_;
  LabelKeeper labels_;
  CdiKeeper cdi_;
  Partition partition_;
  Withdrawals withdrawals_;
  Health health_;

  // Observed.
  Hardware hardware_;
  std::map<std::string, std::string> silent_;  // UUID of a GPU that does not answer → why
  std::vector<ports::Gpu>
      known_;  // every GPU that this boot has shown, by index: names those that are silent
  std::map<std::string, std::string> told_unhealthy_;  // by UUID: why, without times; as Events
  std::map<std::pair<std::string, GpuTrouble>, std::string> told_troubles_;
  std::string memo_written_;
  bool memo_dirty_ = true;  // known_ may not be as it was written
  CapMinors caps_;
  std::string caps_of_;  // the driver version that they were read under; empty: not yet
  bool driver_seen_ = false;
  ports::DriverInfo driver_;  // as it answered last
  std::string driver_text_ = "not asked yet";
  std::shared_ptr<const std::vector<ports::PodDevices>> pods_ =  // never null
      std::make_shared<const std::vector<ports::PodDevices>>();
  // What the newest snapshots share: of hardware_ and of the ledger; null: to be made anew.
  std::shared_ptr<const std::vector<ports::Gpu>> gpus_shown_;
  std::shared_ptr<const HeldIds> held_shown_;
  uint64_t held_shown_version_ = 0;

  // Wanted.
  bool look_at_config_ = true;
  MonotonicTime look_again_at_ = MonotonicTime::max();  // at the configuration
  bool tables_dirty_ = true;
  bool may_offer_ = false;     // partition_'s, as the tables know it
  bool labels_dirty_ = false;  // the hardware was looked at, or the configuration is another one
  DeviceTable tables_;
  std::set<std::string> withheld_in_force_;  // that tables_ were made without
  std::vector<std::string> warned_;
  std::map<std::string, std::unique_ptr<Registration>> registrations_;

  bool inventory_asked_ = false;
  MonotonicTime inventory_asked_at_{};
  MonotonicTime next_inventory_{};
  bool pods_heard_ = false;  // an answer came, or the wait for the first one is over
  MonotonicTime pods_heard_by_{};
  bool pods_asked_ = false;
  MonotonicTime pods_asked_at_{};
  MonotonicTime next_pods_{};
  uint64_t ledger_written_ = 0;
  uint64_t ledger_seen_ = 0;
  uint64_t inventory_errors_ = 0;
  uint64_t unhealthy_told_ = 0;
  std::string imex_trouble_;  // "" when there is none
  uint64_t reconciles_ = 0;
  std::string boot_id_;

  mutable std::mutex status_mutex_;
  std::shared_ptr<const AgentStatus> status_;
};

}  // namespace gpuslice::agent
