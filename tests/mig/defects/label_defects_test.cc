// M1 to M9: what NVIDIA's MIG manager does wrong, one named test each. A check must hold on ours,
// and on that manager without the defect, so that it is the defect that it sees in the mutant.

#include <fmt/format.h>

#include "defect.h"
#include "follower.h"

namespace gpuslice::mig_test {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

constexpr const char* kConfig = R"(version: v1
mig-configs:
  small:
    - {devices: all, mig-enabled: true, mig-devices: {1g.5gb: 7}}
  halves:
    - {devices: all, mig-enabled: true, mig-devices: {3g.20gb: 2}}
  one:
    - {devices: all, mig-enabled: true, mig-devices: {7g.40gb: 1}}
)";
constexpr const char* kHalves = "3g.20gb at 0:4, 3g.20gb at 4:4";

void begin(Follower& f, const std::string& config = kConfig) {
  f.node.files.files[kMigConfig] = config;
  f.config(config);
  f.begin();
}

Verdict is(Follower& f, const std::string& state, const std::string& when) {
  const ports::MigStatus status = f.status();
  if (status.state == state) return std::nullopt;
  return fmt::format("{}: the state is \"{}\" ({})", when, status.state, status.reason);
}

template <Defect D>
void told_apart_from_the_manager(Verdict (*check)(Follower&)) {
  told_apart<Follower, OurFollower, With<D>>(check);
  With<Defect::kNone> sound;
  EXPECT_EQ(check(sound), std::nullopt) << "the check sees more than the defect";
}

// One error of the moment before anything is touched.
Verdict check_m1(Follower& f) {
  begin(f);
  int errors = 1;
  f.fault = [&](Stage stage) -> std::optional<Error> {
    if (stage != Stage::kBefore || errors == 0) return std::nullopt;
    --errors;
    return Error{Code::kTimeout, "the API server did not answer", {}};
  };
  f.label("small");
  f.pass(agent::kPendingDeadline + minutes(1));
  if (f.status().state == "pending") return "it is pending for ever";
  if (!f.serves()) return "nothing is served any more";
  return is(f, "success", "after one error of the moment");
}
TEST(Defects, M1_OneErrorLeavesItPending) { told_apart_from_the_manager<Defect::kM1>(check_m1); }

Verdict check_m2(Follower& f) {
  begin(f);
  f.label("small");
  f.pass(seconds(1));
  if (auto wrong = is(f, "success", "first")) return wrong;
  for (const char* label : {"halves", "one", "halves"}) {
    f.node.calls_fail("destroy", {Code::kFailed, "unknown error", {}});
    f.label(label);
    f.pass(seconds(1));
    if (auto wrong = is(f, "failed", label)) return wrong;
    if (!f.serves()) return fmt::format("{} failed, and nothing is served any more", label);
    f.node.strike = nullptr;
  }
  f.label("one");
  f.pass(seconds(1));
  return is(f, "success", "in the end");
}
TEST(Defects, M2_AFailureAfterASuccessStopsAllClients) {
  told_apart_from_the_manager<Defect::kM2>(check_m2);
}

Verdict check_m3(Follower& f) {
  begin(f);
  f.label("small");
  f.pass(seconds(1));
  f.fault = [](Stage stage) -> std::optional<Error> {
    if (stage == Stage::kAfter) return std::nullopt;
    return Error{Code::kTimeout, "the API server did not answer", {}};
  };
  f.label("halves");
  f.pass(seconds(1));
  if (auto wrong = is(f, "failed", "untouched")) return wrong;
  f.label("small");
  f.pass(seconds(1));
  if (auto wrong = is(f, "success", "taken back")) return wrong;
  if (!f.serves()) return "it says success, and nothing is served";
  return std::nullopt;
}
TEST(Defects, M3_SuccessIsSaidWhileNothingIsServed) {
  told_apart_from_the_manager<Defect::kM3>(check_m3);
}

