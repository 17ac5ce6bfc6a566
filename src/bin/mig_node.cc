#include "bin/mig_node.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>

#include "agent/device_nodes.h"
#include "gpu/mig_minors.h"
#include "host/files.h"
#include "host/processes.h"

namespace gpuslice::bin {
namespace {

// What to do about an agent that does not answer.
Error and_now(Error error) {
  error.message +=
      "; nothing is changed while it may give out what goes: see gpuslice agent status and its "
      "log, or say --without-agent";
  return error;
}

}  // namespace

MigPlaces places_of(const MigCommand& command) {
  return {command.root.empty() ? "/" : std::filesystem::absolute(command.root).string(),
          command.kubelet_dir,
          command.state_dir,
          command.run_dir,
          command.call_timeout,
          command.without_agent       ? MigPlaces::Agent::kNot
          : changes_mig(command.verb) ? MigPlaces::Agent::kMust
                                      : MigPlaces::Agent::kMay};
}

MigNode::MigNode(MigPlaces places)
    : places_(std::move(places)),
      own_(places_below(places_.root, places_.state_dir, places_.run_dir)),
      link_(own_.door()),
      session_(places_.root),
      reset_(places_.root),
      files_(places_.root) {
  session_.set_watch(&calls_);
  watcher_ = std::thread([this] { watch(); });
}

MigNode::~MigNode() {
  ending_.store(true);
  watcher_.join();
}

// A driver that hangs obeys nobody: the process ends, and what it had begun stands in the journal.
void MigNode::watch() {
  while (!ending_.load()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const char* name = calls_.name();
    if (name == nullptr || calls_.lasts() < places_.call_timeout) continue;
    fmt::print(stderr,
               "NVIDIA driver: {} has not answered for {} s; this program ends here: if a change "
               "was under way its journal is in {}, and the next start goes on from it; look "
               "for XIDs in dmesg\n",
               name, std::chrono::duration_cast<std::chrono::seconds>(places_.call_timeout).count(),
               own_.journals());
    std::fflush(nullptr);
    ::_exit(exit_code(Code::kTimeout));
  }
}

Status MigNode::open() {
  TRY(session_.open());
  TRY_ASSIGN(const uint32_t count, session_.gpu_count());
  for (uint32_t i = 0; i < count; ++i) {
    auto gpu = session_.gpu(GpuIndex{i}, ports::Detail::kInventory);
    if (gpu)
      gpus_.push_back(std::move(*gpu));
    else
      silent_.push_back({i, std::move(gpu).error()});
  }
  return {};
}

const ports::Gpu* MigNode::find(uint32_t index) const {
  for (const ports::Gpu& gpu : gpus_)
    if (gpu.index.value == index) return &gpu;
  return nullptr;
}

mig::Ports MigNode::ports() { return {session_, session_, reset_, files_, locks_, clock_, pause_}; }

mig::Options MigNode::options() const {
  mig::Options options;
  options.journal_folder = own_.journals();
  options.lock_folder = own_.locks();
  options.holders = holder_source(places_.kubelet_dir, [this] { return given_out(); });
  return options;
}

// The agent knows how old each entry is; its file does not.
Result<std::vector<GivenOut>> MigNode::given_out() const {
  if (places_.agent != MigPlaces::Agent::kNot) {
    auto asked = link_.ledger();
    if (!asked && places_.agent == MigPlaces::Agent::kMust)
      return std::unexpected(and_now(std::move(asked).error()));
    if (asked && *asked) return std::move(**asked);
  }
  return ledger_of_file(places_.root, own_.ledger());
}

Result<AgentLink::Lease> MigNode::withdraw(
    const std::map<std::string, std::set<std::string>>& gpus) const {
  if (places_.agent == MigPlaces::Agent::kNot || gpus.empty())
    return AgentLink::Lease(std::nullopt);
  auto lease = link_.withdraw(gpus);
  if (!lease) return std::unexpected(and_now(std::move(lease).error()));
  return lease;
}

Status MigNode::may_change() const {
  if (::geteuid() == 0 || host::has_sys_admin()) return {};
  const std::string root = places_.root == "/" ? "" : places_.root;
  const auto text =
      host::read_file(root + std::string(agent::kMigMinorsFile), gpu::kMaxMigMinorsBytes);
  const auto minors =
      text ? gpu::parse_mig_minors(*text) : Result<gpu::MigMinors>(std::unexpected(text.error()));
  if (!minors || !minors->config()) return {};
  const std::string device =
      fmt::format("{}/dev/nvidia-caps/nvidia-cap{}", root, *minors->config());
  if (::faccessat(AT_FDCWD, device.c_str(), R_OK, AT_EACCESS) == 0 || errno != EACCES) return {};
  return fail(
      Code::kNoPermission,
      "MIG may be changed by root, and by who can open {} (mig/config), which user {} cannot; "
      "nothing is changed: run it as root",
      device, ::geteuid());
}

std::set<std::string> MigNode::left_half_way() {
  const auto left = mig::journals_left(files_, own_.journals());
  return left ? std::set<std::string>(left->begin(), left->end()) : std::set<std::string>();
}

Result<mig::GpuState> MigNode::read(const ports::Gpu& gpu) {
  return mig::read_state(session_, mig::name_of(gpu));
}

Result<std::vector<mig::GpuState>> MigNode::read_all(std::vector<uint32_t>* pci_ids) {
  std::vector<mig::GpuState> out;
  for (const ports::Gpu& gpu : gpus_) {
    if (!gpu.mig) continue;
    TRY_ASSIGN(mig::GpuState state, read(gpu));
    out.push_back(std::move(state));
    if (pci_ids != nullptr) pci_ids->push_back(gpu.pci_device_id);
  }
  return out;
}

}  // namespace gpuslice::bin
