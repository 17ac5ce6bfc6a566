// MIG: the mode, GPU instances, MIG devices. Compute instances: mig_compute.cc.

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "sim/clients.h"
#include "sim/events.h"
#include "simnvml/session.h"

namespace gpuslice::simnvml {
namespace {

constexpr uint32_t kGiEnums = 17;  // the profiles that branch 580 knows; an 18th came after it

// Drivers of the 535 branch answer what profiles there are only with MIG on.
Ret may_ask_profiles(const Call& c) {
  if (!c.board().mig()) return Ret::kNotSupported;
  if (driver_major(c.state()) < 550 && c.gpu().mig_current == 0) return Ret::kNotSupported;
  return Ret::kSuccess;
}

// 580 answers of the instances of a GPU with MIG off as of one that has none.
Ret may_ask_instances(const Call& c) {
  if (!c.board().mig()) return Ret::kNotSupported;
  return c.gpu().mig_current != 0 || as_measured(c) ? Ret::kSuccess : Ret::kNotSupported;
}

const gpu::Profile* profile_by_enum(const Call& c, uint32_t gi_enum) {
  for (const gpu::Profile& p : c.board().profiles)
    if (p.gi_enum == gi_enum) return &p;
  return nullptr;
}
const gpu::Profile* profile_by_id(const Call& c, uint32_t id) {
  for (const gpu::Profile& p : c.board().profiles)
    if (p.id.value == id) return &p;
  return nullptr;
}

template <class Info>
void fill_common(const gpu::Profile& p, Info& out) {
  out.id = p.id.value;
  out.slices = p.slices;
  out.count = p.max_instances;
  out.sm = p.sm;
  out.ce = p.ce;
  out.dec = p.dec;
  out.enc = p.enc;
  out.jpeg = p.jpeg;
  out.ofa = p.ofa;
  out.memory_mb = p.memory_mib;
}

// As measured, 580 answers without the version word, v3 without the name: a struct that is used
// twice is refused the second time.
Ret gi_profile_v(const Call& c, const gpu::Profile& p, GiProfileInfoV2* out) {
  if (out->version == version_word(sizeof(GiProfileInfoV2), 2)) {
    fill_common(p, *out);
    out->p2p = 0;
    put_name(out->name, fmt::format("MIG {}", p.name));
    if (as_measured(c)) out->version = 0;
    return Ret::kSuccess;
  }
  if (out->version == version_word(sizeof(GiProfileInfoV3), 3)) {
    auto* v3 = reinterpret_cast<GiProfileInfoV3*>(out);
    fill_common(p, *v3);
    put_name(v3->name, as_measured(c) ? "" : fmt::format("MIG {}", p.name));
    if (as_measured(c)) v3->version = 0;
    v3->capabilities = p.gfx() ? 2 : 0;
    return Ret::kSuccess;
  }
  return as_measured(c) ? Ret::kInvalidArgument : Ret::kArgumentVersionMismatch;
}

}  // namespace

// --- mode
// ---------------------------------------------------------------------------------------------------------------

NVML_API int nvmlDeviceGetMigMode(Handle h, uint32_t* current, uint32_t* pending) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (current == nullptr || pending == nullptr) return Ret::kInvalidArgument;
    if (!c.board().mig()) return Ret::kNotSupported;
    *current = c.gpu().mig_current;
    *pending = c.gpu().mig_pending;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceSetMigMode(Handle h, uint32_t mode, int* activation) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (activation == nullptr || mode > 1) return Ret::kInvalidArgument;
    if (c.is_mig()) return Ret::kNotSupported;
    const sim::Caller caller = c.caller();
    Ret active = Ret::kSuccess;
    const Ret ret = change(c, [&](sim::State& s) {
      return sim::set_mig_mode(s, c.object.gpu, mode != 0, caller, active);
    });
    *activation = to_int(active);
    return ret;
  });
}

// --- GPU instance profiles
// ------------------------------------------------------------------------------------------------

NVML_API int nvmlDeviceGetGpuInstanceProfileInfo(Handle h, uint32_t profile, GiProfileInfo* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr || profile >= kGiEnums) return Ret::kInvalidArgument;
    if (const Ret ret = may_ask_profiles(c); ret != Ret::kSuccess) return ret;
    const gpu::Profile* p = profile_by_enum(c, profile);
    if (p == nullptr) return Ret::kNotSupported;
    fill_common(*p, *out);
    out->p2p = 0;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetGpuInstanceProfileInfoV(Handle h, uint32_t profile,
                                                  GiProfileInfoV2* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr || profile >= kGiEnums) return Ret::kInvalidArgument;
    if (const Ret ret = may_ask_profiles(c); ret != Ret::kSuccess) return ret;
    const gpu::Profile* p = profile_by_enum(c, profile);
    return p == nullptr ? Ret::kNotSupported : gi_profile_v(c, *p, out);
  });
}
NVML_API int nvmlDeviceGetGpuInstanceProfileInfoByIdV(Handle h, uint32_t id, GiProfileInfoV2* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 580) return Ret::kFunctionNotFound;
    if (const Ret ret = may_ask_profiles(c); ret != Ret::kSuccess) return ret;
    const gpu::Profile* p = profile_by_id(c, id);
    return p == nullptr ? Ret::kInvalidArgument : gi_profile_v(c, *p, out);
  });
}

