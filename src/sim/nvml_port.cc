#include "sim/nvml_port.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "ports/nvml_return.h"
#include "sim/mig.h"

namespace gpuslice::sim {
namespace {

constexpr uint32_t kA30 = 0x20B710DE;

uint64_t driver_branch(const State& state) {
  const std::string_view text = state.node.driver;
  return parse_u64(text.substr(0, text.find('.'))).value_or(580);
}

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint8_t kMostCiEnums = 9;

std::string bus_id_of(const Gpu& gpu) {
  return fmt::format("{:08X}:{:02X}:{:02X}.0", gpu.pci_domain, gpu.pci_bus, gpu.pci_device);
}

std::optional<uint32_t> find_gpu(const State& state, const std::string& uuid) {
  for (uint32_t i = 0; i < state.node.gpu_count; ++i)
    if (uuid == state.gpus[i].uuid) return i;
  return std::nullopt;
}

gpu::Placement placement_of(uint8_t start, uint8_t size) { return {start, size}; }

std::vector<ports::Process> processes_of(const State& state, uint32_t gpu) {
  std::vector<ports::Process> out;
  for (const Work& work : state.works) {
    if (!work.used || work.gpu != gpu) continue;
    // A dead client's work goes with the next write.
    const Client& client = state.clients[work.client];
    if (client.simulated && !client.alive) continue;
    ports::Process process;
    process.pid = static_cast<uint32_t>(client.pid);
    process.memory_bytes = work.memory_bytes;
    if (work.gi != kNone) process.gi = GiId{work.gi};
    if (work.ci != kNone) process.ci = CiId{work.ci};
    process.name = client.name;
    out.push_back(std::move(process));
  }
  return out;
}

ports::MigDevice mig_device(const State& state, uint32_t gpu, uint32_t index, MigDevice at) {
  const Gi& gi = state.gpus[gpu].gis[at.gi];
  const gpu::Profile& profile = gi_profile(state, gpu, at.gi);
  ports::MigDevice out;
  out.index = index;
  out.uuid = mig_uuid(state, gpu, at.gi, at.ci);
  out.profile = ci_name(state, gpu, at.gi, at.ci);
  out.profile_id = profile.id;
  out.gi = GiId{at.gi};
  out.ci = CiId{at.ci};
  out.placement = placement_of(gi.start, gi.size);
  out.memory_total_bytes = profile.memory_mib * kMiB;
  out.sm = gpu::ci_multiprocessors(board_of(state, gpu), profile, gi.cis[at.ci].size);
  out.ce = profile.ce;
  out.dec = profile.dec;
  out.enc = profile.enc;
  out.jpeg = profile.jpeg;
  out.ofa = profile.ofa;
  out.gi_slices = profile.slices;
  out.ci_slices = gi.cis[at.ci].size;
  out.memory_mib = profile.memory_mib;
  return out;
}

}  // namespace

template <class F>
Status WorldNvml::run(std::string_view call, const std::string& gpu, F&& work) {
  ++calls_;
  if (hooks_.before)
    if (auto error = hooks_.before(call, gpu)) return std::unexpected(*std::move(error));
  const Ret ret = work();
  if (hooks_.after)
    if (auto error = hooks_.after(call, gpu)) return std::unexpected(*std::move(error));
  if (ret != Ret::kSuccess) {
    const auto code = static_cast<uint32_t>(ret);
    return fail(ports::code_of_return(static_cast<int>(code)), "{}: {}: {} ({})",
                gpu.empty() ? "NVIDIA driver" : gpu, call, ret_text(code), code);
  }
  return {};
}

template <class F>
Status WorldNvml::on_gpu(std::string_view call, const std::string& uuid, F&& work) {
  return run(call, uuid, [&] {
    const auto state = world_.snapshot();
    const auto index = find_gpu(*state, uuid);
    if (!index) return Ret::kNotFound;
    if (state->gpus[*index].lost) return Ret::kGpuIsLost;
    return work(*state, *index);
  });
}

Status WorldNvml::open() {
  return run("open", "", [] { return Ret::kSuccess; });
}
void WorldNvml::close() {
  static_cast<void>(run("close", "", [] { return Ret::kSuccess; }));
}

Result<ports::DriverInfo> WorldNvml::driver() {
  ports::DriverInfo info;
  TRY(run("driver", "", [&] {
    info.version = world_.snapshot()->node.driver;
    info.nvml_version = "13." + info.version;
    info.cuda_version = 13000;
    return Ret::kSuccess;
  }));
  return info;
}

Result<uint32_t> WorldNvml::gpu_count() {
  uint32_t count = 0;
  TRY(run("gpu_count", "", [&] {
    count = world_.snapshot()->node.gpu_count;
    return Ret::kSuccess;
  }));
  return count;
}

Result<ports::Gpu> WorldNvml::gpu(GpuIndex index, ports::Detail detail) {
  ports::Gpu out;
  TRY(run("gpu", fmt::format("GPU {}", index.value), [&] {
    const auto state = world_.snapshot();
    if (index.value >= state->node.gpu_count) return Ret::kInvalidArgument;
    const Gpu& gpu = state->gpus[index.value];
    if (gpu.lost) return Ret::kGpuIsLost;
    const gpu::Board& board = board_of(*state, index.value);
    out.index = index;
    out.minor = GpuMinor{gpu.minor};
    out.uuid = gpu.uuid;
    out.name = board.name;
    out.bus_id = bus_id_of(gpu);
    out.numa_node = gpu.numa_node;
    out.pci_device_id = board.pci_device_id;
    out.pci_subsystem_id = board.pci_subsystem_id;
    out.pci_class = board.pci_class;
    out.cc_major = board.cc_major;
    out.cc_minor = board.cc_minor;
    out.memory_total_bytes = board.memory_total_mib * kMiB;
    const GpuLife& life = state->life.gpus[index.value];
    out.ecc_uncorrected = life.ecc_volatile.uncorrected;
    out.remap_pending = life.remap_pending != 0;
    out.remap_failed = life.remap_failed != 0;
    out.recovery_action = life.recovery_action;
    // As of the newest write: nothing that lives on this port waits for a GPU to warm up.
    out.temperature_c =
        life.heat_c != 0 ? life.heat_c : static_cast<uint32_t>(life.temperature_mc / 1000);
    out.shutdown_c = board.temperatures.shutdown;
    if (board.mig()) out.mig = ports::MigMode{gpu.mig_current != 0, gpu.mig_pending != 0};
    const MigDevices devices = mig_devices(*state, index.value);
    uint32_t n = 0;
    for (const MigDevice& device : devices)
      out.mig_devices.push_back(mig_device(*state, index.value, n++, device));
    if (detail == ports::Detail::kAll) out.processes = processes_of(*state, index.value);
    return Ret::kSuccess;
  }));
  return out;
}

Result<ports::MigMode> WorldNvml::mig_mode(const std::string& gpu) {
  ports::MigMode mode;
  TRY(on_gpu("mig_mode", gpu, [&](const State& state, uint32_t i) {
    if (!mig_capable(state, i)) return Ret::kNotSupported;
    mode = {state.gpus[i].mig_current != 0, state.gpus[i].mig_pending != 0};
    return Ret::kSuccess;
  }));
  return mode;
}

Result<bool> WorldNvml::mode_needs_reset(const std::string& gpu) {
  bool needs = false;
  TRY(on_gpu("mode_needs_reset", gpu, [&](const State& state, uint32_t i) {
    needs = board_of(state, i).mode_change == gpu::ModeChange::kReset;
    return Ret::kSuccess;
  }));
  return needs;
}

Result<ports::GiProfiles> WorldNvml::gi_profiles(const std::string& gpu) {
  ports::GiProfiles out;
  TRY(on_gpu("gi_profiles", gpu, [&](const State& state, uint32_t i) {
    if (!mig_capable(state, i)) return Ret::kNotSupported;
    const bool old = driver_branch(state) == 535;
    if (old && !state.gpus[i].mig_current) {
      out.trusted = false;
      return Ret::kSuccess;
    }
    // As the port of the real driver does (nvml/mig_calls.cc): an A30 is not believed with MIG off.
    if (!state.gpus[i].mig_current && board_of(state, i).pci_device_id == kA30) out.trusted = false;
    for (const gpu::Profile& p : board_of(state, i).profiles) {
      ports::GiProfile profile{p.id,
                               p.gi_enum,
                               std::string(p.name),
                               p.slices,
                               p.max_instances,
                               p.memory_mib,
                               p.sm,
                               p.ce,
                               p.dec,
                               p.enc,
                               p.jpeg,
                               p.ofa,
                               {}};
      Placement all[kMaxGis + 1];
      uint32_t count = 0;
      if (const Ret ret = gi_placements(state, i, p.id, all, count); ret != Ret::kSuccess)
        return ret;
      for (uint32_t k = 0; k < count; ++k)
        profile.placements.push_back(placement_of(all[k].start, all[k].size));
      std::sort(profile.placements.begin(), profile.placements.end());
      out.profiles.push_back(std::move(profile));
    }
    return Ret::kSuccess;
  }));
  return out;
}

Result<uint32_t> WorldNvml::gi_free(const std::string& gpu, ProfileId profile) {
  uint32_t count = 0;
  TRY(on_gpu("gi_free", gpu, [&](const State& state, uint32_t i) {
    // Branch 580 answers with MIG off too (docs/hardware.md).
    if (!state.gpus[i].mig_current && driver_branch(state) < 580) return Ret::kNotSupported;
    return gi_capacity(state, i, profile, count);
  }));
  return count;
}

Result<std::vector<ports::CiProfile>> WorldNvml::ci_profiles(const std::string& gpu, GiId gi) {
  std::vector<ports::CiProfile> out;
  TRY(on_gpu("ci_profiles", gpu, [&](const State& state, uint32_t i) {
    if (gi.value >= kMaxGis || !state.gpus[i].gis[gi.value].live) return Ret::kNotFound;
    const auto id = static_cast<uint8_t>(gi.value);
    const gpu::Profile& parent = gi_profile(state, i, id);
    for (uint8_t e = 0; e < kMostCiEnums; ++e) {
      const gpu::CiProfile* p = ci_profile(state, i, id, e);
      if (p == nullptr) continue;
      ports::CiProfile profile;
      profile.id = ProfileId{e};
      profile.name = p->slices == parent.slices ? std::string(parent.name)
                                                : fmt::format("{}c.{}", p->slices, parent.name);
      profile.slices = p->slices;
      profile.most = p->max_instances;
      profile.sm = gpu::ci_multiprocessors(board_of(state, i), parent, p->slices);
      static_cast<void>(ci_capacity(state, i, id, e, profile.free));
      Placement all[kMaxCis + 1];
      uint32_t count = 0;
      if (const Ret ret = ci_placements(state, i, id, e, all, count); ret != Ret::kSuccess)
        return ret;
      for (uint32_t k = 0; k < count; ++k)
        profile.placements.push_back(placement_of(all[k].start, all[k].size));
      out.push_back(std::move(profile));
    }
    return Ret::kSuccess;
  }));
  return out;
}

Result<std::vector<ports::GpuInstance>> WorldNvml::instances(const std::string& gpu) {
  std::vector<ports::GpuInstance> out;
  TRY(on_gpu("instances", gpu, [&](const State& state, uint32_t i) {
    if (!state.gpus[i].mig_current) return Ret::kSuccess;
    if (!admin_) return Ret::kNoPermission;
    for (uint8_t id = 0; id < kMaxGis; ++id) {
      const Gi& gi = state.gpus[i].gis[id];
      if (!gi.live) continue;
      ports::GpuInstance one{
          GiId{id}, gi_profile(state, i, id).id, placement_of(gi.start, gi.size), {}};
      for (uint8_t c = 0; c < kMaxCis; ++c) {
        const Ci& ci = gi.cis[c];
        if (!ci.live) continue;
        one.cis.push_back({CiId{c}, ProfileId{ci.profile}, placement_of(ci.start, ci.size),
                           mig_uuid(state, i, id, c)});
      }
      out.push_back(std::move(one));
    }
    return Ret::kSuccess;
  }));
  return out;
}

Result<std::vector<ports::Process>> WorldNvml::processes(const std::string& gpu) {
  std::vector<ports::Process> out;
  TRY(on_gpu("processes", gpu, [&](const State& state, uint32_t i) {
    out = processes_of(state, i);
    return Ret::kSuccess;
  }));
  return out;
}

Result<ports::Activation> WorldNvml::set_mig_mode(const std::string& gpu, bool on) {
  Ret activation = Ret::kSuccess;
  TRY(on_gpu("set_mig_mode", gpu, [&](const State&, uint32_t i) {
    return world_
        .write([&](State& state) {
          return sim::set_mig_mode(state, i, on, {admin_, kNoClient}, activation);
        })
        .value_or(Ret::kUnknown);
  }));
  if (activation == Ret::kSuccess) return ports::Activation::kDone;
  return activation == Ret::kInUse ? ports::Activation::kInUse : ports::Activation::kNeedsReset;
}

Result<GiId> WorldNvml::create_gi(const std::string& gpu, ProfileId profile,
                                  std::optional<gpu::Placement> placement) {
  uint8_t made = 0;
  instance_.reset();
  compute_instance_.reset();
  TRY(on_gpu("create_gi", gpu, [&](const State&, uint32_t i) {
    return world_
        .write([&](State& state) {
          std::optional<Placement> at;
          if (placement) at = Placement{placement->start, placement->size};
          return sim::create_gi(state, i, profile, at, {admin_, kNoClient}, made);
        })
        .value_or(Ret::kUnknown);
  }));
  return GiId{made};
}

Status WorldNvml::destroy_gi(const std::string& gpu, GiId gi) {
  instance_ = gi;
  compute_instance_.reset();
  return on_gpu("destroy_gi", gpu, [&](const State&, uint32_t i) {
    return world_
        .write([&](State& state) {
          return sim::destroy_gi(state, i, static_cast<uint8_t>(gi.value), {admin_, kNoClient});
        })
        .value_or(Ret::kUnknown);
  });
}

Result<CiId> WorldNvml::create_ci(const std::string& gpu, GiId gi, ProfileId profile,
                                  std::optional<gpu::Placement> placement) {
  uint8_t made = 0;
  instance_ = gi;
  compute_instance_.reset();
  TRY(on_gpu("create_ci", gpu, [&](const State&, uint32_t i) {
    return world_
        .write([&](State& state) {
          std::optional<Placement> at;
          if (placement) at = Placement{placement->start, placement->size};
          return sim::create_ci(state, i, static_cast<uint8_t>(gi.value),
                                static_cast<uint8_t>(profile.value), at, {admin_, kNoClient}, made);
        })
        .value_or(Ret::kUnknown);
  }));
  return CiId{made};
}

Status WorldNvml::destroy_ci(const std::string& gpu, GiId gi, CiId ci) {
  instance_ = gi;
  compute_instance_ = ci;
  return on_gpu("destroy_ci", gpu, [&](const State&, uint32_t i) {
    return world_
        .write([&](State& state) {
          return sim::destroy_ci(state, i, static_cast<uint8_t>(gi.value),
                                 static_cast<uint8_t>(ci.value), {admin_, kNoClient});
        })
        .value_or(Ret::kUnknown);
  });
}

Status WorldNvml::reset(const std::string& bus_id) {
  return run("reset", bus_id, [&] {
    return world_
        .write([&](State& state) {
          for (uint32_t i = 0; i < state.node.gpu_count; ++i)
            if (bus_id_of(state.gpus[i]) == bus_id) return reset_gpu(state, i, {admin_, kNoClient});
          return Ret::kNotFound;
        })
        .value_or(Ret::kUnknown);
  });
}

}  // namespace gpuslice::sim
