// gpuslice-sim: a simulated node. The command line alone; what the verbs do is in sim_*.cc and
// simkubelet/.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <functional>

#include "base/text.h"
#include "bin/sim_verbs.h"
#include "simkubelet/messages.h"
#include "simkubelet/runtime.h"
#include "simkubelet/verbs.h"

namespace {

using gpuslice::Code;
using gpuslice::Error;
using gpuslice::Result;
namespace bin = gpuslice::bin;
namespace kubelet = gpuslice::simkubelet;

using Action = std::function<Result<int>()>;

constexpr std::array<std::string_view, 12> kVerbs = {"create", "exec",    "show",          "inject",
                                                     "reset",  "reboot",  "driver-reload", "time",
                                                     "work",   "kubelet", "pod",           "node"};

gpuslice::Result<gpuslice::Duration> duration(const std::string& flag, const std::string& text) {
  const auto ns = gpuslice::parse_duration_ns(text);
  if (!ns) return gpuslice::fail(Code::kUsage, "{} {}: a duration such as 200ms or 5s", flag, text);
  return gpuslice::Duration(*ns);
}

// CLI11 takes -1 for the largest unsigned number.
const CLI::Validator kNotNegative(
    [](const std::string& text) {
      return text.starts_with('-') ? text + " is negative" : std::string();
    },
    "");

struct Verbs {
  bin::CreateCommand create;
  bin::ExecCommand exec;
  std::string root, output = "json", advance, dir;
  std::vector<uint32_t> gpus;
  std::vector<std::string> buses;
  bin::WorkCommand work;
  bin::InjectCommand inject;
  std::string latency = "0s", every = "0s", grace = "5m";
  kubelet::PodRunCommand run;
  std::vector<std::string> requests, names, command;
  bool all = false;
  std::string pod;
  kubelet::Container container;
  uint32_t restarts = 1;
  std::string pod_output = "table", node_output = "table", timeout = "10s";
};

void add_create(CLI::App& app, Verbs& v, Action& action) {
  auto* verb = app.add_subcommand("create", "make a node");
  verb->add_option("--root", v.create.root, "a new folder")->required();
  verb->add_option("--gpus", v.create.gpus, "such as 4xA100-SXM4-40GB,2xA30-24GB")
      ->capture_default_str();
  verb->add_option("--driver", v.create.driver,
                   "of the branches 535, 550, 570, 580 (580: one of it)")
      ->capture_default_str();
  verb->add_option("--seed", v.create.seed, "same seed, same node")
      ->check(kNotNegative)
      ->capture_default_str();
  verb->add_option("--library", v.create.library,
                   "the simulated libnvidia-ml.so.1, if it is not beside this program");
  verb->add_flag("--mirrored", v.create.mirrored, "MIG boards whose dead slot is slot 3");
  verb->add_flag("--swept", v.create.swept, "MIG boards that fill slot 2 first");
  verb->add_flag("--strict-clients", v.create.strict_clients,
                 "open instance handles of others block destroying");
  verb->add_flag("--passthrough", v.create.passthrough,
                 "a virtual machine: no resets, mode changes wait for a reboot");
  verb->add_flag("--virtual-clock", v.create.virtual_clock,
                 "time stands still until `time --advance`");
  verb->add_flag("--max-mig-while-off", v.create.max_mig_while_off,
                 "GetMaxMigDeviceCount answers the most with MIG off too");
  verb->callback([&] { action = [&] { return bin::sim_create(v.create); }; });
}

void add_node_verbs(CLI::App& app, Verbs& v, Action& action) {
  auto* exec = app.add_subcommand("exec", "run a program on the node: exec --root DIR -- CMD…");
  exec->add_option("--root", v.exec.root)->required();
  exec->add_flag("--private-mounts", v.exec.private_mounts,
                 "put the node's files in the system's places, for this program alone");
  exec->callback([&] { action = [&] { return bin::sim_exec(v.exec); }; });
  auto* show = app.add_subcommand("show", "the world as it is, as JSON");
  show->add_option("--root", v.root)->required();
  show->add_option("-o,--output", v.output)->check(CLI::IsMember({"json"}));
  show->callback([&] { action = [&] { return bin::sim_show(v.root); }; });
  auto* reset = app.add_subcommand("reset", "reset GPUs");
  reset->add_option("--root", v.root)->required();
  reset->add_option("--gpu", v.gpus, "index; all if neither this nor --bus is given")
      ->check(kNotNegative);
  reset->add_option("--bus", v.buses, "bus id");
  reset->callback([&] { action = [&] { return bin::sim_reset(v.root, v.gpus, v.buses); }; });
  auto* reboot = app.add_subcommand("reboot", "reboot the node");
  reboot->add_option("--root", v.root)->required();
  reboot->callback([&] { action = [&] { return bin::sim_reboot(v.root); }; });
  auto* reload = app.add_subcommand("driver-reload", "the driver's modules out and in again");
  reload->add_option("--root", v.root)->required();
  reload->callback([&] { action = [&] { return bin::sim_driver_reload(v.root); }; });
  auto* time = app.add_subcommand("time", "advance the node's clock");
  time->add_option("--root", v.root)->required();
  time->add_option("--advance", v.advance, "such as 90s")->required();
  time->callback([&] { action = [&] { return bin::sim_time(v.root, v.advance); }; });
  auto* work = app.add_subcommand("work", "a process that uses a GPU for as long as it lives");
  work->add_option("--root", v.work.root, "(GPUSLICE_SIM_ROOT)");
  work->add_option("--device", v.work.device,
                   "UUID, index or GPU:MIG index; the first that is seen");
  work->add_option("--memory", v.work.memory, "such as 2Gi")->capture_default_str();
  work->add_option("--activity", v.work.activity, "0 to 1")->capture_default_str();
  work->add_option("--seconds", v.work.seconds, "0: until a signal")
      ->check(kNotNegative)
      ->capture_default_str();
  work->add_option("--kind", v.work.kind)
      ->check(CLI::IsMember({"compute", "graphics", "mps"}))
      ->capture_default_str();
  work->callback([&] { action = [&] { return bin::sim_work(v.work); }; });
}

void add_inject(CLI::App& app, Verbs& v, Action& action) {
  auto* verb = app.add_subcommand(
      "inject",
      "faults: xid, lose, restore, fail, latency, hang, ecc, remap, recovery, heat, throttle, "
      "clear");
  bin::InjectCommand& i = v.inject;
  verb->add_option("--root", i.root)->required();
  verb->add_option("fault", i.what)->required();
  auto* gpu = verb->add_option("--gpu", i.gpu, "index")->check(kNotNegative);
  verb->add_option("--code", i.code, "of the XID")->check(kNotNegative)->capture_default_str();
  verb->add_option("--gi", i.gi)->check(kNotNegative);
  verb->add_option("--ci", i.ci)->check(kNotNegative);
  verb->add_option("--call", i.call, "nvmlGpuInstanceDestroy; a trailing * matches any such");
  verb->add_option("--return", i.ret, "IN_USE, UNKNOWN …")->capture_default_str();
  verb->add_option("--after", i.after, "so many calls pass first")->check(kNotNegative);
  verb->add_option("--times", i.times, "so often; 0: for ever")->check(kNotNegative);
  verb->add_option("--pid", i.pid, "of this process only");
  verb->add_option("--for", i.duration, "latency: how long")->capture_default_str();
  verb->add_option("--corrected", i.corrected, "ecc, remap: how many")->check(kNotNegative);
  verb->add_option("--uncorrected", i.uncorrected, "ecc, remap: how many")->check(kNotNegative);
  verb->add_flag("--failed", i.failed, "remap: nothing is left to remap to");
  verb->add_option("--action", i.action,
                   "recovery: none, reset, reboot, drain-p2p, drain-and-reset")
      ->capture_default_str();
  verb->add_option("--celsius", i.celsius, "heat: how hot it is; 0 ends it")->check(kNotNegative);
  verb->add_option("--reasons", i.reasons, "throttle: NVML's bits")->check(kNotNegative);
  verb->callback([&v, gpu, &action] {
    v.inject.gpu_given = gpu->count() > 0;
    action = [&v] { return bin::sim_inject(v.inject); };
  });
}

void add_kubelet_verbs(CLI::App& app, Verbs& v, Action& action) {
  auto* kubelet_verb = app.add_subcommand("kubelet", "a kubelet stand-in, until Ctrl-C");
  kubelet_verb->add_option("--root", v.root, "of the simulated node that its pods see");
  kubelet_verb->add_option("--dir", v.dir, "laid out like /var/lib/kubelet")->required();
  kubelet_verb->add_option("--socket-latency", v.latency)->capture_default_str();
  kubelet_verb->add_option("--restart-every", v.every)->capture_default_str();
  kubelet_verb->add_option("--grace", v.grace, "a plugin that is gone keeps its capacity so long")
      ->capture_default_str();
  kubelet_verb->callback([&] {
    action = [&]() -> Result<int> {
      // Plugins and pods run elsewhere: they need the folders' whole names.
      const auto whole = [](const std::string& path) {
        return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
      };
      kubelet::KubeletCommand command{whole(v.root), whole(v.dir), {}, {}, {}};
      TRY_ASSIGN(command.socket_latency, duration("--socket-latency", v.latency));
      TRY_ASSIGN(command.restart_every, duration("--restart-every", v.every));
      TRY_ASSIGN(command.grace, duration("--grace", v.grace));
      return kubelet::run_kubelet(command);
    };
  });
  auto* pod = app.add_subcommand("pod", "pods of the stand-in: run, rm, ls, exec");
  pod->add_option("--dir", v.dir)->required();
  pod->require_subcommand(1);
  auto* run = pod->add_subcommand("run", "start pods: run NAME --request … [-- CMD…]");
  run->add_option("name", v.run.name)->required();
  run->add_option("--request", v.requests, "nvidia.com/gpu=1")->required();
  run->add_option("--count", v.run.count, "NAME-0, NAME-1 …")->check(CLI::Range(1, 1000));
  run->add_option("--work", v.run.work, "arguments of `gpuslice-sim work`");
  run->add_option("--timeout", v.timeout, "until it runs")->capture_default_str();
  run->callback([&] {
    action = [&]() -> Result<int> {
      v.run.dir = v.dir;
      TRY_ASSIGN(v.run.patience, duration("--timeout", v.timeout));
      for (const std::string& text : v.requests) {
        TRY_ASSIGN(const auto request, kubelet::parse_request(text));
        v.run.request.insert(request);
      }
      return kubelet::run_pod_run(v.run);
    };
  });
  auto* rm = pod->add_subcommand("rm", "end pods");
  rm->add_option("names", v.names);
  rm->add_flag("--all", v.all);
  rm->callback([&] { action = [&] { return kubelet::run_pod_rm(v.dir, v.names, v.all); }; });
  auto* ls = pod->add_subcommand("ls", "pods and what they hold");
  ls->add_option("-o,--output", v.pod_output)->check(CLI::IsMember({"json", "table"}));
  ls->callback([&] { action = [&] { return kubelet::run_pod_ls(v.dir, v.pod_output); }; });
  auto* exec = pod->add_subcommand("exec", "run a command in a pod: exec NAME -- CMD…");
  exec->add_option("name", v.pod)->required();
  exec->callback([&] { action = [&] { return kubelet::run_pod_exec(v.dir, v.pod, v.command); }; });
  auto* node = app.add_subcommand("node", "capacity and allocatable as the stand-in sees them");
  node->add_option("--dir", v.dir)->required();
  node->add_option("-o,--output", v.node_output)->check(CLI::IsMember({"json", "table"}));
  node->callback([&] { action = [&] { return kubelet::run_node(v.dir, v.node_output); }; });
  auto* restart = app.add_subcommand("kubelet-restart",
                                     "the stand-in restarts: its folder is wiped, pods stay");
  restart->add_option("--dir", v.dir)->required();
  restart->add_option("--times", v.restarts, "one right after another")
      ->check(CLI::Range(1U, kubelet::kMaxRestarts));
  restart->callback(
      [&] { action = [&] { return kubelet::run_kubelet_restart(v.dir, v.restarts); }; });
  auto* container =
      app.add_subcommand("container", "")->group("");  // how the stand-in starts a pod
  container->add_option("--root", v.container.root);
  container->add_option("--plan", v.container.plan);
  container->callback([&] {
    action = [&]() -> Result<int> {
      return std::unexpected(kubelet::become_container(v.container));
    };
  });
}

bool known_verb(const CLI::App& app, const std::string& name) {
  for (const CLI::App* verb : app.get_subcommands({}))
    if (verb->get_name() == name) return true;
  return false;
}

// "pod: …" for a verb that has verbs of its own and was given none, or none of them.
std::string missing_verb(const CLI::App& app) {
  const CLI::App* at = &app;
  std::string path;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    path += at->get_name() + ": ";
  }
  std::vector<std::string> names;
  for (const CLI::App* verb : at->get_subcommands({}))
    if (!verb->get_group().empty()) names.push_back(verb->get_name());
  const std::vector<std::string> rest = at->remaining();
  const std::string which =
      rest.empty() ? "which verb?"
                   : fmt::format("there is no verb \"{}\";", gpuslice::json_escape(rest.front()));
  return fmt::format("{}{} there are {}", path, which, gpuslice::join(names, ", "));
}

