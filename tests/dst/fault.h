#pragma once

// What is done to a node on purpose. Each is counted when it strikes, not when it is prepared.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace gpuslice::dst {

enum class Fault : uint8_t {
  kBadEdit,
  kKubeletRestart,
  kFolderWiped,
  kOurSocketRemoved,
  kStreamDrop,
  kRegistrationRefused,
  kGpuLost,
  kGpuRestored,
  kDriverSlow,
  kDriverFails,
  kDriverAway,
  kAgentKilled,
  kReboot,
  kDiskFull,
  kPodsUnknown,
  kClockJump,
  kBadMigEdit,
  kMigCallsFail,
  kKilledInChange,
  kForeignChange,
  kXid,
  kKilledBetweenCalls,  // of ports
  kPowerCut,            // the same, and what was not written durably is gone
  kTwoWishes,           // sharing and MIG in one instant
  kWishTakenBack,       // half-way
  kUnknownKey,          // the Node's label names a key that is not there
  kKeyRemoved,          // from the ConfigMap, while it counts
  kApiAway,
  kApiSlow,
  kApiBusy,        // 429, 500, 503
  kWatchCut,       // anywhere in an answer
  kWatchExpired,   // a client met 410
  kPatchRefused,   // 403, 409, 422
  kNodeReplaced,   // the Node was deleted, and made again under another uid
  kLabelTaken,     // somebody else set a label of ours
  kMigPausedLeft,  // a label that a crashed MIG manager left
  kDriverHangs,    // at its next question, for longer than MIG may be pending; nothing else happens
  kApplyBeside,    // another gpuslice changed a GPU while the agent serves
  kApplyKilled,    // … and died in it
  kEccErrors,      // that could not be corrected
  kRemapPending,   // bad memory waits for a reset
  kRemapFailed,
  kRecoveryWanted,  // the driver wants a reset, a reboot or a drain
  kTooHot,          // it has reached the temperature at which it switches itself off
  kTroubleOver,     // of the five above: it is gone
  kResetByOthers,   // another program resets a GPU that nobody computes on
  kHoldersWaited,   // a change waits for who holds what must go
  kPodEvicted,      // one of them ends in its grace period
  kBudgetForbids,   // an eviction, for a while: 429
  kEvictedGone,     // it was gone already: 404
  kEvictedAnother,  // another pod has its name by then: 409
  kEvictionCut,     // the API server goes away in the middle of one
  kPodNeverEnds,    // it was evicted, and stays
  kMarkedReset,     // another program resets a GPU that an XID has marked
};
inline constexpr size_t kFaults = static_cast<size_t>(Fault::kMarkedReset) + 1;
[[nodiscard]] std::string_view fault_name(Fault fault);

}  // namespace gpuslice::dst
