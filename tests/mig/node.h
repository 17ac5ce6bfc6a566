#pragma once

// A simulated node in memory for tests of MIG changes: a world, files that a power cut may take
// back, locks, virtual time. A fault or the end of the process may strike at any call of a port.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "mig/change.h"
#include "ports/held_for_test.h"
#include "sim/mig.h"
#include "sim/nvml_port.h"
#include "sim/world.h"

namespace gpuslice::mig_test {

// The process has died here.
struct Died {};

// What becomes of the next call of a port: by its number, counted from 0.
using Strike = std::function<std::optional<Error>(std::string_view call, const std::string& object,
                                                  uint64_t number, bool after)>;

class Files final : public ports::HostFiles {
 public:
  Result<std::string> read(const std::string& path, size_t) override {
    if (auto e = strike("read", path, false)) return std::unexpected(*e);
    const auto it = files.find(path);
    if (it == files.end()) return fail(Code::kNotFound, "{}: no such file", path);
    return it->second;
  }
  Status write_atomic(const std::string& path, const std::string& text, bool durable) override {
    if (auto e = strike("write", path, false)) return std::unexpected(*e);
    if (full) return fail(Code::kFailed, "{}: cannot be written: No space left on device", path);
    if (read_only)
      return fail(Code::kNoPermission, "{}: cannot be made: Read-only file system", path);
    files[path] = text;
    if (durable) synced[path] = text;
    if (auto e = strike("write", path, true)) return std::unexpected(*e);
    return {};
  }
  Status remove(const std::string& path, bool durable) override {
    if (auto e = strike("remove", path, false)) return std::unexpected(*e);
    files.erase(path);
    if (durable) synced.erase(path);
    if (auto e = strike("remove", path, true)) return std::unexpected(*e);
    return {};
  }
  Result<std::vector<std::string>> list(const std::string& folder) override {
    std::vector<std::string> names;
    for (const auto& [path, text] : files)
      if (path.starts_with(folder + "/")) names.push_back(path.substr(folder.size() + 1));
    return names;
  }
  Result<std::string> boot_id() override { return boot; }
  bool exists(const std::string& path) override { return files.contains(path); }

  // The machine's power goes: what was not synced is gone.
  void power_cut() { files = synced; }

  std::map<std::string, std::string> files, synced;
  std::string boot = "boot-0";
  bool full = false, read_only = false;
  Strike* hook = nullptr;
  uint64_t* number = nullptr;

 private:
  std::optional<Error> strike(std::string_view call, const std::string& path, bool after) {
    if (hook == nullptr || !*hook) return std::nullopt;
    const uint64_t n = after ? *number - 1 : (*number)++;
    return (*hook)(call, path, n, after);
  }
};

class Node final : public ports::Locks, public ports::Clock, public ports::Pause {
 public:
  explicit Node(sim::NodeOptions options) {
    options.virtual_clock = true;
    auto made = sim::World::in_memory(options);
    CHECK(made.has_value(), "the world of a test cannot be made");
    world = std::move(*made);
    nvml = std::make_unique<sim::WorldNvml>(*world);
    nvml->set_hooks({[this](std::string_view call, const std::string& gpu) {
                       return strike ? strike(call, gpu, number++, false) : std::nullopt;
                     },
                     [this](std::string_view call, const std::string& gpu) {
                       return strike ? strike(call, gpu, number - 1, true) : std::nullopt;
                     }});
    files.hook = &strike;
    files.number = &number;
  }

  // Calls of ports whose names begin so fail before they do anything, until `strike` is taken away.
  void calls_fail(const std::string& word, Error error) {
    strike = [word, error = std::move(error)](std::string_view call, const std::string&, uint64_t,
                                              bool after) -> std::optional<Error> {
      if (after || !call.starts_with(word)) return std::nullopt;
      return error;
    };
  }

  [[nodiscard]] mig::Ports ports() {
    ports::Mig& mig = driver == nullptr ? *nvml : *driver;
    return {*nvml, mig, *nvml, files, *this, *this, *this};
  }
  [[nodiscard]] static mig::Options options() {
    mig::Options out;
    out.journal_folder = "/state/mig";
    out.lock_folder = "/run/mig";
    return out;
  }
  [[nodiscard]] mig::GpuName gpu(uint32_t index) const {
    const auto state = world->snapshot();
    const sim::Gpu& g = state->gpus[index];
    return {GpuIndex{index}, g.uuid,
            fmt::format("{:08X}:{:02X}:{:02X}.0", g.pci_domain, g.pci_bus, g.pci_device),
            std::string(sim::board_of(*state, index).name)};
  }
  // What is there, without a port and its faults.
  [[nodiscard]] mig::GpuState look(uint32_t index) {
    sim::WorldNvml quiet(*world);
    auto state = mig::read_state(quiet, gpu(index));
    CHECK(state.has_value(), "the world of a test cannot be read");
    return std::move(*state);
  }
  // Somebody computes on the GPU, or on an instance. The slot is what ends it.
  uint16_t work(uint32_t index, uint8_t gi = sim::kNone, uint8_t ci = sim::kNone) {
    auto slot = sim::add_simulated_client(*world, next_pid++, "python3");
    CHECK(slot.has_value(), "no room for a client");
    const auto done = world->write([&](sim::State& state) {
      for (sim::Work& one : state.works) {
        if (one.used) continue;
        one = {};
        one.used = 1;
        one.gpu = static_cast<uint8_t>(index);
        one.gi = gi;
        one.ci = ci;
        one.client = *slot;
        one.memory_bytes = 1 << 20;
        return true;
      }
      return false;
    });
    CHECK(done.value_or(false), "no room for work");
    return *slot;
  }
  void end_work(uint16_t slot) { (void)sim::kill_client(*world, slot); }
  [[nodiscard]] uint64_t generation(uint32_t index, uint8_t gi) const {
    return world->snapshot()->gpus[index].gis[gi].generation;
  }

  Result<std::unique_ptr<Held>> take(const std::string& path) override {
    if (auto held = ports::held_in_memory(locked, path)) return held;
    return fail(Code::kInUse,
                "busy, by PID 4242, since 2026-11-24T10:00:00Z; try again when it "
                "has ended");
  }
  MonotonicTime now() const override { return time; }
  WallTime wall() const override { return WallTime(time.time_since_epoch()); }
  void wait(Duration duration) override {
    time += duration;
    if (while_waiting) while_waiting();
  }

  std::unique_ptr<sim::World> world;
  std::unique_ptr<sim::WorldNvml> nvml;
  ports::Mig* driver = nullptr;  // instead of `nvml`, for a driver that answers otherwise
  Files files;
  Strike strike;
  uint64_t number = 0;
  MonotonicTime time{std::chrono::seconds(1000)};
  std::function<void()> while_waiting;
  std::set<std::string> locked;
  int32_t next_pid = 5000;
};

inline sim::NodeOptions one_board(std::string board, sim::Sweep sweep = sim::Sweep::kPlain) {
  sim::NodeOptions options;
  options.gpus = {{std::move(board), sweep}};
  return options;
}

inline mig::Wish wish(std::initializer_list<std::pair<const char*, uint32_t>> profiles) {
  mig::Wish out;
  out.mig = true;
  for (const auto& [name, count] : profiles) {
    auto parsed = gpu::parse_profile_name(name);
    CHECK(parsed.has_value(), "a test's profile name");
    out.profiles.push_back({*parsed, count, {}});
  }
  return out;
}

}  // namespace gpuslice::mig_test