int say(const Error& error) {
  fmt::print(stderr, "gpuslice-sim: {}\n", error.text());
  return gpuslice::exit_code(error.code);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"gpuslice-sim: a node with simulated GPUs, for tests and for learning"};
  app.require_subcommand(1);
  Verbs verbs;
  Action action;
  // What stands after -- is another program's command line and none of ours.
  char** const dashes = std::find_if(
      argv + 1, argv + argc, [](const char* word) { return std::string_view(word) == "--"; });
  if (dashes != argv + argc) {
    const std::vector<std::string> command(dashes + 1, argv + argc);
    verbs.exec.command = verbs.run.command = verbs.command = verbs.container.command = command;
    argc = static_cast<int>(dashes - argv);
  }
  add_create(app, verbs, action);
  add_node_verbs(app, verbs, action);
  add_inject(app, verbs, action);
  add_kubelet_verbs(app, verbs, action);
  if (argc > 1 && argv[1][0] != '-' && !known_verb(app, argv[1])) {
    const auto near = gpuslice::nearest(argv[1], kVerbs);
    return say({Code::kUsage,
                fmt::format("there is no verb \"{}\"{}; gpuslice-sim --help lists them",
                            gpuslice::json_escape(argv[1]),
                            near ? fmt::format("; did you mean {}?", *near) : ""),
                {}});
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& e) {
    const bool of_verb = std::string_view(e.what()).find("subcommand") != std::string_view::npos;
    return say(
        {Code::kUsage,
         (of_verb ? missing_verb(app) : std::string(e.what())) + "; gpuslice-sim --help says how",
         {}});
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    return say({Code::kUsage, std::string(e.what()) + "; gpuslice-sim --help says how", {}});
  }
  const Result<int> status = action();
  return status ? *status : say(status.error());
}
