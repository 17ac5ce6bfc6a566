#include "hardware.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/check.h"
#include "ports/held_for_test.h"
#include "sim/clients.h"
#include "sim/default_placement.h"

namespace gpuslice::dst {
namespace {

constexpr sim::Caller kRoot{.admin = true, .client = sim::kNoClient};

bool changes_something(std::string_view call) {
  return call == "create_gi" || call == "destroy_gi" || call == "create_ci" ||
         call == "destroy_ci" || call == "set_mig_mode" || call == "reset";
}

}  // namespace

Hardware::Hardware(Random& random, const Timeline& timeline) : timeline_(timeline) {
  constexpr std::array<const char*, 5> kBoards = {"A100-SXM4-40GB", "A30-24GB", "H100-80GB-SXM",
                                                  "RTX-PRO-6000-Blackwell-96GB", "T4"};
  sim::NodeOptions options;
  options.virtual_clock = true;
  options.seed = random.next();
  options.gpus.clear();
  const std::string board = kBoards[random.below(kBoards.size())];
  const uint64_t count = 1 + random.below(8);
  for (uint64_t i = 0; i < count; ++i) options.gpus.push_back({board, sim::Sweep::kPlain});
  // One GPU without MIG beside the others.
  if (random.chance(1, 4)) options.gpus.push_back({"T4", sim::Sweep::kPlain});
  constexpr std::array<const char*, 3> kDrivers = {"550.90.07", "570.86.15", "580.65.06"};
  options.driver = kDrivers[random.below(kDrivers.size())];
  if (board.starts_with("RTX")) options.driver = "580.65.06";
  auto made = sim::World::in_memory(options, sim::WriteHooks{});
  CHECK(made.has_value(), "the world of a test cannot be made");
  world_ = std::move(*made);
  nvml_ = std::make_unique<sim::WorldNvml>(*world_);
  nvml_->set_hooks({[this](std::string_view call, const std::string&) { return before(call); },
                    [this](std::string_view call, const std::string&) -> std::optional<Error> {
                      if (changes_something(call)) settle_counters();
                      count_call();
                      return std::nullopt;
                    }});
  begin_counters(random);
  for (uint32_t i = 0; i < options.gpus.size(); ++i) {
    const auto found = gpu::find_board(options.gpus[i].board);
    if (!found || !(*found)->mig()) continue;
    mig_board_ = *found;
    ++mig_gpus_;
  }
}

std::optional<Error> Hardware::before(std::string_view call) {
  if (away_) return Error{Code::kUnavailable, "NVIDIA driver: not loaded", {}};
  count_call();
  if (!in_change_ || in_apply_) return std::nullopt;
  if (failing_changes_ == 0 || !changes_something(call)) return std::nullopt;
  --failing_changes_;
  return Error{failing_changes_ % 2 == 0 ? Code::kInUse : Code::kTimeout,
               fmt::format("{}: injected", call),
               {}};
}

void Hardware::count_call() {
  if (in_apply_) {
    if (apply_dies_in_ < 0) return;
    if (apply_dies_in_-- == 0) throw Died{Fault::kApplyKilled};
    return;
  }
  if (!in_change_ || dies_in_ < 0) return;
  if (dies_in_-- == 0) throw Died{Fault::kKilledInChange};
}

Result<ports::Inventory> Hardware::inventory() {
  ports::Inventory out;
  TRY_ASSIGN(out.driver, nvml_->driver());
  TRY_ASSIGN(const uint32_t count, nvml_->gpu_count());
  for (uint32_t i = 0; i < count; ++i) {
    auto gpu = nvml_->gpu(GpuIndex{i}, ports::Detail::kInventory);
    if (gpu) {
      tell_energy(*gpu);
      out.gpus.push_back(std::move(*gpu));
    } else {
      out.silent.push_back({GpuIndex{i}, std::move(gpu).error()});
    }
  }
  return out;
}

const std::vector<ports::Gpu>& Hardware::gpus() {
  if (gpus_sequence_ == world_->sequence()) return gpus_;
  // Lost ones as they are behind it.
  std::vector<uint32_t> lost;
  const auto state = world_->snapshot();
  for (uint32_t i = 0; i < state->node.gpu_count; ++i)
    if (state->gpus[i].lost != 0) lost.push_back(i);
  const auto set = [&](uint8_t value) {
    if (lost.empty()) return;
    (void)world_->write([&](sim::State& s) {
      for (const uint32_t i : lost) s.gpus[i].lost = value;
      return true;
    });
  };
  set(0);
  sim::WorldNvml quiet(*world_);
  std::vector<ports::Gpu> out;
  for (uint32_t i = 0; i < state->node.gpu_count; ++i) {
    auto gpu = quiet.gpu(GpuIndex{i}, ports::Detail::kInventory);
    CHECK(gpu.has_value(), "a simulated GPU cannot be read");
    out.push_back(std::move(*gpu));
  }
  set(1);
  gpus_ = std::move(out);
  gpus_sequence_ = world_->sequence();
  return gpus_;
}

mig::GpuState Hardware::state_of(const mig::GpuName& gpu) {
  sim::WorldNvml quiet(*world_);
  auto state = mig::read_state(quiet, gpu);
  CHECK(state.has_value(), "a simulated GPU's MIG cannot be read");
  return std::move(*state);
}

const Hardware::Names& Hardware::names() {
  if (names_.sequence == world_->sequence()) return names_;
  names_ = {world_->sequence(), {}, {}};
  const auto state = world_->snapshot();
  for (uint32_t g = 0; g < state->node.gpu_count; ++g) {
    names_.all.insert(state->gpus[g].uuid);
    for (uint8_t gi = 0; gi < sim::kMaxGis; ++gi)
      for (uint8_t ci = 0; ci < sim::kMaxCis; ++ci) {
        const sim::Gi& one = state->gpus[g].gis[gi];
        if (!one.live || !one.cis[ci].live) continue;
        const std::string uuid = sim::mig_uuid(*state, g, gi, ci);
        names_.devices.emplace(uuid, one.cis[ci].generation);
        names_.all.insert(uuid);
      }
  }
  return names_;
}

const std::set<std::string>& Hardware::uuids() { return names().all; }

uint64_t Hardware::generation(const std::string& uuid) {
  const auto found = names().devices.find(uuid);
  return found == names().devices.end() ? 0 : found->second;
}

uint64_t Hardware::making(const std::string& uuid) {
  const auto state = world_->snapshot();
  for (uint32_t g = 0; g < state->node.gpu_count; ++g)
    if (state->gpus[g].uuid == uuid) return state->gpus[g].resets;
  return generation(uuid);
}

bool Hardware::lost(const std::string& gpu) {
  const auto state = world_->snapshot();
  for (uint32_t g = 0; g < state->node.gpu_count; ++g)
    if (state->gpus[g].uuid == gpu) return state->gpus[g].lost != 0;
  return false;
}

std::optional<uint16_t> Hardware::work(const std::string& uuid) {
  const int32_t pid = next_pid_++;
  std::optional<uint16_t> client;
  (void)world_->write([&](sim::State& s) {
    const uint16_t slot = sim::free_client_slot(s);
    if (slot == sim::kNoClient) return;
    for (uint32_t g = 0; g < s.node.gpu_count; ++g) {
      uint8_t at_gi = sim::kNone;
      uint8_t at_ci = sim::kNone;
      bool found = s.gpus[g].uuid == uuid;
      for (uint8_t gi = 0; gi < sim::kMaxGis && !found; ++gi)
        for (uint8_t ci = 0; ci < sim::kMaxCis && !found; ++ci)
          if (s.gpus[g].gis[gi].live && s.gpus[g].gis[gi].cis[ci].live &&
              sim::mig_uuid(s, g, gi, ci) == uuid) {
            at_gi = gi;
            at_ci = ci;
            found = true;
          }
      if (!found) continue;
      sim::add_client(s, slot, {.process = {pid, 1}, .name = "python3", .simulated = true});
      s.clients[slot].attached_gpus = uint32_t{1} << g;
      for (sim::Work& one : s.works) {
        if (one.used) continue;
        one = {};
        one.used = 1;
        one.gpu = static_cast<uint8_t>(g);
        one.gi = at_gi;
        one.ci = at_ci;
        one.client = slot;
        one.memory_bytes = 1 << 20;
        client = slot;
        return;
      }
      s.clients[slot].alive = 0;  // no room: swept by the next write
      return;
    }
  });
  return client;
}

void Hardware::end_work(const std::vector<uint16_t>& clients) {
  if (clients.empty()) return;
  (void)world_->write([&](sim::State& s) {
    for (const uint16_t client : clients) s.clients[client].alive = 0;
  });
}

void Hardware::lose(uint32_t index) {
  (void)world_->write([&](sim::State& s) {
    s.gpus[index % s.node.gpu_count].lost = 1;
    return true;
  });
}

bool Hardware::restore_one() {
  return world_
      ->write([&](sim::State& s) {
        for (uint32_t i = 0; i < s.node.gpu_count; ++i) {
          if (s.gpus[i].lost == 0) continue;
          s.gpus[i].lost = 0;
          return true;
        }
        return false;
      })
      .value_or(false);
}

void Hardware::restore_all() {
  while (restore_one()) {
  }
}

void Hardware::reboot() {
  (void)world_->write([](sim::State& s) {
    sim::reboot(s);
    return true;
  });
  settle_counters();
  drop_locks();
}

bool Hardware::foreign_change(Random& random) {
  return world_
      ->write([&](sim::State& s) {
        const auto g = static_cast<uint32_t>(random.below(s.node.gpu_count));
        sim::Gpu& gpu = s.gpus[g];
        if (gpu.mig_current == 0 || gpu.lost != 0) return false;
        for (uint8_t gi = 0; gi < sim::kMaxGis; ++gi) {
          if (!gpu.gis[gi].live || !random.chance(1, 2)) continue;
          for (uint8_t ci = 0; ci < sim::kMaxCis; ++ci)
            if (gpu.gis[gi].cis[ci].live &&
                sim::destroy_ci(s, g, gi, ci, kRoot) != sim::Ret::kSuccess)
              return true;  // somebody works on it: it stays
          return sim::destroy_gi(s, g, gi, kRoot) == sim::Ret::kSuccess;
        }
        const gpu::Board& board = sim::board_of(s, g);
        const gpu::Profile& profile = board.profiles[random.below(board.profiles.size())];
        uint8_t made = 0;
        return sim::create_gi(s, g, profile.id, std::nullopt, kRoot, made) == sim::Ret::kSuccess;
      })
      .value_or(false);
}

std::string Hardware::mig_config(uint32_t variant) const {
  std::string out =
      "version: v1\nmig-configs:\n  off:\n  - devices: all\n    mig-enabled: false\n"
      "  typo:\n  - devices: all\n    mig-enabled: true\n    mig-devices: {9g.99gb: 1}\n";
  if (mig_board_ == nullptr) return out;
  const gpu::Profile* small = &mig_board_->profiles.front();
  const gpu::Profile* big = small;
  for (const gpu::Profile& profile : mig_board_->profiles)
    if (profile.slices > big->slices) big = &profile;
  const uint32_t most = small->max_instances;
  const auto label = [&](const char* name, const char* devices, const gpu::Profile& profile,
                         uint32_t n) {
    return fmt::format(
        "  {}:\n  - devices: {}\n    mig-enabled: true\n    mig-devices: {{{}: {}}}\n", name,
        devices, profile.name, n);
  };
  out += label("small", "all", *small, most - variant % 2);
  out += label("one", "all", *small, 1 + variant % 2);
  out += label("big", "all", *big, 1);
  out += label("first", "[0]", *small, 2);
  out += label("toomany", "all", *small, most + 1);
  return out;
}

Result<std::unique_ptr<ports::Locks::Held>> Hardware::take(const std::string& path) {
  if (auto held = ports::held_in_memory(locked_, path)) return held;
  return fail(Code::kInUse, "busy, by PID 4242, since 2026-11-24T10:00:00Z");
}

}  // namespace gpuslice::dst
