#pragma once

// The controller of MIG layouts on a simulated node, driven as the agent drives it: its questions
// are answered one at a time by real changes of simulated boards, or as the test says; what it
// shows and what it withdraws is kept. Virtual time.

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "../node.h"
#include "agent/partition.h"
#include "ports/kubelet.h"

namespace gpuslice::mig_test {

inline constexpr const char* kMigConfig = "/etc/mig.yaml";
inline constexpr const char* kStateDir = "/state";

class PartitionNode final : public agent::MigRunner,
                            public ports::MigStatusBoard,
                            public ports::Evictor,
                            public agent::Reboot {
 public:
  explicit PartitionNode(Node& node);

  // A life of the agent begins; the one before ends as if killed.
  void start();
  void label(std::optional<std::string> label);  // as the API server says it
  void config(const std::string& text);          // the file is written, and the agent is told
  void look();                                   // an inventory comes
  // Everything happens that can happen without time passing …
  void settle();
  // … and with it.
  void pass(Duration duration);

  [[nodiscard]] agent::Partition& partition() { return *partition_; }
  [[nodiscard]] const ports::MigStatus& status() const { return partition_->status(); }
  [[nodiscard]] std::vector<std::string> states() const;  // shown, one for each that differs
  // What the GPU is like: "3g.20gb at 0:4", as mig::layout_text() says it.
  [[nodiscard]] std::string layout(uint32_t gpu);
  [[nodiscard]] std::vector<ports::Gpu> gpus();
  void lose(uint32_t gpu, bool lost);

  Node& node;
  agent::PartitionOptions options;
  bool may_reboot = false, reboot_fails = false, may_evict = false;
  int reboots = 0;
  // The driver answers; the hardware can be looked at; the tables follow what is withheld.
  bool answers = true, looks = true, withdraws = true;
  std::string hangs_at;  // a question that is not answered while this names it
  // Before a question ("recover", "check", "prepare", "execute", "abandon") is answered.
  std::function<void(const std::string& question)> before_answer;
  // An answer instead of what the boards say, for prepare and execute.
  std::function<std::optional<mig::Report>(const std::string& question, const mig::GpuName& gpu)>
      instead;
  // What the kubelet names.
  std::vector<ports::PodDevices> pods;
  std::vector<std::string> unlisted;  // ids that were given out, and it does not name yet
  bool processes_in_pods = false;     // by their cgroups
  std::vector<std::string> evicted;   // "ml/train-0", as asked
  std::map<std::string, Error> stay;  // pods that may not be evicted, as "ml/train-0"
  int looks_announced = 0;
  std::function<void(const std::string& name_space, const std::string& pod)> on_evict;
  std::vector<std::string> asked;  // "prepare GPU 0"
  std::vector<ports::MigStatus> shown;
  std::vector<std::set<std::string>> withdrawals;
  std::string logged;

  void recover(std::vector<std::string> gpus) override;
  void check(std::vector<agent::MigTask> tasks) override;
  void prepare(agent::MigTask task) override;
  void execute() override;
  void abandon() override;
  void show(const ports::MigStatus& status) override { shown.push_back(status); }
  [[nodiscard]] Status reboot() override;
  void before_look() override { ++looks_announced; }
  [[nodiscard]] Status evictable(const std::string& name_space,
                                 const std::string& pod) const override;
  void evict(const std::string& name_space, const std::string& pod) override;

 private:
  void ask(std::string question, std::function<void()> answer);
  void finish(bool execute);
  [[nodiscard]] std::vector<mig::Holder> holders_of(const mig::GpuState& state) const;

  Log log_{[this](std::string_view line) { logged += line; }, [] { return WallTime{}; }};
  std::unique_ptr<agent::Partition> partition_;
  std::unique_ptr<mig::Change> change_;
  mig::GpuName changed_;
  std::deque<std::pair<std::string, std::function<void()>>> questions_;
  std::vector<ports::Gpu> known_;
  bool inventory_due_ = false;
  MonotonicTime next_{};
};

}  // namespace gpuslice::mig_test
