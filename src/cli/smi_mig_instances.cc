#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

#include "base/text.h"
#include "cli/smi_mig_run.h"

namespace gpuslice::cli {
namespace {

using What = SmiMigRequest::What;

// As the tool lists them: by compute slices, then by NVML's enum.
Result<ports::GiProfiles> profiles_of(ports::Mig& mig, const std::string& uuid) {
  TRY_ASSIGN(ports::GiProfiles told, mig.gi_profiles(uuid));
  std::sort(told.profiles.begin(), told.profiles.end(), [](const auto& a, const auto& b) {
    return std::pair(a.slices, a.nvml_enum) < std::pair(b.slices, b.nvml_enum);
  });
  return told;
}

}  // namespace

// --- what is there ---

Result<std::vector<GiProfileRow>> SmiMigRun::gi_profiles_of(const Gpu& gpu, bool free) const {
  TRY_ASSIGN(const ports::GiProfiles told, profiles_of(ports_.mig, gpu.uuid));
  if (!told.trusted) return fail(Code::kImpossible, "no profiles to go by with MIG off");
  std::vector<GiProfileRow> rows;
  for (const ports::GiProfile& profile : told.profiles) {
    GiProfileRow row{gpu.index.value, profile, 0};
    if (free) {
      TRY_ASSIGN(row.free, ports_.mig.gi_free(gpu.uuid, profile.id));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

// With MIG off too where the driver answers then, as branch 580 does.
Result<std::vector<GiProfileRow>> SmiMigRun::gi_profiles(bool free) const {
  std::vector<GiProfileRow> rows;
  for (const Gpu* gpu : chosen_) {
    if (!gpu->mig) continue;
    auto of_gpu = gi_profiles_of(*gpu, free);
    if (!of_gpu && !gpu->mig->current && of_gpu.error().code == Code::kImpossible) continue;
    TRY_ASSIGN(std::vector<GiProfileRow> more, std::move(of_gpu));
    std::move(more.begin(), more.end(), std::back_inserter(rows));
  }
  return rows;
}

// By GPU, then by the profile's place in NVML's list, then by id.
Result<std::vector<GiRow>> SmiMigRun::gis() const {
  std::vector<GiRow> rows;
  for (const Gpu* gpu : with_mig()) {
    TRY_ASSIGN(const ports::GiProfiles told, profiles_of(ports_.mig, gpu->uuid));
    TRY_ASSIGN(const std::vector<ports::GpuInstance> there, ports_.mig.instances(gpu->uuid));
    for (const ports::GiProfile& profile : told.profiles)
      for (const ports::GpuInstance& gi : there)
        if (gi.profile == profile.id && wants_gi(gi.id))
          rows.push_back({gpu->index.value, profile.name, gi});
  }
  return rows;
}

Result<std::vector<CiProfileRow>> SmiMigRun::ci_profiles() const {
  TRY_ASSIGN(std::vector<GiRow> there, gis());
  std::sort(there.begin(), there.end(), [](const GiRow& a, const GiRow& b) {
    return std::pair(a.gpu, a.gi.id) < std::pair(b.gpu, b.gi.id);
  });
  std::vector<CiProfileRow> rows;
  for (const GiRow& row : there) {
    const auto gpu = std::find_if(chosen_.begin(), chosen_.end(),
                                  [&](const Gpu* g) { return g->index.value == row.gpu; });
    TRY_ASSIGN(const std::vector<ports::CiProfile> told,
               ports_.mig.ci_profiles((*gpu)->uuid, row.gi.id));
    bool filled = false;
    for (const ports::CiProfile& profile : told) {
      const bool fills = !filled && profile.name == row.profile;
      filled = filled || fills;
      rows.push_back({row.gpu, row.gi.id.value, profile, fills});
    }
  }
  return rows;
}

int SmiMigRun::lists() {
  if (request_.what == What::kGiProfiles || request_.what == What::kGiPlacements) {
    const bool table = request_.what == What::kGiProfiles;
    const auto rows = gi_profiles(table);
    if (!rows) return failed("display GPU instance profiles", rows.error());
    if (rows->empty() && with_mig().empty()) return no_mig(0);
    ports_.out(table ? gi_profile_table(*rows) : gi_placement_lines(*rows));
    return 0;
  }
  if (with_mig().empty()) return no_mig(0);
  if (request_.what == What::kInstances || request_.what == What::kCis) {
    const bool gpu_instances = request_.what == What::kInstances;
    const auto rows = gis();
    if (!rows)
      return failed(gpu_instances ? "display GPU instances" : "display compute instances",
                    rows.error());
    if (gpu_instances) {
      if (rows->empty()) return none("GPU instances");
      ports_.out(gi_table(*rows));
      return 0;
    }
    std::vector<CiRow> cis;
    for (const GiRow& row : *rows)
      for (const ports::ComputeInstance& ci : row.gi.cis)
        if (wants_ci(ci.id)) cis.push_back({row.gpu, row.gi.id.value, row.profile, ci});
    std::sort(cis.begin(), cis.end(), [](const CiRow& a, const CiRow& b) {
      return std::tuple(a.gpu, a.gi, a.ci.id) < std::tuple(b.gpu, b.gi, b.ci.id);
    });
    const auto profiles = ci_profiles();
    for (CiRow& ci : cis)
      for (const CiProfileRow& row : profiles ? *profiles : std::vector<CiProfileRow>{})
        if (row.gpu == ci.gpu && row.gi == ci.gi && row.profile.id == ci.ci.profile)
          ci.profile = row.profile.name;
    if (cis.empty()) return none("compute instances");
    ports_.out(ci_table(cis));
    return 0;
  }
  const auto rows = ci_profiles();
  if (!rows) return failed("display compute instance profiles", rows.error());
  if (rows->empty()) return none("GPU instances");
  ports_.out(request_.what == What::kCiProfiles ? ci_profile_table(*rows)
                                                : ci_placement_lines(*rows));
  return 0;
}

// --- making ---

int SmiMigRun::no_gi(const Gpu& gpu, const std::string& profile, const Error& error) const {
  out(fmt::format("Unable to create a GPU instance on GPU {:>2} using profile {}: {}",
                  gpu.index.value, profile, smi_answer_of(error).words));
  return failed("create GPU instances", error);
}

int SmiMigRun::create_gis() {
  if (with_mig().empty()) return no_mig();
  for (const Gpu* gpu : with_mig())
    if (const int code = create_gis_on(*gpu); code != 0) return code;
  return 0;
}

int SmiMigRun::create_gis_on(const Gpu& gpu) {
  const std::string& first = request_.profiles.front().text;
  const auto held = lock(gpu);
  if (!held) return no_gi(gpu, first, held.error());
  const auto told = profiles_of(ports_.mig, gpu.uuid);
  if (!told) return no_gi(gpu, first, told.error());
  for (const SmiMigRequest::Profile& wanted : request_.profiles) {
    const auto& all = told->profiles;
    const auto found = std::find_if(all.begin(), all.end(), [&](const ports::GiProfile& p) {
      return wanted.text == std::to_string(p.id.value) || to_lower(wanted.text) == to_lower(p.name);
    });
    if (found == all.end()) {
      std::vector<std::string> known;
      for (const ports::GiProfile& p : all)
        known.push_back(fmt::format("{} ({})", p.id.value, p.name));
      hint(fmt::format("{} ({}): it has no profile {}; it has {}", name(gpu), gpu.name,
                       json_escape(wanted.text), join(known, ", ")));
      return no_gi(gpu, json_escape(wanted.text), Error{Code::kUsage, "", {}});
    }
    std::optional<gpu::Placement> placement;
    if (wanted.start) {
      const uint8_t size = found->placements.empty() ? uint8_t{0} : found->placements.front().size;
      placement = gpu::Placement{static_cast<uint8_t>(*wanted.start), size};
    }
    const auto made = ports_.mig.create_gi(gpu.uuid, found->id, placement);
    if (!made) {
      const int code = no_gi(gpu, std::to_string(found->id.value), made.error());
      if (made.error().code == Code::kInUse) tell_holders(gpu, std::nullopt);
      if (smi_answer_of(made.error()).code == 23)
        hint(
            fmt::format("{}: there is no room for another {} (profile {}); nvidia-smi mig -lgi "
                        "shows what is there, -lgip what is free",
                        name(gpu), found->name, found->id.value));
      if (smi_answer_of(made.error()).code == 2 && placement)
        hint(fmt::format("{}: no {} can begin at {}; nvidia-smi mig -lgipp lists the places",
                         name(gpu), found->name, *wanted.start));
      return code;
    }
    out(fmt::format(
        "Successfully created GPU instance ID {:>2} on GPU {:>2} using profile MIG {} (ID {:>2})",
        made->value, gpu.index.value, found->name, found->id.value));
    if (!request_.with_ci) continue;
    if (const int code = create_ci(gpu, *made, std::nullopt); code != 0) return code;
  }
  return 0;
}

int SmiMigRun::no_ci(const Gpu& gpu, GiId gi, const std::string& profile,
                     const Error& error) const {
  out(
      fmt::format("Unable to create a compute instance on GPU {:>2} GPU instance ID {:>2} using "
                  "profile {}: {}",
                  gpu.index.value, gi.value, profile, smi_answer_of(error).words));
  return failed("create compute instances", error);
}

int SmiMigRun::create_ci(const Gpu& gpu, GiId gi,
                         const std::optional<SmiMigRequest::Profile>& wanted) const {
  const std::string text = wanted ? wanted->text : "default";
  const auto told = ports_.mig.ci_profiles(gpu.uuid, gi);
  if (!told) return no_ci(gpu, gi, text, told.error());
  // What fills the GPU instance bears its name, "3g.20gb"; the others are "1c.3g.20gb".
  const auto found = std::find_if(told->begin(), told->end(), [&](const ports::CiProfile& p) {
    if (!wanted) return p.name.find("c.") == std::string::npos;
    return text == std::to_string(p.id.value) || text == fmt::format("{}*", p.id.value) ||
           to_lower(text) == to_lower(p.name);
  });
  if (found == told->end()) {
    std::vector<std::string> known;
    for (const ports::CiProfile& p : *told)
      known.push_back(fmt::format("{} ({})", p.id.value, p.name));
    hint(fmt::format("{}, GPU instance {}: it has no compute instance profile {}; it has {}",
                     name(gpu), gi.value, json_escape(text), join(known, ", ")));
    return no_ci(gpu, gi, json_escape(text), Error{Code::kUsage, "", {}});
  }
  std::optional<gpu::Placement> placement;
  if (wanted && wanted->start)
    placement =
        gpu::Placement{static_cast<uint8_t>(*wanted->start), static_cast<uint8_t>(found->slices)};
  const auto made = ports_.mig.create_ci(gpu.uuid, gi, found->id, placement);
  if (!made) {
    if (smi_answer_of(made.error()).code == 23)
      hint(
          fmt::format("{}, GPU instance {}: there is no room for another {}; nvidia-smi mig -lci "
                      "shows what is there, -lcip what is free",
                      name(gpu), gi.value, found->name));
    return no_ci(gpu, gi, std::to_string(found->id.value), made.error());
  }
  out(
      fmt::format("Successfully created compute instance ID {:>2} on GPU {:>2} GPU instance ID "
                  "{:>2} using profile MIG {} (ID {:>2})",
                  made->value, gpu.index.value, gi.value, found->name, found->id.value));
  return 0;
}

int SmiMigRun::create_cis() {
  if (with_mig().empty()) return no_mig();
  bool any = false;
  for (const Gpu* gpu : with_mig()) {
    const auto held = lock(*gpu);
    if (!held) return failed("create compute instances", held.error());
    const auto there = ports_.mig.instances(gpu->uuid);
    if (!there) return failed("create compute instances", there.error());
    for (const ports::GpuInstance& gi : *there) {
      if (!wants_gi(gi.id)) continue;
      any = true;
      if (request_.profiles.empty())
        if (const int code = create_ci(*gpu, gi.id, std::nullopt); code != 0) return code;
      for (const SmiMigRequest::Profile& profile : request_.profiles)
        if (const int code = create_ci(*gpu, gi.id, profile); code != 0) return code;
    }
  }
  return any ? 0 : none("GPU instances");
}

// --- destroying ---

int SmiMigRun::destroy_gi(const Gpu& gpu, const ports::GpuInstance& gi) const {
  const Status gone = ports_.mig.destroy_gi(gpu.uuid, gi.id);
  if (gone) {
    out(fmt::format("Successfully destroyed GPU instance ID {:>2} from GPU {:>2}", gi.id.value,
                    gpu.index.value));
    return 0;
  }
  out(fmt::format("Unable to destroy GPU instance ID {:>2} from GPU {:>2}: {}", gi.id.value,
                  gpu.index.value, smi_answer_of(gone.error()).words));
  const int code = failed("destroy GPU instances", gone.error());
  if (gone.error().code != Code::kInUse) return code;
  if (!gi.cis.empty())
    hint(fmt::format("{}, GPU instance {}: it has {}; nvidia-smi mig -dci -gi {} -i {} first",
                     name(gpu), gi.id.value,
                     gi.cis.size() == 1 ? "a compute instance"
                                        : fmt::format("{} compute instances", gi.cis.size()),
                     gi.id.value, gpu.index.value));
  tell_holders(gpu, gi.id);
  return code;
}

int SmiMigRun::destroy_ci(const Gpu& gpu, GiId gi, CiId ci) const {
  const Status gone = ports_.mig.destroy_ci(gpu.uuid, gi, ci);
  if (gone) {
    out(fmt::format(
        "Successfully destroyed compute instance ID {:>2} from GPU {:>2} GPU instance ID {:>2}",
        ci.value, gpu.index.value, gi.value));
    return 0;
  }
  out(fmt::format(
      "Unable to destroy compute instance ID {:>2} from GPU {:>2} GPU instance ID {:>2}: {}",
      ci.value, gpu.index.value, gi.value, smi_answer_of(gone.error()).words));
  const int code = failed("destroy compute instances", gone.error());
  if (gone.error().code == Code::kInUse) tell_holders(gpu, gi);
  return code;
}

int SmiMigRun::destroy(bool gpu_instances) {
  const std::string what = gpu_instances ? "destroy GPU instances" : "destroy compute instances";
  if (with_mig().empty()) return no_mig();
  bool any = false;
  for (const Gpu* gpu : with_mig()) {
    const auto held = lock(*gpu);
    if (!held) return failed(what, held.error());
    const auto there = ports_.mig.instances(gpu->uuid);
    if (!there) return failed(what, there.error());
    for (const ports::GpuInstance& gi : *there) {
      if (!wants_gi(gi.id)) continue;
      if (gpu_instances) {
        any = true;
        if (const int code = destroy_gi(*gpu, gi); code != 0) return code;
        continue;
      }
      for (const ports::ComputeInstance& ci : gi.cis) {
        if (!wants_ci(ci.id)) continue;
        any = true;
        if (const int code = destroy_ci(*gpu, gi.id, ci.id); code != 0) return code;
      }
    }
  }
  return any ? 0 : none(gpu_instances ? "GPU instances" : "compute instances");
}

}  // namespace gpuslice::cli
