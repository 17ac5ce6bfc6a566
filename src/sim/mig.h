#pragma once

// The MIG engine: what the driver does to instances, as pure functions on a State. No clock but the
// State's, no file, no process list: who holds what stands in the State (the writer has already
// swept the dead). A function that answers anything but kSuccess has changed nothing but the call
// counters of that GPU; SetMigMode that answers kSuccess with activation kInUse has stored the
// pending mode.
//
// Instances are named by GI id (0..14) and CI id (0..7); profiles by ProfileId, the number that
// `nvidia-smi mig -cgi` takes, or by NVML's enum where a function says so. Sources of the rules:
// NVML's header (return codes), the MIG guide (listings), the open kernel modules (ids and spans).

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/ids.h"
#include "gpu/board.h"
#include "sim/default_placement.h"
#include "sim/ret.h"
#include "sim/state.h"

namespace gpuslice::sim {

// Who calls. `admin`: root, CAP_SYS_ADMIN, or an open mig/config capability node.
struct Caller {
  bool admin = false;
  uint16_t client = kNoClient;  // its slot: what it holds itself never stands in its own way
};

struct MigDevice {
  uint8_t gi = 0;
  uint8_t ci = 0;
  friend auto operator<=>(const MigDevice&, const MigDevice&) = default;
};

// The MIG devices of a GPU in the order of their indices: ascending (GI id, CI id), without holes.
struct MigDevices {
  std::array<MigDevice, kMaxMigDevices> device{};
  uint32_t count = 0;
  // Itself a range, so that `for (… : mig_devices(…))` keeps it alive.
  [[nodiscard]] const MigDevice* begin() const { return device.data(); }
  [[nodiscard]] const MigDevice* end() const { return device.data() + count; }
};

// --- reading ---

[[nodiscard]] const gpu::Board& board_of(const State& state, uint32_t gpu);
[[nodiscard]] bool mig_capable(const State& state, uint32_t gpu);
// The profile of a ProfileId on this board: its index into Board::profiles, or nothing.
[[nodiscard]] std::optional<uint8_t> profile_index(const State& state, uint32_t gpu, ProfileId id);
[[nodiscard]] const gpu::Profile& gi_profile(const State& state, uint32_t gpu, uint8_t gi);
// The compute instance profile of NVML enum `ci_enum` inside a GI of this board; nothing where it
// is not offered.
[[nodiscard]] const gpu::CiProfile* ci_profile(const State& state, uint32_t gpu, uint8_t gi,
                                               uint8_t ci_enum);

[[nodiscard]] MigDevices mig_devices(const State& state, uint32_t gpu);
// The index of a compute instance among mig_devices().
// "1g.5gb", or "1c.3g.20gb" where the compute instance is smaller than its GI.
[[nodiscard]] std::string ci_name(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci);
[[nodiscard]] std::optional<uint32_t> mig_index(const State& state, uint32_t gpu, uint8_t gi,
                                                uint8_t ci);
// GetMaxMigDeviceCount: 0 where MIG is not supported or (unless the quirk is on) not enabled.
[[nodiscard]] uint32_t max_mig_devices(const State& state, uint32_t gpu);
// "MIG-…", derived from the GPU, the GI id and the engine: the same again after destroy and create.
[[nodiscard]] std::string mig_uuid(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci);
struct Instance {
  uint32_t gpu = 0;
  uint8_t gi = 0;
  uint8_t ci = 0;
};
[[nodiscard]] std::optional<Instance> find_mig_uuid(const State& state, std::string_view uuid);

// All placements of a profile, free or not, in ascending order; independent of the MIG mode.
// `out` is filled up to its size; `count` is how many there are. kInvalidArgument: unknown profile.
[[nodiscard]] Ret gi_placements(const State& state, uint32_t gpu, ProfileId profile,
                                std::span<Placement> out, uint32_t& count);
// How many instances of a profile could be made now, or with MIG off, were it on.
[[nodiscard]] Ret gi_capacity(const State& state, uint32_t gpu, ProfileId profile, uint32_t& count);
[[nodiscard]] Ret ci_placements(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci_enum,
                                std::span<Placement> out, uint32_t& count);
[[nodiscard]] Ret ci_capacity(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci_enum,
                              uint32_t& count);

// Somebody but `except` computes on the GPU / on the GI / on the CI (kNone as in Work).
[[nodiscard]] bool working_on(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci,
                              uint16_t except = kNoClient);
[[nodiscard]] bool attached_by_others(const State& state, uint32_t gpu, uint16_t except);

// --- changing ---
//
// Each call that changes instances or the mode in force pushes kEventMigConfig for its GPU
// (events.h), so that its callers need not.

// nvmlDeviceSetMigMode. Ampere: takes effect inside the call when nobody else is attached or
// working, else stays pending until reset or reboot (kSuccess, activation kInUse). Hopper and
// newer: takes effect without a reset when nobody works. In a VM: activation kResetRequired.
// Disabling while instances exist: kInUse, nothing is stored. kNotSupported where the board has no
// MIG, kNoPermission.
[[nodiscard]] Ret set_mig_mode(State& state, uint32_t gpu, bool enable, const Caller& caller,
                               Ret& activation);

// nvmlDeviceCreateGpuInstance(WithPlacement): without a placement the driver's own choice
// (default_placement.h). kNotSupported with MIG off; kInvalidArgument for a profile or placement
// that the board does not offer; kInsufficientResources when occupied, counts or engines exhausted;
// kInUse when it would be the first GI and somebody works on the GPU.
[[nodiscard]] Ret create_gi(State& state, uint32_t gpu, ProfileId profile,
                            std::optional<Placement> placement, const Caller& caller, uint8_t& gi);
// kNotFound: no such GI. kInUse: it has a CI, somebody works on it, or (strict nodes) holds it.
[[nodiscard]] Ret destroy_gi(State& state, uint32_t gpu, uint8_t gi, const Caller& caller);

[[nodiscard]] Ret create_ci(State& state, uint32_t gpu, uint8_t gi, uint8_t ci_enum,
                            std::optional<Placement> placement, const Caller& caller, uint8_t& ci);
[[nodiscard]] Ret destroy_ci(State& state, uint32_t gpu, uint8_t gi, uint8_t ci,
                             const Caller& caller);

// A GPU reset: instances go; Ampere then runs in the pending mode, Hopper and newer without MIG.
// kInUse: somebody works on it or, on Ampere, is attached. kGpuIsLost. kNotSupported in a VM.
[[nodiscard]] Ret reset_gpu(State& state, uint32_t gpu, const Caller& caller);

// The driver's modules out and in again. kInUse while anybody else is attached to any GPU.
[[nodiscard]] Ret driver_reload(State& state, const Caller& caller);

// The node reboots: always possible. Work ends, attachments end, lost GPUs are back, instances are
// gone, Ampere keeps its (pending) mode. Generations and call counts go on.
void reboot(State& state);

enum class Call : uint8_t { kCreateGi, kDestroyGi, kCreateCi, kDestroyCi, kSetMigMode, kReset };
// Counts a call that a fault answered before it reached the functions above.
void count_call(State& state, uint32_t gpu, Call call, bool ok);

}  // namespace gpuslice::sim
