#include "checks.h"

#include <fmt/format.h>

#include <array>
#include <set>

#include "mig/checkpoint.h"

namespace gpuslice::mig_test {
namespace {

constexpr const char* kA100 = "A100-SXM4-40GB";

std::string label_for(const std::string& devices, const std::string& profiles,
                      const std::string& more = "") {
  return fmt::format(
      "version: v1\nmig-configs:\n  wanted:\n  - devices: {}\n{}    mig-enabled: true\n    "
      "mig-devices: {}\n",
      devices, more, profiles);
}

sim::NodeOptions boards(const char* board, size_t count) {
  sim::NodeOptions options;
  options.gpus.assign(count, {board, sim::Sweep::kPlain});
  return options;
}

std::string layout_of(Node& node, uint32_t gpu = 0) {
  const mig::GpuState state = node.look(gpu);
  return mig::layout_text(state.layout(), state);
}

// Every call that changes something, done or refused, on all GPUs; and every instance's generation.
std::string touched(Node& node) {
  const auto state = node.world->snapshot();
  std::string out;
  for (uint32_t gpu = 0; gpu < state->node.gpu_count; ++gpu) {
    const auto& c = state->gpus[gpu].calls;
    for (const auto& count :
         {c.create_gi, c.destroy_gi, c.create_ci, c.destroy_ci, c.set_mig_mode, c.reset})
      out += fmt::format("{}+{} ", count.ok, count.failed);
    for (uint8_t gi = 0; gi < sim::kMaxGis; ++gi)
      if (state->gpus[gpu].gis[gi].live)
        out += fmt::format("{}:{} ", gi, state->gpus[gpu].gis[gi].generation);
    out += "; ";
  }
  return out;
}

// The node as a check wants it, made by ours: what a mutant does is judged, not what it starts
// from.
void prepare(Node& node, const std::string& config) {
  OurTool ours;
  const auto error = ours.apply(node, config, "wanted");
  CHECK(!error.has_value(), "the node of a check cannot be prepared");
}

std::string said(const std::optional<Error>& error) {
  return error ? fmt::format("{}: {}", code_name(error->code), error->text()) : "success";
}

}  // namespace

Verdict check_d1(Tool& tool) {
  for (const char* profile : {"1g.18gb", "1g.6gb", "7g.80gb", "1g.5gb+gfx"}) {
    Node node(one_board(kA100));
    prepare(node, label_for("all", "{1g.5gb: 7}"));
    const std::string before = touched(node);
    const auto error =
        tool.apply(node, label_for("all", fmt::format("{{{}: 1}}", profile)), "wanted");
    if (touched(node) != before)
      return fmt::format("{} on a GPU that has no such profile: it is now: {}; said: {}", profile,
                         layout_of(node), said(error));
    if (!error || error->code != Code::kImpossible ||
        error->message.find(fmt::format("no profile {}", profile)) == std::string::npos ||
        error->message.find("it offers 1g.5gb, 2g.10gb") == std::string::npos)
      return fmt::format("{} on a GPU that has no such profile: said: {}", profile, said(error));
  }
  return std::nullopt;
}

Verdict check_d2(Tool& tool) {
  Node node(one_board(kA100));
  prepare(node, label_for("all", "{}"));
  const bool made = node.world
                        ->write([](sim::State& state) {
                          uint8_t gi = 0;
                          return sim::create_gi(state, 0, ProfileId{9}, std::nullopt,
                                                {true, sim::kNoClient}, gi) == sim::Ret::kSuccess;
                        })
                        .value_or(false);
  CHECK(made, "a GPU instance of a test");
  const auto equal = tool.assert_label(node, label_for("all", "{}"), "wanted");
  if (!equal || equal->code != Code::kDiffers)
    return fmt::format("a 3g.20gb without compute instance is equal to no instance: {}",
                       said(equal));
  const auto error = tool.apply(node, label_for("all", "{1g.5gb: 7}"), "wanted");
  const std::string seven =
      "1g.5gb at 0:1, 1g.5gb at 1:1, 1g.5gb at 2:1, 1g.5gb at 3:1, 1g.5gb at 4:1, 1g.5gb at 5:1, "
      "1g.5gb at 6:1";
  if (error || layout_of(node) != seven)
    return fmt::format("7 x 1g.5gb beside it: {}; said: {}", layout_of(node), said(error));
  return std::nullopt;
}

Verdict check_d3(Tool& tool) {
  std::set<std::string> runs;
  for (int run = 0; run < 8; ++run) {
    Node node(one_board(kA100));
    std::string calls;
    node.strike = [&](std::string_view call, const std::string&, uint64_t,
                      bool after) -> std::optional<Error> {
      const bool changes = call.starts_with("create") || call.starts_with("destroy");
      if (changes && !after) calls += fmt::format("{} ", call);
      return std::nullopt;
    };
    const auto error =
        tool.apply(node, label_for("all", "{1g.10gb: 2, 1g.5gb: 3, 1g.5gb+me: 1}"), "wanted");
    node.strike = nullptr;
    if (error) return "six instances that fit: " + said(error);
    const auto counts = node.world->snapshot()->gpus[0].calls;
    if (counts.create_gi.failed != 0 || counts.create_gi.ok != 6)
      return fmt::format("six instances took {} creations, of which {} failed",
                         counts.create_gi.ok + counts.create_gi.failed, counts.create_gi.failed);
    runs.insert(calls + layout_of(node));
  }
  if (runs.size() != 1) return fmt::format("{} different runs of 8", runs.size());
  return std::nullopt;
}

Verdict check_d4(Tool& tool) {
  Node node(boards(kA100, 3));
  prepare(node,
          "version: v1\nmig-configs:\n  wanted:\n"
          "  - {devices: [0], mig-enabled: true, mig-devices: {1g.5gb: 7}}\n"
          "  - {devices: [1], mig-enabled: true, mig-devices: {1c.3g.20gb: 2, 2g.10gb: 1}}\n"
          "  - {devices: [2], mig-enabled: true, mig-devices: {}}\n");
  const std::array<std::string, 3> saved = {layout_of(node, 0), layout_of(node, 1),
                                            layout_of(node, 2)};
  // The GPUs as another start may find them: in another order.
  const std::string file = mig::format_checkpoint({node.look(2), node.look(0), node.look(1)});
  prepare(node, label_for("all", "{7g.40gb: 1}"));
  const auto error = tool.restore(node, file);
  for (uint32_t gpu = 0; gpu < 3; ++gpu)
    if (error || layout_of(node, gpu) != saved[gpu])
      return fmt::format("GPU {} had {} and has {}; said: {}", gpu, saved[gpu],
                         layout_of(node, gpu), said(error));
  // One of them is another GPU now.
  std::string missing = file;
  missing.replace(missing.find(node.gpu(1).uuid), 8, "GPU-ffff");
  prepare(node, label_for("all", "{7g.40gb: 1}"));
  const std::string before = touched(node);
  const auto refused = tool.restore(node, missing);
  if (!refused || touched(node) != before)
    return fmt::format("a GPU of the checkpoint is missing, and GPU 0 has {}; said: {}",
                       layout_of(node, 0), said(refused));
  return std::nullopt;
}

Verdict check_d5(Tool& tool) {
  for (const char* filter : {"0x20B010D", "20B010DE", "A100-SXM4-40GB", "0x20B010DEE"}) {
    Node node(one_board(kA100));
    prepare(node, label_for("all", "{1g.5gb: 7}"));
    const std::string before = touched(node);
    const auto error = tool.apply(
        node, label_for("all", "{7g.40gb: 1}", fmt::format("    device-filter: \"{}\"\n", filter)),
        "wanted");
    if (!error || error->code != Code::kInvalidConfig ||
        error->message.find(filter) == std::string::npos || touched(node) != before)
      return fmt::format("device-filter {}: {}", filter, said(error));
  }
  Node node(one_board(kA100));
  const auto error = tool.apply(node, label_for("all", "{1g.5gb: -1}"), "wanted");
  if (!error || error->message.find("-1") == std::string::npos) return "count -1: " + said(error);
  return std::nullopt;
}

Verdict check_d6(Tool& tool) {
  const std::string config = label_for("all", "{1g.5gb: 0, 2g.10gb: 3}");
  Node node(one_board(kA100));
  prepare(node, label_for("all", "{2g.10gb: 3}"));
  const std::string before = touched(node);
  const auto first = tool.apply(node, config, "wanted");
  if (first) {
    if (first->code != Code::kInvalidConfig || touched(node) != before)
      return "a zero count: " + said(first);
    return std::nullopt;
  }
  const auto equal = tool.assert_label(node, config, "wanted");
  if (equal) return "applied, and not equal: " + said(equal);
  if (touched(node) != before) return "what was so already was made again";
  return std::nullopt;
}

Verdict check_d7(Tool& tool) {
  Node node(boards(kA100, 2));
  const std::string config = label_for("[0]", "{1g.5gb: 7}");
  const auto error = tool.apply(node, config, "wanted");
  if (error) return said(error);
  const auto equal = tool.assert_label(node, config, "wanted");
  if (equal) return "a label for GPU 0 of two, applied, is not equal: " + said(equal);
  return std::nullopt;
}

namespace {
// An A30's driver, as reported: with MIG off 1g.6gb has the number of another profile. NVML's port
// knows the board and trusts nothing that it says then.
class LyingA30 final : public ForwardingMig {
 public:
  using ForwardingMig::ForwardingMig;
  Result<ports::GiProfiles> gi_profiles(const std::string& gpu) override {
    auto told = ForwardingMig::gi_profiles(gpu);
    const auto mode = mig_mode(gpu);
    if (!told || !mode || mode->current) return told;
    told->trusted = false;
    for (ports::GiProfile& profile : told->profiles)
      if (profile.name == "1g.6gb") profile.id = ProfileId{15};
    return told;
  }
};
}  // namespace

Verdict check_d8(Tool& tool) {
  Node node(one_board("A30-24GB"));
  LyingA30 driver(*node.nvml);
  node.driver = &driver;
  const auto error = tool.apply(node, label_for("all", "{1g.6gb: 4}"), "wanted");
  if (error || layout_of(node) != "1g.6gb at 0:1, 1g.6gb at 1:1, 1g.6gb at 2:1, 1g.6gb at 3:1")
    return fmt::format("4 x 1g.6gb: {}; said: {}", layout_of(node), said(error));
  const auto failed = node.world->snapshot()->gpus[0].calls.create_gi.failed;
  if (failed != 0) return fmt::format("{} creations failed", failed);
  // What turns out impossible once MIG is on leaves it off again.
  Node other(one_board("A30-24GB"));
  LyingA30 again(*other.nvml);
  other.driver = &again;
  const auto refused = tool.apply(other, label_for("all", "{1g.5gb: 7}"), "wanted");
  if (!refused || refused->code != Code::kImpossible || layout_of(other) != "MIG off" ||
      other.look(0).mode.pending)
    return fmt::format("1g.5gb on an A30: {}; said: {}", layout_of(other), said(refused));
  return std::nullopt;
}

Verdict check_d9(Tool& tool) {
  Node busy(one_board(kA100));
  CHECK(sim::add_simulated_client(*busy.world, 77, "nv-hostengine").has_value(), "a client");
  const auto in_use = tool.apply(busy, label_for("all", "{1g.5gb: 7}"), "wanted");
  if (!in_use || in_use->code != Code::kInUse || busy.look(0).mode.pending)
    return fmt::format("another client holds the driver: {}{}", said(in_use),
                       busy.look(0).mode.pending ? "; the mode is left pending" : "");
  sim::NodeOptions options = one_board(kA100);
  options.passthrough = true;
  Node machine(options);
  const auto reboot = tool.apply(machine, label_for("all", "{1g.5gb: 7}"), "wanted");
  if (!reboot || reboot->code != Code::kNeedsReset)
    return "a mode that takes a reboot: " + said(reboot);
  return std::nullopt;
}

Verdict check_d10(Tool& tool) {
  Node node(one_board(kA100));
  prepare(node, label_for("all", "{1g.5gb: 7}"));
  std::optional<Error> second;
  bool asked = false;
  node.strike = [&](std::string_view call, const std::string&, uint64_t,
                    bool after) -> std::optional<Error> {
    if (asked || after || call != "create_gi") return std::nullopt;
    asked = true;
    second = tool.apply(node, label_for("all", "{3g.20gb: 1}"), "wanted");
    return std::nullopt;
  };
  const auto first = tool.apply(node, label_for("all", "{2g.10gb: 3}"), "wanted");
  node.strike = nullptr;
  if (!asked) return "the first created nothing: " + said(first);
  if (!second || second->code != Code::kInUse ||
      second->message.find("by PID") == std::string::npos)
    return "a second writer meanwhile: " + said(second);
  if (first || layout_of(node) != "2g.10gb at 0:2, 2g.10gb at 2:2, 2g.10gb at 4:2")
    return fmt::format("after both: {}; the first said: {}", layout_of(node), said(first));
  return std::nullopt;
}

Verdict check_d11(Tool& tool) {
  const std::array<Error, 4> kinds = {Error{Code::kInUse, "In use by another client (19)", {}},
                                      Error{Code::kImpossible, "Insufficient Resources (23)", {}},
                                      Error{Code::kTimeout, "Timeout (10)", {}},
                                      Error{Code::kFailed, "Unknown Error (999)", {}}};
  const std::string old_config = label_for("all", "{3g.20gb: 1, 1g.5gb: 2}");
  const std::string new_config = label_for("all", "{2g.10gb: 2, 1c.3g.20gb: 3}");
  Node fresh(one_board(kA100));
  prepare(fresh, old_config);
  const std::string old_layout = layout_of(fresh);
  prepare(fresh, new_config);
  const std::string new_layout = layout_of(fresh);
  for (const Error& kind : kinds)
    for (const bool after : {false, true})
      for (uint64_t at = 0; at < 12; ++at) {
        Node node(one_board(kA100));
        prepare(node, old_config);
        uint64_t number = 0;
        uint64_t failures = 0;
        // From the at-th call that changes something eight fail in a row, before they do it or
        // after.
        node.strike = [&](std::string_view call, const std::string&, uint64_t,
                          bool is_after) -> std::optional<Error> {
          if (!call.starts_with("create") && !call.starts_with("destroy")) return std::nullopt;
          if (is_after != after) return std::nullopt;
          if (number++ < at || failures == 8) return std::nullopt;
          ++failures;
          return kind;
        };
        const auto error = tool.apply(node, new_config, "wanted");
        node.strike = nullptr;
        const std::string now = layout_of(node);
        if (now != old_layout && now != new_layout)
          return fmt::format("{} {} call {}: {}; said: {}", kind.message,
                             after ? "after" : "before", at, now, said(error));
        if (now == old_layout && failures > 0 && !error) return "an old layout, told as success";
      }
  return std::nullopt;
}

}  // namespace gpuslice::mig_test