namespace {
Ret placements(Call& c, uint32_t id, PlacementAbi* out, uint32_t* count) {
  if (count == nullptr) return Ret::kInvalidArgument;
  if (const Ret ret = may_ask_profiles(c); ret != Ret::kSuccess) return ret;
  sim::Placement all[16];
  uint32_t n = 0;
  if (const Ret ret = sim::gi_placements(c.state(), c.object.gpu, ProfileId{id}, all, n);
      ret != Ret::kSuccess)
    return ret;
  return put_placements({all, n}, out, count);
}
}  // namespace
NVML_API int nvmlDeviceGetGpuInstancePossiblePlacements(Handle h, uint32_t id, PlacementAbi* out,
                                                        uint32_t* count) {
  // The first version knew no room: the array held instanceCount of the profile. 580 refuses a
  // profile of more placements (1g+me), and to count them without an array.
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    uint32_t room = sim::kMaxGis + 1;
    if (count == nullptr) return Ret::kInvalidArgument;
    if (as_measured(c)) {
      if (out == nullptr) return Ret::kInvalidArgument;
      const gpu::Profile* p = profile_by_id(c, id);
      if (p != nullptr && p->placements.size() > p->max_instances) return Ret::kNotSupported;
    }
    const Ret ret = placements(c, id, out, &room);
    if (ret == Ret::kSuccess) *count = room;
    return ret;
  });
}
NVML_API int nvmlDeviceGetGpuInstancePossiblePlacements_v2(Handle h, uint32_t id, PlacementAbi* out,
                                                           uint32_t* count) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) { return placements(c, id, out, count); });
}
NVML_API int nvmlDeviceGetGpuInstanceRemainingCapacity(Handle h, uint32_t id, uint32_t* count) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (count == nullptr) return Ret::kInvalidArgument;
    if (const Ret ret = may_ask_instances(c); ret != Ret::kSuccess) return ret;
    return sim::gi_capacity(c.state(), c.object.gpu, ProfileId{id}, *count);
  });
}

// --- GPU instances
// ----------------------------------------------------------------------------------------------------------

namespace {
Ret create_gi(Call& c, uint32_t id, std::optional<sim::Placement> placement, Handle* out) {
  const sim::Caller caller = c.caller();
  uint8_t made = 0;
  const Ret ret = change(c, [&](sim::State& s) {
    return sim::create_gi(s, c.object.gpu, ProfileId{id}, placement, caller, made);
  });
  if (ret != Ret::kSuccess) return ret;
  c.snapshot = c.world.snapshot();
  *out = hand_out(c, {Kind::kGi, c.object.gpu, made});
  return Ret::kSuccess;
}
Ret caller_may_see_instances(const Call& c) {
  return c.caller().admin || c.visible.mig_monitor() ? Ret::kSuccess : Ret::kNoPermission;
}
}  // namespace
NVML_API int nvmlDeviceCreateGpuInstance(Handle h, uint32_t id, Handle* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return out == nullptr ? Ret::kInvalidArgument : create_gi(c, id, std::nullopt, out);
  });
}
NVML_API int nvmlDeviceCreateGpuInstanceWithPlacement(Handle h, uint32_t id,
                                                      const PlacementAbi* placement, Handle* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr || placement == nullptr || placement->start > 255 || placement->size > 255)
      return Ret::kInvalidArgument;
    return create_gi(c, id,
                     sim::Placement{static_cast<uint8_t>(placement->start),
                                    static_cast<uint8_t>(placement->size)},
                     out);
  });
}
NVML_API int nvmlGpuInstanceDestroy(Handle h) {
  return instance_call(__func__, h, Kind::kGi, [&](Call& c) {
    const sim::Caller caller = c.caller();
    return change(
        c, [&](sim::State& s) { return sim::destroy_gi(s, c.object.gpu, c.object.gi, caller); });
  });
}
NVML_API int nvmlDeviceGetGpuInstances(Handle h, uint32_t id, Handle* out, uint32_t* count) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr || count == nullptr) return Ret::kInvalidArgument;
    if (const Ret ret = may_ask_instances(c); ret != Ret::kSuccess) return ret;
    if (const Ret ret = caller_may_see_instances(c); ret != Ret::kSuccess) return ret;
    const gpu::Profile* p = profile_by_id(c, id);
    if (p == nullptr) return Ret::kInvalidArgument;
    uint32_t n = 0;
    // The array holds instanceCount handles: never more are written.
    for (uint8_t gi = 0; gi < sim::kMaxGis && n < p->max_instances; ++gi)
      if (c.gpu().gis[gi].live != 0 && &sim::gi_profile(c.state(), c.object.gpu, gi) == p) {
        out[n++] = hand_out(c, {Kind::kGi, c.object.gpu, gi});
      }
    *count = n;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetGpuInstanceById(Handle h, uint32_t id, Handle* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (const Ret ret = may_ask_instances(c); ret != Ret::kSuccess) return ret;
    if (id >= sim::kMaxGis || c.gpu().gis[id].live == 0) return Ret::kNotFound;
    *out = hand_out(c, {Kind::kGi, c.object.gpu, static_cast<uint8_t>(id)});
    return Ret::kSuccess;
  });
}
NVML_API int nvmlGpuInstanceGetInfo(Handle h, GiInfo* out) {
  return instance_call(__func__, h, Kind::kGi, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    const sim::Gi& gi = c.gpu().gis[c.object.gi];
    *out = {handle_of(c.state(), {Kind::kGpu, c.object.gpu}),
            c.object.gi,
            sim::gi_profile(c.state(), c.object.gpu, c.object.gi).id.value,
            {gi.start, gi.size}};
    return Ret::kSuccess;
  });
}

