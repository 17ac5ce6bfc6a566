#include "sim/mig.h"

#include <algorithm>
#include <iterator>

#include "sim/clients.h"
#include "sim/events.h"
#include "sim/mig_rules.h"

namespace gpuslice::sim {
namespace {

CallCount& count_of(State& state, uint32_t gpu, Call call) {
  CallCounts& calls = state.gpus[gpu].calls;
  switch (call) {
    case Call::kCreateGi:
      return calls.create_gi;
    case Call::kDestroyGi:
      return calls.destroy_gi;
    case Call::kCreateCi:
      return calls.create_ci;
    case Call::kDestroyCi:
      return calls.destroy_ci;
    case Call::kSetMigMode:
      return calls.set_mig_mode;
    case Call::kReset:
      return calls.reset;
  }
  return calls.reset;
}

void say_changed(State& state, uint32_t gpu) {
  push_event(state, {.type = kEventMigConfig, .gpu = gpu});
}

Ret counted(State& state, uint32_t gpu, Call call, Ret ret) {
  if (gpu < state.node.gpu_count) count_call(state, gpu, call, ret == Ret::kSuccess);
  return ret;
}

// What every call on a GPU asks first.
Ret reachable(const State& state, uint32_t gpu) {
  if (gpu >= state.node.gpu_count) return Ret::kInvalidArgument;
  if (!state.node.driver_loaded) return Ret::kDriverNotLoaded;
  if (state.gpus[gpu].lost) return Ret::kGpuIsLost;
  if (!mig_capable(state, gpu)) return Ret::kNotSupported;
  return Ret::kSuccess;
}

Ret reachable_gi(const State& state, uint32_t gpu, uint8_t gi) {
  if (const Ret ret = reachable(state, gpu); ret != Ret::kSuccess) return ret;
  if (!state.gpus[gpu].mig_current) return Ret::kNotSupported;
  if (gi >= kMaxGis || !state.gpus[gpu].gis[gi].live) return Ret::kNotFound;
  return Ret::kSuccess;
}

bool is_ampere(const State& state, uint32_t gpu) {
  return needs_reset_for_mode(board_of(state, gpu));
}

bool any_gi(const Gpu& gpu) {
  return std::any_of(std::begin(gpu.gis), std::end(gpu.gis), [](const Gi& gi) { return gi.live; });
}

bool any_ci(const Gi& gi) {
  return std::any_of(std::begin(gi.cis), std::end(gi.cis), [](const Ci& ci) { return ci.live; });
}

// Two slots of one process, or the same: a process may have the library twice.
bool same_process(const State& state, uint16_t a, uint16_t b) {
  if (a >= kMaxClients || b >= kMaxClients) return false;
  return a == b || process_of(state.clients[a]) == process_of(state.clients[b]);
}

// Strict nodes: somebody but `except` holds an open handle on the GI (ci == kNone: on it or any CI
// in it) or CI, or watches the GPU with an event set.
bool held_by_others(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci, uint16_t except) {
  if (!state.node.strict_clients) return false;
  for (uint16_t slot = 0; slot < kMaxClients; ++slot)
    if (state.clients[slot].used && (state.clients[slot].event_gpus >> gpu & 1) != 0 &&
        !same_process(state, slot, except))
      return true;
  return std::any_of(
      std::begin(state.subscriptions), std::end(state.subscriptions), [&](const Subscription& one) {
        return one.used && one.gpu == gpu && one.gi == gi && (ci == kNone || one.ci == ci) &&
               !same_process(state, one.client, except);
      });
}

void drop_subscriptions(State& state, uint32_t gpu, uint8_t gi, uint8_t ci) {
  for (Subscription& one : state.subscriptions)
    if (one.used && one.gpu == gpu && (gi == kNone || one.gi == gi) &&
        (ci == kNone || one.ci == ci))
      one = {};
}

// What a reset, a reload and a reboot have in common for one GPU.
void start_anew(State& state, uint32_t index) {
  Gpu& gpu = state.gpus[index];
  for (Gi& gi : gpu.gis) gi = {};
  drop_subscriptions(state, index, kNone, kNone);
  // Ampere keeps the mode that was asked for in its InfoROM; newer parts come up without MIG.
  if (is_ampere(state, index) || state.node.keep_mig_mode) {
    gpu.mig_current = gpu.mig_pending;
  } else {
    gpu.mig_current = gpu.mig_pending = 0;
  }
  gpu.reset_required = 0;
  gpu.ecc_current = gpu.ecc_pending;
  gpu.compute_mode = 0;
  gpu.power_limit_mw = 0;
  gpu.app_graphics_mhz = gpu.app_memory_mhz = 0;
  gpu.locked_graphics_min_mhz = gpu.locked_graphics_max_mhz = 0;
  gpu.locked_memory_min_mhz = gpu.locked_memory_max_mhz = 0;
  gpu.generation = state.node.next_generation++;
  // What the driver counts since it was loaded; row remaps that were pending are done now.
  GpuLife& life = state.life.gpus[index];
  life.ecc_volatile = {};
  life.energy_mj = life.energy_rest_uj = 0;
  life.remap_pending = 0;
  if (life.recovery_action != kRecoverByReboot) life.recovery_action = 0;
  life.last_xid = 0;
}

Ret try_set_mig_mode(State& state, uint32_t gpu, bool enable, const Caller& caller,
                     Ret& activation) {
  if (const Ret ret = reachable(state, gpu); ret != Ret::kSuccess) return ret;
  if (!caller.admin) return Ret::kNoPermission;
  Gpu& one = state.gpus[gpu];
  const uint8_t wanted = enable ? 1 : 0;
  if (!enable && any_gi(one)) {
    activation = Ret::kInUse;
    return Ret::kInUse;
  }
  one.mig_pending = wanted;
  if (one.mig_current == wanted) return Ret::kSuccess;
  if (state.node.passthrough) {
    activation = Ret::kResetRequired;
    return Ret::kSuccess;
  }
  const bool busy = working_on(state, gpu, kNone, kNone) ||
                    (is_ampere(state, gpu) && attached_by_others(state, gpu, caller.client));
  if (busy) {
    activation = Ret::kInUse;
    return Ret::kSuccess;
  }
  if (is_ampere(state, gpu)) {
    start_anew(state, gpu);
    ++one.resets;
  } else {
    one.mig_current = wanted;
  }
  say_changed(state, gpu);
  return Ret::kSuccess;
}

Ret try_create_gi(State& state, uint32_t gpu, ProfileId id, std::optional<Placement> placement,
                  const Caller& caller, uint8_t& made) {
  if (const Ret ret = reachable(state, gpu); ret != Ret::kSuccess) return ret;
  Gpu& one = state.gpus[gpu];
  if (!one.mig_current) return Ret::kNotSupported;
  if (!caller.admin) return Ret::kNoPermission;
  const std::optional<uint8_t> profile = profile_index(state, gpu, id);
  if (!profile) return Ret::kInvalidArgument;
  const gpu::Board& board = board_of(state, gpu);
  Placement chosen;
  const Ret placed = place_gi(board, one, *profile, placement, chosen);
  if (placed == Ret::kInvalidArgument) return placed;
  // The first instance of a GPU needs it idle: the driver refuses while memory or channels exist.
  if (!any_gi(one) && working_on(state, gpu, kNone, kNone)) return Ret::kInUse;
  if (placed != Ret::kSuccess) return placed;

  made = gi_id_of(geometry_of(board, one.sweep), chosen);
  Gi& gi = one.gis[made];
  gi = {};
  gi.live = 1;
  gi.profile = *profile;
  gi.start = chosen.start;
  gi.size = chosen.size;
  gi.generation = state.node.next_generation++;
  gi.created_ns = state.node.clock.last_ns;
  say_changed(state, gpu);
  return Ret::kSuccess;
}

Ret try_destroy_gi(State& state, uint32_t gpu, uint8_t gi, const Caller& caller) {
  if (const Ret ret = reachable_gi(state, gpu, gi); ret != Ret::kSuccess) return ret;
  if (!caller.admin) return Ret::kNoPermission;
  if (any_ci(state.gpus[gpu].gis[gi]) || working_on(state, gpu, gi, kNone) ||
      held_by_others(state, gpu, gi, kNone, caller.client))
    return Ret::kInUse;
  drop_subscriptions(state, gpu, gi, kNone);
  state.gpus[gpu].gis[gi] = {};
  say_changed(state, gpu);
  return Ret::kSuccess;
}

Ret try_create_ci(State& state, uint32_t gpu, uint8_t gi, uint8_t ci_enum,
                  std::optional<Placement> placement, const Caller& caller, uint8_t& made) {
  if (const Ret ret = reachable_gi(state, gpu, gi); ret != Ret::kSuccess) return ret;
  if (!caller.admin) return Ret::kNoPermission;
  Gi& one = state.gpus[gpu].gis[gi];
  Placement chosen;
  uint8_t id = kNone;
  const Ret placed =
      place_ci(gi_profile(state, gpu, gi).slices, one, ci_enum, placement, chosen, id);
  if (placed != Ret::kSuccess) return placed;
  made = id;
  Ci& ci = one.cis[made];
  ci = {};
  ci.live = 1;
  ci.profile = ci_enum;
  ci.start = chosen.start;
  ci.size = chosen.size;
  ci.generation = state.node.next_generation++;
  say_changed(state, gpu);
  return Ret::kSuccess;
}

Ret try_destroy_ci(State& state, uint32_t gpu, uint8_t gi, uint8_t ci, const Caller& caller) {
  if (const Ret ret = reachable_gi(state, gpu, gi); ret != Ret::kSuccess) return ret;
  if (ci >= kMaxCis || !state.gpus[gpu].gis[gi].cis[ci].live) return Ret::kNotFound;
  if (!caller.admin) return Ret::kNoPermission;
  if (working_on(state, gpu, gi, ci) || held_by_others(state, gpu, gi, ci, caller.client))
    return Ret::kInUse;
  drop_subscriptions(state, gpu, gi, ci);
  state.gpus[gpu].gis[gi].cis[ci] = {};
  say_changed(state, gpu);
  return Ret::kSuccess;
}

Ret try_reset(State& state, uint32_t gpu, const Caller& caller) {
  if (gpu >= state.node.gpu_count) return Ret::kInvalidArgument;
  if (!state.node.driver_loaded) return Ret::kDriverNotLoaded;
  if (state.gpus[gpu].lost) return Ret::kGpuIsLost;
  if (state.node.passthrough) return Ret::kNotSupported;
  if (!caller.admin) return Ret::kNoPermission;
  if (working_on(state, gpu, kNone, kNone)) return Ret::kInUse;
  if (is_ampere(state, gpu) && attached_by_others(state, gpu, caller.client)) return Ret::kInUse;
  start_anew(state, gpu);
  ++state.gpus[gpu].resets;
  return Ret::kSuccess;
}

}  // namespace

bool working_on(const State& state, uint32_t gpu, uint8_t gi, uint8_t ci, uint16_t except) {
  return std::any_of(std::begin(state.works), std::end(state.works), [&](const Work& work) {
    return work.used && work.gpu == gpu && work.client != except &&
           (gi == kNone || work.gi == gi) && (ci == kNone || work.ci == ci);
  });
}

bool attached_by_others(const State& state, uint32_t gpu, uint16_t except) {
  for (uint16_t slot = 0; slot < kMaxClients; ++slot) {
    const Client& client = state.clients[slot];
    if (client.used && (client.attached_gpus >> gpu & 1) != 0 && !same_process(state, slot, except))
      return true;
  }
  return false;
}

Ret set_mig_mode(State& state, uint32_t gpu, bool enable, const Caller& caller, Ret& activation) {
  activation = Ret::kSuccess;
  return counted(state, gpu, Call::kSetMigMode,
                 try_set_mig_mode(state, gpu, enable, caller, activation));
}

Ret create_gi(State& state, uint32_t gpu, ProfileId profile, std::optional<Placement> placement,
              const Caller& caller, uint8_t& gi) {
  return counted(state, gpu, Call::kCreateGi,
                 try_create_gi(state, gpu, profile, placement, caller, gi));
}

Ret destroy_gi(State& state, uint32_t gpu, uint8_t gi, const Caller& caller) {
  return counted(state, gpu, Call::kDestroyGi, try_destroy_gi(state, gpu, gi, caller));
}

Ret create_ci(State& state, uint32_t gpu, uint8_t gi, uint8_t ci_enum,
              std::optional<Placement> placement, const Caller& caller, uint8_t& ci) {
  return counted(state, gpu, Call::kCreateCi,
                 try_create_ci(state, gpu, gi, ci_enum, placement, caller, ci));
}

Ret destroy_ci(State& state, uint32_t gpu, uint8_t gi, uint8_t ci, const Caller& caller) {
  return counted(state, gpu, Call::kDestroyCi, try_destroy_ci(state, gpu, gi, ci, caller));
}

Ret reset_gpu(State& state, uint32_t gpu, const Caller& caller) {
  return counted(state, gpu, Call::kReset, try_reset(state, gpu, caller));
}

Ret driver_reload(State& state, const Caller& caller) {
  if (!caller.admin) return Ret::kNoPermission;
  for (uint32_t gpu = 0; gpu < state.node.gpu_count; ++gpu)
    if (attached_by_others(state, gpu, caller.client) || working_on(state, gpu, kNone, kNone))
      return Ret::kInUse;
  for (uint32_t gpu = 0; gpu < state.node.gpu_count; ++gpu) start_anew(state, gpu);
  ++state.node.driver_reloads;
  state.node.driver_loaded = 1;
  return Ret::kSuccess;
}

void reboot(State& state) {
  for (Work& work : state.works) work = {};
  for (Client& client : state.clients) client.attached_gpus = client.event_gpus = 0;
  for (uint32_t gpu = 0; gpu < state.node.gpu_count; ++gpu) {
    state.gpus[gpu].lost = 0;
    state.life.gpus[gpu].recovery_action = 0;
    start_anew(state, gpu);
  }
  ++state.node.boot_count;
  state.node.driver_loaded = 1;
  state.node.booted_ns = state.node.clock.last_ns;
  make_boot_id(state);
}

void count_call(State& state, uint32_t gpu, Call call, bool ok) {
  CallCount& count = count_of(state, gpu, call);
  ++(ok ? count.ok : count.failed);
}

}  // namespace gpuslice::sim
