#include "bin/ask_main.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>

#include "agent/device_table.h"
#include "agent/gpu_memo.h"
#include "agent/health.h"
#include "agent/ledger_file.h"
#include "bin/agent_flags.h"
#include "bin/agent_link.h"
#include "bin/agent_setup.h"
#include "bin/gpu_readers.h"
#include "bin/mig_node.h"
#include "bin/mig_read.h"
#include "cli/agent_text.h"
#include "cli/list.h"
#include "cli/smi.h"
#include "cli/smi_mig.h"
#include "config/document.h"
#include "host/node_host.h"
#include "nvml/kernel_gpus.h"
#include "nvml/session.h"

namespace gpuslice::bin {
namespace {

namespace fs = std::filesystem;

// A simulated node has this program as <root>/usr/bin/nvidia-smi: its root is the folder above.
std::string root_of_program() {
  std::error_code ec;
  const fs::path root =
      fs::read_symlink("/proc/self/exe", ec).parent_path().parent_path().parent_path();
  return fs::exists(root / "world" / "state", ec) ? root.string() : "";
}

// Takes "--name VALUE" or "--name=VALUE" out of `args`.
Result<std::optional<std::string>> take(std::vector<std::string>& args, const std::string& name) {
  for (size_t i = 0; i < args.size(); ++i) {
    const auto at = args.begin() + static_cast<std::ptrdiff_t>(i);
    if (args[i].starts_with(name + "=")) {
      std::string value = args[i].substr(name.size() + 1);
      args.erase(at);
      return value;
    }
    if (args[i] != name) continue;
    if (i + 1 == args.size()) return fail(Code::kUsage, "{}: a value is missing", name);
    std::string value = args[i + 1];
    args.erase(at, at + 2);
    return value;
  }
  return std::nullopt;
}

Result<std::string> take_option(std::vector<std::string>& args, const std::string& name,
                                std::string by_default) {
  TRY_ASSIGN(const auto value, take(args, name));
  return value.value_or(std::move(by_default));
}

bool take_flag(std::vector<std::string>& args, const std::string& name) {
  return std::erase(args, name) > 0;
}

Result<cli::Format> take_format(std::vector<std::string>& args) {
  TRY_ASSIGN(const auto said, take(args, "--output"));
  TRY_ASSIGN(const std::string output, take_option(args, "-o", said.value_or("table")));
  return cli::parse_format(output);
}

int print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

// GPUs that do not answer now, as an agent has seen them before or the kernel knows them: an agent
// lists them.
void add_silent(const cli::NodeView& node, const AgentSetup& setup, host::NodeFiles& files,
                agent::Hardware& hardware) {
  if (node.silent.empty()) return;
  ports::Inventory seen;
  seen.gpus = hardware.gpus;
  for (const cli::SilentGpu& silent : node.silent)
    seen.silent.push_back({GpuIndex{silent.index}, silent.error, {}});
  nvml::name_silent(nvml::kernel_gpus(setup.root), seen);
  std::vector<ports::Gpu> memo;
  if (const auto text = files.read(setup.places.gpus(), 1024 * 1024))
    if (auto known = agent::parse_gpu_memo(*text, files.boot_id().value_or("")))
      memo = std::move(*known);
  for (const ports::SilentGpu& silent : seen.silent) {
    const auto known = std::find_if(
        memo.begin(), memo.end(), [&](const ports::Gpu& gpu) { return gpu.index == silent.index; });
    if (known == memo.end() && !silent.gpu) continue;
    hardware.gpus.push_back(known == memo.end() ? *silent.gpu : *known);
    std::string& why = hardware.unhealthy[hardware.gpus.back().uuid];
    why = why.empty() ? silent.error.message : fmt::format("{}; {}", silent.error.message, why);
  }
  std::sort(hardware.gpus.begin(), hardware.gpus.end(),
            [](const ports::Gpu& a, const ports::Gpu& b) { return a.index < b.index; });
}

// What an agent has learnt from the driver's events, and judged, in this life of the machine.
std::map<std::string, std::string> learnt(const AgentSetup& setup, host::NodeFiles& files,
                                          const std::vector<ports::Gpu>& gpus) {
  if (const auto text = files.read(setup.places.health(), 1024 * 1024))
    if (const auto record = agent::parse_health(*text, files.boot_id().value_or("")))
      return agent::reasons_of(*record, gpus);
  return {};
}

Result<std::vector<cli::DeviceRow>> device_rows(const cli::NodeView& node, const AgentSetup& setup,
                                                const std::string& config_text) {
  const config::DevicePluginFile file =
      config::read_device_plugin(config_text, setup.config.compat);
  for (const config::Problem& problem : file.problems.all())
    if (problem.severity == config::Severity::kWarning || file.problems.errors() > 1)
      fmt::print(stderr, "{}\n", problem.text(setup.config.path));
  if (file.problems.has_errors())
    return std::unexpected(file.problems.first_error(setup.config.path));
  TRY_ASSIGN(const config::Effective effective,
             config::merge(setup.config.said, file.config, setup.config.path));
  agent::Hardware hardware;
  hardware.gpus = node.gpus;
  agent::HeldIds held;
  host::NodeFiles files(setup.root);
  if (const auto text = files.read(setup.places.ledger(), 64 * 1024 * 1024)) {
    if (const auto entries =
            agent::parse_ledger(*text, files.boot_id().value_or(""), MonotonicTime{}))
      for (const agent::LedgerEntry& entry : *entries) held[entry.resource].insert(entry.id);
  }
  hardware.unhealthy = learnt(setup, files, hardware.gpus);
  add_silent(node, setup, files, hardware);
  TRY_ASSIGN(const agent::DeviceTable table, agent::make_device_table(hardware, effective, held));
  for (const std::string& warning : table.warnings) fmt::print(stderr, "warning: {}\n", warning);
  std::vector<cli::DeviceRow> rows;
  for (const auto& [name, resource] : table.resources) {
    for (const agent::OfferedDevice& device : resource->devices) {
      const agent::BaseDevice& base = resource->bases[device.base];
      const std::string id(device.id);
      rows.push_back({name, id, base.healthy, base.why_unhealthy, base.gpu_uuid, base.index,
                      held[name].contains(id)});
    }
  }
  return rows;
}

// A change that was interrupted is finished or taken back by whoever starts next, over what is made
// here meanwhile.
void tell_of_journals(const cli::SmiMigRequest& request, const std::vector<ports::Gpu>& gpus,
                      const std::string& folder, host::NodeFiles& files) {
  const auto left = mig::journals_left(files, folder);
  if (!left) return;
  for (const ports::Gpu& gpu : gpus)
    if (cli::smi_chosen(request.gpus, gpu) &&
        std::find(left->begin(), left->end(), gpu.uuid) != left->end())
      fmt::print(stderr,
                 "GPU {}: an earlier change was interrupted; its journal is in {}, and the next "
                 "gpuslice apply for this GPU, or the agent, first goes on from it\n",
                 gpu.index.value, folder);
}

// What changes MIG, or shows it as `nvidia-smi mig` does.
Result<int> smi_mig(const std::vector<std::string>& args, const std::string& root,
                    const std::string& run_dir) {
  TRY_ASSIGN(const cli::SmiMigRequest request, cli::parse_smi_mig(args));
  if (request.what == cli::SmiMigRequest::What::kHelp) return print(cli::smi_help());
  MigPlaces places;
  places.root = fs::absolute(root).string();
  places.run_dir = run_dir;
  MigNode node(places);
  TRY(node.open());
  cli::NodeView view;
  view.gpus = node.gpus();
  for (const MigNode::Silent& silent : node.silent())
    view.silent.push_back({silent.index, silent.error});
  host::NodeFiles files(places.root);
  if (request.changes()) tell_of_journals(request, view.gpus, node.options().journal_folder, files);
  nvml::NodeReset reset(places.root);
  host::FileLocks locks;
  const auto say = [](std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  };
  const auto hint = [](std::string_view text) { fmt::print(stderr, "{}\n", text); };
  return cli::run_smi_mig(
      request, view,
      {node.session(), node.session(), reset, locks, node.options().lock_folder, say, hint});
}

Result<int> try_smi(const std::vector<std::string>& all) {
  std::vector<std::string> args = all;
  TRY_ASSIGN(std::string root, take_option(args, "--root", root_of_program()));
  TRY_ASSIGN(const std::string run_dir, take_option(args, "--run-dir", ""));
  if (root.empty()) root = "/";
  if (cli::is_smi_mig(args)) return smi_mig(args, root, run_dir);
  TRY_ASSIGN(const cli::SmiRequest request, cli::parse_smi(args));
  if (request.what == cli::SmiRequest::What::kHelp) return print(cli::smi_help());
  nvml::Session session(root);
  TRY_ASSIGN(const cli::NodeView node, cli::read_node(session, ports::Detail::kAll));
  TRY_ASSIGN(const std::string text, cli::smi(request, node));
  return print(text);
}

}  // namespace

namespace {

// What a running agent offers, by its own word. Nothing: none runs, or it cannot be asked.
std::optional<std::string> offered_by_agent(const AgentSetup& setup, cli::Format format) {
  const auto status = AgentLink(setup.places.door()).status();
  if (status && !*status) return std::nullopt;
  const auto offered = status ? cli::offered_rows(**status)
                              : Result<cli::OfferedRows>(std::unexpected(status.error()));
  if (!offered) {
    fmt::print(stderr,
               "warning: the agent that runs here cannot be asked: {}; this is what one without a "
               "configuration would offer\n",
               offered.error().text());
    return std::nullopt;
  }
  if (offered->left_out > 0)
    fmt::print(stderr,
               "warning: {} more devices are offered; the agent's answer has no room for them\n",
               offered->left_out);
  return cli::list_devices(offered->rows, format);
}

Result<std::string> list_text(ports::Nvml& nvml, const AgentSetup& setup, const std::string& what,
                              cli::Format format) {
  TRY_ASSIGN(cli::NodeView node, cli::read_node(nvml, ports::Detail::kInventory));
  if (what == "gpus") {
    host::NodeFiles files(setup.root);
    node.unhealthy = learnt(setup, files, node.gpus);
    return cli::list_gpus(node, format);
  }
  std::string text;
  if (!setup.config.path.empty()) {
    host::NodeFiles files(setup.root);
    TRY_ASSIGN(text, files.read(setup.config.path, config::kMaxFileBytes));
  }
  TRY_ASSIGN(const std::vector<cli::DeviceRow> rows, device_rows(node, setup, text));
  return cli::list_devices(rows, format);
}

}  // namespace

bool started_as_smi(const char* argv0) { return fs::path(argv0).filename() == "nvidia-smi"; }

constexpr std::string_view kListHelp =
    R"(gpuslice list WHAT [-o table|json|yaml] [--root DIR]

