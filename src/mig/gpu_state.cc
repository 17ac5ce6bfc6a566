#include "mig/gpu_state.h"

#include <fmt/format.h>

#include <algorithm>

namespace gpuslice::mig {
namespace {

// NVML's enum of the compute instance that has media engines of its own: never what fills a GPU
// instance unless asked for.
constexpr ProfileId kOneSliceRevision1{7};

std::vector<plan::CiProfile> in_order(std::vector<plan::CiProfile> cis,
                                      const std::vector<uint32_t>& slices) {
  std::vector<size_t> order(cis.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const bool rev_a = cis[a].id == kOneSliceRevision1;
    const bool rev_b = cis[b].id == kOneSliceRevision1;
    if (slices[a] != slices[b]) return slices[a] < slices[b];
    return rev_a != rev_b ? rev_a : cis[a].id < cis[b].id;
  });
  std::vector<plan::CiProfile> out;
  for (const size_t i : order) out.push_back(std::move(cis[i]));
  return out;
}

// What a GPU instance of so many slices takes, for one that is not there yet: NVML tells it only
// of instances that exist. The executor asks again once it is there.
std::vector<plan::CiProfile> expected_cis(uint32_t slices) {
  std::vector<plan::CiProfile> out;
  std::vector<uint32_t> widths;
  for (const gpu::CiProfile& ci : gpu::ci_profiles(static_cast<uint8_t>(slices))) {
    plan::CiProfile one{ProfileId{ci.ci_enum}, std::string(ci.name), ci.max_instances, {}};
    for (const gpu::Placement p : ci.placements) one.placements.push_back(span_of(p));
    out.push_back(std::move(one));
    widths.push_back(ci.slices);
  }
  return in_order(std::move(out), widths);
}

std::vector<plan::CiProfile> told_cis(const std::vector<ports::CiProfile>& profiles) {
  std::vector<plan::CiProfile> out;
  std::vector<uint32_t> widths;
  for (const ports::CiProfile& ci : profiles) {
    plan::CiProfile one{ci.id, fmt::format("{}c", ci.slices), ci.most, {}};
    for (const gpu::Placement p : ci.placements) one.placements.push_back(span_of(p));
    out.push_back(std::move(one));
    widths.push_back(ci.slices);
  }
  return in_order(std::move(out), widths);
}

Result<plan::Offer> make_offer(ports::Mig& mig, const GpuState& state) {
  plan::Offer offer;
  for (const ports::GiProfile& profile : state.profiles) {
    plan::GiProfile one{profile.id,   profile.name,
                        profile.most, {profile.dec, profile.enc, profile.jpeg, profile.ofa},
                        {},           {}};
    for (const gpu::Placement p : profile.placements) one.placements.push_back(span_of(p));
    const auto there =
        std::find_if(state.instances.begin(), state.instances.end(),
                     [&](const ports::GpuInstance& gi) { return gi.profile == profile.id; });
    if (there == state.instances.end()) {
      one.cis = expected_cis(profile.slices);
    } else {
      TRY_ASSIGN(const std::vector<ports::CiProfile> told,
                 mig.ci_profiles(state.gpu.uuid, there->id));
      one.cis = told_cis(told);
    }
    offer.profiles.push_back(std::move(one));
  }
  return offer;
}

std::vector<plan::Gi> planned(const std::vector<ports::GpuInstance>& instances) {
  std::vector<plan::Gi> out;
  for (const ports::GpuInstance& gi : instances) {
    plan::Gi one{gi.id, gi.profile, span_of(gi.placement), false, {}};
    for (const ports::ComputeInstance& ci : gi.cis)
      one.cis.push_back({ci.id, ci.profile, span_of(ci.placement), false});
    out.push_back(std::move(one));
  }
  return out;
}

void mark(GpuState& state, std::optional<GiId> gi, std::optional<CiId> ci) {
  if (!gi) state.gpu_busy = true;
  for (plan::Gi& one : state.there) {
    if (gi && one.id != *gi) continue;
    one.busy = true;
    for (plan::Ci& inner : one.cis)
      if (!ci || inner.id == *ci) inner.busy = true;
  }
}

}  // namespace

plan::Span span_of(gpu::Placement placement) { return {placement.start, placement.size}; }
gpu::Placement placement_of(plan::Span span) {
  return {static_cast<uint8_t>(span.start), static_cast<uint8_t>(span.size)};
}

