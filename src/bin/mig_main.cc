#include "bin/mig_main.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <memory>

#include "bin/hooks_run.h"
#include "bin/mig_node.h"
#include "bin/mig_read.h"
#include "bin/mig_said.h"
#include "cli/mig_text.h"
#include "config/document.h"
#include "config/hooks_file.h"
#include "config/mig_parted.h"
#include "host/files.h"
#include "kubelet/node_kubelet.h"
#include "mig/checkpoint.h"
#include "mig/label.h"

namespace gpuslice::bin {
namespace {

using Verb = MigCommand::Verb;

// -o json or yaml of the verbs that otherwise speak to people.
std::optional<cli::Format> for_programs(const MigCommand& command) {
  if (command.output == "json") return cli::Format::kJson;
  if (command.output == "yaml") return cli::Format::kYaml;
  return std::nullopt;
}

Result<std::string> read_input(const std::string& path, size_t most) {
  if (path != "-") {
    auto text = host::read_file(path, most);
    if (text) return text;
    return fail(Code::kInvalidConfig, "{}", text.error().message);
  }
  std::string text((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
  if (text.size() > most)
    return fail(Code::kInvalidConfig, "standard input: longer than {} bytes", most);
  return text;
}
std::string shown_path(const std::string& path) { return path == "-" ? "standard input" : path; }

// The problems of a file: warnings to stderr; an error when there is one, with all of them told.
Status judge(const config::Problems& problems, const std::string& file) {
  for (const config::Problem& problem : problems.all())
    if (problem.severity == config::Severity::kWarning || problems.errors() > 1)
      warn(problem.text(file));
  if (problems.has_errors()) return std::unexpected(problems.first_error(file));
  return {};
}

struct Wanted {
  std::string label;
  mig::NodeWish node;
};

Result<config::MigPartedConfig> read_config(const MigCommand& command) {
  TRY_ASSIGN(const std::string text, read_input(command.file, config::kMaxFileBytes));
  config::MigPartedFile file = config::read_mig_parted(text);
  TRY(judge(file.problems, shown_path(command.file)));
  return std::move(file.config);
}

// An error of a GPU that does not answer and is wanted.
Status check_silent(const MigNode& node, const config::MigLabel& label) {
  for (const MigNode::Silent& silent : node.silent())
    for (const config::MigEntry& entry : label.entries) {
      const bool named =
          entry.all_gpus || std::any_of(entry.gpus.begin(), entry.gpus.end(), [&](const auto& ref) {
            return ref.kind == config::GpuRef::Kind::kIndex && ref.index == silent.index;
          });
      if (named)
        return fail(silent.error.code == Code::kInternal ? Code::kFailed : silent.error.code,
                    "GPU {} does not answer, and the label is for it: {}; nothing is changed: see "
                    "dmesg for "
                    "XIDs and reset or reboot it, or leave it out of devices",
                    silent.index, silent.error.message);
    }
  return {};
}

Result<Wanted> want(const MigCommand& command, const config::MigPartedConfig& config,
                    const MigNode& node) {
  const std::string file = shown_path(command.file);
  Wanted wanted;
  TRY_ASSIGN(wanted.label, mig::choose_label(config, command.label, file));
  const config::MigLabel& label = config.labels.at(wanted.label);
  TRY(check_silent(node, label));
  TRY_ASSIGN(wanted.node, mig::wish_of_label(label, wanted.label, node.gpus(), file));
  for (const std::string& warning : wanted.node.warnings) warn("warning: " + warning);
  return wanted;
}

Result<cli::GpuDecision> decide_gpu(MigNode& node, const mig::Options& options,
                                    const ports::Gpu& gpu, const mig::Wish& wish) {
  cli::GpuDecision out;
  TRY_ASSIGN(out.state, node.read(gpu));
  TRY_ASSIGN(const std::vector<mig::Holder> holders, options.holders(out.state));
  TRY_ASSIGN(out.needs_reset, node.session().mode_needs_reset(gpu.uuid));
  out.wish = wish;
  out.decision = mig::decide(out.state, wish, holders);
  return out;
}

Result<std::vector<cli::GpuDecision>> decide_all(MigNode& node,
                                                 const std::map<uint32_t, mig::Wish>& wishes,
                                                 bool mode_only) {
  std::vector<cli::GpuDecision> out;
  const mig::Options options = node.options();
  for (const auto& [index, wish] : wishes) {
    TRY_ASSIGN(cli::GpuDecision one,
               decide_gpu(node, options, *node.find(index),
                          mode_only ? mig::Wish{wish.mig, {}, mig::Layout{}, {}, wish.mode_may_wait}
                                    : wish));
    if (mode_only) {
      // Only the mode counts: the instances are taken as they are.
      mig::Wish meant{wish.mig, {}, mig::Layout{wish.mig, {}}, {}, wish.mode_may_wait};
      if (wish.mig) meant.exact = one.state.mode.current ? one.state.layout() : *meant.exact;
      TRY_ASSIGN(const std::vector<mig::Holder> holders, options.holders(one.state));
      one.wish = meant;
      one.decision = mig::decide(one.state, meant, holders);
    }
    out.push_back(std::move(one));
  }
  return out;
}

// What stands for several: the gravest of the exit codes.
Code gravest(const std::vector<Code>& codes) {
  constexpr Code kOrder[] = {
      Code::kHalfDone,     Code::kInternal,      Code::kGpuLost,  Code::kFailed,  Code::kTimeout,
      Code::kNoPermission, Code::kUnavailable,   Code::kNotFound, Code::kCorrupt, Code::kNeedsReset,
      Code::kImpossible,   Code::kInvalidConfig, Code::kInUse};
  for (const Code code : kOrder)
    if (std::find(codes.begin(), codes.end(), code) != codes.end()) return code;
  return Code::kFailed;
}

int exit_of(const std::vector<cli::GpuDecision>& gpus) {
  std::vector<Code> codes;
  for (const cli::GpuDecision& gpu : gpus)
    if (gpu.decision.refusal) codes.push_back(gpu.decision.refusal->error.code);
  return codes.empty() ? 0 : exit_code(gravest(codes));
}

bool any_change(const std::vector<cli::GpuDecision>& gpus) {
  return std::any_of(gpus.begin(), gpus.end(), [](const auto& gpu) { return gpu.changes(); });
}

Result<int> run_plan(const MigCommand& command) {
  TRY_ASSIGN(const config::MigPartedConfig config, read_config(command));
  MigNode node(places_of(command));
  TRY(node.open());
  TRY_ASSIGN(const Wanted wanted, want(command, config, node));
  TRY_ASSIGN(const std::vector<cli::GpuDecision> gpus,
             decide_all(node, wanted.node.gpus, command.mode_only));
  const auto format = for_programs(command);
  say(format ? cli::plan_json(wanted.label, gpus, wanted.node.warnings, *format)
             : cli::plan_text(wanted.label, gpus));
  if (const int refused = exit_of(gpus); refused != 0) {
    for (const cli::GpuDecision& gpu : gpus)
      if (gpu.decision.refusal) warn(gpu.decision.refusal->error.text());
    return refused;
  }
  return command.detailed_exitcode && any_change(gpus) ? exit_code(Code::kDiffers) : 0;
}

Result<int> run_assert(const MigCommand& command) {
  TRY_ASSIGN(const config::MigPartedConfig config, read_config(command));
  if (command.valid_config) {
    TRY_ASSIGN(const std::string label,
               mig::choose_label(config, command.label, shown_path(command.file)));
    say(fmt::format("{}: the configuration is valid and has the label {}\n",
                    shown_path(command.file), label));
    return 0;
  }
  MigNode node(places_of(command));
  TRY(node.open());
  TRY_ASSIGN(const Wanted wanted, want(command, config, node));
  TRY_ASSIGN(const std::vector<cli::GpuDecision> gpus,
             decide_all(node, wanted.node.gpus, command.mode_only));
  const bool differs = any_change(gpus);
  const auto format = for_programs(command);
  if (format) say(cli::plan_json(wanted.label, gpus, wanted.node.warnings, *format));
  if (!differs) {
    if (!format && command.verb == Verb::kAssert)
      say(fmt::format("label {}: as wanted on every GPU that it names\n", wanted.label));
    return 0;
  }
  if (!format && command.verb == Verb::kDiff) say(cli::diff_text(gpus));
  if (command.verb == Verb::kAssert)
    for (const cli::GpuDecision& gpu : gpus)
      if (gpu.changes())
        warn(fmt::format("{}: it differs from label {}: {}", gpu.state.gpu.text(), wanted.label,
                         gpu.decision.refusal ? gpu.decision.refusal->error.message
                                              : mig::layout_text(gpu.state.layout(), gpu.state)));
  // A wish that this hardware cannot fulfil is told as that.
  for (const cli::GpuDecision& gpu : gpus)
    if (gpu.decision.refusal && gpu.decision.refusal->error.code == Code::kImpossible)
      return exit_code(Code::kImpossible);
  return exit_code(Code::kDiffers);
}

// Around changes: reads the hooks file, runs its points.
class Around {
 public:
  static Result<Around> read(const MigCommand& command, const std::string& label) {
    Around around;
    around.envs_ = {{"MIG_PARTED_CONFIG_FILE", command.file},
                    {"MIG_PARTED_SELECTED_CONFIG", label},
                    {"MIG_PARTED_HOOKS_FILE", command.hooks_file},
                    {"MIG_PARTED_SKIP_RESET", command.skip_reset ? "true" : "false"},
                    {"MIG_PARTED_MODE_CHANGE_ONLY", command.mode_only ? "true" : "false"}};
    if (command.hooks_file.empty()) return around;
    TRY_ASSIGN(const std::string text, read_input(command.hooks_file, config::kMaxFileBytes));
    config::HooksFile file = config::read_hooks(text);
    TRY(judge(file.problems, command.hooks_file));
    around.hooks_ = std::move(file.hooks);
    return around;
  }
  [[nodiscard]] Status start() { return run_hooks("apply-start", hooks_.apply_start, envs_); }
  [[nodiscard]] Status before_mode() {
    return run_hooks("pre-apply-mode", hooks_.pre_apply_mode, envs_);
  }
  [[nodiscard]] Status before_config() {
    return run_hooks("pre-apply-config", hooks_.pre_apply_config, envs_);
  }
  [[nodiscard]] Status finish() { return run_hooks("apply-exit", hooks_.apply_exit, envs_); }

 private:
  config::Hooks hooks_;
  std::map<std::string, std::string> envs_;
};

Status run_before(Around& around, const std::vector<cli::GpuDecision>& gpus) {
  const bool mode = std::any_of(gpus.begin(), gpus.end(), [](const auto& gpu) {
    return gpu.decision.plan && gpu.decision.plan->mode_changes;
  });
  const bool layout = std::any_of(gpus.begin(), gpus.end(), [](const auto& gpu) {
    return gpu.decision.plan &&
           (gpu.decision.plan->provisional || !gpu.decision.plan->steps.steps.empty());
  });
  if (mode) TRY(around.before_mode());
  if (layout) TRY(around.before_config());
  return {};
}

// What was interrupted is finished or reverted before anything is planned: that is a change, too.
Result<AgentLink::Lease> withdraw_interrupted(MigNode& node,
                                              const std::map<uint32_t, mig::Wish>& wishes) {
  const std::set<std::string> left = node.left_half_way();
  std::map<std::string, std::set<std::string>> gpus;
  for (const auto& [index, wish] : wishes)
    if (const std::string& uuid = node.find(index)->uuid; left.contains(uuid)) gpus[uuid] = {uuid};
  return node.withdraw(gpus);
}

Result<std::vector<mig::Report>> change_all(const MigCommand& command, MigNode& node,
                                            const std::map<uint32_t, mig::Wish>& wishes) {
  TRY_ASSIGN(const AgentLink::Lease interrupted, withdraw_interrupted(node, wishes));
  std::vector<mig::Report> reports;
  mig::Options options = node.options();
  options.mode_only = command.mode_only;
  options.skip_reset = command.skip_reset;
  options.wait = command.wait;
  if (!for_programs(command)) options.told = [](const std::string& text) { say(text + "\n"); };
  // All of them locked, planned and journalled, in their order, before the first is touched: two
  // that run at once do not divide the GPUs among themselves, and a GPU that cannot be leaves the
  // others as they are.
  struct Begun {
    std::unique_ptr<mig::Change> change;
    bool ready = false;
  };
  std::vector<Begun> begun;
  bool all_can = true;
  for (const auto& [index, wish] : wishes) {
    const mig::GpuName gpu = mig::name_of(*node.find(index));
    begun.push_back({std::make_unique<mig::Change>(node.ports(), options, gpu), false});
    begun.back().ready = all_can && begun.back().change->prepare(wish);
    all_can = all_can && !begun.back().change->report().error;
  }
  // From here to the end the agent of this node gives nobody what goes, nor what appears meanwhile.
  std::map<std::string, std::set<std::string>> going;
  if (all_can)
    for (const Begun& one : begun) {
      if (!one.ready) continue;
      std::set<std::string>& devices = going[one.change->report().gpu.uuid];
      for (std::string& uuid : one.change->devices_that_go()) devices.insert(std::move(uuid));
    }
  const Result<AgentLink::Lease> lease = node.withdraw(going);
  all_can = all_can && lease.has_value();
  for (const Begun& one : begun) {
    if (one.ready && all_can) one.change->execute();
    if (one.ready && !all_can) one.change->abandon();
    reports.push_back(one.change->report());
    if (one.ready && !lease) reports.back().error = lease.error();
    // One that was not even looked at.
    if (!all_can && !one.ready && reports.back().layout.empty() && !reports.back().error)
      reports.back().end = mig::End::kRefused;
  }
  return reports;
}

// Checks all GPUs before the first is touched, changes them, and says what became of each.
Result<int> change_node(const MigCommand& command, MigNode& node, const std::string& label,
                        const std::map<uint32_t, mig::Wish>& wishes) {
  TRY_ASSIGN(Around around, Around::read(command, label));
  const auto format = for_programs(command);
  TRY_ASSIGN(const std::vector<cli::GpuDecision> gpus, decide_all(node, wishes, command.mode_only));
  std::vector<mig::Report> reports;
  for (const cli::GpuDecision& gpu : gpus) {
    if (!gpu.decision.refusal) continue;
    const mig::Refusal& refusal = *gpu.decision.refusal;
    if (refusal.error.code == Code::kInUse && command.wait > Duration::zero()) continue;
    mig::Report report;
    report.gpu = gpu.state.gpu;
    report.end = mig::End::kRefused;
    report.error = refusal.error;
    report.refusal = refusal;
    report.layout = mig::layout_text(gpu.state.layout(), gpu.state);
    reports.push_back(std::move(report));
  }
  if (const Status may = node.may_change(); reports.empty() && !may)
    for (const cli::GpuDecision& gpu : gpus) {
      if (!gpu.changes()) continue;
      mig::Report& report = reports.emplace_back();
      report.gpu = gpu.state.gpu;
      report.end = mig::End::kRefused;
      report.error = Error(may.error()).in(gpu.state.gpu.text());
      report.layout = mig::layout_text(gpu.state.layout(), gpu.state);
    }
  if (reports.empty()) {
    // The outer two also where all is as wanted: some only keep the label that was applied.
    Status hooks = around.start();
    if (hooks) hooks = run_before(around, gpus);
    Result<std::vector<mig::Report>> changed;
    if (hooks) changed = change_all(command, node, wishes);
    const Status finished = around.finish();
    if (!hooks) return std::unexpected(std::move(hooks).error());
    if (!changed) return std::unexpected(std::move(changed).error());
    reports = std::move(*changed);
    if (!finished) warn(finished.error().text());
    if (!finished && std::none_of(reports.begin(), reports.end(),
                                  [](const auto& r) { return r.error.has_value(); }))
      return exit_code(Code::kFailed);
    if (!format) say(cli::report_text(reports));
  }
  if (format) say(cli::report_json(reports, *format));
  std::vector<Code> codes;
  for (const mig::Report& report : reports) {
    if (!report.error) continue;
    codes.push_back(report.error->code);
    warn(report.error->text());
  }
  if (codes.empty()) {
    if (!format) say(fmt::format("MIG configuration applied successfully\n"));
    return 0;
  }
  return exit_code(gravest(codes));
}

Result<int> run_apply(const MigCommand& command) {
  TRY_ASSIGN(const config::MigPartedConfig config, read_config(command));
  MigNode node(places_of(command));
  TRY(node.open());
  TRY_ASSIGN(Wanted wanted, want(command, config, node));
  if (command.skip_reset)
    for (auto& [index, wish] : wanted.node.gpus)
      wish.mode_may_wait = node.session().mode_needs_reset(node.find(index)->uuid).value_or(false);
  return change_node(command, node, wanted.label, wanted.node.gpus);
}

Result<int> run_restore(const MigCommand& command) {
  TRY_ASSIGN(const std::string text, read_input(command.file, mig::kMaxCheckpointBytes));
  auto saved = mig::parse_checkpoint(text);
  if (!saved) return std::unexpected(std::move(saved).error().in(shown_path(command.file)));
  MigNode node(places_of(command));
  TRY(node.open());
  std::map<uint32_t, mig::Wish> wishes;
  for (const mig::SavedGpu& gpu : *saved) {
    const auto there = std::find_if(node.gpus().begin(), node.gpus().end(),
                                    [&](const ports::Gpu& g) { return g.uuid == gpu.uuid; });
    if (there == node.gpus().end())
      return fail(Code::kImpossible,
                  "{}: it has {}, which this node has not (gpuslice list gpus shows those that it "
                  "has); nothing is changed",
                  shown_path(command.file), gpu.uuid);
    if (!there->mig && !gpu.wish.mig) continue;
    if (!there->mig)
      return fail(Code::kImpossible, "GPU {} ({}): MIG is wanted, and this board has none",
                  there->index.value, there->name);
    wishes[there->index.value] = gpu.wish;
  }
  return change_node(command, node, "", wishes);
}

}  // namespace

Result<int> run_mig(const MigCommand& command) {
  kubelet::quiet_grpc();
  switch (command.verb) {
    case Verb::kHelp:
      say(command.help);
      return 0;
    case Verb::kPlan:
      return run_plan(command);
    case Verb::kApply:
      return run_apply(command);
    case Verb::kAssert:
    case Verb::kDiff:
      return run_assert(command);
    case Verb::kRestore:
      return run_restore(command);
    case Verb::kExport:
    case Verb::kCheckpoint:
    case Verb::kGenerate:
      return run_mig_export(command);
  }
  return exit_code(Code::kInternal);
}

}  // namespace gpuslice::bin