  gpus          GPUs with their MIG mode and health  [--run-dir DIR]
  devices       what the kubelet is offered, as the agent of this node says; where none runs, or with
                --config FILE [--config-compat nvidia], what one would offer  [--run-dir DIR]
  profiles      MIG profiles of each board, with the ids that nvidia-smi mig -cgi takes  [-i GPU]
  placements    where an instance of each may lie  [-i GPU]
  layouts       what fits on a board together  [-i GPU] [--all]
  instances     the compute instances that are there  [-i GPU]

-i takes an index, a UUID or a bus id; --all shows combinations that leave room, too.
)";

Result<int> run_list(const std::vector<std::string>& all, char** environment) {
  constexpr auto kMigLists =
      std::to_array<std::string_view>({"profiles", "placements", "layouts", "instances"});
  std::vector<std::string> args = all;
  if (take_flag(args, "--help") || take_flag(args, "-h")) return print(std::string(kListHelp));
  AgentCommand command;
  TRY_ASSIGN(command.root, take_option(args, "--root", ""));
  TRY_ASSIGN(const cli::Format format, take_format(args));
  const auto mig_list =
      std::find_first_of(args.begin(), args.end(), kMigLists.begin(), kMigLists.end());
  if (mig_list != args.end()) {
    MigListCommand list;
    list.what = *mig_list;
    args.erase(mig_list);
    if (!command.root.empty()) list.root = command.root;
    list.format = format;
    TRY_ASSIGN(list.only, take(args, "-i"));
    list.all = list.what == "layouts" && take_flag(args, "--all");
    if (args.empty()) return run_mig_list(list);
    return fail(Code::kUsage,
                "list {}: '{}' is not understood; it takes -i GPU, -o table|json|yaml{} and "
                "--root DIR",
                list.what, args[0], list.what == "layouts" ? ", --all" : "");
  }
  TRY_ASSIGN(command.config_file, take_option(args, "--config", ""));
  TRY_ASSIGN(command.config_compat, take_option(args, "--config-compat", "strict"));
  TRY_ASSIGN(command.run_dir, take_option(args, "--run-dir", command.run_dir));
  if (args.size() != 1 || (args[0] != "gpus" && args[0] != "devices"))
    return fail(Code::kUsage,
                "list: {}; it lists gpus, devices, profiles, placements, layouts or instances: "
                "gpuslice list gpus [--root DIR] [-o json|yaml]",
                args.empty() ? "what?" : fmt::format("not understood: {}", fmt::join(args, " ")));
  TRY_ASSIGN(const AgentSetup setup, make_setup(command, environment));
  if (args[0] == "devices" && command.config_file.empty())
    if (const auto offered = offered_by_agent(setup, format)) return print(*offered);
  PatientNvml nvml(setup.root);
  const Result<std::string> text = list_text(nvml, setup, args[0], format);
  const int code = text ? print(*text) : 0;
  if (!nvml.stop()) {
    // A thread that waits for the driver uses what would be destroyed now.
    if (!text) fmt::print(stderr, "{}\n", text.error().text());
    std::fflush(stdout);
    ::_exit(text ? code : exit_code(text.error().code));
  }
  if (!text) return std::unexpected(text.error());
  return code;
}