std::string Holder::text() const {
  std::string who;
  if (source == Source::kProcess)
    who = pid == 0 ? "a process that cannot be seen from here" : fmt::format("PID {}", pid);
  if (!command.empty()) who += fmt::format(" ({})", command);
  if (!pod.empty())
    who += fmt::format("{}pod {}/{}, container {}", who.empty() ? "" : " of ", pod_namespace, pod,
                       container);
  if (who.empty()) who = fmt::format("whoever was given {}", device);
  if (!gi) return who;
  return ci ? fmt::format("{}, on GPU instance {}, compute instance {}", who, gi->value, ci->value)
            : fmt::format("{}, on GPU instance {}", who, gi->value);
}

std::string GpuName::text() const { return fmt::format("GPU {}", index.value); }

GpuName name_of(const ports::Gpu& gpu) { return {gpu.index, gpu.uuid, gpu.bus_id, gpu.name}; }

bool has_place(const Layout& layout, const plan::WantedGi& gi) {
  return std::any_of(layout.gis.begin(), layout.gis.end(), [&](const plan::WantedGi& other) {
    return other.placement == gi.placement && other.profile == gi.profile;
  });
}

void normalise(Layout& layout) {
  for (plan::WantedGi& gi : layout.gis)
    if (gi.cis)
      std::sort(gi.cis->begin(), gi.cis->end(), [](const auto& a, const auto& b) {
        return a.placement != b.placement ? a.placement < b.placement : a.profile < b.profile;
      });
  std::sort(layout.gis.begin(), layout.gis.end(), [](const auto& a, const auto& b) {
    return a.placement != b.placement ? a.placement < b.placement : a.profile < b.profile;
  });
}

Layout GpuState::layout() const {
  Layout out{mode.current, {}};
  for (const ports::GpuInstance& gi : instances) {
    plan::WantedGi one{gi.profile, span_of(gi.placement), std::vector<plan::WantedCi>{}};
    for (const ports::ComputeInstance& ci : gi.cis)
      one.cis->push_back({ci.profile, span_of(ci.placement)});
    out.gis.push_back(std::move(one));
  }
  normalise(out);
  return out;
}

const ports::GiProfile* GpuState::profile(ProfileId id) const {
  const auto it = std::find_if(profiles.begin(), profiles.end(),
                               [&](const ports::GiProfile& p) { return p.id == id; });
  return it == profiles.end() ? nullptr : &*it;
}

std::string GpuState::profile_name(ProfileId id) const {
  const ports::GiProfile* known = profile(id);
  return known == nullptr ? fmt::format("profile {}", id.value) : known->name;
}

Result<GpuState> read_state(ports::Mig& mig, const GpuName& gpu) {
  GpuState state;
  state.gpu = gpu;
  TRY_ASSIGN(state.mode, mig.mig_mode(gpu.uuid));
  TRY_ASSIGN(ports::GiProfiles profiles, mig.gi_profiles(gpu.uuid));
  state.profiles_trusted = profiles.trusted;
  state.profiles = std::move(profiles.profiles);
  TRY_ASSIGN(state.instances, mig.instances(gpu.uuid));
  TRY_ASSIGN(state.processes, mig.processes(gpu.uuid));
  TRY_ASSIGN(state.offer, make_offer(mig, state));
  state.there = planned(state.instances);
  for (const ports::Process& process : state.processes) mark(state, process.gi, process.ci);
  return state;
}

void mark_held(GpuState& state, const std::vector<Holder>& holders) {
  for (const Holder& holder : holders) mark(state, holder.gi, holder.ci);
}

std::vector<Holder> process_holders(const GpuState& state) {
  std::vector<Holder> out;
  for (const ports::Process& process : state.processes) {
    Holder holder;
    holder.gi = process.gi;
    holder.ci = process.ci;
    holder.pid = process.pid;
    holder.command = process.name;
    out.push_back(std::move(holder));
  }
  return out;
}

std::string layout_text(const Layout& layout, const GpuState& names) {
  if (!layout.mig) return "MIG off";
  if (layout.gis.empty()) return "MIG on, no instances";
  std::string text;
  for (const plan::WantedGi& gi : layout.gis) {
    if (!text.empty()) text += ", ";
    text += names.profile_name(gi.profile);
    if (gi.placement) text += fmt::format(" at {}:{}", gi.placement->start, gi.placement->size);
    if (gi.cis && gi.cis->empty()) text += " without compute instance";
    if (gi.cis && gi.cis->size() > 1)
      text += fmt::format(" in {} compute instances", gi.cis->size());
  }
  return text;
}

}  // namespace gpuslice::mig
