#include "mig/checkpoint.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/text.h"

namespace gpuslice::mig {
namespace {

using Json = nlohmann::ordered_json;

std::unexpected<Error> bad(std::string_view what) {
  return fail(Code::kInvalidConfig, "checkpoint: {}", what);
}

std::optional<uint32_t> number(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number_unsigned()) return std::nullopt;
  const auto value = it->get<uint64_t>();
  if (value > 255) return std::nullopt;
  return static_cast<uint32_t>(value);
}

std::optional<plan::Span> span(const Json& object) {
  const auto it = object.find("Placement");
  if (it == object.end() || !it->is_object()) return std::nullopt;
  const auto start = number(*it, "Start");
  const auto size = number(*it, "Size");
  if (!start || !size || *size == 0 || *start + *size > plan::kMostSlices) return std::nullopt;
  return plan::Span{*start, *size};
}

constexpr size_t kMostSaved = 64;

// A list under `key`; absent and null are empty lists, as Go writes them.
Result<const Json*> list(const Json& object, const char* key) {
  static const Json kEmpty = Json::array();
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return &kEmpty;
  if (!it->is_array() || it->size() > kMostSaved)
    return bad(fmt::format("{} is no list of at most {} elements", key, kMostSaved));
  return &*it;
}

Result<SavedGi> saved_gi(const Json& gi) {
  if (!gi.is_object()) return bad("a GPU instance is no object");
  const auto profile = number(gi, "ProfileID");
  const auto placement = span(gi);
  if (!profile || !placement) return bad("a GPU instance lacks its ProfileID or Placement");
  SavedGi out{*profile, *placement, {}};
  TRY_ASSIGN(const Json* cis, list(gi, "ComputeInstances"));
  for (const Json& ci : *cis) {
    if (!ci.is_object()) return bad("a compute instance is no object");
    const auto ci_profile = number(ci, "ProfileID");
    if (!ci_profile) return bad("a compute instance lacks its ProfileID");
    if (number(ci, "EngProfileID").value_or(0) != 0)
      return bad("a compute instance has an engine profile other than shared (0)");
    out.cis.push_back({*ci_profile, span(ci)});
  }
  return out;
}

}  // namespace

std::string format_checkpoint(const std::vector<GpuState>& gpus) {
  Json devices = Json::array();
  for (const GpuState& state : gpus) {
    Json gis = Json::array();
    for (const ports::GpuInstance& gi : state.instances) {
      const ports::GiProfile* profile = state.profile(gi.profile);
      Json cis = Json::array();
      for (const ports::ComputeInstance& ci : gi.cis)
        cis.push_back(
            {{"ProfileID", ci.profile.value},
             {"EngProfileID", 0},
             {"Placement", {{"Start", ci.placement.start}, {"Size", ci.placement.size}}}});
      gis.push_back({{"ProfileID", profile == nullptr ? 0 : profile->nvml_enum},
                     {"Profile", state.profile_name(gi.profile)},
                     {"Placement", {{"Start", gi.placement.start}, {"Size", gi.placement.size}}},
                     {"ComputeInstances", std::move(cis)}});
    }
    devices.push_back({{"UUID", state.gpu.uuid},
                       {"MigMode", state.mode.current ? 1 : 0},
                       {"GpuInstances", std::move(gis)}});
  }
  return Json{{"Version", "v1"}, {"MigState", {{"Devices", std::move(devices)}}}}.dump(2) + "\n";
}

Result<std::vector<SavedGpu>> parse_checkpoint(std::string_view text) {
  if (text.size() > kMaxCheckpointBytes) return bad("it is too long");
  const Json root = Json::parse(text, nullptr, false);
  if (root.is_discarded() || !root.is_object()) return bad("it is no JSON object");
  const auto version = root.find("Version");
  if (version == root.end() || !version->is_string() || *version != "v1")
    return bad("its Version is not v1");
  const auto state = root.find("MigState");
  if (state == root.end() || !state->is_object()) return bad("it has no MigState");
  TRY_ASSIGN(const Json* devices, list(*state, "Devices"));
  std::vector<SavedGpu> out;
  std::set<std::string> seen;
  for (const Json& device : *devices) {
    const auto uuid = device.is_object() ? device.find("UUID") : device.end();
    if (!device.is_object() || uuid == device.end() || !uuid->is_string())
      return bad("a device has no UUID");
    SavedGpu saved;
    saved.uuid = uuid->get<std::string>();
    if (!seen.insert(saved.uuid).second)
      return bad(fmt::format("{} stands twice", json_escape(saved.uuid)));
    const auto mode = number(device, "MigMode");
    if (!mode || *mode > 1)
      return bad(fmt::format("{}: MigMode is neither 0 nor 1", json_escape(saved.uuid)));
    saved.wish.mig = *mode == 1;
    saved.wish.saved.emplace();
    TRY_ASSIGN(const Json* gis, list(device, "GpuInstances"));
    if (!saved.wish.mig && !gis->empty())
      return bad(fmt::format("{}: instances with MIG off", json_escape(saved.uuid)));
    for (const Json& gi : *gis) {
      TRY_ASSIGN(SavedGi one, saved_gi(gi));
      saved.wish.saved->push_back(std::move(one));
    }
    out.push_back(std::move(saved));
  }
  return out;
}

}  // namespace gpuslice::mig
