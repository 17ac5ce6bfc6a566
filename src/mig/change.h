#pragma once

// Changing one GPU: checked, journalled, one step at a time, read again after each; at the end the
// GPU has its new layout or its old one, whatever happened. The GPU is the unit: others see nothing
// of it.
//
// Every round reads what is there, plans from it to the layout that is meant, and does the first
// step of that plan. So a call that failed, a call that took effect although it reported an error,
// and another program that changed the GPU meanwhile are the same case: it is planned again from
// what is really there, within bounds that have names.
//
// Blocks as long as the driver does: belongs on the NVML worker's thread or in a verb.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "mig/journal.h"
#include "mig/wish.h"
#include "ports/host.h"
#include "ports/mig.h"
#include "ports/nvml.h"

namespace gpuslice::mig {

struct Ports {
  ports::Nvml& nvml;  // closed for a reset, and opened again
  ports::Mig& mig;
  ports::GpuReset& reset;
  ports::HostFiles& files;
  ports::Locks& locks;
  ports::Clock& clock;
  ports::Pause& pause;
};

// Who holds what beyond the processes that NVML names: the kubelet's pod-resources, our ledger of
// Allocate. Asked before the journal is written and again after the withdrawal.
using HolderSource = std::function<Result<std::vector<Holder>>(const GpuState&)>;

struct Options {
  std::string journal_folder;                    // survives a reboot
  std::string lock_folder;                       // does not
  HolderSource holders;                          // may be null
  bool mode_only = false;                        // the MIG mode alone, no instances
  bool skip_reset = false;                       // a mode that waits for a reset is left waiting
  Duration wait{};                               // for holders to end
  std::function<void(const std::string&)> told;  // each step that was done; may be null
};

// Waiting, as named numbers. A client that has just gone still holds its instance for a moment.
inline constexpr Duration kFirstPause = std::chrono::milliseconds(50);
inline constexpr Duration kLongestPause = std::chrono::seconds(2);
inline constexpr int kMostTriesInUse = 6;       // 50 ms … 1.6 s: 3.1 s together
inline constexpr int kMostTriesOther = 3;       // timeouts, refusals for lack of resources, unknown
inline constexpr int kMostTriesGoingBack = 10;  // 50 ms … 2 s: 11 s together
inline constexpr int kMostForeignChanges = 3;
inline constexpr int kMostRounds = 200;  // twice the steps between any two layouts, with retries
inline constexpr Duration kHolderInterval = std::chrono::seconds(1);

enum class End {
  kAlready,  // it was so
  kDone,
  kRefused,        // nothing was touched
  kWentBack,       // it failed, and the GPU is as it was before
  kWaitsForReset,  // the mode is pending, or the driver takes no change: a reset or a reboot first
  kLost,           // the GPU does not answer; the journal is kept, the next start goes on
  kBlocked,        // somebody came to use what has to go either way; the journal is kept
  kForeign,        // another program changed it meanwhile; left as that left it
  kHalfDone,       // neither new nor old; the journal is kept
};
[[nodiscard]] std::string_view end_name(End end);

struct Report {
  GpuName gpu;
  End end = End::kAlready;
  std::optional<Error> error;  // unless kAlready or kDone
  Refusal refusal;             // of kRefused
  GpuPlan plan;                // what was to be done
  bool was_reset = false;      // the GPU, by us or by the switch of its mode
  uint32_t calls = 0;          // that change the driver's state: create, destroy, mode, reset
  std::string layout;          // what is there now, as far as it is known
};

// Forward with few tries; back, to what was there, with many.
enum class Patience { kForward, kBack };

class Change {
 public:
  Change(Ports ports, Options options, GpuName gpu);
  ~Change();
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

  // Takes the GPU's lock, ends what an earlier one left, reads, plans and checks; then writes the
  // journal. Nothing is changed. True: execute() or abandon() must follow. False: report() says
  // why there is nothing to do, or why it cannot be.
  [[nodiscard]] bool prepare(const Wish& wish);
  // What will go: MIG UUIDs of the compute instances that the plan destroys, or the GPU's UUID
  // where the mode changes. To be withdrawn from the kubelet before execute().
  [[nodiscard]] std::vector<std::string> devices_that_go() const;
  void execute();
  // Nothing was done: forgets the journal.
  void abandon();
  // All of it, for whoever has nothing to withdraw.
  void run(const Wish& wish);

  // Finishes what the journal of this GPU says, or goes back. Nothing happens without a journal.
  void recover();

  [[nodiscard]] const Report& report() const { return report_; }

 private:
  [[nodiscard]] Status lock();
  [[nodiscard]] Result<GpuState> read(Patience patience);
  [[nodiscard]] Result<std::vector<Holder>> other_holders(const GpuState& state);
  [[nodiscard]] Result<Decision> decide_now(const Wish& wish);
  // `expected`: what is there unless somebody else changed it; empty: not known.
  [[nodiscard]] Status drive(const Layout& target, Patience patience,
                             std::vector<Layout> expected = {});
  [[nodiscard]] Status step(const GpuState& state, const Layout& target, Layout& expected);
  [[nodiscard]] Status do_step(const GpuState& state, const plan::Step& step, Layout& expected);
  [[nodiscard]] Status switch_mode(const GpuState& state, bool on, Layout& expected);
  [[nodiscard]] Status reset_gpu();
  [[nodiscard]] Status find_layout();  // of a provisional plan, once MIG is on
  [[nodiscard]] Layout with_foreign(const Layout& target, const Layout& now) const;
  void notice_foreign(GpuState& state, const std::vector<Layout>& expected);
  void go_back(Error error);
  void wait_for_reset(Error error);
  void end(End end, std::optional<Error> error);
  void forget_journal();
  void tell(const std::string& text) const;
  [[nodiscard]] Status write_journal(const Layout& after, bool provisional);

  Ports ports_;
  Options options_;
  GpuName gpu_;
  Wish wish_;
  std::unique_ptr<ports::Locks::Held> lock_;
  Report report_;
  Layout before_;
  bool journal_written_ = false;
  std::vector<Holder> held_;             // by others, at the last look
  std::vector<plan::WantedGi> foreign_;  // instances that another program made meanwhile
  int foreign_changes_ = 0;
};

// Every GPU of whose change a journal is left, by UUID.
[[nodiscard]] Result<std::vector<std::string>> journals_left(ports::HostFiles& files,
                                                             const std::string& folder);

}  // namespace gpuslice::mig
