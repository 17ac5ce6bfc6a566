// MIG: compute instances of a GPU instance.

#include <fmt/format.h>

#include <optional>
#include <string>

#include "sim/clients.h"
#include "simnvml/session.h"

namespace gpuslice::simnvml {
namespace {

constexpr uint32_t kCiEnums = 9;

}  // namespace

// --- compute instance profiles
// -------------------------------------------------------------------------------------------------

namespace {

template <class Info>
void fill_ci(const Call& c, const gpu::CiProfile& ci, Info& out) {
  const gpu::Profile& gi = sim::gi_profile(c.state(), c.object.gpu, c.object.gi);
  out.id = ci.ci_enum;
  out.slices = ci.slices;
  out.count = ci.max_instances;
  out.sm = gpu::ci_multiprocessors(c.board(), gi, ci.slices);
  out.ce = gi.ce;
  out.dec = gi.dec;
  out.enc = gi.enc;
  out.jpeg = gi.jpeg;
  out.ofa = gi.ofa;
}

std::string ci_name(const Call& c, const gpu::CiProfile& ci) {
  const gpu::Profile& gi = sim::gi_profile(c.state(), c.object.gpu, c.object.gi);
  return ci.slices < gi.slices ? fmt::format("MIG {}c.{}", ci.slices, gi.name)
                               : fmt::format("MIG {}", gi.name);
}

// Checks the arguments that all these calls share.
Ret ci_of(const Call& c, uint32_t profile, uint32_t engine, const gpu::CiProfile*& out) {
  if (profile >= kCiEnums || engine != 0) return Ret::kInvalidArgument;
  out = sim::ci_profile(c.state(), c.object.gpu, c.object.gi, static_cast<uint8_t>(profile));
  return out == nullptr ? Ret::kNotSupported : Ret::kSuccess;
}

}  // namespace

NVML_API int nvmlGpuInstanceGetComputeInstanceProfileInfo(Handle h, uint32_t profile,
                                                          uint32_t engine, CiProfileInfo* out) {
  return instance_call(__func__, h, Kind::kGi, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    const gpu::CiProfile* ci = nullptr;
    if (const Ret ret = ci_of(c, profile, engine, ci); ret != Ret::kSuccess) return ret;
    fill_ci(c, *ci, *out);
    return Ret::kSuccess;
  });
}
NVML_API int nvmlGpuInstanceGetComputeInstanceProfileInfoV(Handle h, uint32_t profile,
                                                           uint32_t engine, CiProfileInfoV2* out) {
  return instance_call(__func__, h, Kind::kGi, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    const bool v3 = out->version == version_word(sizeof(CiProfileInfoV3), 3);
    if (!v3 && out->version != version_word(sizeof(CiProfileInfoV2), 2))
      return Ret::kArgumentVersionMismatch;
    const gpu::CiProfile* ci = nullptr;
    if (const Ret ret = ci_of(c, profile, engine, ci); ret != Ret::kSuccess) return ret;
    fill_ci(c, *ci, *out);
    put_name(out->name, ci_name(c, *ci));
    if (v3)
      reinterpret_cast<CiProfileInfoV3*>(out)->capabilities =
          sim::gi_profile(c.state(), c.object.gpu, c.object.gi).gfx() ? 1 : 0;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlGpuInstanceGetComputeInstanceRemainingCapacity(Handle h, uint32_t profile,
                                                                uint32_t* count) {
  return instance_call(__func__, h, Kind::kGi, [&](Call& c) {
    if (count == nullptr || profile >= kCiEnums) return Ret::kInvalidArgument;
    return sim::ci_capacity(c.state(), c.object.gpu, c.object.gi, static_cast<uint8_t>(profile),
                            *count);
  });
}
NVML_API int nvmlGpuInstanceGetComputeInstancePossiblePlacements(Handle h, uint32_t profile,
                                                                 PlacementAbi* out,
                                                                 uint32_t* count) {
  return instance_call(__func__, h, Kind::kGi, [&](Call& c) {
    if (count == nullptr || profile >= kCiEnums) return Ret::kInvalidArgument;
    sim::Placement all[sim::kMaxCis];
    uint32_t n = 0;
    if (const Ret ret = sim::ci_placements(c.state(), c.object.gpu, c.object.gi,
                                           static_cast<uint8_t>(profile), all, n);
        ret != Ret::kSuccess)
      return ret;
    return put_placements({all, n}, out, count);
  });
}

// --- compute instances
// -----------------------------------------------------------------------------------------------------------

namespace {
Ret create_ci(Call& c, uint32_t profile, std::optional<sim::Placement> placement, Handle* out) {
  if (profile >= kCiEnums) return Ret::kInvalidArgument;
  const sim::Caller caller = c.caller();
  uint8_t made = 0;
  const Ret ret = change(c, [&](sim::State& s) {
    return sim::create_ci(s, c.object.gpu, c.object.gi, static_cast<uint8_t>(profile), placement,
                          caller, made);
  });
  if (ret != Ret::kSuccess) return ret;
  c.snapshot = c.world.snapshot();
  *out = hand_out(c, {Kind::kCi, c.object.gpu, c.object.gi, made});
  return Ret::kSuccess;
}
Ret ci_info(const Call& c, CiInfo* out) {
  if (out == nullptr) return Ret::kInvalidArgument;
  const sim::Ci& ci = c.gpu().gis[c.object.gi].cis[c.object.ci];
  *out = {handle_of(c.state(), {Kind::kMig, c.object.gpu, c.object.gi, c.object.ci}),
          handle_of(c.state(), {Kind::kGi, c.object.gpu, c.object.gi}),
          c.object.ci,
          ci.profile,
          {ci.start, ci.size}};
  return Ret::kSuccess;
}
}  // namespace
NVML_API int nvmlGpuInstanceCreateComputeInstance(Handle h, uint32_t profile, Handle* out) {
  return instance_call(__func__, h, Kind::kGi, [&](Call& c) {
    return out == nullptr ? Ret::kInvalidArgument : create_ci(c, profile, std::nullopt, out);
  });
}
NVML_API int nvmlGpuInstanceCreateComputeInstanceWithPlacement(Handle h, uint32_t profile,
                                                               const PlacementAbi* placement,
                                                               Handle* out) {
  return instance_call(__func__, h, Kind::kGi, [&](Call& c) {
    if (out == nullptr || placement == nullptr || placement->start > 255 || placement->size > 255)
      return Ret::kInvalidArgument;
    return create_ci(c, profile,
                     sim::Placement{static_cast<uint8_t>(placement->start),
                                    static_cast<uint8_t>(placement->size)},
                     out);
  });
}
NVML_API int nvmlComputeInstanceDestroy(Handle h) {
  return instance_call(__func__, h, Kind::kCi, [&](Call& c) {
    const sim::Caller caller = c.caller();
    return change(c, [&](sim::State& s) {
      return sim::destroy_ci(s, c.object.gpu, c.object.gi, c.object.ci, caller);
    });
  });
}
NVML_API int nvmlGpuInstanceGetComputeInstances(Handle h, uint32_t profile, Handle* out,
                                                uint32_t* count) {
  return instance_call(__func__, h, Kind::kGi, [&](Call& c) {
    if (out == nullptr || count == nullptr || profile >= kCiEnums) return Ret::kInvalidArgument;
    const gpu::CiProfile* p =
        sim::ci_profile(c.state(), c.object.gpu, c.object.gi, static_cast<uint8_t>(profile));
    if (p == nullptr) return Ret::kNotSupported;
    uint32_t n = 0;
    for (uint8_t ci = 0; ci < sim::kMaxCis && n < p->max_instances; ++ci) {
      const sim::Ci& one = c.gpu().gis[c.object.gi].cis[ci];
      if (one.live != 0 && one.profile == profile) {
        out[n++] = hand_out(c, {Kind::kCi, c.object.gpu, c.object.gi, ci});
      }
    }
    *count = n;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlGpuInstanceGetComputeInstanceById(Handle h, uint32_t id, Handle* out) {
  return instance_call(__func__, h, Kind::kGi, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (id >= sim::kMaxCis || c.gpu().gis[c.object.gi].cis[id].live == 0) return Ret::kNotFound;
    *out = hand_out(c, {Kind::kCi, c.object.gpu, c.object.gi, static_cast<uint8_t>(id)});
    return Ret::kSuccess;
  });
}
NVML_API int nvmlComputeInstanceGetInfo(Handle h, CiInfoV1* out) {
  return instance_call(__func__, h, Kind::kCi, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    CiInfo info;
    const Ret ret = ci_info(c, &info);
    *out = {info.device, info.gpu_instance, info.id,
            info.profile_id};  // this one knew no placement
    return ret;
  });
}
NVML_API int nvmlComputeInstanceGetInfo_v2(Handle h, CiInfo* out) {
  return instance_call(__func__, h, Kind::kCi, [&](Call& c) { return ci_info(c, out); });
}

}  // namespace gpuslice::simnvml