Verdict check_m4(Follower& f) {
  begin(f);
  bool broken = true;
  f.pass(seconds(1));
  f.fault = [&](Stage stage) -> std::optional<Error> {
    if (stage == Stage::kBefore || !broken) return std::nullopt;
    return Error{Code::kFailed, "starting again: exit status 1", {}};
  };
  f.label("small");
  f.pass(agent::kPendingDeadline + minutes(1));
  if (f.status().state == "pending") return "it is pending for ever";
  broken = false;
  f.pass(agent::kLongestMigRetry + minutes(1));
  return is(f, "success", "once that works");
}
TEST(Defects, M4_AnErrorAfterTheChangeLeavesItPending) {
  told_apart_from_the_manager<Defect::kM4>(check_m4);
}

Verdict check_m5(Follower& f) {
  f.may_reboot = f.reboot_fails = true;
  // In a virtual machine a GPU's mode waits for a reboot.
  (void)f.node.world->write([](sim::State& state) {
    state.node.passthrough = 1;
    return true;
  });
  begin(f);
  f.label("small");
  f.pass(minutes(1));
  if (f.status().state == "rebooting") return "rebooting for ever";
  if (auto wrong = is(f, "failed", "the reboot fails")) return wrong;
  if (f.status().reason.find("cannot be rebooted") == std::string::npos)
    return "the reason says nothing of the reboot: " + f.status().reason;
  return std::nullopt;
}
TEST(Defects, M5_AFailingRebootLeavesItRebooting) {
  told_apart_from_the_manager<Defect::kM5>(check_m5);
}

Verdict check_m6(Follower& f) {
  begin(f);
  f.label("halves");
  f.pass(seconds(1));
  const uint64_t before = f.node.number;
  f.label(std::nullopt);
  f.pass(minutes(10));
  if (auto wrong = is(f, "", "the label is gone")) return wrong;
  if (f.node.number != before) return "the driver was called for a label that is gone";
  for (const uint32_t gpu : {0U, 1U})
    if (f.layout(gpu) != kHalves) return "what was there is gone: " + f.layout(gpu);
  f.label("halves");
  f.pass(seconds(1));
  return is(f, "success", "the label is back");
}
TEST(Defects, M6_ALabelTakenAwayFails) { told_apart_from_the_manager<Defect::kM6>(check_m6); }

Verdict check_m7(Follower& f) {
  f.node.calls_fail("set_mig_mode",
                    {Code::kNoPermission, "MIG mode: Insufficient Permissions", {}});
  begin(f);
  f.label("small");
  f.pass(minutes(1));
  if (auto wrong = is(f, "failed", "the mode cannot be changed")) return wrong;
  if (f.status().reason.find("Insufficient Permissions") == std::string::npos)
    return "the cause is dropped: " + f.status().reason;
  return std::nullopt;
}
TEST(Defects, M7_TheErrorOfTheModeIsDropped) { told_apart_from_the_manager<Defect::kM7>(check_m7); }

Verdict check_m8(Follower& f) {
  begin(f);
  f.node.calls_fail("create_gi", {Code::kFailed, "unknown error", {}});
  f.label("small");
  f.pass(seconds(1));
  if (auto wrong = is(f, "failed", "the driver fails")) return wrong;
  f.node.strike = nullptr;
  f.label("small");
  f.pass(seconds(1));
  if (auto wrong = is(f, "success", "the same label again")) return wrong;
  f.node.calls_fail("create_gi", {Code::kFailed, "unknown error", {}});
  f.label("halves");
  f.pass(minutes(2));
  if (auto wrong = is(f, "failed", "the driver fails again")) return wrong;
  f.node.strike = nullptr;
  f.pass(agent::kLongestMigRetry + seconds(1));
  return is(f, "success", "nobody asked again");
}
TEST(Defects, M8_AFailureIsNotTriedAgain) { told_apart_from_the_manager<Defect::kM8>(check_m8); }

Verdict check_m9(Follower& f) {
  begin(f);
  f.label("small");
  f.pass(seconds(1));
  std::string edited = kConfig;
  edited.replace(edited.find("1g.5gb: 7"), 9, "3g.20gb: 2");
  f.node.files.files[kMigConfig] = edited;
  f.config(edited);
  f.pass(seconds(1));
  if (auto wrong = is(f, "success", "the file was edited")) return wrong;
  if (f.layout(0) != kHalves) return "the edit is not seen: " + f.layout(0);
  return std::nullopt;
}
TEST(Defects, M9_AnEditedFileIsNotSeen) { told_apart_from_the_manager<Defect::kM9>(check_m9); }

}  // namespace
}  // namespace gpuslice::mig_test