Result<int> run_agent_status(const std::vector<std::string>& all) {
  std::vector<std::string> args = all;
  TRY_ASSIGN(const std::string root, take_option(args, "--root", "/"));
  TRY_ASSIGN(const std::string run_dir, take_option(args, "--run-dir", ""));
  TRY_ASSIGN(const cli::Format format, take_format(args));
  if (!args.empty())
    return fail(Code::kUsage,
                "agent status: '{}' is not understood; it takes -o table|json|yaml, --root DIR and "
                "--run-dir DIR",
                args[0]);
  const Places places = places_below(fs::absolute(root).string(), "", run_dir);
  TRY_ASSIGN(const std::optional<std::string> status, AgentLink(places.door()).status());
  if (!status)
    return fail(Code::kUnavailable,
                "{}: no agent runs on this node (nobody listens there); start one with gpuslice "
                "agent, or name its --run-dir",
                places.door());
  if (format != cli::Format::kTable) {
    TRY(cli::agent_status_text(*status));  // it is one
    return print(cli::print_json(*status, format));
  }
  TRY_ASSIGN(const std::string text, cli::agent_status_text(*status));
  return print(text);
}

Result<int> run_smi(const std::vector<std::string>& all) {
  auto code = try_smi(all);
  if (code) return code;
  // By the tool's exit codes, not by those of the other verbs.
  fmt::print(stderr, "{}\n", code.error().text());
  return cli::smi_exit_code(code.error());
}

}  // namespace gpuslice::bin
