#include "bin/holders.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <future>
#include <optional>
#include <system_error>
#include <utility>

#include "agent/ledger_file.h"
#include "host/node_host.h"
#include "host/processes.h"
#include "kubelet/client.h"
#include "mig/holders.h"

namespace gpuslice::bin {
namespace {

constexpr size_t kMaxLedgerBytes = 64 * 1024 * 1024;

// Nothing where no kubelet serves them.
Result<std::optional<std::vector<ports::PodDevices>>> ask_kubelet(const std::string& kubelet_dir) {
  const std::string socket = kubelet_dir + "/pod-resources/kubelet.sock";
  if (::access(socket.c_str(), F_OK) != 0) return std::nullopt;
  kubelet::Client client;
  std::promise<Result<std::vector<ports::PodDevices>>> answer;
  client.list_pods(socket, [&](Result<std::vector<ports::PodDevices>> pods) {
    answer.set_value(std::move(pods));
  });
  auto pods = answer.get_future().get();
  if (!pods)
    return fail(Code::kUnavailable,
                "{}: which pods hold devices cannot be asked: {}; nothing is changed", socket,
                pods.error().message);
  return std::move(*pods);
}

// NVML's processes with what /proc knows of them.
std::vector<mig::Holder> of_processes(const mig::GpuState& state,
                                      const std::vector<mig::Holder>& pods) {
  std::vector<mig::Holder> processes = mig::process_holders(state);
  for (mig::Holder& holder : processes) {
    if (holder.pid == 0) continue;
    if (const auto command = host::process_command(static_cast<pid_t>(holder.pid)))
      holder.command = *command;
  }
  return mig::with_pods(std::move(processes), pods, [](uint32_t pid) {
    return host::process_pod(static_cast<pid_t>(pid)).has_value();
  });
}

}  // namespace

std::vector<GivenOut> ledger_of_file(const std::string& root, const std::string& path) {
  std::vector<GivenOut> out;
  host::NodeFiles files(root);
  const auto text = files.read(path, kMaxLedgerBytes);
  if (!text) return out;
  const auto entries = agent::parse_ledger(*text, files.boot_id().value_or(""), MonotonicTime{});
  if (!entries) return out;
  std::error_code unknown;
  const auto written = std::filesystem::last_write_time(path, unknown);
  const auto age = std::filesystem::file_time_type::clock::now() - written;
  const bool young = unknown || age < kLedgerGrace;
  for (const agent::LedgerEntry& entry : *entries) out.push_back({entry.id, young});
  return out;
}

mig::HolderSource holder_source(std::string kubelet_dir, LedgerSource ledger) {
  return [kubelet_dir = std::move(kubelet_dir), ledger = std::move(ledger)](
             const mig::GpuState& state) -> Result<std::vector<mig::Holder>> {
    // The ledger first: what the kubelet named by then, and does not name now, has ended.
    TRY_ASSIGN(const std::vector<GivenOut> given_out, ledger());
    TRY_ASSIGN(const auto pods, ask_kubelet(kubelet_dir));
    std::vector<std::string> ids;
    for (const GivenOut& one : given_out)
      if (!pods || one.unlisted) ids.push_back(one.id);
    std::vector<mig::Holder> by_pods;
    if (pods) by_pods = mig::pod_holders(state, *pods);
    return mig::merged(of_processes(state, by_pods), {by_pods, mig::ledger_holders(state, ids)});
  };
}

}  // namespace gpuslice::bin
