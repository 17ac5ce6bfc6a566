// mig-parted's way to a layout, call by call, for the comparison in docs/performance.md: skip when
// equal; else take the wanted profiles one by one, more slices first; for each distinct order of
// them clear the GPU, create each GPU instance where the driver likes and its compute instance; the
// first order without an error wins. Profiles of equal size come in the order given here, which is
// random there.
//
//   mig_parted_sequence ROOT GPU PROFILE=COUNT…
//
// Prints how many orders it tried and how many GPU instances it made on the way.

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "base/text.h"
#include "nvml/session.h"

namespace gpuslice {
namespace {

struct Wanted {
  std::string name;
  uint32_t count = 0;
};

struct Tally {
  uint32_t rounds = 0, created = 0;
};

Status clear(ports::Mig& mig, const std::string& gpu) {
  TRY_ASSIGN(const std::vector<ports::GpuInstance> there, mig.instances(gpu));
  for (const ports::GpuInstance& gi : there) {
    for (const ports::ComputeInstance& ci : gi.cis) TRY(mig.destroy_ci(gpu, gi.id, ci.id));
    TRY(mig.destroy_gi(gpu, gi.id));
  }
  return {};
}

Status create(ports::Mig& mig, const std::string& gpu, const ports::GiProfile& profile) {
  TRY_ASSIGN(const GiId gi, mig.create_gi(gpu, profile.id, std::nullopt));
  TRY_ASSIGN(const std::vector<ports::CiProfile> cis, mig.ci_profiles(gpu, gi));
  for (const ports::CiProfile& ci : cis)
    if (ci.slices == profile.slices && ci.id != ProfileId{7}) {
      TRY_ASSIGN([[maybe_unused]] const CiId made, mig.create_ci(gpu, gi, ci.id, std::nullopt));
      return {};
    }
  return fail(Code::kInternal, "no compute instance fills {}", profile.name);
}

Result<bool> equal(ports::Mig& mig, const std::string& gpu,
                   const std::vector<ports::GiProfile>& profiles,
                   const std::vector<Wanted>& wanted) {
  std::map<std::string, uint32_t> there;
  std::map<std::string, uint32_t> meant;
  TRY_ASSIGN(const std::vector<ports::GpuInstance> gis, mig.instances(gpu));
  for (const ports::GpuInstance& gi : gis)
    for (const ports::GiProfile& profile : profiles)
      if (profile.id == gi.profile) there[profile.name] += static_cast<uint32_t>(gi.cis.size());
  for (const Wanted& one : wanted) meant[one.name] = one.count;
  return there == meant;
}

Status apply(ports::Mig& mig, const std::string& gpu, const std::vector<Wanted>& wanted,
             Tally& tally) {
  TRY_ASSIGN(const ports::GiProfiles told, mig.gi_profiles(gpu));
  TRY_ASSIGN(const bool same, equal(mig, gpu, told.profiles, wanted));
  if (same) return {};
  std::vector<ports::GiProfile> kinds;  // more slices first; equal ones as they are wanted
  for (uint32_t slices = 8; slices > 0; --slices)
    for (const Wanted& one : wanted)
      for (const ports::GiProfile& profile : told.profiles)
        if (profile.slices == slices && profile.name == one.name) kinds.push_back(profile);
  std::vector<size_t> order;
  for (size_t i = 0; i < kinds.size(); ++i)
    for (const Wanted& one : wanted)
      if (one.name == kinds[i].name) order.insert(order.end(), one.count, i);
  do {
    ++tally.rounds;
    Status done = clear(mig, gpu);
    for (size_t i = 0; i < order.size() && done; ++i) {
      done = create(mig, gpu, kinds[order[i]]);
      if (done) ++tally.created;
    }
    if (done) return {};
  } while (std::next_permutation(order.begin(), order.end()));
  TRY(clear(mig, gpu));
  return fail(Code::kImpossible, "all orderings failed");
}

Result<int> run(int argc, char** argv) {
  std::vector<Wanted> wanted;
  for (int i = 3; i < argc; ++i) {
    const auto parts = split(argv[i], '=');
    const auto count = parts.size() == 2 ? parse_u64(parts[1]) : std::nullopt;
    if (!count) return fail(Code::kUsage, "usage: mig_parted_sequence ROOT GPU PROFILE=COUNT…");
    wanted.push_back({std::string(parts[0]), static_cast<uint32_t>(*count)});
  }
  nvml::Session session(argv[1]);
  TRY(session.open());
  TRY_ASSIGN(const ports::Gpu gpu,
             session.gpu(GpuIndex{static_cast<uint32_t>(parse_u64(argv[2]).value_or(0))},
                         ports::Detail::kInventory));
  Tally tally;
  const Status done = apply(session, gpu.uuid, wanted, tally);
  fmt::print("{} {}\n", tally.rounds, tally.created);
  TRY(done);
  return 0;
}

}  // namespace
}  // namespace gpuslice

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const auto done = gpuslice::run(argc, argv);
  if (!done) fmt::print(stderr, "mig_parted_sequence: {}\n", done.error().text());
  return done ? *done : 1;
}
