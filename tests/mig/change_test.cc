#include "mig/change.h"

#include <gtest/gtest.h>

#include "mig/check.h"
#include "node.h"

namespace gpuslice::mig_test {
namespace {

using mig::Change;
using mig::End;
using mig::Layout;

std::string text_of(Node& node, uint32_t gpu = 0) {
  const mig::GpuState state = node.look(gpu);
  return mig::layout_text(state.layout(), state);
}

mig::Report apply(Node& node, const mig::Wish& wish, uint32_t gpu = 0) {
  Change change(node.ports(), Node::options(), node.gpu(gpu));
  change.run(wish);
  return change.report();
}

TEST(Change, FromNothingToSeven) {
  Node node(one_board("A100-SXM4-40GB"));
  const mig::Report report = apply(node, wish({{"1g.5gb", 7}}));
  ASSERT_EQ(report.end, End::kDone) << report.error->text();
  EXPECT_EQ(text_of(node),
            "1g.5gb at 0:1, 1g.5gb at 1:1, 1g.5gb at 2:1, 1g.5gb at 3:1, 1g.5gb at 4:1, "
            "1g.5gb at 5:1, 1g.5gb at 6:1");
  EXPECT_TRUE(node.files.files.empty());
  EXPECT_EQ(report.calls, 15U);  // the mode, seven GPU instances, seven compute instances
  EXPECT_EQ(apply(node, wish({{"1g.5gb", 7}})).end, End::kAlready);
}

TEST(Change, WhatCanStayStays) {
  Node node(one_board("A100-SXM4-40GB"));
  ASSERT_EQ(apply(node, wish({{"3g.20gb", 1}, {"1g.5gb", 2}})).end, End::kDone);
  const mig::GpuState before = node.look(0);
  std::map<uint32_t, uint64_t> generations;
  for (const auto& gi : before.instances)
    generations[gi.id.value] = node.generation(0, static_cast<uint8_t>(gi.id.value));
  const mig::Report report = apply(node, wish({{"3g.20gb", 1}, {"2g.10gb", 1}, {"1g.5gb", 2}}));
  ASSERT_EQ(report.end, End::kDone) << report.error->text();
  EXPECT_EQ(report.calls, 2U);
  for (const auto& [gi, generation] : generations)
    EXPECT_EQ(node.generation(0, static_cast<uint8_t>(gi)), generation);
}

TEST(Change, AnUnknownProfileTouchesNothing) {
  Node node(one_board("A100-SXM4-40GB"));
  ASSERT_EQ(apply(node, wish({{"1g.5gb", 7}})).end, End::kDone);
  const auto calls = node.world->snapshot()->gpus[0].calls;
  const mig::Report report = apply(node, wish({{"1g.18gb", 7}}));
  EXPECT_EQ(report.end, End::kRefused);
  EXPECT_EQ(report.error->code, Code::kImpossible);
  EXPECT_EQ(report.error->message,
            "GPU 0 (NVIDIA A100-SXM4-40GB): it has no profile 1g.18gb; the nearest is 1g.10gb; it "
            "offers 1g.5gb, 2g.10gb, 3g.20gb, 4g.20gb, 7g.40gb, 1g.5gb+me, 1g.10gb");
  const auto after = node.world->snapshot()->gpus[0].calls;
  EXPECT_EQ(after.create_gi.ok, calls.create_gi.ok);
  EXPECT_EQ(after.destroy_gi.ok + after.destroy_gi.failed, calls.destroy_gi.ok);
  EXPECT_TRUE(node.files.files.empty());
}

TEST(Change, ABusyInstanceIsNamedAndLeft) {
  Node node(one_board("A100-SXM4-40GB"));
  ASSERT_EQ(apply(node, wish({{"1g.5gb", 7}})).end, End::kDone);
  const mig::GpuState state = node.look(0);
  const auto worker = node.work(0, static_cast<uint8_t>(state.instances[0].id.value), 0);
  const mig::Report refused = apply(node, wish({{"7g.40gb", 1}}));
  EXPECT_EQ(refused.end, End::kRefused);
  EXPECT_EQ(refused.error->code, Code::kInUse);
  ASSERT_EQ(refused.refusal.holders.size(), 1U);
  EXPECT_EQ(refused.refusal.holders[0].pid, 5000U);
  EXPECT_NE(refused.error->message.find("PID 5000 (python3), on GPU instance"), std::string::npos)
      << refused.error->message;
  // What fits beside it is done.
  EXPECT_EQ(apply(node, wish({{"1g.5gb", 1}, {"2g.10gb", 1}})).end, End::kDone);
  node.end_work(worker);
  EXPECT_EQ(apply(node, wish({{"7g.40gb", 1}})).end, End::kDone);
}

// Nor does a kubelet that does not answer make it a refusal.
TEST(Check, WhatIsAsWantedAsksNobody) {
  Node node(one_board("A100-SXM4-40GB"));
  ASSERT_EQ(apply(node, wish({{"1g.5gb", 7}})).end, End::kDone);
  int asked = 0;
  const mig::HolderSource silent = [&](const mig::GpuState&) -> Result<std::vector<mig::Holder>> {
    ++asked;
    return fail(Code::kTimeout, "the kubelet does not answer");
  };
  const mig::Checked there = mig::check(*node.nvml, silent, node.gpu(0), wish({{"1g.5gb", 7}}));
  EXPECT_TRUE(there.as_wanted);
  EXPECT_FALSE(there.refused);
  EXPECT_EQ(asked, 0);
  const mig::Checked other = mig::check(*node.nvml, silent, node.gpu(0), wish({{"1g.5gb", 6}}));
  EXPECT_FALSE(other.as_wanted);
  EXPECT_EQ(other.refused->message, "the kubelet does not answer");
  EXPECT_EQ(asked, 1);
}

TEST(Check, WhereMigIsOffAndIsToBeSoOneCallSaysIt) {
  Node node(one_board("A100-SXM4-40GB"));
  node.strike = [](std::string_view call, const std::string&, uint64_t,
                   bool) -> std::optional<Error> {
    if (call == "mig_mode") return std::nullopt;
    return Error{Code::kFailed, "unknown error", {}};
  };
  const mig::Checked off = mig::check(*node.nvml, {}, node.gpu(0), mig::Wish{});
  EXPECT_TRUE(off.as_wanted);
  EXPECT_EQ(off.devices, "off");
  EXPECT_FALSE(mig::check(*node.nvml, {}, node.gpu(0), wish({{"1g.5gb", 7}})).as_wanted);
}

TEST(Change, WaitsForHolders) {
  Node node(one_board("A100-SXM4-40GB"));
  ASSERT_EQ(apply(node, wish({{"7g.40gb", 1}})).end, End::kDone);
  const auto worker = node.work(0, 0, 0);
  int waits = 0;
  node.while_waiting = [&] {
    if (++waits == 5) node.end_work(worker);
  };
  mig::Options options = Node::options();
  options.wait = std::chrono::seconds(10);
  Change change(node.ports(), options, node.gpu(0));
  change.run(wish({{"1g.5gb", 1}}));
  EXPECT_EQ(change.report().end, End::kDone);
  EXPECT_EQ(waits, 5);
}

TEST(Change, TheModeWaitsForWhoeverUsesTheGpu) {
  Node node(one_board("A100-SXM4-40GB"));
  node.work(0);
  const mig::Report report = apply(node, wish({{"1g.5gb", 7}}));
  EXPECT_EQ(report.end, End::kRefused);
  EXPECT_EQ(report.error->code, Code::kInUse);
  EXPECT_FALSE(node.look(0).mode.pending);
}

TEST(Change, AnotherClientOfTheDriverLeavesTheModeAsItWas) {
  Node node(one_board("A100-SXM4-40GB"));
  ASSERT_TRUE(sim::add_simulated_client(*node.world, 77, "nv-hostengine"));
  const mig::Report report = apply(node, wish({{"1g.5gb", 7}}));
  EXPECT_EQ(report.end, End::kWentBack);
  EXPECT_EQ(report.error->code, Code::kInUse) << report.error->message;
  EXPECT_FALSE(node.look(0).mode.pending);
}

TEST(Change, InAVirtualMachineItTakesAReboot) {
  sim::NodeOptions options = one_board("A100-SXM4-40GB");
  options.passthrough = true;
  Node node(options);
  const mig::Report report = apply(node, wish({{"1g.5gb", 7}}));
  EXPECT_EQ(report.end, End::kWaitsForReset);
  EXPECT_EQ(report.error->code, Code::kNeedsReset);
  EXPECT_TRUE(node.look(0).mode.pending);
  (void)node.world->write([](sim::State& s) { sim::reboot(s); });
  node.files.boot = "boot-1";
  EXPECT_EQ(apply(node, wish({{"1g.5gb", 7}})).end, End::kDone);
}

// Between the plan and its first step lies the withdrawal from the kubelet: what another program
// makes in that time is not ours to destroy.
TEST(Change, WhatComesBetweenPlanAndExecutionIsAnotherProgramsAndStays) {
  Node node(one_board("A100-SXM4-40GB"));
  ASSERT_EQ(apply(node, wish({{"2g.10gb", 1}})).end, End::kDone);
  std::vector<std::string> told;
  mig::Options options = Node::options();
  options.told = [&](const std::string& text) { told.push_back(text); };
  Change change(node.ports(), options, node.gpu(0));
  ASSERT_TRUE(change.prepare(wish({{"1g.5gb", 2}})));
  ASSERT_TRUE(node.world
                  ->write([](sim::State& state) {
                    uint8_t gi = 0;
                    uint8_t ci = 0;
                    const sim::Caller root{true, sim::kNoClient};
                    return sim::create_gi(state, 0, ProfileId{9}, sim::Placement{0, 4}, root, gi) ==
                               sim::Ret::kSuccess &&
                           sim::create_ci(state, 0, gi, 2, std::nullopt, root, ci) ==
                               sim::Ret::kSuccess;
                  })
                  .value_or(false));
  change.execute();
  EXPECT_EQ(change.report().end, End::kDone);
  EXPECT_EQ(text_of(node), "3g.20gb at 0:4, 1g.5gb at 4:1, 1g.5gb at 5:1");
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told[0],
            "GPU 0: another program changed it meanwhile; it is now: 3g.20gb at 0:4, 2g.10gb at "
            "4:2");
}

// RESET_REQUIRED in the middle: neither forward nor back. A reset takes all instances; then the
// next start makes what was meant.
TEST(Change, ADriverThatWantsAResetFirstIsFinishedAfterIt) {
  Node node(one_board("A100-SXM4-40GB"));
  ASSERT_EQ(apply(node, wish({{"1g.5gb", 7}})).end, End::kDone);
  int changes = 0;
  node.strike = [&](std::string_view call, const std::string&, uint64_t,
                    bool after) -> std::optional<Error> {
    const bool changing = call.starts_with("create") || call.starts_with("destroy");
    if (after || !changing || ++changes <= 5) return std::nullopt;
    return Error{Code::kNeedsReset, "GPU 0: the driver: Reset Required (16)", {}};
  };
  const mig::Report report = apply(node, wish({{"7g.40gb", 1}}));
  node.strike = nullptr;
  EXPECT_EQ(report.end, End::kWaitsForReset);
  EXPECT_EQ(report.error->code, Code::kNeedsReset);
  EXPECT_NE(report.error->message.find("before a reset (gpuslice smi --gpu-reset -i 0)"),
            std::string::npos)
      << report.error->message;
  EXPECT_EQ(node.files.files.size(), 1U);
  ASSERT_TRUE(node.nvml->reset(node.gpu(0).bus_id).has_value());
  Change next(node.ports(), Node::options(), node.gpu(0));
  next.recover();
  EXPECT_EQ(next.report().end, End::kDone);
  EXPECT_EQ(text_of(node), "7g.40gb at 0:8");
  EXPECT_TRUE(node.files.files.empty());
}

// Eight GPUs, one in the wrong mode: only that one is switched and reset, and no call of the driver
// names another.
TEST(Change, TheOtherGpusHearNothing) {
  sim::NodeOptions options;
  options.gpus.assign(8, {"A100-SXM4-40GB", sim::Sweep::kPlain});
  Node node(options);
  for (uint32_t gpu = 0; gpu < 8; ++gpu) {
    if (gpu == 3) continue;
    ASSERT_EQ(apply(node, wish({{"1g.5gb", 7}}), gpu).end, End::kDone);
  }
  const auto before = node.world->snapshot();
  std::set<std::string> named;
  node.strike = [&](std::string_view, const std::string& object, uint64_t,
                    bool) -> std::optional<Error> {
    named.insert(object);
    return std::nullopt;
  };
  EXPECT_EQ(apply(node, wish({{"3g.20gb", 2}}), 3).end, End::kDone);
  node.strike = nullptr;
  for (uint32_t gpu = 0; gpu < 8; ++gpu) {
    if (gpu == 3) continue;
    const std::string uuid = node.gpu(gpu).uuid;
    for (const std::string& object : named)
      EXPECT_EQ(object.find(uuid), std::string::npos) << object;
    const sim::Gpu& was = before->gpus[gpu];
    const auto state = node.world->snapshot();
    const sim::Gpu& is = state->gpus[gpu];
    EXPECT_EQ(is.resets, was.resets);
    EXPECT_EQ(is.calls.set_mig_mode.ok, was.calls.set_mig_mode.ok);
    for (uint8_t gi = 0; gi < sim::kMaxGis; ++gi)
      EXPECT_EQ(is.gis[gi].generation, was.gis[gi].generation);
  }
}

// A call that reports an error and took effect all the same is ours, not another program's.
TEST(Change, AnErrorDoesNotSayThatNothingHappened) {
  Node node(one_board("A100-SXM4-40GB"));
  std::vector<std::string> told;
  int failures = 0;
  node.strike = [&](std::string_view call, const std::string&, uint64_t,
                    bool after) -> std::optional<Error> {
    if (!after || !call.starts_with("create") || ++failures % 2 == 0) return std::nullopt;
    return Error{Code::kTimeout, "GPU 0: nvmlDeviceCreateGpuInstance: Timeout (10)", {}};
  };
  mig::Options options = Node::options();
  options.told = [&](const std::string& text) { told.push_back(text); };
  Change change(node.ports(), options, node.gpu(0));
  change.run(wish({{"1g.5gb", 7}}));
  node.strike = nullptr;
  EXPECT_EQ(change.report().end, End::kDone);
  EXPECT_GE(failures, 14);
  for (const std::string& text : told)
    EXPECT_EQ(text.find("another program"), std::string::npos) << text;
  EXPECT_EQ(node.world->snapshot()->gpus[0].calls.create_gi.ok, 7U);
}

TEST(Change, AStepThatTheDriverRefusedIsAFailureAndTheWayBackIsTriedLonger) {
  // The plan fits: what the driver says of room is no word about the hardware.
  for (const Code code : {Code::kImpossible, Code::kNoPermission}) {
    Node node(one_board("A100-SXM4-40GB"));
    ASSERT_EQ(apply(node, wish({{"3g.20gb", 2}})).end, End::kDone);
    int failures = 0;
    node.strike = [&](std::string_view call, const std::string&, uint64_t,
                      bool after) -> std::optional<Error> {
      if (after || !call.starts_with("create") || ++failures > 8) return std::nullopt;
      return Error{code, "GPU 0: nvmlDeviceCreateGpuInstanceWithPlacement: refused", {}};
    };
    const mig::Report report = apply(node, wish({{"1g.5gb", 7}}));
    node.strike = nullptr;
    EXPECT_EQ(report.end, End::kWentBack);
    ASSERT_TRUE(report.error.has_value());
    EXPECT_EQ(exit_code(report.error->code), 7);
    EXPECT_EQ(node.look(0).instances.size(), 2U);
  }
}

TEST(Change, DriversThatTellOnlyWithMigOn) {
  sim::NodeOptions options = one_board("A100-SXM4-40GB");
  options.driver = "535.183.01";
  Node node(options);
  const mig::Report bad = apply(node, wish({{"1g.18gb", 7}}));
  EXPECT_EQ(bad.end, End::kWentBack);
  EXPECT_EQ(bad.error->code, Code::kImpossible);
  EXPECT_FALSE(node.look(0).mode.current);
  EXPECT_TRUE(node.files.files.empty());
  EXPECT_EQ(apply(node, wish({{"1g.5gb", 7}})).end, End::kDone);
}

TEST(Change, ComputeInstancesChangeInsideAKeptGpuInstance) {
  Node node(one_board("A100-SXM4-40GB"));
  ASSERT_EQ(apply(node, wish({{"3g.20gb", 1}})).end, End::kDone);
  const auto gi = static_cast<uint8_t>(node.look(0).instances[0].id.value);
  const uint64_t generation = node.generation(0, gi);
  ASSERT_EQ(apply(node, wish({{"1c.3g.20gb", 3}})).end, End::kDone);
  EXPECT_EQ(node.look(0).instances[0].cis.size(), 3U);
  EXPECT_EQ(node.generation(0, gi), generation);
}

TEST(Change, NoJournalNoChange) {
  for (const bool full : {true, false}) {
    Node node(one_board("A100-SXM4-40GB"));
    (full ? node.files.full : node.files.read_only) = true;
    const mig::Report report = apply(node, wish({{"1g.5gb", 7}}));
    EXPECT_EQ(report.end, End::kRefused);
    EXPECT_FALSE(node.look(0).mode.current);
  }
}

// Every call of every port, before it and after it: the process dies there, the machine loses what
// was not synced, and the next start ends with the old layout or the new one.
TEST(Change, DiesAnywhere) {
  for (const char* board : {"A100-SXM4-40GB", "H100-80GB-SXM"}) {
    const bool a100 = std::string_view(board).starts_with("A100");
    const mig::Wish first =
        a100 ? wish({{"3g.20gb", 1}, {"1g.5gb", 2}}) : wish({{"3g.40gb", 1}, {"1g.10gb", 2}});
    const mig::Wish second = a100 ? wish({{"2g.10gb", 2}, {"1c.3g.20gb", 3}})
                                  : wish({{"2g.20gb", 2}, {"1c.3g.40gb", 3}});
    for (const bool after : {false, true}) {
      for (uint64_t at = 0;; ++at) {
        Node node(one_board(board));
        ASSERT_EQ(apply(node, first).end, End::kDone);
        const Layout old = node.look(0).layout();
        node.number = 0;
        node.strike = [&](std::string_view, const std::string&, uint64_t number,
                          bool is_after) -> std::optional<Error> {
          if (number == at && is_after == after) throw Died{};
          return std::nullopt;
        };
        bool died = false;
        try {
          const mig::Report report = apply(node, second);
          EXPECT_EQ(report.end, End::kDone);
        } catch (const Died&) {
          died = true;
        }
        node.strike = nullptr;
        if (!died) break;
        node.files.power_cut();
        {
          Change change(node.ports(), Node::options(), node.gpu(0));
          change.recover();
          EXPECT_TRUE(change.report().end == End::kDone || change.report().end == End::kAlready)
              << mig::end_name(change.report().end);
        }
        const Layout now = node.look(0).layout();
        EXPECT_TRUE(node.files.files.empty());
        Node fresh(one_board(board));
        ASSERT_EQ(apply(fresh, first).end, End::kDone);
        ASSERT_EQ(apply(fresh, second).end, End::kDone);
        EXPECT_TRUE(now == old || now == fresh.look(0).layout()) << "call " << at;
      }
    }
  }
}

TEST(Change, OneWriterForEachGpu) {
  Node node(one_board("A100-SXM4-40GB"));
  Change first(node.ports(), Node::options(), node.gpu(0));
  ASSERT_TRUE(first.prepare(wish({{"1g.5gb", 7}})));
  const mig::Report second = apply(node, wish({{"7g.40gb", 1}}));
  EXPECT_EQ(second.end, End::kRefused);
  EXPECT_EQ(second.error->code, Code::kInUse);
  EXPECT_EQ(second.error->message,
            "GPU 0: busy, by PID 4242, since 2026-11-24T10:00:00Z; try again when it has ended");
  first.execute();
  EXPECT_EQ(first.report().end, End::kDone);
}

}  // namespace
}  // namespace gpuslice::mig_test
