#include "nvml/mig_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace gpuslice::nvml {
namespace {

using api::Instance;
using api::Return;

gpu::Placement placement_of(const api::Placement& p) {
  return {static_cast<uint8_t>(p.start), static_cast<uint8_t>(p.size)};
}
api::Placement abi_of(gpu::Placement p) { return {p.start, p.size}; }

// What NVML's enum of a GPU instance profile says beyond the slices (its manual, not a board's
// table): for drivers that do not tell the name.
std::string_view attributes_of(unsigned gi_enum) {
  switch (gi_enum) {
    case 7:
    case 8:
      return "+me";
    case 10:
    case 11:
    case 12:
    case 17:
      return "+gfx";
    case 13:
    case 14:
      return "-me";
    case 15:
    case 16:
      return "+me.all";
    default:
      return "";
  }
}

// A30: with MIG off its driver has been seen to give 1g.6gb another profile's number
// (mig-parted#157).
constexpr unsigned kMisstatesWithMigOff = 0x20B710DE;

std::string without_mig(std::string name) {
  constexpr std::string_view kPrefix = "MIG ";
  if (name.starts_with(kPrefix)) name.erase(0, kPrefix.size());
  return name;
}

// The first `count` of what the driver wrote, ascending.
std::vector<gpu::Placement> ascending(const std::vector<api::Placement>& abi, size_t count) {
  std::vector<gpu::Placement> out;
  for (size_t i = 0; i < std::min(count, abi.size()); ++i) out.push_back(placement_of(abi[i]));
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

Result<MigCalls::OneGpu> MigCalls::gpu(const std::string& uuid) {
  OneGpu gpu{nullptr, uuid};
  TRY(calls_.must(uuid, "nvmlDeviceGetHandleByUUID", uuid.c_str(), &gpu.handle));
  if (const auto index = calls_.value("nvmlDeviceGetIndex", gpu.handle))
    gpu.object = fmt::format("GPU {}", *index);
  return gpu;
}

Result<MigCalls::OneGi> MigCalls::gi(const std::string& uuid, GiId id) {
  OneGi gi;
  TRY_ASSIGN(gi.gpu, gpu(uuid));
  gi.object = fmt::format("{}, GPU instance {}", gi.gpu.object, id.value);
  TRY(calls_.must(gi.object, "nvmlDeviceGetGpuInstanceById", gi.gpu.handle, id.value, &gi.handle));
  return gi;
}

std::optional<unsigned> MigCalls::field(const OneGpu& gpu, unsigned id) {
  api::FieldValue value{};
  value.field = id;
  if (calls_.call("nvmlDeviceGetFieldValues", gpu.handle, 1, &value) != api::kSuccess ||
      value.code != api::kSuccess)
    return std::nullopt;
  return value.value.word;
}

unsigned MigCalls::pci_device(const OneGpu& gpu) {
  api::PciInfo pci{};
  if (calls_.call("nvmlDeviceGetPciInfo_v3", gpu.handle, &pci) != api::kSuccess) return 0;
  return pci.pci_device_id;
}

Result<ports::MigMode> MigCalls::mode(const std::string& uuid) {
  TRY_ASSIGN(const OneGpu one, gpu(uuid));
  unsigned current = 0;
  unsigned pending = 0;
  TRY(calls_.must(one.object, "nvmlDeviceGetMigMode", one.handle, &current, &pending));
  return ports::MigMode{current == 1, pending == 1};
}

Result<bool> MigCalls::mode_needs_reset(const std::string& uuid) {
  TRY_ASSIGN(const OneGpu one, gpu(uuid));
  return field(one, api::kFieldResetlessMig).value_or(0) == 0;
}

Result<ports::GiProfiles> MigCalls::gi_profiles(const std::string& uuid) {
  TRY_ASSIGN(const OneGpu one, gpu(uuid));
  TRY_ASSIGN(const ports::MigMode mode, this->mode(uuid));
  ports::GiProfiles out;
  bool consistent = true;
  TRY_ASSIGN(out.profiles, listed_profiles(one, consistent));
  if (mode.current) return out;
  const bool independent = field(one, api::kFieldModeIndependentMigQuery).value_or(0) != 0;
  out.trusted =
      independent && consistent && !out.profiles.empty() && pci_device(one) != kMisstatesWithMigOff;
  return out;
}

Result<std::vector<ports::GiProfile>> MigCalls::listed_profiles(const OneGpu& gpu,
                                                                bool& consistent) {
  constexpr const char* kInfo = "nvmlDeviceGetGpuInstanceProfileInfo";
  constexpr const char* kPlacements = "nvmlDeviceGetGpuInstancePossiblePlacements_v2";
  api::Memory memory{};
  TRY(calls_.may(gpu.object, "nvmlDeviceGetMemoryInfo", gpu.handle, &memory));
  const auto total_mib = static_cast<uint32_t>(memory.total >> 20);
  std::vector<ports::GiProfile> out;
  for (unsigned e = 0; e < api::kMostGiEnums; ++e) {
    api::GiProfileInfo info{};
    const Return code = calls_.call(kInfo, gpu.handle, e, &info);
    if (code == api::kInvalidArgument) break;
    if (merely_absent(code)) continue;
    if (code != api::kSuccess) return std::unexpected(calls_.error(gpu.object, kInfo, code));
    ports::GiProfile profile{ProfileId{info.id},
                             e,
                             "",
                             info.slices,
                             info.count,
                             static_cast<uint32_t>(info.memory_mb),
                             info.sm,
                             info.ce,
                             info.dec,
                             info.enc,
                             info.jpeg,
                             info.ofa,
                             {}};
    api::GiProfileInfoV2 named{};
    named.version = api::kGiProfileInfoV2;
    if (calls_.call("nvmlDeviceGetGpuInstanceProfileInfoV", gpu.handle, e, &named) ==
        api::kSuccess) {
      profile.name = without_mig({named.name, ::strnlen(named.name, sizeof named.name)});
    } else {
      profile.name =
          fmt::format("{}g.{}gb{}", info.slices,
                      gpu::profile_gigabytes(profile.memory_mib, total_mib), attributes_of(e));
    }
    std::vector<api::Placement> placements(api::kMostPlacements);
    auto count = static_cast<unsigned>(placements.size());
    const Return placed = calls_.call(kPlacements, gpu.handle, info.id, placements.data(), &count);
    if (placed == api::kSuccess) {
      profile.placements = ascending(placements, count);
    } else if (!merely_absent(placed)) {
      return std::unexpected(calls_.error(gpu.object, kPlacements, placed));
    }
    // A profile that can lie nowhere: the driver does not know what it says.
    if (profile.placements.empty() || profile.most == 0) consistent = false;
    out.push_back(std::move(profile));
  }
  return out;
}

Result<uint32_t> MigCalls::gi_free(const std::string& uuid, ProfileId profile) {
  TRY_ASSIGN(const OneGpu one, gpu(uuid));
  unsigned count = 0;
  TRY(calls_.must(one.object, "nvmlDeviceGetGpuInstanceRemainingCapacity", one.handle,
                  profile.value, &count));
  return count;
}

Result<std::vector<ports::CiProfile>> MigCalls::ci_profiles(const std::string& uuid, GiId id) {
  constexpr const char* kInfo = "nvmlGpuInstanceGetComputeInstanceProfileInfo";
  TRY_ASSIGN(const OneGi one, gi(uuid, id));
  api::GpuInstanceInfo gi_info{};
  TRY(calls_.must(one.object, "nvmlGpuInstanceGetInfo", one.handle, &gi_info));
  TRY_ASSIGN(const ports::GiProfiles gis, gi_profiles(uuid));
  const auto gi_profile =
      std::find_if(gis.profiles.begin(), gis.profiles.end(),
                   [&](const ports::GiProfile& p) { return p.id.value == gi_info.profile_id; });
  const bool known = gi_profile != gis.profiles.end();
  const std::string gi_name = known ? gi_profile->name : "?";
  std::vector<ports::CiProfile> out;
  for (unsigned e = 0; e < api::kMostCiEnums; ++e) {
    api::CiProfileInfo info{};
    const Return code = calls_.call(kInfo, one.handle, e, api::kEngineShared, &info);
    if (code == api::kInvalidArgument) break;
    if (merely_absent(code)) continue;
    if (code != api::kSuccess) return std::unexpected(calls_.error(one.object, kInfo, code));
    ports::CiProfile profile{
        ProfileId{info.id}, "",       info.slices, info.count, 0, info.sm, info.ce,
        info.dec,           info.enc, info.jpeg,   info.ofa,   {}};
    profile.name = known && info.slices == gi_profile->slices
                       ? gi_name
                       : fmt::format("{}c.{}", info.slices, gi_name);
    unsigned free = 0;
    if (calls_.call("nvmlGpuInstanceGetComputeInstanceRemainingCapacity", one.handle, info.id,
                    &free) == api::kSuccess)
      profile.free = free;
    std::vector<api::Placement> placements(api::kMostPlacements);
    auto count = static_cast<unsigned>(placements.size());
    if (calls_.call("nvmlGpuInstanceGetComputeInstancePossiblePlacements", one.handle, info.id,
                    placements.data(), &count) == api::kSuccess)
      profile.placements = ascending(placements, count);
    out.push_back(std::move(profile));
  }
  return out;
}

Result<std::vector<ports::GpuInstance>> MigCalls::instances(const std::string& uuid) {
  constexpr const char* kInfo = "nvmlDeviceGetGpuInstanceProfileInfo";
  TRY_ASSIGN(const OneGpu one, gpu(uuid));
  TRY_ASSIGN(const ports::MigMode mode, this->mode(uuid));
  std::vector<ports::GpuInstance> out;
  if (!mode.current) return out;
  std::vector<unsigned> asked;
  for (unsigned e = 0; e < api::kMostGiEnums; ++e) {
    api::GiProfileInfo info{};
    const Return code = calls_.call(kInfo, one.handle, e, &info);
    if (code == api::kInvalidArgument) break;
    if (not_offered(code)) continue;
    if (code != api::kSuccess) return std::unexpected(calls_.error(one.object, kInfo, code));
    if (std::find(asked.begin(), asked.end(), info.id) != asked.end()) continue;
    asked.push_back(info.id);
    // The array must hold instanceCount handles; some more, should the driver miscount.
    std::vector<Instance> handles(std::max<size_t>(info.count, 16));
    auto count = static_cast<unsigned>(handles.size());
    TRY(calls_.must(one.object, "nvmlDeviceGetGpuInstances", one.handle, info.id, handles.data(),
                    &count));
    for (size_t i = 0; i < std::min<size_t>(count, handles.size()); ++i) {
      TRY_ASSIGN(ports::GpuInstance gi, read_gi(one, handles[i]));
      out.push_back(std::move(gi));
    }
  }
  std::sort(out.begin(), out.end(),
            [](const ports::GpuInstance& a, const ports::GpuInstance& b) { return a.id < b.id; });
  return out;
}

Result<ports::GpuInstance> MigCalls::read_gi(const OneGpu& gpu, api::Instance handle) {
  constexpr const char* kInfo = "nvmlGpuInstanceGetComputeInstanceProfileInfo";
  api::GpuInstanceInfo info{};
  TRY(calls_.must(gpu.object, "nvmlGpuInstanceGetInfo", handle, &info));
  ports::GpuInstance gi{
      GiId{info.id}, ProfileId{info.profile_id}, placement_of(info.placement), {}};
  const std::string object = fmt::format("{}, GPU instance {}", gpu.object, info.id);
  for (unsigned e = 0; e < api::kMostCiEnums; ++e) {
    api::CiProfileInfo profile{};
    const Return code = calls_.call(kInfo, handle, e, api::kEngineShared, &profile);
    if (code == api::kInvalidArgument) break;
    if (not_offered(code)) continue;
    if (code != api::kSuccess) return std::unexpected(calls_.error(object, kInfo, code));
    std::vector<Instance> handles(std::max<size_t>(profile.count, 8));
    auto count = static_cast<unsigned>(handles.size());
    TRY(calls_.must(object, "nvmlGpuInstanceGetComputeInstances", handle, profile.id,
                    handles.data(), &count));
    for (size_t i = 0; i < std::min<size_t>(count, handles.size()); ++i) {
      api::ComputeInstanceInfo ci{};
      TRY(calls_.must(object, "nvmlComputeInstanceGetInfo_v2", handles[i], &ci));
      ports::ComputeInstance one{CiId{ci.id}, ProfileId{ci.profile_id}, placement_of(ci.placement),
                                 ""};
      // The device of a compute instance is its MIG device.
      one.uuid = calls_.string<api::kUuidBytes>("nvmlDeviceGetUUID", ci.device);
      gi.cis.push_back(std::move(one));
    }
  }
  std::sort(
      gi.cis.begin(), gi.cis.end(),
      [](const ports::ComputeInstance& a, const ports::ComputeInstance& b) { return a.id < b.id; });
  return gi;
}

Result<std::vector<ports::Process>> MigCalls::processes(const std::string& uuid) {
  TRY_ASSIGN(const OneGpu one, gpu(uuid));
  return calls_.all_processes(one.object, one.handle);
}

Result<ports::Activation> MigCalls::set_mode(const std::string& uuid, bool on) {
  TRY_ASSIGN(const OneGpu one, gpu(uuid));
  Return activation = api::kSuccess;
  TRY(calls_.must(one.object, "nvmlDeviceSetMigMode", one.handle, on ? 1U : 0U, &activation));
  switch (activation) {
    case api::kSuccess:
      return ports::Activation::kDone;
    case api::kInUse:
      return ports::Activation::kInUse;
    default:
      return ports::Activation::kNeedsReset;
  }
}

Result<GiId> MigCalls::create_gi(const std::string& uuid, ProfileId profile,
                                 std::optional<gpu::Placement> placement) {
  TRY_ASSIGN(const OneGpu one, gpu(uuid));
  Instance made = nullptr;
  if (placement) {
    const api::Placement at = abi_of(*placement);
    TRY(calls_.must(one.object, "nvmlDeviceCreateGpuInstanceWithPlacement", one.handle,
                    profile.value, &at, &made));
  } else {
    TRY(calls_.must(one.object, "nvmlDeviceCreateGpuInstance", one.handle, profile.value, &made));
  }
  api::GpuInstanceInfo info{};
  TRY(calls_.must(one.object, "nvmlGpuInstanceGetInfo", made, &info));
  return GiId{info.id};
}

Status MigCalls::destroy_gi(const std::string& uuid, GiId id) {
  TRY_ASSIGN(const OneGi one, gi(uuid, id));
  return calls_.must(one.object, "nvmlGpuInstanceDestroy", one.handle);
}

Result<CiId> MigCalls::create_ci(const std::string& uuid, GiId id, ProfileId profile,
                                 std::optional<gpu::Placement> placement) {
  constexpr const char* kCreate = "nvmlGpuInstanceCreateComputeInstance";
  TRY_ASSIGN(const OneGi one, gi(uuid, id));
  Instance made = nullptr;
  Return code = api::kFunctionNotFound;
  if (placement) {
    const api::Placement at = abi_of(*placement);
    code = calls_.call("nvmlGpuInstanceCreateComputeInstanceWithPlacement", one.handle,
                       profile.value, &at, &made);
  }
  // Old drivers know no placement of compute instances.
  if (code == api::kFunctionNotFound) code = calls_.call(kCreate, one.handle, profile.value, &made);
  if (code != api::kSuccess) return std::unexpected(calls_.error(one.object, kCreate, code));
  api::ComputeInstanceInfo info{};
  TRY(calls_.must(one.object, "nvmlComputeInstanceGetInfo_v2", made, &info));
  return CiId{info.id};
}

Status MigCalls::destroy_ci(const std::string& uuid, GiId id, CiId ci) {
  TRY_ASSIGN(const OneGi one, gi(uuid, id));
  Instance handle = nullptr;
  const std::string object = fmt::format("{}, compute instance {}", one.object, ci.value);
  TRY(calls_.must(object, "nvmlGpuInstanceGetComputeInstanceById", one.handle, ci.value, &handle));
  return calls_.must(object, "nvmlComputeInstanceDestroy", handle);
}

}  // namespace gpuslice::nvml
