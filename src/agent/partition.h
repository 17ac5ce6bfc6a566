#pragma once

// The controller of MIG layouts: brings every GPU to what a label wants, one GPU at a time, and
// says what became of it in the words of NVIDIA's MIG manager. Level-triggered: it compares what is
// wanted with what is there and does the next thing; a wish that changes meanwhile counts as soon
// as the GPU under change is whole again.
//
// At a start nothing is offered (may_offer()) before what an earlier life left half-way is finished
// or reverted, and before the wanted layout has been tried once: after a reboot the instances are
// gone, and pods must not be given whole GPUs instead; nor, at a first start and for a while only,
// before the API server has said what is wanted. A change withdraws the devices that go, and only
// these, before it touches the GPU.
//
// A failed pass is tried again after kFirstMigRetry, doubled up to kLongestMigRetry, and at once
// when it is asked for again. What another program does to a GPU that was made as wanted is told,
// not fought: a pass that nobody asked for leaves such a GPU alone.
//
// While holders are waited for (PartitionOptions::wait), what would go is given to nobody new: the
// wait would never end on a busy node. With an Evictor the pods among them are asked to leave: all
// of a GPU, or none where one of them stays in any case.
//
// T0 only.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/mig_runner.h"
#include "agent/mig_wanted.h"
#include "base/log.h"
#include "ports/evictor.h"
#include "ports/host.h"
#include "ports/mig_status.h"
#include "ports/nvml.h"

namespace gpuslice::agent {

inline constexpr Duration kFirstMigRetry = std::chrono::seconds(5);
inline constexpr Duration kLongestMigRetry = std::chrono::minutes(5);
// While holders are waited for.
inline constexpr Duration kHoldersRetry = std::chrono::seconds(5);
// Nothing is pending for longer without saying so.
inline constexpr Duration kPendingDeadline = std::chrono::minutes(5);
// A start changes nothing for a label that the API server named before it, until the API server has
// spoken or is not there for so long.
inline constexpr Duration kFirstLabelPatience = std::chrono::seconds(10);
// How long a first pass may keep everything else from being offered.
inline constexpr Duration kSettlePatience = std::chrono::seconds(60);
// How long a start may take before a state is shown. A label that changes later is pending at once.
inline constexpr Duration kFirstWordPatience = std::chrono::seconds(5);
// After a reboot was asked for.
inline constexpr Duration kRebootPatience = std::chrono::minutes(5);

// Restarts the machine; opt-in. T0, does not wait. kFailed, kNoPermission.
class Reboot {
 public:
  virtual ~Reboot() = default;
  [[nodiscard]] virtual Status reboot() = 0;
};

struct PartitionOptions {
  MigSource source;
  std::string journal_folder;  // "" for none
  Duration wait{};             // for holders to end, from the request on
  // For people who want back what another program changed.
  std::string how_to_ask_again = "set the label again to have it back";
};

struct PartitionPorts {
  ports::HostFiles& files;
  ports::Clock& clock;
  MigRunner* runner = nullptr;             // null: this agent changes no MIG
  ports::MigStatusBoard* board = nullptr;  // may be null
  Reboot* reboot = nullptr;                // null: never
  ports::Evictor* evictor = nullptr;       // null: pods that are in the way are never put out
};

struct PartitionCounts {
  uint64_t passes = 0;
  std::map<std::string, uint64_t> changes;  // by how they ended: mig::end_name()
};

class Partition {
 public:
  Partition(PartitionOptions options, PartitionPorts ports, Log& log);

  void start();
  // The configuration's or the label's file has changed, or SIGHUP: also a retry.
  void on_files_changed();
  void on_label(const std::optional<std::string>& label);
  // The same is wanted once more: everything is looked at, whoever changed it.
  void ask_again();
  // What became of Evictor::evict(), where it could not be done.
  void on_not_evicted(const std::string& name_space, const std::string& pod, const Error& why);
  void on_mig_recovered(const std::vector<mig::Report>& reports);
  void on_mig_checked(const std::vector<MigChecked>& checked);
  void on_mig_prepared(MigPrepared prepared);
  void on_mig_done(const mig::Report& report);
  // A fresh look at the hardware: the GPUs that are known, and why some of them do not answer, by
  // UUID.
  void on_inventory(const std::vector<ports::Gpu>& gpus,
                    const std::map<std::string, std::string>& silent);

  // Another program has ended with these GPUs: what it left half-way is finished or reverted, and
  // nothing of it is given out before.
  void on_left_by_others(const std::set<std::string>& gpus);