// --- MIG devices
// -----------------------------------------------------------------------------------------------------------------

NVML_API int nvmlDeviceIsMigDeviceHandle(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOrMig,
                     [&](Call& c) { return put(out, c.is_mig() ? 1U : 0U); });
}
NVML_API int nvmlDeviceGetMaxMigDeviceCount(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    return put(out, sim::max_mig_devices(c.state(), c.object.gpu));
  });
}
NVML_API int nvmlDeviceGetMigDeviceHandleByIndex(Handle h, uint32_t index, Handle* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (!c.board().mig()) return Ret::kNotSupported;
    if (c.gpu().mig_current == 0) return Ret::kNotFound;
    if (index >= sim::max_mig_devices(c.state(), c.object.gpu)) return Ret::kInvalidArgument;
    uint32_t seen = 0;  // among those that the caller sees
    for (const sim::MigDevice& device : sim::mig_devices(c.state(), c.object.gpu)) {
      if (!visible_mig(c, c.object.gpu, device.gi, device.ci)) continue;
      if (seen++ != index) continue;
      *out = handle_of(c.state(), {Kind::kMig, c.object.gpu, device.gi, device.ci});
      return Ret::kSuccess;
    }
    return Ret::kNotFound;
  });
}
NVML_API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Handle h, Handle* out) {
  return device_call(__func__, h, kMigOnly, [&](Call& c) {
    return put(out, handle_of(c.state(), {Kind::kGpu, c.object.gpu}));
  });
}
NVML_API int nvmlDeviceGetGpuInstanceId(Handle h, uint32_t* out) {
  return device_call(__func__, h, kMigOnly,
                     [&](Call& c) { return put(out, uint32_t{c.object.gi}); });
}
NVML_API int nvmlDeviceGetComputeInstanceId(Handle h, uint32_t* out) {
  return device_call(__func__, h, kMigOnly,
                     [&](Call& c) { return put(out, uint32_t{c.object.ci}); });
}
namespace {
Ret attributes(Call& c, DeviceAttributes* out) {
  if (out == nullptr) return Ret::kInvalidArgument;
  if (!c.is_mig()) return Ret::kNotSupported;
  const gpu::Profile& gi = sim::gi_profile(c.state(), c.object.gpu, c.object.gi);
  const sim::Ci& ci = c.gpu().gis[c.object.gi].cis[c.object.ci];
  *out = {gpu::ci_multiprocessors(c.board(), gi, ci.size),
          gi.ce,
          gi.dec,
          gi.enc,
          gi.jpeg,
          gi.ofa,
          gi.slices,
          ci.size,
          gi.memory_mib};
  return Ret::kSuccess;
}
}  // namespace
NVML_API int nvmlDeviceGetAttributes(Handle h, DeviceAttributes* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) { return attributes(c, out); });
}
NVML_API int nvmlDeviceGetAttributes_v2(Handle h, DeviceAttributes* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) { return attributes(c, out); });
}

// Not NVML: NVML has no call for a GPU reset, nvidia-smi uses a private one. This is ours.
NVML_API int gpuslice_sim_gpu_reset(Handle h) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    const sim::Caller caller = c.caller();
    return change(c, [&](sim::State& s) { return sim::reset_gpu(s, c.object.gpu, caller); });
  });
}

}  // namespace gpuslice::simnvml
