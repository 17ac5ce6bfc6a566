#include "cli/smi_mig.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "cli/smi_mig_run.h"

namespace gpuslice::cli {
namespace {

using What = SmiMigRequest::What;

constexpr int kNotResetExit = 255;
constexpr std::string_view kInUse = "In use by another client";
constexpr std::string_view kNotFound = "Not Found";

bool names_id(const std::vector<uint32_t>& ids, uint32_t id) {
  return ids.empty() || std::find(ids.begin(), ids.end(), id) != ids.end();
}

std::string who(const ports::Process& process) {
  std::string text = process.pid == 0 ? "a process that cannot be seen from here"
                                      : fmt::format("PID {}", process.pid);
  if (!process.name.empty()) text += fmt::format(" ({})", process.name);
  return text;
}

}  // namespace

// NVML's code and words: the driver's own, else what it would have said.
ports::NvmlAnswer smi_answer_of(const Error& error) {
  if (auto said = ports::nvml_answer_of(error)) return *std::move(said);
  switch (error.code) {
    case Code::kUsage:
      return {2, "Invalid Argument"};
    case Code::kImpossible:
      return {3, "Not Supported"};
    case Code::kNoPermission:
      return {4, "Insufficient Permissions"};
    case Code::kNotFound:
      return {6, std::string(kNotFound)};
    case Code::kUnavailable:
      return {9, "Driver Not Loaded"};
    case Code::kTimeout:
      return {10, "Timeout"};
    case Code::kGpuLost:
      return {15, "GPU is lost"};
    case Code::kNeedsReset:
      return {16, "GPU requires reset"};
    case Code::kInUse:
      return {19, std::string(kInUse)};
    default:
      return {999, "Unknown Error"};
  }
}

SmiMigRun::SmiMigRun(const SmiMigRequest& request, const NodeView& node, const SmiMigPorts& ports)
    : request_(request), ports_(ports) {
  for (const ports::Gpu& gpu : node.gpus)
    if (smi_chosen(request.gpus, gpu)) chosen_.push_back(&gpu);
}

std::vector<const ports::Gpu*> SmiMigRun::with_mig() const {
  std::vector<const Gpu*> gpus;
  for (const Gpu* gpu : chosen_)
    if (gpu->mig_on()) gpus.push_back(gpu);
  return gpus;
}

bool SmiMigRun::wants_gi(GiId gi) const { return names_id(request_.gis, gi.value); }
bool SmiMigRun::wants_ci(CiId ci) const { return names_id(request_.cis, ci.value); }

Result<std::unique_ptr<ports::Locks::Held>> SmiMigRun::lock(const Gpu& gpu) const {
  auto held = ports_.locks.take(fmt::format("{}/{}.lock", ports_.lock_folder, gpu.uuid));
  if (!held) {
    Error error = std::move(held).error().in(name(gpu));
    // Whoever gets that error tells it.
    if (error.code != Code::kNoPermission) hint(error.text());
    return std::unexpected(std::move(error));
  }
  return held;
}

std::string SmiMigRun::name(const Gpu& gpu) { return fmt::format("GPU {}", gpu.index.value); }

int SmiMigRun::failed(std::string_view what, const Error& error) const {
  out(fmt::format("Failed to {}: {}", what, smi_answer_of(error).words));
  if (error.code == Code::kNoPermission) hint(fmt::format("{}; run it as root", error.text()));
  return smi_exit_code(error);
}

void SmiMigRun::tell_root(const Error& error) const {
  if (error.code == Code::kNoPermission) hint(fmt::format("{}; run it as root", error.text()));
}

int SmiMigRun::none(std::string_view what) const {
  out(fmt::format("No {} found: {}", what, kNotFound));
  return kNotFoundExit;
}

int SmiMigRun::no_mig(int code) const {
  out("No MIG-enabled devices found.");
  hint(chosen_.empty() ? "there is no GPU"
                       : "MIG is off on every GPU that was asked for: nvidia-smi -mig 1 switches "
                         "it on; gpuslice list profiles shows what each could do");
  return code;
}

void SmiMigRun::tell_holders(const Gpu& gpu, std::optional<GiId> gi) const {
  const auto processes = ports_.mig.processes(gpu.uuid);
  if (!processes) return;
  std::vector<std::string> names;
  for (const ports::Process& process : *processes)
    if (!gi || process.gi == gi) names.push_back(who(process));
  const std::string object =
      gi ? fmt::format("{}, GPU instance {}", name(gpu), gi->value) : name(gpu);
  if (!names.empty()) hint(fmt::format("{}: used by {}", object, join(names, ", ")));
}

// --- mode and reset ---

void SmiMigRun::pending(const Gpu& gpu, ports::Activation why) const {
  const bool in_use = why == ports::Activation::kInUse;
  out(fmt::format("Warning: MIG mode is in pending {} state for GPU {}:{}",
                  request_.on ? "enable" : "disable", gpu.bus_id,
                  in_use ? kInUse : "Not Supported"));
  if (!in_use) {
    out(fmt::format(
        "Reboot the system or try nvidia-smi --gpu-reset to make MIG mode effective on GPU {}",
        gpu.bus_id));
    return;
  }
  out(
      fmt::format("{} is currently being used by one or more other processes (a CUDA program, or "
                  "one that watches GPUs). End them and try again, or reboot, to make MIG mode "
                  "effective.",
                  gpu.bus_id));
  tell_holders(gpu, std::nullopt);
}

// Another GPU may follow. What it answers is kept in `code` where it is the first failure.
bool SmiMigRun::mode_of(const Gpu& gpu, int& code) {
  const auto held = lock(gpu);
  const Result<ports::Activation> done =
      held ? ports_.mig.set_mig_mode(gpu.uuid, request_.on)
           : Result<ports::Activation>(std::unexpected(held.error()));
  if (done) {
    if (*done == ports::Activation::kDone)
      out(fmt::format("{} MIG Mode for GPU {}", request_.on ? "Enabled" : "Disabled", gpu.bus_id));
    else
      pending(gpu, *done);
    return true;
  }
  const ports::NvmlAnswer said = smi_answer_of(done.error());
  out(fmt::format("Unable to {} MIG Mode for GPU {}: {}", request_.on ? "enable" : "disable",
                  gpu.bus_id, said.words));
  if (code == 0) code = smi_exit_code(done.error());
  if (done.error().code == Code::kImpossible) {
    out("Treating as warning and moving on.");
    hint(fmt::format("{} ({}): this board has no MIG", name(gpu), gpu.name));
    return true;
  }
  out("Terminating early due to previous errors.");
  tell_root(done.error());
  if (done.error().code == Code::kInUse && held) {
    const auto there = ports_.mig.instances(gpu.uuid);
    if (there && !there->empty())
      hint(
          fmt::format("{}: it has {} GPU instance{}: nvidia-smi mig -dci -i {} and nvidia-smi mig "
                      "-dgi -i {} first",
                      name(gpu), there->size(), there->size() == 1 ? "" : "s", gpu.index.value,
                      gpu.index.value));
    tell_holders(gpu, std::nullopt);
  }
  return false;
}

int SmiMigRun::mode() {
  // A board without MIG among others is no failure, as for the tool; where there is no other, it
  // is.
  int code = 0;
  const bool any_mig = std::any_of(chosen_.begin(), chosen_.end(),
                                   [](const Gpu* gpu) { return gpu->mig.has_value(); });
  for (const Gpu* gpu : chosen_) {
    int one = 0;
    if (!mode_of(*gpu, one)) return one;
    if (code == 0 && !(any_mig && request_.gpus.empty())) code = one;
  }
  out("All done.");
  return code;
}

Status SmiMigRun::reset_gpu(const Gpu& gpu) const {
  TRY_ASSIGN(const std::unique_ptr<ports::Locks::Held> held, lock(gpu));
  // Our own session is a client like any other.
  ports_.nvml.close();
  const Status done = ports_.reset.reset(gpu.bus_id);
  if (const Status again = ports_.nvml.open(); !again) hint(again.error().text());
  if (done) return {};
  if (done.error().code == Code::kInUse)
    tell_holders(gpu, std::nullopt);
  else if (done.error().code != Code::kNoPermission)
    hint(done.error().text());
  return done;
}

int SmiMigRun::reset() {
  std::vector<std::string> refused;
  int in_use = 0;
  int code = 0;
  for (const Gpu* gpu : chosen_) {
    const Status done = reset_gpu(*gpu);
    if (done) {
      out(fmt::format("GPU {} was successfully reset.", gpu->bus_id));
      continue;
    }
    tell_root(done.error());
    if (code == 0) code = smi_exit_code(done.error());
    if (done.error().code == Code::kImpossible) {
      out(fmt::format("Resetting GPU {} is not supported.", gpu->bus_id));
      continue;
    }
    refused.push_back(fmt::format("  GPU {}: {}", gpu->bus_id, smi_answer_of(done.error()).words));
    if (done.error().code == Code::kInUse) ++in_use;
  }
  if (!refused.empty())
    out("The following GPUs could not be reset:\n" + join(refused, "\n") + "\n");
  if (in_use != 0) {
    out(
        fmt::format("{} currently being used by one or more other processes (a CUDA program, or "
                    "one that watches GPUs). End them and try again, or reboot.",
                    in_use == 1 ? "1 device is" : fmt::format("{} devices are", in_use)));
    return kNotResetExit;
  }
  if (code == 0) out("All done.");
  return code;
}

int smi_exit_code(const Error& error) {
  // As a process ends that exits with NVML's code: 999 is 231.
  return smi_answer_of(error).code & 0xFF;
}

int run_smi_mig(const SmiMigRequest& request, const NodeView& node, const SmiMigPorts& ports) {
  for (const std::string& wanted : request.gpus) {
    const std::vector<std::string> one = {wanted};
    const auto is_it = [&](const auto& gpu) { return smi_chosen(one, gpu); };
    if (std::any_of(node.gpus.begin(), node.gpus.end(), is_it) ||
        std::any_of(node.silent.begin(), node.silent.end(), is_it))
      continue;
    ports.out("No devices were found\n");
    ports.hint(fmt::format("there is no GPU {}; nvidia-smi -L lists those of this node",
                           json_escape(wanted)));
    return kNotFoundExit;
  }
  int silent = 0;
  for (const SilentGpu& gpu : node.silent) {
    if (!smi_chosen(request.gpus, gpu)) continue;
    ports.out(fmt::format("Unable to determine the device handle for gpu {}: {}\n", gpu.index,
                          smi_answer_of(gpu.error).words));
    if (silent == 0) silent = smi_exit_code(gpu.error);
  }
  if (silent != 0 && !request.gpus.empty()) return silent;
  SmiMigRun run(request, node, ports);
  const int code = [&] {
    switch (request.what) {
      case What::kHelp:
        return 0;
      case What::kCreateGi:
        return run.create_gis();
      case What::kCreateCi:
        return run.create_cis();
      case What::kDestroyGi:
        return run.destroy(true);
      case What::kDestroyCi:
        return run.destroy(false);
      case What::kMode:
        return run.mode();
      case What::kReset:
        return run.reset();
      default:
        return run.lists();
    }
  }();
  return code != 0 ? code : silent;
}

}  // namespace gpuslice::cli