  // Does the next thing. Returns when it wants to be called again at the latest.
  [[nodiscard]] MonotonicTime step();
  // Devices that must not be given out now, by UUID of the GPU or of the MIG device.
  [[nodiscard]] const std::set<std::string>& withheld() const { return withheld_; }
  // … of these, what the change under way takes away.
  [[nodiscard]] const std::set<std::string>& going() const { return going_; }
  // The tables without what withheld() names are in force: from now on nobody gets it.
  void withdrawn();
  [[nodiscard]] bool awaits_withdrawal() const { return phase_ == Phase::kWithdrawing; }
  // True once after a change: the hardware is to be looked at again at once.
  [[nodiscard]] bool wants_inventory();
  [[nodiscard]] bool may_offer() const;
  // The NVML worker has something of it to do.
  [[nodiscard]] bool at_work() const {
    return phase_ != Phase::kIdle && phase_ != Phase::kWithdrawing && phase_ != Phase::kLooking;
  }
  // Layouts are being checked or changed, GPU by GPU.
  [[nodiscard]] bool passing() const { return passing_; }

  [[nodiscard]] const ports::MigStatus& status() const { return status_; }
  [[nodiscard]] const PartitionCounts& counts() const { return counts_; }
  // GPU UUID → how its last change ended, for those that did not end well.
  [[nodiscard]] const std::map<std::string, std::string>& troubles() const { return troubles_; }

 private:
  enum class Phase {
    kIdle,
    kRecovering,
    kChecking,
    kPreparing,
    kWithdrawing,
    kExecuting,
    kLooking
  };

  [[nodiscard]] bool answers(const std::string& uuid) const;
  [[nodiscard]] bool recovery_is_due() const;
  [[nodiscard]] bool recover_first();
  [[nodiscard]] MonotonicTime tell_of_what_is_under_way();
  [[nodiscard]] MonotonicTime keep_deadline();
  [[nodiscard]] bool pass_is_due() const;
  void begin_pass();
  void skip_check();
  void next_gpu();
  [[nodiscard]] bool overtaken() const;
  void note(const std::string& gpu, const Error& error);
  [[nodiscard]] bool waits_for_holders() const;
  [[nodiscard]] std::string who_stays(const std::vector<mig::Holder>& holders) const;
  void evict(const mig::GpuName& gpu, const std::vector<mig::Holder>& holders);
  void ended(const mig::Report& report);
  [[nodiscard]] bool label_may_be_old() const;
  void remember_made();
  void finish_pass();
  void fail_pass(const Error& error);
  void settle(std::string state, std::string reason);
  void show(std::string state, std::string reason);
  void retry_later(bool holders_only);
  // What another program has made of a GPU that was as wanted; nothing: it has not.
  [[nodiscard]] std::optional<std::string> drift() const;
  void notice_drift();
  void try_reboot(const Error& error);
  void set_withheld(std::set<std::string> going);
  [[nodiscard]] MonotonicTime now() const { return ports_.clock.now(); }

  PartitionOptions options_;
  PartitionPorts ports_;
  Log& log_;
  MigWanted wanted_;

  Phase phase_ = Phase::kIdle;
  bool looked_ = false;     // an inventory came
  bool fresh_ = false;      // … just now: what it shows needs no second look
  bool recovered_ = false;  // nothing of an earlier life is under way
  bool settled_ = false;    // the first pass is over, or nothing is wanted
  MonotonicTime started_{};
  std::vector<ports::Gpu> gpus_;
  std::map<std::string, std::string> silent_;
  std::string answering_;  // the GPUs that can be changed: others coming is a reason to look again
  std::set<std::string> unfinished_;  // GPUs whose journal is kept: withheld whole
  std::set<std::string> awaited_;     // … those that did not answer when it was to be finished
  std::set<std::string> going_;       // of the change under way
  // By GPU: what goes once its holders have ended, while they are waited for.
  std::map<std::string, std::vector<std::string>> kept_back_;
  std::set<std::string> withheld_;  // all of them
  bool wants_inventory_ = false;
  MonotonicTime under_way_since_ = MonotonicTime::max();

  bool asked_ = true;           // a pass is wanted whatever was done before
  bool asked_again_ = false;    // … and that is to be seen, although it is the same
  std::string request_done_;    // of the last pass
  std::string gpus_done_;       // the GPUs that it was for
  std::string request_;         // of the pass under way, or the last one
  MonotonicTime request_at_{};  // when that request was first seen
  bool passing_ = false;
  std::vector<MigTask> tasks_;  // still to be done, next first
  std::vector<Error> errors_;   // of this pass
  bool only_holders_ = true;    // … all of them: somebody holds something
  bool needs_reboot_ = false;
  std::set<std::string> evicted_;  // "ml/train-0": pods that were asked to go for this request
  std::map<std::string, std::string> not_evicted_;  // … and why they cannot, as was heard last
  std::vector<std::string> nobody_goes_;            // of this pass: GPUs, and who stays there
  MonotonicTime retry_at_ = MonotonicTime::max();
  Duration retry_ = kFirstMigRetry;
  // GPU UUID → its MIG as it was when it was as this request wants it.
  struct Made {
    std::string text;     // "" until it was looked at
    std::string devices;  // mig::devices_of() it, where it was found so: a look from before that
                          // may show something else
    bool looked = false;  // … since then
  };
  std::map<std::string, Made> made_;
  std::map<std::string, std::string> troubles_;
  ports::MigStatus status_;
  bool shown_ = false;
  MonotonicTime status_at_{};
  PartitionCounts counts_;
};

}  // namespace gpuslice::agent
