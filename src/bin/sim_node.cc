// create, exec, show, reset, reboot, driver-reload, time.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "base/text.h"
#include "bin/sim_verbs.h"
#include "sim/mig.h"
#include "sim/mounts.h"
#include "sim/show.h"
#include "sim/trees.h"
#include "sim/visibility.h"
#include "sim/world.h"

namespace gpuslice::bin {
namespace {

namespace fs = std::filesystem;

Result<std::string> absolute_root(const std::string& root) {
  std::error_code ec;
  const fs::path path = fs::weakly_canonical(fs::absolute(root, ec), ec);
  if (ec || path.empty())
    return fail(Code::kUsage, "--root {}: not a usable path: {}", root, ec.message());
  return path.string();
}

Result<std::unique_ptr<sim::World>> open_world(const std::string& root) {
  TRY_ASSIGN(const std::string path, absolute_root(root));
  auto world = sim::World::open(path);
  if (!world && world.error().code == Code::kNotFound)
    return fail(Code::kNotFound,
                "{}: there is no simulated node; make one with: gpuslice-sim create --root {}",
                root, root);
  return world;
}

// "4xA100-SXM4-40GB,2xA30-24GB"
Result<std::vector<sim::GpuOptions>> parse_gpus(const CreateCommand& command) {
  std::vector<sim::GpuOptions> gpus;
  for (const std::string_view part : split(command.gpus, ',')) {
    const std::string_view item = trim(part);
    const size_t x = item.find('x');
    const auto count = x == std::string_view::npos ? std::nullopt : parse_u64(item.substr(0, x));
    const std::string board(count ? item.substr(x + 1) : item);
    const uint64_t n = count.value_or(1);
    if (n == 0 || n > sim::kMaxGpus || gpus.size() + n > sim::kMaxGpus)
      return fail(Code::kUsage, "--gpus {}: a node has 1 to {} GPUs", command.gpus, sim::kMaxGpus);
    const auto board_found = gpu::find_board(board);
    if (!board_found)
      return fail(Code::kUsage, "--gpus {}: {}", command.gpus, board_found.error().message);
    const gpu::Board* found = *board_found;
    const sim::Sweep sweep = !found->mig()      ? sim::Sweep::kPlain
                             : command.mirrored ? sim::Sweep::kMirrored
                             : command.swept    ? sim::Sweep::kSwept
                                                : sim::Sweep::kPlain;
    for (uint64_t i = 0; i < n; ++i) gpus.push_back({board, sweep});
  }
  return gpus;
}

std::string beside(const char* relative) {
  std::error_code ec;
  const fs::path self = fs::read_symlink("/proc/self/exe", ec);
  return (self.parent_path() / relative).lexically_normal().string();
}

struct Branch {
  std::string_view number;
  std::string_view release;  // one of it
};
constexpr auto kBranches = std::to_array<Branch>(
    {{"535", "535.261.03"}, {"550", "550.163.01"}, {"570", "570.124.06"}, {"580", "580.65.06"}});

// A whole version; a branch alone ("535") stands for one of its releases.
Result<std::string> driver_version(const std::string& driver) {
  const auto parts = split(driver, '.');
  const auto branch = std::find_if(kBranches.begin(), kBranches.end(),
                                   [&](const Branch& b) { return b.number == parts[0]; });
  bool good = branch != kBranches.end() && parts.size() <= 3;
  for (const std::string_view part : parts) good = good && parse_u64(part).has_value();
  if (!good)
    return fail(
        Code::kUsage,
        "--driver {}: a version of the branches 535, 550, 570 or 580, such as 580.65.06, or "
        "one of these numbers alone",
        driver);
  return parts.size() == 1 ? std::string(branch->release) : driver;
}

Status check_empty(const std::string& root) {
  std::error_code ec;
  if (!fs::exists(root, ec)) return {};
  if (!fs::is_directory(root, ec))
    return fail(Code::kUsage, "--root {}: this is a file, not a folder", root);
  if (fs::exists(root + "/world/state", ec))
    return fail(
        Code::kFailed,
        "--root {}: there is a simulated node already; remove the folder or take another one",
        root);
  if (!fs::is_empty(root, ec))
    return fail(Code::kFailed, "--root {}: the folder is not empty; take a new one", root);
  return {};
}

}  // namespace

Result<int> sim_create(const CreateCommand& command) {
  TRY_ASSIGN(const std::string root, absolute_root(command.root));
  sim::NodeOptions options;
  TRY_ASSIGN(options.driver, driver_version(command.driver));
  TRY_ASSIGN(options.gpus, parse_gpus(command));
  options.seed = command.seed;
  options.virtual_clock = command.virtual_clock;
  options.strict_clients = command.strict_clients;
  options.passthrough = command.passthrough;
  options.max_mig_while_off = command.max_mig_while_off;
  TRY(check_empty(root));
  const std::string library =
      command.library.empty() ? beside("../lib/libnvidia-ml.so.1") : command.library;
  if (::access(library.c_str(), R_OK) != 0)
    return fail(Code::kFailed,
                "{}: the simulated library is not there; build it, or name it with --library",
                library);
  std::error_code ec;
  fs::create_directories(root, ec);
  if (ec)
    return fail(Code::kNoPermission, "--root {}: cannot make the folder: {}", root, ec.message());
  const std::string smi = beside("gpuslice");
  TRY(sim::lay_driver_files(root, options.driver, library,
                            ::access(smi.c_str(), R_OK) == 0 ? smi : ""));
  TRY_ASSIGN(const auto world, sim::World::create(root, options));
  const auto state = world->snapshot();
  fmt::print("{}: a node of {} GPU{}, driver {}\n", root, state->node.gpu_count,
             state->node.gpu_count == 1 ? "" : "s", options.driver);
  for (uint32_t i = 0; i < state->node.gpu_count; ++i)
    fmt::print("GPU {}: {} (UUID: {})\n", i, sim::board_of(*state, i).name, state->gpus[i].uuid);
  fmt::print("run a program on it: gpuslice-sim exec --root {} -- nvidia-smi\n", root);
  return 0;
}

Result<int> sim_exec(const ExecCommand& command) {
  TRY_ASSIGN(const std::string root, absolute_root(command.root));
  TRY_ASSIGN(const auto world, open_world(root));
  if (command.command.empty())
    return fail(Code::kUsage, "exec: which program? gpuslice-sim exec --root {} -- CMD…",
                command.root);
  const auto prepend = [](const char* name, const std::string& value) {
    const char* old = std::getenv(name);
    ::setenv(name, (old != nullptr && *old != '\0' ? value + ":" + old : value).c_str(), 1);
  };
  ::setenv("GPUSLICE_SIM_ROOT", root.c_str(), 1);
  prepend("LD_LIBRARY_PATH", root + "/usr/lib/x86_64-linux-gnu");
  prepend("PATH", root + "/usr/bin");
  if (command.private_mounts) {
    std::error_code ec;
    const fs::path here = fs::current_path(ec);
    TRY(sim::enter_view({.root = root, .nodes = std::nullopt, .system_paths = true}));
    fs::current_path(here, ec);
    if (ec) fs::current_path("/", ec);
  }
  std::vector<char*> argv;
  for (const std::string& word : command.command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  return fail(Code::kNotFound, "exec: {}: {}", command.command[0], std::strerror(errno));
}

Result<int> sim_show(const std::string& root) {
  TRY_ASSIGN(const std::string path, absolute_root(root));
  TRY_ASSIGN(const auto world, open_world(path));
  const sim::Visibility visible(path);
  const std::string json = sim::show_json(*world, [&](const sim::State& state, uint32_t gpu) {
    return visible.gpu(state.gpus[gpu].minor);
  });
  std::fwrite(json.data(), 1, json.size(), stdout);
  return 0;
}

namespace {

Error not_done(const std::string& what, sim::Ret ret) {
  const Code code = ret == sim::Ret::kInUse          ? Code::kInUse
                    : ret == sim::Ret::kNotSupported ? Code::kImpossible
                                                     : Code::kFailed;
  return {code, fmt::format("{}: {}", what, sim::ret_text(static_cast<uint32_t>(ret))), {}};
}

Result<std::vector<uint32_t>> chosen_gpus(const sim::State& state,
                                          const std::vector<uint32_t>& gpus,
                                          const std::vector<std::string>& bus_ids) {
  std::vector<uint32_t> out = gpus;
  for (const std::string& bus : bus_ids) {
    bool found = false;
    for (uint32_t i = 0; i < state.node.gpu_count; ++i) {
      const sim::Gpu& gpu = state.gpus[i];
      const std::string full =
          fmt::format("{:08x}:{:02x}:{:02x}.0", gpu.pci_domain, gpu.pci_bus, gpu.pci_device);
      if (to_lower(bus) != full && to_lower(bus) != full.substr(4)) continue;
      out.push_back(i);
      found = true;
    }
    if (!found) return fail(Code::kNotFound, "reset: no GPU has the bus id {}", bus);
  }
  if (gpus.empty() && bus_ids.empty())
    for (uint32_t i = 0; i < state.node.gpu_count; ++i) out.push_back(i);
  for (const uint32_t gpu : out)
    if (gpu >= state.node.gpu_count)
      return fail(Code::kNotFound, "GPU {}: this node has GPUs 0 to {}", gpu,
                  state.node.gpu_count - 1);
  return out;
}

}  // namespace

Result<int> sim_reset(const std::string& root, const std::vector<uint32_t>& gpus,
                      const std::vector<std::string>& bus_ids) {
  TRY_ASSIGN(const auto world, open_world(root));
  TRY_ASSIGN(const std::vector<uint32_t> chosen, chosen_gpus(*world->snapshot(), gpus, bus_ids));
  for (const uint32_t gpu : chosen) {
    TRY_ASSIGN(const sim::Ret ret, world->write([&](sim::State& s) {
      return sim::reset_gpu(s, gpu, {.admin = true});
    }));
    if (ret != sim::Ret::kSuccess)
      return std::unexpected(not_done(fmt::format("GPU {}: not reset", gpu), ret));
    fmt::print("GPU {} was successfully reset.\n", gpu);
  }
  return 0;
}

Result<int> sim_reboot(const std::string& root) {
  TRY_ASSIGN(const auto world, open_world(root));
  TRY(world->write([&](sim::State& s) {
    sim::reboot(s);
    return Status();
  }));
  fmt::print("rebooted: {} times so far\n", world->snapshot()->node.boot_count);
  return 0;
}

Result<int> sim_driver_reload(const std::string& root) {
  TRY_ASSIGN(const auto world, open_world(root));
  TRY_ASSIGN(const sim::Ret ret,
             world->write([&](sim::State& s) { return sim::driver_reload(s, {.admin = true}); }));
  if (ret != sim::Ret::kSuccess) return std::unexpected(not_done("driver: not reloaded", ret));
  fmt::print("driver reloaded\n");
  return 0;
}

Result<int> sim_time(const std::string& root, const std::string& advance) {
  TRY_ASSIGN(const auto world, open_world(root));
  const auto ns = parse_duration_ns(advance);
  if (!ns) return fail(Code::kUsage, "time --advance {}: a duration such as 90s or 5m", advance);
  TRY(world->write([&](sim::State& s) {
    (s.node.clock.is_virtual != 0 ? s.node.clock.virtual_ns : s.node.clock.offset_ns) += *ns;
    return Status();
  }));
  return 0;
}

}  // namespace gpuslice::bin
