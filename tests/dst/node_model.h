#pragma once

// A whole node on virtual time: simulated hardware (hardware.h), files, a kubelet with pods, on
// most nodes an API server (api_server.h), and the real agent on its ports. One thread, one queue
// of events, one seeded source of chance: the same seed gives the same run, byte for byte.
//
// node_model.cc has time and the agent's life, node_files.cc the disk, node_wishes.cc what people
// want of the node, node_driver.cc the worker of NVML, node_kubelet.cc the kubelet,
// node_pods.cc pods and who puts them out,
// node_health.cc what GPUs tell, node_apply.cc another gpuslice beside the agent, node_faults.cc
// what is done to it all.

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/agent.h"
#include "agent/config_choice.h"
#include "api_server.h"
#include "base/log.h"
#include "base/random.h"
#include "bin/api_node.h"
#include "fault.h"
#include "hardware.h"
#include "kept_back.h"
#include "kube/node_kube.h"
#include "mig/change.h"
#include "pod.h"
#include "struck.h"
#include "timeline.h"
#include "withdrawals.h"

namespace gpuslice::dst {

class Trace {
 public:
  void add(std::string_view text);
  [[nodiscard]] uint64_t hash() const { return hash_; }
  [[nodiscard]] const std::vector<std::string>& lines() const { return lines_; }
  bool keep = false;

