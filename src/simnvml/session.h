#pragma once

// What stands between the exported C functions and the simulated world: counted init, the handle
// table, the injected faults, and the guard that every call passes. Nothing here throws across it
// and nothing aborts.
//
// Handles are numbers, not addresses: a mark that no address has, the object's generation, and
// which object. A pointer from elsewhere, or a handle of an object that is gone, is told by looking
// at it, and nothing is ever dereferenced. Thread-safe; safe across fork: a child reads on and is a
// client of its own from its own init.

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "gpu/board.h"
#include "sim/faults.h"
#include "sim/mig.h"
#include "sim/state.h"
#include "sim/visibility.h"
#include "sim/world.h"
#include "simnvml/exports.h"

namespace gpuslice::simnvml {

using sim::Ret;

enum class Kind : uint8_t { kGpu, kMig, kGi, kCi };

struct Object {
  Kind kind = Kind::kGpu;
  uint32_t gpu = 0;
  uint8_t gi = 0;  // of kMig, kGi, kCi
  uint8_t ci = 0;  // of kMig, kCi
};

// What a call works with: one consistent snapshot.
struct Call {
  sim::World& world;
  const sim::Visibility& visible;
  std::shared_ptr<const sim::State> snapshot;
  Object object{};

  [[nodiscard]] const sim::State& state() const { return *snapshot; }
  [[nodiscard]] const sim::Gpu& gpu() const { return state().gpus[object.gpu]; }
  [[nodiscard]] const gpu::Board& board() const { return sim::board_of(state(), object.gpu); }
  [[nodiscard]] bool is_mig() const { return object.kind == Kind::kMig; }
  [[nodiscard]] int64_t now() const;
  [[nodiscard]] sim::Caller caller() const;
};

// `name` is the call's, for faults.
[[nodiscard]] Ret init(const char* name, uint32_t flags);
[[nodiscard]] Ret shutdown();

// Of event_sets.cc: the last shutdown ends all event sets; a fork finds their mutex free.
void drop_event_sets();
void lock_event_sets();
void unlock_event_sets();
// The driver's major version.
[[nodiscard]] uint32_t driver_major(const sim::State& state);
// Whether the driver answers as the one that was measured, 580.159.04 (docs/hardware.md). What
// depends on it is known of that branch alone: older ones keep what was read of them, unmeasured.
[[nodiscard]] inline bool as_measured(const Call& call) {
  return driver_major(call.state()) >= 580;
}

[[nodiscard]] Handle handle_of(const sim::State& state, const Object& object);
// What a handle stands for now; nothing for a stale or foreign one.
[[nodiscard]] std::optional<Object> object_of(const sim::State& state, Handle handle);
// GPUs that the caller sees, in PCI order: world indices.
[[nodiscard]] uint32_t visible_gpus(const Call& call, uint32_t (&out)[sim::kMaxGpus]);
[[nodiscard]] bool visible_mig(const Call& call, uint32_t gpu, uint8_t gi, uint8_t ci);

// Remembers in the world that this process has an open handle on an instance (of kGi or kCi): on a
// strict node that stands in the way of others who would destroy it. No cost elsewhere.
void hold(const Call& call, const Object& object);
// The handle of an instance, which this process holds from now on.
[[nodiscard]] Handle hand_out(const Call& call, const Object& object);

// The open session, or UNINITIALIZED. `name` is the call's, for faults; null where they strike
// later, so that one call is never counted twice.
struct Guard {
  Guard(const char* name, uint32_t gpu);
  Ret ret = Ret::kUninitialized;
  sim::World* world = nullptr;
  const sim::Visibility* visible = nullptr;
  std::shared_ptr<const sim::State> snapshot;
};

// For faults that name a GPU.
void strike_if_due(const char* name, uint32_t gpu, Guard& guard);

int to_int(Ret ret);

// A call that is about no device.
template <class F>
int node_call(const char* name, F&& f) noexcept {
  try {
    Guard guard(name, sim::kAnyGpu);
    if (guard.ret != Ret::kSuccess) return to_int(guard.ret);
    Call call{*guard.world, *guard.visible, guard.snapshot};
    return to_int(f(call));
  } catch (...) {
    return to_int(Ret::kUnknown);
  }
}

enum Accept : unsigned { kGpuOnly = 1, kMigOnly = 2, kGpuOrMig = 3 };

[[nodiscard]] Ret admit(const char* name, Guard& guard, Handle handle, Object& object);

// A call about a device. A GPU call on a MIG handle answers NOT_SUPPORTED, a MIG call on a whole
// GPU INVALID_ARGUMENT.
template <class F>
int device_call(const char* name, Handle handle, Accept accept, F&& f) noexcept {
  try {
    Guard guard(nullptr, sim::kAnyGpu);  // admit() strikes, once it knows the GPU
    if (guard.ret != Ret::kSuccess) return to_int(guard.ret);
    Object object;
    if (const Ret ret = admit(name, guard, handle, object); ret != Ret::kSuccess)
      return to_int(ret);
    if (object.kind == Kind::kGi || object.kind == Kind::kCi) return to_int(Ret::kInvalidArgument);
    if (object.kind == Kind::kMig && (accept & kMigOnly) == 0) return to_int(Ret::kNotSupported);
    if (object.kind == Kind::kGpu && (accept & kGpuOnly) == 0) return to_int(Ret::kInvalidArgument);
    Call call{*guard.world, *guard.visible, guard.snapshot, object};
    return to_int(f(call));
  } catch (...) {
    return to_int(Ret::kUnknown);
  }
}

// A call about a GPU instance or a compute instance.
template <class F>
int instance_call(const char* name, Handle handle, Kind kind, F&& f) noexcept {
  try {
    Guard guard(nullptr, sim::kAnyGpu);  // admit() strikes, once it knows the GPU
    if (guard.ret != Ret::kSuccess) return to_int(guard.ret);
    Object object;
    if (const Ret ret = admit(name, guard, handle, object); ret != Ret::kSuccess)
      return to_int(ret);
    if (object.kind != kind) return to_int(Ret::kInvalidArgument);
    Call call{*guard.world, *guard.visible, guard.snapshot, object};
    return to_int(f(call));
  } catch (...) {
    return to_int(Ret::kUnknown);
  }
}

// Copies `text` with its NUL into a caller's buffer: INSUFFICIENT_SIZE when it does not fit (no
// room at all is too little room), and nothing is written.
[[nodiscard]] Ret put_text(char* out, uint32_t length, std::string_view text);
// A profile's name in its struct: cut where it must be, filled with NULs.
void put_name(char (&out)[96], std::string_view name);
// Their number always; INSUFFICIENT_SIZE where an array is given and has not room for all of them.
[[nodiscard]] Ret put_placements(std::span<const sim::Placement> all, PlacementAbi* out,
                                 uint32_t* count);
template <class T>
[[nodiscard]] Ret put(T* out, T value) {
  if (out == nullptr) return Ret::kInvalidArgument;
  *out = value;
  return Ret::kSuccess;
}

// Changes the world as `f(State&) -> Ret`; the world's own troubles become NVML codes.
template <class F>
[[nodiscard]] Ret change(const Call& call, F&& f) {
  const Result<Ret> done = call.world.write(std::forward<F>(f));
  if (done) return *done;
  return done.error().code == Code::kNoPermission ? Ret::kNoPermission : Ret::kUnknown;
}

}  // namespace gpuslice::simnvml
