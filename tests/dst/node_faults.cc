// Chance: what happens to the node next.

#include <fmt/format.h>

#include <utility>

#include "agent/config_key.h"
#include "node_model.h"

namespace gpuslice::dst {

using std::chrono::milliseconds;
using std::chrono::seconds;

void NodeModel::fault_event(Fault fault) {
  switch (fault) {
    case Fault::kBadEdit:
      return edit_config(false);
    case Fault::kBadMigEdit:
      return edit_mig(false);
    case Fault::kTwoWishes:
      return two_wishes();
    case Fault::kWishTakenBack:
      return take_back_a_wish();
    case Fault::kUnknownKey:
      return unknown_key();
    case Fault::kKeyRemoved:
      return remove_key();
    case Fault::kKubeletRestart:
    case Fault::kFolderWiped:
    case Fault::kOurSocketRemoved:
    case Fault::kStreamDrop:
    case Fault::kRegistrationRefused:
    case Fault::kPodsUnknown:
      return kubelet_fault(fault);
    case Fault::kGpuLost:
    case Fault::kGpuRestored:
    case Fault::kDriverSlow:
    case Fault::kDriverFails:
    case Fault::kDriverAway:
    case Fault::kDriverHangs:
    case Fault::kMigCallsFail:
    case Fault::kKilledInChange:
    case Fault::kForeignChange:
    case Fault::kXid:
    case Fault::kTroubleOver:
    case Fault::kResetByOthers:
    case Fault::kMarkedReset:
      return driver_fault(fault);
    case Fault::kEccErrors:
    case Fault::kRemapPending:
    case Fault::kRemapFailed:
    case Fault::kRecoveryWanted:
    case Fault::kTooHot:
      return fall_ill(fault);
    case Fault::kHoldersWaited:
    case Fault::kPodEvicted:
    case Fault::kBudgetForbids:
    case Fault::kEvictedGone:
    case Fault::kEvictedAnother:
    case Fault::kEvictionCut:
    case Fault::kPodNeverEnds:
      return eviction_fault(fault);
    case Fault::kApplyBeside:
    case Fault::kApplyKilled:
      return apply_comes(fault == Fault::kApplyKilled);
    case Fault::kAgentKilled:
    case Fault::kMigPausedLeft:
    case Fault::kReboot:
    case Fault::kDiskFull:
    case Fault::kClockJump:
    case Fault::kKilledBetweenCalls:
    case Fault::kPowerCut:
      return machine_fault(fault);
    default:
      if (with_api_) api_fault(fault);
  }
}

void NodeModel::driver_fault(Fault fault) {
  switch (fault) {
    case Fault::kGpuLost:
      strike(fault);
      return hardware_.lose(static_cast<uint32_t>(random_.next() % 64));
    case Fault::kGpuRestored:
      if (!hardware_.restore_one()) return;
      withdrawals_.excuse();  // its MIG is changed for the wish as well, and counts for the others'
      return strike(fault);
    case Fault::kDriverSlow:
      strike(fault);
      driver_latency_ = milliseconds(random_.between(100, 8000));
      time_.after(seconds(random_.between(5, 30)), [this] { driver_latency_ = kQuickDriver; });
      return;
    case Fault::kDriverFails:
      strike(fault);
      driver_fails_ += static_cast<int>(1 + random_.below(3));
      return;
    case Fault::kDriverAway:
      strike(fault);
      hardware_.set_away(true);
      time_.after(seconds(random_.between(1, 30)), [this] { hardware_.set_away(false); });
      return;
    case Fault::kDriverHangs: {
      if (!random_.chance(1, 16)) return;  // it takes long
      strike(fault);
      const Duration hang = agent::kPendingDeadline + seconds(random_.between(20, 60));
      driver_hangs_until_ = now() + hang;
      quiet_ = hang;
      return set_label(some_label());
    }
    case Fault::kMigCallsFail:
      strike(fault);
      return hardware_.fail_changes(static_cast<int>(1 + random_.below(12)));
    case Fault::kKilledInChange:
      // Strikes when a change gets there; a label makes one.
      hardware_.die_in_change(static_cast<int>(random_.below(60)));
      return set_label(some_label());
    case Fault::kForeignChange:
      if (!hardware_.foreign_change(random_)) return;
      strike(fault);
      return after_foreign();
    case Fault::kTroubleOver:
      return recover_one();
    case Fault::kMarkedReset:
      return reset_a_marked_one();
    case Fault::kResetByOthers:
      (void)reset_by_others(static_cast<uint32_t>(random_.below(hardware_.count())));
      return;
    default:
      return xid();
  }
}

void NodeModel::machine_fault(Fault fault) {
  switch (fault) {
    case Fault::kAgentKilled:
    case Fault::kMigPausedLeft:
      if (!agent_) return;
      strike(fault);
      kill_agent();
      // A MIG manager of another make was at work meanwhile, and crashed.
      if (fault == Fault::kMigPausedLeft)
        api_.set_labels({{"nvidia.com/gpu.deploy.device-plugin", "paused-for-mig-change"}});
      return start_later(milliseconds(random_.between(10, 5000)));
    case Fault::kReboot:
      strike(fault);
      return reboot(false);
    case Fault::kDiskFull: {
      constexpr const char* kDisks[] = {"/", "/run", "/var"};
      strike(fault);
      full_ = kDisks[random_.below(3)];
      time_.after(seconds(random_.between(1, 30)), [this] { full_.clear(); });
      return;
    }
    case Fault::kClockJump:
      strike(fault);
      wall_offset_ += seconds(random_.between(-100'000, 100'000));
      return;
    default:
      // Strikes at that call; a wish makes some.
      dies_by_ = fault;
      dies_in_calls_ = static_cast<int>(random_.below(40));
      return wish();
  }
}

void NodeModel::api_fault(Fault fault) {
  switch (fault) {
    case Fault::kApiAway:
      strike(fault);
      api_.set_away(true);
      time_.after(milliseconds(random_.between(100, 60'000)), [this] { api_.set_away(false); });
      return;
    case Fault::kApiSlow:
      strike(fault);
      api_.set_slow(milliseconds(random_.between(100, 20'000)));
      time_.after(seconds(random_.between(1, 40)), [this] { api_.set_slow({}); });
      return;
    case Fault::kApiBusy:
      return api_.be_busy(static_cast<int>(1 + random_.below(8)));
    case Fault::kWatchCut:
      return api_.cut_watches();
    case Fault::kWatchExpired:
      return api_.compact();
    case Fault::kPatchRefused:
      return api_.refuse_patches(static_cast<int>(1 + random_.below(4)));
    case Fault::kNodeReplaced:
      if (!api_.exists()) return;
      strike(fault);
      wish_changed();
      api_.replace_node();
      return key_counts();
    case Fault::kLabelTaken: {
      const std::set<std::string> owned = api_.owned();
      if (owned.empty()) return;
      auto key = owned.begin();
      std::advance(key, static_cast<std::ptrdiff_t>(random_.below(owned.size())));
      strike(fault);
      return api_.set_labels({{*key, random_.chance(1, 2) ? "" : "taken"}});
    }
    default:
      return;
  }
}

void NodeModel::chance_event() {
  guarded([this] {
    const uint64_t dice = random_.below(100);
    if (dice < 35)
      pod_comes();
    else if (dice < 55)
      pod_ends();
    else if (dice < 68)
      wish();
    else
      fault_event(static_cast<Fault>(random_.below(kFaults)));
    run_agent();
  });
  run_until(
      now() + std::exchange(quiet_, {}) +
      milliseconds(random_.chance(1, 3) ? random_.between(0, 20) : random_.between(20, 5000)));
}

}  // namespace gpuslice::dst