 private:
  uint64_t hash_ = 1469598103934665603ULL;
  std::vector<std::string> lines_;
};

// The kubelet's picture of one resource.
struct KubeletView {
  bool connected = false;
  std::shared_ptr<const ports::DeviceList> list;
};

class NodeModel final : public ports::HostFiles,
                        public ports::Clock,
                        public ports::Driver,
                        public ports::Kubelet,
                        public ports::MigStatusBoard,
                        public ports::Evictor,
                        public agent::MigRunner {
 public:
  using Lists = Withdrawals::Lists;

  explicit NodeModel(uint64_t seed, bool keep_trace);
  ~NodeModel() override;
  NodeModel(const NodeModel&) = delete;
  NodeModel& operator=(const NodeModel&) = delete;

  // One event of chance, then everything that is due until the next.
  void chance_event();
  // No more faults: lets `d` of virtual time pass.
  void calm(Duration d);
  void heal();  // everything that was broken works again

  // For the invariants.
  [[nodiscard]] const std::map<std::string, KubeletView>& views() const { return views_; }
  [[nodiscard]] const Lists& published() const { return published_; }
  [[nodiscard]] const std::vector<Pod>& pods() const { return pods_; }
  [[nodiscard]] Hardware& hardware() { return hardware_; }
  // Devices that are there, or were when the agent last saw the hardware.
  [[nodiscard]] bool may_be_offered(const std::string& uuid);
  // Another program, a reboot or a loss took it: then a pod may lose it.
  [[nodiscard]] bool taken_by_others(const std::string& uuid) const {
    return taken_.contains(uuid);
  }
  [[nodiscard]] const std::string& last_good_mig() const { return good_mig_; }
  [[nodiscard]] std::string mig_label() const;
  [[nodiscard]] const ports::MigStatus& mig_status() const { return mig_status_; }
  // How long the present state of MIG has been shown.
  [[nodiscard]] Duration mig_state_age() const { return now() - mig_status_at_; }
  [[nodiscard]] bool agent_alive() const { return agent_ != nullptr; }
  [[nodiscard]] const agent::Agent* agent() const { return agent_.get(); }
  [[nodiscard]] bool pods_known_since_start() const { return pods_known_; }
  // This agent has not seen it, nor could an earlier one of this boot write it down (of a GPU: its
  // MIG devices are not in the memo): if it is lost at a start, nobody can know its UUID.
  [[nodiscard]] bool unknowable(const std::string& uuid) const {
    return !shown_.contains(uuid) && !memoed_.contains(uuid);
  }
  [[nodiscard]] std::string last_good_text() const;
  // By UUID of a GPU (then all of its MIG devices as well) or of a MIG device.
  [[nodiscard]] const std::map<std::string, Struck>& struck() {
    heal_struck();
    return struck_;
  }
  // An XID marked it in this life of the machine, and no counter has told of a reset since: the
  // agent may take longer to trust it again.
  [[nodiscard]] bool was_struck(const std::string& uuid) const {
    return ever_struck_.contains(uuid);
  }
  // GPUs of which every device must be unhealthy, by what the driver has shown the agent, and from
  // when on.
  [[nodiscard]] const std::map<std::string, MonotonicTime>& demanded() const { return demanded_; }
  // By that look, what the GPUs that answered tell of themselves.
  using Troubles = std::set<std::pair<std::string, agent::GpuTrouble>>;
  [[nodiscard]] const Troubles& troubles() const { return troubles_; }
  // For how long nobody has looked at the GPUs although the driver would have answered.
  [[nodiscard]] Duration not_looked_for() const {
    return now() - std::max(looked_at_, looks_again_at_);
  }
  [[nodiscard]] const Withdrawals& withdrawals() const { return withdrawals_; }
  [[nodiscard]] const KeptBack& kept_back() const { return kept_back_; }
  // Null on a node without an API server.
  [[nodiscard]] const ApiServer* api() const { return with_api_ ? &api_ : nullptr; }
  // Files that the Node's label has chosen in this life of the agent, or at its start.
  [[nodiscard]] const std::set<std::string>& chosen_files() const { return chosen_; }
  // What the agent last wanted the Node to say of what it serves.
  [[nodiscard]] const agent::Labels& labels_wanted() const { return labels_wanted_; }
  // How long changes wait for who is in the way, and whether pods are put out for them.
  [[nodiscard]] Duration wait() const { return wait_; }
  [[nodiscard]] bool evicts() const { return evicts_; }
  // The sentence about a pod that was evicted and should not have been, or "".
  [[nodiscard]] const std::string& wrong_eviction() const { return wrong_eviction_; }
  [[nodiscard]] size_t queue_size() const { return time_.size() + questions_.size(); }
  [[nodiscard]] size_t files_count() const { return files_.size(); }
  [[nodiscard]] const std::vector<ports::Gpu>& visible_gpus() { return hardware_.gpus(); }
  [[nodiscard]] const std::array<uint64_t, kFaults>& strikes() const { return strikes_; }
  [[nodiscard]] Trace& trace() { return trace_; }

  // Ports.
  [[nodiscard]] Result<std::string> read(const std::string& path, size_t most) override;
  [[nodiscard]] Status write_atomic(const std::string& path, const std::string& text,
                                    bool durable) override;
  [[nodiscard]] Result<std::string> boot_id() override;
  [[nodiscard]] bool exists(const std::string& path) override;
  [[nodiscard]] Status remove(const std::string& path, bool durable) override;
  [[nodiscard]] Result<std::vector<std::string>> list(const std::string& folder) override;
  [[nodiscard]] MonotonicTime now() const override { return time_.now(); }
  [[nodiscard]] WallTime wall() const override {
    return WallTime(now().time_since_epoch() + wall_offset_);
  }
  void ask_inventory() override;
  [[nodiscard]] Status serve(const std::string& resource, ports::PluginService& service,
                             std::shared_ptr<const ports::DeviceList> list) override;
  void publish(const std::string& resource, std::shared_ptr<const ports::DeviceList> list) override;
  void stop(const std::string& resource) override;
  [[nodiscard]] bool socket_in_place(const std::string& resource) const override;
  [[nodiscard]] bool watched(const std::string& resource) const override;
  void register_plugin(const std::string& resource) override;
  void list_pods() override;
  [[nodiscard]] std::string kubelet_socket() const override;
  void show(const ports::MigStatus& status) override;
  void before_look() override;
  [[nodiscard]] Status evictable(const std::string& name_space,
                                 const std::string& name) const override;
  void evict(const std::string& name_space, const std::string& name) override;
  void recover(std::vector<std::string> gpus) override;
  void check(std::vector<agent::MigTask> tasks) override;
  void prepare(agent::MigTask task) override;
  void execute() override;
  void abandon() override;

 private:
  struct Served {
    ports::PluginService* service = nullptr;
    bool socket = true;
  };
  using Task = Timeline::Task;
  // A question to the driver: asked when its turn comes, answered some time later.
  using Question = std::function<Task()>;

  // Time and life.
  void strike(Fault fault);
  void note(std::string_view text);
  void after_for_agent(Duration d, Task task);  // dropped when this agent's life ends
  void run_until(MonotonicTime end);
  void run_agent();
  void start_agent();
  void begin_api(agent::AgentOptions& options);
  void kill_agent();
  void start_later(Duration d);
  // The agent may die in it, at a call of a port.
  void guarded(const std::function<void()>& work);
  void port_call();
  void reboot(bool power_cut);

  // Disk.
  void put(const std::string& path, const std::string& text);  // by hand, durable
  void lose_unwritten();
  void remember_memo(const std::string& text);

  // Wishes.
  void first_wishes();
  void wish();  // of any kind
  void edit_config(bool good);
  void edit_mig(bool good);
  void two_wishes();
  void take_back_a_wish();
  [[nodiscard]] std::string some_label();
  void set_label(const std::string& label);
  void choose_key(const std::string& key);
  void key_counts();
  void unknown_key();
  void remove_key();
  void set_config(const std::string& path, const std::string& text);
  void config_changed();
  void mig_files_changed();
  void wish_changed();
  [[nodiscard]] std::string key_path() const;  // of the key that the label chooses

  // Driver.
  void ask_driver(Question question);
  void next_question();
  void begin_question();
  [[nodiscard]] Task in_change(const std::function<Task()>& work);
  [[nodiscard]] mig::Ports change_ports();
  [[nodiscard]] mig::Options change_options();
  [[nodiscard]] std::vector<std::string> unlisted_ids() const;
  void tell(const mig::Report& report);
  void keep_back(const std::vector<agent::MigChecked>& checked, uint64_t wishes);
  void after_foreign();

  // Health.
  using Illnesses = std::map<std::string, Hardware::Illness>;
  static constexpr Fault kIllnesses[] = {Fault::kEccErrors, Fault::kRemapPending,
                                         Fault::kRemapFailed, Fault::kRecoveryWanted,
                                         Fault::kTooHot};
  void xid();
  void heal_struck();
  void reset_a_marked_one();
  void look_at_counters(const ports::Inventory& inventory);
  void forget_what_was_reset_since(agent::HealthRecord& written);
  void remember_written_marks(const std::map<std::string, std::string>& written);
  void forget_unwritten_counts(const agent::HealthRecord& written);
  void forget_unwritten_marks();
  void fall_ill(Fault fault);
  void recover_later(uint32_t index, Fault fault, Duration d);
  bool recover(uint32_t index, Fault fault);
  void recover_one();
  bool reset_by_others(uint32_t index);
  void settle_illnesses();
  void demand(const Illnesses& seen);
  void demand_all();
  void forget_unwritten_heat();
  void kept_from_looking_until(MonotonicTime t) { looks_again_at_ = std::max(looks_again_at_, t); }

  // Kubelet.
  void pod_comes();
  void pod_ends();
  void end_pod(size_t which);
  void comes_again(const std::string& name);
  void show_pod(const Pod& pod);
  [[nodiscard]] std::string new_name(const Pod& pod);
  void judge_holders(const mig::GpuState& state, const mig::Wish& wish,
                     const std::vector<mig::Holder>& in_the_way);
  void forget_who_may_go() {
    may_go_.clear();
    for_nothing_.clear();
  }
  void choose_patience();
  [[nodiscard]] ApiServer::Evicted evicted(const std::string& name, const std::string& uid);
  void eviction_fault(Fault fault);
  void deliver(const std::string& resource);
  void drop_stream(const std::string& resource);
  void folder_changed();
  [[nodiscard]] std::string some_resource();

  // Another gpuslice.
  void as_apply(int dies_in, const std::function<void()>& work);
  void apply_comes(bool dies);
  void apply_later(Duration d, void (NodeModel::*work)());
  void apply_waits();
  void apply_works();
  void apply_is_done();
  void apply_ends(bool abandons);

  // Faults.
  void fault_event(Fault fault);
  void kubelet_fault(Fault fault);
  void driver_fault(Fault fault);
  void api_fault(Fault fault);
  void machine_fault(Fault fault);

  Random random_;
  Trace trace_;
  Timeline time_;
  Duration wall_offset_ = std::chrono::hours(500'000);
  MonotonicTime agent_wakes_ = MonotonicTime::max();
  Duration quiet_{};     // nothing new happens for so long
  bool healed_ = false;  // the last fault has struck

  // Hardware.
  Hardware hardware_;
  std::deque<Question> questions_;
  bool driver_busy_ = false;
  bool events_paused_ = false;  // of the driver, from a switch of modes on to its answer
  std::unique_ptr<mig::Change> change_;
  struct Apply {
    uint64_t turn = 0;
    bool dies = false;
    uint64_t life = 0;  // of the agent that withdraws for it
    std::optional<agent::Withdrawals::Id> lease;
    MonotonicTime until{};                // it waits for the agent's answer
    std::unique_ptr<mig::Change> change;  // null: it is done, or died
  };
  std::unique_ptr<Apply> apply_;
  uint64_t applies_ = 0;
  bool apply_at_work_ = false;
  std::set<std::string> seen_uuids_;  // by the agent's last look
  std::set<std::string> shown_;       // GPUs and MIG devices, to this life of the agent
  std::set<std::string> memoed_;      // GPUs, by agents of this boot
  std::set<std::string> taken_;
  std::map<std::string, Struck> struck_;
  // By UUID of a GPU or of a MIG device, unless its GPU was seen to be reset since.
  std::map<std::string, EverStruck> ever_struck_;
  std::map<std::string, MonotonicTime> demanded_;
  Troubles troubles_;
  std::map<std::string, bool> hot_;  // so hot, by the agent's looks, that it must cool down
  MonotonicTime looked_at_{};
  MonotonicTime looks_again_at_{};  // until then somebody or something is in the way of a look
  int driver_fails_ = 0;
  static constexpr Duration kQuickDriver = std::chrono::milliseconds(5);
  Duration driver_latency_ = kQuickDriver;
  MonotonicTime driver_hangs_until_{};

  // Files.
  std::map<std::string, std::string> files_;
  std::map<std::string, std::optional<std::string>> unwritten_;  // what a power cut may bring back
  std::string full_;  // no room below this path; "" where there is
  uint64_t boot_ = 1;

  // What is wanted.
  const bool with_api_;
  std::map<std::string, std::string> good_texts_;  // the newest good text of each file
  std::string good_mig_;
  uint32_t mig_variant_ = 0;
  ports::MigStatus mig_status_;
  MonotonicTime mig_status_at_{};
  MonotonicTime request_shown_at_{};  // the first word about the newest one
  std::set<std::string> chosen_;
  Withdrawals withdrawals_;
  KeptBack kept_back_;
  uint64_t wishes_ = 0;             // that there were
  MonotonicTime wished_at_{};       // the newest
  std::set<std::string> prepared_;  // devices that the prepared change takes away
  ApiServer api_;

  // Kubelet.
  uint64_t kubelet_life_ = 1;
  bool kubelet_up_ = true;
  int refuse_ = 0;
  int pods_unknown_ = 0;
  std::map<std::string, Served> served_;
  Lists published_;
  std::map<std::string, KubeletView> views_;
  uint64_t turns_ = 0;
  std::map<std::string, uint64_t> asked_;  // by resource: the last registration that was asked for
  std::vector<Pod> pods_;
  uint64_t next_pod_ = 1;
  Duration wait_{};                         // for holders
  bool evicts_ = false;                     // … which are put out
  std::map<std::string, uint64_t> may_go_;  // pods that are in the way, by the agent's last look
  std::map<std::string, std::string> for_nothing_;  // … or that would go in vain, beside whom
  std::set<std::string> asked_to_go_;               // uids
  std::string wrong_eviction_;
  std::optional<Fault> next_eviction_;
  MonotonicTime budget_until_{};  // until then no pod may be evicted

  // The agent, with what bin/ puts around it.
  Log log_;
  uint64_t agent_life_ = 0;
  MonotonicTime agent_born_{};
  bool killing_ = false;
  int dies_in_calls_ = -1;  // of ports
  Fault dies_by_ = Fault::kKilledBetweenCalls;
  bool pods_known_ = false;
  agent::Labels labels_wanted_;
  std::unique_ptr<agent::ConfigChoice> choice_;
  std::unique_ptr<bin::ApiNode> api_node_;
  std::unique_ptr<agent::Agent> agent_;
  std::unique_ptr<kube::NodeKube> kube_;
  std::array<uint64_t, kFaults> strikes_{};
};

}  // namespace gpuslice::dst
