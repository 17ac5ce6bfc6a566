#pragma once

// The driver that the tests of `smi mig` speak with. Only for tests.

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "cli/smi_mig.h"
#include "ports/held_for_test.h"

namespace gpuslice::cli {

inline Error nvml_error(Code code, const std::string& words, int number) {
  return {code, fmt::format("GPU 0: nvmlSomething: {} ({})", words, number), {}};
}
inline Error in_use() { return nvml_error(Code::kInUse, "In use by another client", 19); }
inline Error no_room() { return nvml_error(Code::kImpossible, "Insufficient Resources", 23); }
inline Error no_permission() {
  return nvml_error(Code::kNoPermission, "Insufficient Permissions", 4);
}
inline Error not_supported() { return nvml_error(Code::kImpossible, "Not Supported", 3); }

inline ports::GiProfile profile(uint32_t id, uint32_t nvml_enum, std::string name, uint32_t slices,
                                uint32_t most, uint32_t mib, uint32_t sm,
                                const std::vector<uint8_t>& starts, uint8_t size) {
  ports::GiProfile p{
      ProfileId{id}, nvml_enum, std::move(name), slices, most, mib, sm, slices, 0, 0, 0, 0, {}};
  for (const uint8_t start : starts) p.placements.push_back({start, size});
  return p;
}

// A driver of two boards, as far as these tests need one: instances go where one says, or to the
// first place that is free.
class Fake final : public ports::Nvml,
                   public ports::Mig,
                   public ports::GpuReset,
                   public ports::Locks {
 public:
  std::map<std::string, std::vector<ports::GpuInstance>> there;
  std::map<std::string, std::vector<ports::Process>> working;
  std::map<std::string, Error> failing;            // call -> its answer
  std::map<std::string, Error> unresettable;       // bus id -> why
  std::map<std::string, ports::Activation> modes;  // GPU -> what a change of the mode comes to
  std::set<std::string> locked;
  bool trusted = true;
  std::vector<std::string> calls;
  bool is_open = true;

  Status open() override {
    is_open = true;
    return {};
  }
  void close() override { is_open = false; }
  Result<ports::DriverInfo> driver() override { return ports::DriverInfo{}; }
  Result<uint32_t> gpu_count() override { return 3U; }
  Result<ports::Gpu> gpu(GpuIndex, ports::Detail) override { return ports::Gpu{}; }

  Result<ports::MigMode> mig_mode(const std::string&) override { return ports::MigMode{}; }
  Result<bool> mode_needs_reset(const std::string&) override { return true; }
  Result<ports::GiProfiles> gi_profiles(const std::string&) override {
    TRY(answer("gi_profiles"));
    ports::GiProfiles out;
    out.profiles = {profile(19, 0, "1g.5gb", 1, 7, 4864, 14, {0, 1, 2, 3, 4, 5, 6}, 1),
                    profile(9, 2, "3g.20gb", 3, 2, 19968, 42, {0, 4}, 4),
                    profile(0, 4, "7g.40gb", 7, 1, 40192, 132, {0}, 8),
                    profile(20, 7, "1g.5gb+me", 1, 1, 4864, 14, {0, 1, 2, 3, 4, 5, 6}, 1)};
    out.trusted = trusted;
    out.profiles[1].dec = 2;
    out.profiles[3].dec = out.profiles[3].jpeg = out.profiles[3].ofa = 1;
    return out;
  }
  Result<uint32_t> gi_free(const std::string& gpu, ProfileId id) override {
    TRY(answer("gi_free"));
    uint32_t free = 0;
    for (const gpu::Placement p : placements(id)) free += fits(gpu, p) ? 1U : 0U;
    return free;
  }
  Result<std::vector<ports::CiProfile>> ci_profiles(const std::string& gpu, GiId gi) override {
    TRY(answer("ci_profiles"));
    for (const ports::GpuInstance& one : there[gpu])
      if (one.id == gi && one.profile.value == 9)
        return std::vector<ports::CiProfile>{
            {ProfileId{0}, "1c.3g.20gb", 1, 3, 3, 14, 3, 2, 0, 0, 0, {{0, 1}, {1, 1}, {2, 1}}},
            {ProfileId{2}, "3g.20gb", 3, 1, 1, 42, 3, 2, 0, 0, 0, {{0, 3}}}};
    return std::vector<ports::CiProfile>{
        {ProfileId{0}, "1g.5gb", 1, 1, 0, 14, 1, 0, 0, 0, 0, {{0, 1}}}};
  }
  Result<std::vector<ports::GpuInstance>> instances(const std::string& gpu) override {
    TRY(answer("instances"));
    return there[gpu];
  }
  Result<std::vector<ports::Process>> processes(const std::string& gpu) override {
    return working[gpu];
  }
  Result<ports::Activation> set_mig_mode(const std::string& gpu, bool on) override {
    calls.push_back(fmt::format("mode {} {}", gpu, on));
    TRY(answer("set_mig_mode"));
    if (gpu == "GPU-t4") return std::unexpected(not_supported());
    if (!on && !there[gpu].empty()) return std::unexpected(in_use());
    return modes.contains(gpu) ? modes[gpu] : ports::Activation::kDone;
  }
  Result<GiId> create_gi(const std::string& gpu, ProfileId id,
                         std::optional<gpu::Placement> placement) override {
    calls.push_back(fmt::format("create {} {} {}", gpu, id.value,
                                placement ? std::to_string(placement->start) : "anywhere"));
    TRY(answer("create_gi"));
    for (const gpu::Placement p : placements(id)) {
      if ((placement && p != *placement) || !fits(gpu, p)) continue;
      const GiId made{p.size == 4 ? 1U + p.start / 4U : 7U + p.start};
      there[gpu].push_back({made, id, p, {}});
      return made;
    }
    return std::unexpected(no_room());
  }
  Status destroy_gi(const std::string& gpu, GiId id) override {
    TRY(answer("destroy_gi"));
    for (const ports::GpuInstance& gi : there[gpu])
      if (gi.id == id && !gi.cis.empty()) return std::unexpected(in_use());
    std::erase_if(there[gpu], [&](const auto& gi) { return gi.id == id; });
    return {};
  }
  Result<CiId> create_ci(const std::string& gpu, GiId id, ProfileId profile,
                         std::optional<gpu::Placement> placement) override {
    TRY(answer("create_ci"));
    for (ports::GpuInstance& gi : there[gpu]) {
      if (gi.id != id) continue;
      const CiId made{static_cast<uint32_t>(gi.cis.size())};
      gi.cis.push_back({made, profile, placement.value_or(gpu::Placement{}), ""});
      return made;
    }
    return std::unexpected(nvml_error(Code::kNotFound, "Not Found", 6));
  }
  Status destroy_ci(const std::string& gpu, GiId id, CiId ci) override {
    for (const ports::Process& process : working[gpu])
      if (process.gi == id) return std::unexpected(in_use());
    for (ports::GpuInstance& gi : there[gpu])
      if (gi.id == id) std::erase_if(gi.cis, [&](const auto& one) { return one.id == ci; });
    return {};
  }
  Status reset(const std::string& bus_id) override {
    EXPECT_FALSE(is_open) << "our own session is a client like any other";
    calls.push_back("reset " + bus_id);
    if (unresettable.contains(bus_id)) return std::unexpected(unresettable.at(bus_id));
    return {};
  }
  Result<std::unique_ptr<Held>> take(const std::string& path) override {
    TRY(answer("lock"));
    if (auto held = ports::held_in_memory(locked, path)) return held;
    return fail(Code::kInUse, "busy, by PID 4242, since 2026-11-24T10:00:00Z; try again");
  }

 private:
  Status answer(const std::string& call) const {
    if (const auto it = failing.find(call); it != failing.end()) return std::unexpected(it->second);
    return {};
  }
  std::vector<gpu::Placement> placements(ProfileId id) {
    const ports::GiProfiles all = *gi_profiles("");
    for (const ports::GiProfile& p : all.profiles)
      if (p.id == id) return p.placements;
    return {};
  }
  bool fits(const std::string& gpu, gpu::Placement p) {
    return std::none_of(there[gpu].begin(), there[gpu].end(), [&](const auto& gi) {
      return p.start < gi.placement.start + gi.placement.size &&
             gi.placement.start < p.start + p.size;
    });
  }
};

}  // namespace gpuslice::cli
