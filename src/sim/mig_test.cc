// The MIG engine: modes, instances, holders, resets, counters.

#include "sim/mig.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>

#include "sim/events.h"
#include "sim/nvml_port.h"
#include "sim/testing.h"

namespace gpuslice::sim {
namespace {

constexpr const char* kA100 = "A100-SXM4-40GB";
constexpr const char* kH100 = "H100-80GB-SXM";
constexpr const char* kRtx = "RTX-PRO-6000-Blackwell-96GB";
constexpr ProfileId k1g{19}, k1gMe{20}, k2g{14}, k3g{9}, k7g{0};
constexpr Caller kUser{.admin = false, .client = kNoClient};

uint16_t put_client(State& state, int32_t pid) {
  const uint16_t slot = free_client_slot(state);
  add_client(state, slot, {.process = {pid, 7}, .name = "test", .simulated = true});
  return slot;
}

uint8_t must_create(State& state, ProfileId profile, std::optional<Placement> at = {}) {
  uint8_t gi = kNone;
  EXPECT_EQ(create_gi(state, 0, profile, at, kRoot, gi), Ret::kSuccess);
  return gi;
}

uint8_t must_create_ci(State& state, uint8_t gi, uint8_t ci_enum) {
  uint8_t ci = kNone;
  EXPECT_EQ(create_ci(state, 0, gi, ci_enum, std::nullopt, kRoot, ci), Ret::kSuccess);
  return ci;
}

TEST(MigMode, AmpereResetsInsideTheCallWhenIdle) {
  const auto state = test_node(kA100, Sweep::kPlain, false);
  Ret activation = Ret::kUnknown;
  EXPECT_EQ(set_mig_mode(*state, 0, true, kRoot, activation), Ret::kSuccess);
  EXPECT_EQ(activation, Ret::kSuccess);
  EXPECT_EQ(state->gpus[0].mig_current, 1);
  EXPECT_EQ(state->gpus[0].mig_pending, 1);
  EXPECT_EQ(state->gpus[0].resets, 1U);
  EXPECT_EQ(state->gpus[0].calls.set_mig_mode.ok, 1U);
  EXPECT_EQ(state->gpus[0].calls.reset.ok, 0U);
}

TEST(MigMode, AmpereStaysPendingWhileAnotherIsAttachedUntilReset) {
  const auto state = test_node(kA100, Sweep::kPlain, false);
  const uint16_t self = put_client(*state, 10);
  const uint16_t other = put_client(*state, 11);
  const Caller caller{.admin = true, .client = self};
  Ret activation = Ret::kUnknown;
  EXPECT_EQ(set_mig_mode(*state, 0, true, caller, activation), Ret::kSuccess);
  EXPECT_EQ(activation, Ret::kInUse);
  EXPECT_EQ(state->gpus[0].mig_current, 0);
  EXPECT_EQ(state->gpus[0].mig_pending, 1);
  EXPECT_EQ(reset_gpu(*state, 0, caller), Ret::kInUse);
  EXPECT_EQ(state->gpus[0].calls.reset.failed, 1U);
  remove_client(*state, other);
  EXPECT_EQ(reset_gpu(*state, 0, caller), Ret::kSuccess);
  EXPECT_EQ(state->gpus[0].mig_current, 1);
  EXPECT_EQ(state->gpus[0].resets, 1U);
  EXPECT_EQ(state->gpus[0].calls.reset.ok, 1U);
}

TEST(MigMode, AmperePendingIsTakenBackByAskingForTheCurrentMode) {
  const auto state = test_node(kA100, Sweep::kPlain, false);
  put_client(*state, 11);
  Ret activation = Ret::kUnknown;
  EXPECT_EQ(set_mig_mode(*state, 0, true, kRoot, activation), Ret::kSuccess);
  EXPECT_EQ(set_mig_mode(*state, 0, false, kRoot, activation), Ret::kSuccess);
  EXPECT_EQ(activation, Ret::kSuccess);
  EXPECT_EQ(state->gpus[0].mig_pending, 0);
}

TEST(MigMode, HopperNeedsNoResetAndMindsOnlyThoseWhoWork) {
  const auto state = test_node(kH100, Sweep::kPlain, false);
  const uint16_t other = put_client(*state, 11);
  Ret activation = Ret::kUnknown;
  ASSERT_TRUE(put_work(*state, other, 0, kNone, kNone));
  EXPECT_EQ(set_mig_mode(*state, 0, true, kRoot, activation), Ret::kSuccess);
  EXPECT_EQ(activation, Ret::kInUse);
  EXPECT_EQ(state->gpus[0].mig_current, 0);
  remove_works_on(*state, 0, kNone, kNone);
  EXPECT_EQ(set_mig_mode(*state, 0, true, kRoot, activation), Ret::kSuccess);
  EXPECT_EQ(activation, Ret::kSuccess);
  EXPECT_EQ(state->gpus[0].mig_current, 1);
  EXPECT_EQ(state->gpus[0].resets, 0U);
}

TEST(MigMode, InAVmItWaitsForAReboot) {
  const auto state = test_node(kA100, Sweep::kPlain, false);
  state->node.passthrough = 1;
  Ret activation = Ret::kUnknown;
  EXPECT_EQ(set_mig_mode(*state, 0, true, kRoot, activation), Ret::kSuccess);
  EXPECT_EQ(activation, Ret::kResetRequired);
  EXPECT_EQ(reset_gpu(*state, 0, kRoot), Ret::kNotSupported);
  EXPECT_EQ(state->gpus[0].mig_current, 0);
  reboot(*state);
  EXPECT_EQ(state->gpus[0].mig_current, 1);
}

TEST(MigMode, RefusesWhoMayNotAndBoardsWithout) {
  const auto state = test_node(kA100, Sweep::kPlain, false);
  Ret activation = Ret::kUnknown;
  EXPECT_EQ(set_mig_mode(*state, 0, true, kUser, activation), Ret::kNoPermission);
  EXPECT_EQ(set_mig_mode(*state, 9, true, kRoot, activation), Ret::kInvalidArgument);
  EXPECT_EQ(state->gpus[0].mig_pending, 0);
  EXPECT_EQ(state->gpus[0].calls.set_mig_mode.failed, 1U);
  const auto plain = test_node("T4", Sweep::kPlain, false);
  EXPECT_EQ(set_mig_mode(*plain, 0, true, kRoot, activation), Ret::kNotSupported);
}

TEST(MigMode, DisablingIsRefusedWhileInstancesExist) {
  const auto state = test_node(kH100);
  const uint8_t gi = must_create(*state, k3g);
  Ret activation = Ret::kUnknown;
  EXPECT_EQ(set_mig_mode(*state, 0, false, kRoot, activation), Ret::kInUse);
  EXPECT_EQ(activation, Ret::kInUse);
  EXPECT_EQ(state->gpus[0].mig_current, 1);
  EXPECT_EQ(state->gpus[0].mig_pending, 1);
  EXPECT_EQ(destroy_gi(*state, 0, gi, kRoot), Ret::kSuccess);
  EXPECT_EQ(set_mig_mode(*state, 0, false, kRoot, activation), Ret::kSuccess);
  EXPECT_EQ(state->gpus[0].mig_current, 0);
}

TEST(MigMode, SurvivesARebootOnAmpereOnly) {
  for (const char* board : {kA100, kH100}) {
    const auto state = test_node(board);
    must_create_ci(*state, must_create(*state, k7g), 4);
    const uint64_t generation = state->node.next_generation;
    reboot(*state);
    EXPECT_EQ(state->gpus[0].mig_current, board == kA100 ? 1 : 0);
    EXPECT_EQ(state->gpus[0].mig_pending, board == kA100 ? 1 : 0);
    EXPECT_EQ(mig_devices(*state, 0).count, 0U);
    EXPECT_EQ(state->gpus[0].calls.create_gi.ok, 1U) << "counts go on";
    EXPECT_GT(state->node.next_generation, generation) << "generations go on";
  }
}

TEST(MigMode, SurvivesEverywhereWithTheQuirk) {
  const auto state = test_node(kH100);
  state->node.keep_mig_mode = 1;
  reboot(*state);
  EXPECT_EQ(state->gpus[0].mig_current, 1);
  EXPECT_EQ(reset_gpu(*state, 0, kRoot), Ret::kSuccess);
  EXPECT_EQ(state->gpus[0].mig_current, 1);
}

TEST(MigMode, DriverReloadIsLikeAResetOfAllAndNeedsNobodyAttached) {
  for (const char* board : {kA100, kH100}) {
    const auto state = test_node(board);
    must_create(*state, k7g);
    const uint16_t other = put_client(*state, 11);
    EXPECT_EQ(driver_reload(*state, kRoot), Ret::kInUse);
    remove_client(*state, other);
    EXPECT_EQ(driver_reload(*state, kUser), Ret::kNoPermission);
    EXPECT_EQ(driver_reload(*state, kRoot), Ret::kSuccess);
    EXPECT_EQ(state->gpus[0].mig_current, board == kA100 ? 1 : 0);
    EXPECT_EQ(state->gpus[0].gis[0].live, 0);
    EXPECT_EQ(state->node.driver_reloads, 1U);
  }
}

TEST(GpuInstance, ErrorsNameWhatIsWrong) {
  const auto off = test_node(kA100, Sweep::kPlain, false);
  uint8_t gi = kNone;
  EXPECT_EQ(create_gi(*off, 0, k3g, std::nullopt, kRoot, gi), Ret::kNotSupported);
  const auto state = test_node(kA100);
  EXPECT_EQ(create_gi(*state, 0, k3g, std::nullopt, kUser, gi), Ret::kNoPermission);
  EXPECT_EQ(create_gi(*state, 0, ProfileId{99}, std::nullopt, kRoot, gi), Ret::kInvalidArgument);
  EXPECT_EQ(create_gi(*state, 0, k3g, Placement{2, 4}, kRoot, gi), Ret::kInvalidArgument);
  EXPECT_EQ(gi, kNone);
  EXPECT_EQ(must_create(*state, k3g, Placement{0, 4}), 1);
  EXPECT_EQ(create_gi(*state, 0, k2g, Placement{2, 2}, kRoot, gi), Ret::kInsufficientResources);
  EXPECT_EQ(destroy_gi(*state, 0, 2, kRoot), Ret::kNotFound);
  EXPECT_EQ(destroy_gi(*state, 0, 200, kRoot), Ret::kNotFound);
  EXPECT_EQ(destroy_gi(*state, 0, 1, kUser), Ret::kNoPermission);
  EXPECT_EQ(state->gpus[0].calls.create_gi.ok, 1U);
  EXPECT_EQ(state->gpus[0].calls.create_gi.failed, 4U);
  EXPECT_EQ(state->gpus[0].calls.destroy_gi.failed, 3U);
}

// docs/hardware.md: branch 580 counts on a GPU with MIG off as on an empty one; of others it is not
// known.
TEST(GpuInstance, RoomWithMigOffIsToldFrom580On) {
  for (const char* driver : {"535.261.03", "550.163.01", "570.124.06", "580.65.06"}) {
    NodeOptions options;
    options.gpus = {{kH100, Sweep::kPlain}};
    options.driver = driver;
    const auto world = must(World::in_memory(options));
    WorldNvml nvml(*world);
    ASSERT_TRUE(nvml.open());
    const auto room = nvml.gi_free(world->snapshot()->gpus[0].uuid, k1g);
    if (std::string(driver).starts_with("580")) {
      EXPECT_EQ(room.value_or(99), 7U);
    } else {
      ASSERT_FALSE(room) << driver;
      EXPECT_EQ(room.error().code, Code::kImpossible) << driver;
    }
  }
}

TEST(GpuInstance, OneWithMediaEnginesPerA100) {
  const auto state = test_node(kA100);
  uint32_t room = 99;
  EXPECT_EQ(gi_capacity(*state, 0, k1gMe, room), Ret::kSuccess);
  EXPECT_EQ(room, 1U);
  must_create(*state, k1gMe);
  uint8_t gi = kNone;
  EXPECT_EQ(create_gi(*state, 0, k1gMe, std::nullopt, kRoot, gi), Ret::kInsufficientResources);
  EXPECT_EQ(create_gi(*state, 0, k1g, std::nullopt, kRoot, gi), Ret::kSuccess);
  // A30: one JPEG and one OFA engine for both of its +me profiles.
  const auto a30 = test_node("A30-24GB");
  must_create(*a30, ProfileId{6});
  EXPECT_EQ(create_gi(*a30, 0, ProfileId{21}, std::nullopt, kRoot, gi),
            Ret::kInsufficientResources);
}

TEST(GpuInstance, AllMediaEnginesToleratesOnlyThoseWithout) {
  const auto state = test_node(kRtx);
  must_create(*state, ProfileId{65});  // 1g.24gb+me.all
  uint8_t gi = kNone;
  for (const uint32_t id : {14U, 21U, 47U, 65U, 5U, 35U, 64U})
    EXPECT_EQ(create_gi(*state, 0, ProfileId{id}, std::nullopt, kRoot, gi),
              Ret::kInsufficientResources)
        << id;
  must_create(*state, ProfileId{67});
  must_create(*state, ProfileId{66});
}

TEST(GpuInstance, TheFirstOneNeedsAnIdleGpu) {
  const auto state = test_node(kH100);
  const uint16_t worker = put_client(*state, 12);
  ASSERT_TRUE(put_work(*state, worker, 0, kNone, kNone));
  uint8_t gi = kNone;
  EXPECT_EQ(create_gi(*state, 0, k3g, std::nullopt, kRoot, gi), Ret::kInUse);
  remove_works_on(*state, 0, kNone, kNone);
  const uint8_t first = must_create(*state, k3g);
  ASSERT_TRUE(put_work(*state, worker, 0, first, must_create_ci(*state, first, 2)));
  EXPECT_EQ(create_gi(*state, 0, k3g, std::nullopt, kRoot, gi), Ret::kSuccess);
}

TEST(Holders, WorkBlocksEverything) {
  const auto state = test_node(kH100);
  const uint8_t gi = must_create(*state, k3g);
  const uint8_t ci = must_create_ci(*state, gi, 2);
  const uint16_t worker = put_client(*state, 12);
  ASSERT_TRUE(put_work(*state, worker, 0, gi, ci));
  EXPECT_EQ(destroy_ci(*state, 0, gi, ci, kRoot), Ret::kInUse);
  EXPECT_EQ(destroy_gi(*state, 0, gi, kRoot), Ret::kInUse);
  EXPECT_EQ(reset_gpu(*state, 0, kRoot), Ret::kInUse);
  remove_client(*state, worker);
  EXPECT_EQ(destroy_gi(*state, 0, gi, kRoot), Ret::kInUse) << "it has a compute instance";
  EXPECT_EQ(destroy_ci(*state, 0, gi, ci, kRoot), Ret::kSuccess);
  EXPECT_EQ(destroy_gi(*state, 0, gi, kRoot), Ret::kSuccess);
  EXPECT_EQ(destroy_ci(*state, 0, gi, ci, kRoot), Ret::kNotFound);
}

TEST(Holders, OpenHandlesBlockOnStrictNodesOnlyAndNotTheirOwner) {
  const auto state = test_node(kH100);
  const uint8_t gi = must_create(*state, k3g);
  const uint8_t ci = must_create_ci(*state, gi, 2);
  const uint16_t monitor = put_client(*state, 12);
  ASSERT_TRUE(subscribe(*state, monitor, 0, gi, ci));
  ASSERT_TRUE(subscribe(*state, monitor, 0, gi, ci));
  state->node.strict_clients = 1;
  EXPECT_EQ(destroy_ci(*state, 0, gi, ci, kRoot), Ret::kInUse);
  EXPECT_EQ(destroy_ci(*state, 0, gi, ci, {.admin = true, .client = monitor}), Ret::kSuccess);
  EXPECT_FALSE(subscribed(*state, monitor, 0, gi, ci)) << "a handle of what is gone holds nothing";
  ASSERT_TRUE(subscribe(*state, monitor, 0, gi, kNone));
  EXPECT_EQ(destroy_gi(*state, 0, gi, kRoot), Ret::kInUse);
  state->node.strict_clients = 0;
  EXPECT_EQ(destroy_gi(*state, 0, gi, kRoot), Ret::kSuccess);
}

TEST(Holders, EventSetsBlockOnStrictNodesOnly) {
  const auto state = test_node(kH100);
  const uint8_t gi = must_create(*state, k3g);
  const uint16_t monitor = put_client(*state, 12);
  state->clients[monitor].event_gpus = 1;
  state->node.strict_clients = 1;
  EXPECT_EQ(destroy_gi(*state, 0, gi, kRoot), Ret::kInUse);
  EXPECT_EQ(destroy_gi(*state, 0, gi, {.admin = true, .client = put_client(*state, 12)}),
            Ret::kSuccess)
      << "the same process, by another slot";
  state->node.strict_clients = 0;
  EXPECT_EQ(destroy_gi(*state, 0, must_create(*state, k3g), kRoot), Ret::kSuccess);
}

TEST(Holders, AttachedBlocksResetOnAmpereNotOnHopper) {
  for (const char* board : {kA100, kH100}) {
    const auto state = test_node(board);
    const uint16_t self = put_client(*state, 12);
    const Caller caller{.admin = true, .client = self};
    EXPECT_EQ(reset_gpu(*state, 0, caller), Ret::kSuccess) << "oneself does not count";
    put_client(*state, 13);
    EXPECT_EQ(reset_gpu(*state, 0, caller), board == kA100 ? Ret::kInUse : Ret::kSuccess);
  }
}

TEST(Holders, TheSameProcessTwiceIsNotAnother) {
  const auto state = test_node(kA100);
  const uint16_t self = put_client(*state, 12);
  put_client(*state, 12);
  EXPECT_EQ(reset_gpu(*state, 0, {.admin = true, .client = self}), Ret::kSuccess);
  EXPECT_EQ(reset_gpu(*state, 0, kRoot), Ret::kInUse) << "to somebody outside they are others";
}

TEST(Reset, TakesInstancesAndIsCounted) {
  const auto state = test_node(kA100);
  must_create_ci(*state, must_create(*state, k2g), 1);
  const uint64_t before = state->gpus[0].generation;
  const uint32_t resets = state->gpus[0].resets;
  EXPECT_EQ(reset_gpu(*state, 0, kUser), Ret::kNoPermission);
  EXPECT_EQ(reset_gpu(*state, 0, kRoot), Ret::kSuccess);
  EXPECT_EQ(mig_devices(*state, 0).count, 0U);
  EXPECT_EQ(state->gpus[0].mig_current, 1);
  EXPECT_EQ(state->gpus[0].resets, resets + 1);
  EXPECT_GT(state->gpus[0].generation, before);
}

TEST(Reset, ClearsWhatTheDriverCountsSinceItWasLoaded) {
  const auto state = test_node(kH100);
  GpuLife& life = state->life.gpus[0];
  life.ecc_volatile.corrected = 3;
  life.ecc_aggregate.corrected = 5;
  life.remap_pending = 1;
  life.last_xid = 48;
  state->gpus[0].reset_required = 1;
  state->gpus[0].ecc_pending = 0;
  EXPECT_EQ(reset_gpu(*state, 0, kRoot), Ret::kSuccess);
  EXPECT_EQ(life.ecc_volatile.corrected, 0U);
  EXPECT_EQ(life.ecc_aggregate.corrected, 5U) << "in the life of the board";
  EXPECT_EQ(life.remap_pending, 0);
  EXPECT_EQ(life.last_xid, 0U);
  EXPECT_EQ(state->gpus[0].reset_required, 0);
  EXPECT_EQ(state->gpus[0].ecc_current, 0);
}

TEST(MigEvents, EachChangeIsToldOnceAndNoFailure) {
  const auto state = test_node(kH100);  // the mode: 1
  const uint8_t gi = must_create(*state, k3g);
  const uint8_t ci = must_create_ci(*state, gi, 0);
  uint8_t none = kNone;
  EXPECT_EQ(create_gi(*state, 0, k7g, std::nullopt, kRoot, none), Ret::kInsufficientResources);
  EXPECT_EQ(destroy_gi(*state, 0, gi, kRoot), Ret::kInUse);
  EXPECT_EQ(destroy_ci(*state, 0, gi, ci, kRoot), Ret::kSuccess);
  EXPECT_EQ(destroy_gi(*state, 0, gi, kRoot), Ret::kSuccess);
  ASSERT_EQ(state->events.next, 6U);
  for (uint64_t number = 1; number <= 5; ++number) {
    EXPECT_EQ(state->events.events[number].type, kEventMigConfig);
    EXPECT_EQ(state->events.events[number].gpu, 0U);
    EXPECT_EQ(state->events.events[number].gi, kNoInstance);
  }
}

TEST(Lost, AGpuThatIsLostAnswersNothingElse) {
  const auto state = test_node(kA100);
  const uint8_t gi = must_create(*state, k2g);
  state->gpus[0].lost = 1;
  Ret activation = Ret::kSuccess;
  uint8_t made = kNone;
  EXPECT_EQ(set_mig_mode(*state, 0, false, kRoot, activation), Ret::kGpuIsLost);
  EXPECT_EQ(create_gi(*state, 0, k2g, std::nullopt, kRoot, made), Ret::kGpuIsLost);
  EXPECT_EQ(destroy_gi(*state, 0, gi, kRoot), Ret::kGpuIsLost);
  EXPECT_EQ(reset_gpu(*state, 0, kRoot), Ret::kGpuIsLost);
  reboot(*state);
  EXPECT_EQ(state->gpus[0].lost, 0);
}

TEST(ComputeInstance, TakesItsShareOfTheInstance) {
  const auto state = test_node(kA100);
  const uint8_t gi = must_create(*state, k3g);
  uint8_t ci = kNone;
  EXPECT_EQ(create_ci(*state, 0, gi, 3, std::nullopt, kRoot, ci), Ret::kInvalidArgument) << "4c";
  EXPECT_EQ(create_ci(*state, 0, gi, 0, Placement{3, 1}, kRoot, ci), Ret::kInvalidArgument);
  EXPECT_EQ(create_ci(*state, 0, 2 - gi + 1, 0, std::nullopt, kRoot, ci), Ret::kNotFound);
  EXPECT_EQ(create_ci(*state, 0, gi, 0, std::nullopt, kUser, ci), Ret::kNoPermission);
  EXPECT_EQ(create_ci(*state, 0, gi, 0, Placement{1, 1}, kRoot, ci), Ret::kSuccess);
  uint32_t room = 99;
  EXPECT_EQ(ci_capacity(*state, 0, gi, 0, room), Ret::kSuccess);
  EXPECT_EQ(room, 2U);
  EXPECT_EQ(ci_capacity(*state, 0, gi, 1, room), Ret::kSuccess);
  EXPECT_EQ(room, 0U) << "slice 1 is in the way of 2c at 0:2";
  EXPECT_EQ(ci_capacity(*state, 0, gi, 4, room), Ret::kNotSupported);
  EXPECT_EQ(ci_name(*state, 0, gi, ci), "1c.3g.20gb");
  std::array<Placement, 8> places{};
  EXPECT_EQ(ci_placements(*state, 0, gi, 0, places, room), Ret::kSuccess);
  EXPECT_EQ(room, 3U);
  EXPECT_EQ(places[2], (Placement{2, 1}));
}

TEST(MigDevices, AreOrderedByGiThenCiWithoutHoles) {
  const auto state = test_node(kA100);
  const uint8_t three = must_create(*state, k3g);  // GI 2
  const uint8_t one = must_create(*state, k1g);    // GI 7
  must_create_ci(*state, one, 0);
  must_create_ci(*state, three, 0);
  must_create_ci(*state, three, 0);
  MigDevices devices = mig_devices(*state, 0);
  ASSERT_EQ(devices.count, 3U);
  EXPECT_EQ(devices.device[0], (MigDevice{2, 0}));
  EXPECT_EQ(devices.device[1], (MigDevice{2, 1}));
  EXPECT_EQ(devices.device[2], (MigDevice{7, 0}));
  EXPECT_EQ(destroy_ci(*state, 0, 2, 0, kRoot), Ret::kSuccess);
  EXPECT_EQ(mig_index(*state, 0, 7, 0), 1U);
  EXPECT_EQ(mig_index(*state, 0, 2, 0), std::nullopt);
  EXPECT_EQ(must_create_ci(*state, 2, 0), 0) << "the lowest id that is free";
  EXPECT_EQ(max_mig_devices(*state, 0), 7U);
}

TEST(MigDevices, MaximumIsZeroWithMigOffUnlessTheQuirkIsOn) {
  const auto state = test_node("A30-24GB", Sweep::kPlain, false);
  EXPECT_EQ(max_mig_devices(*state, 0), 0U);
  state->node.max_mig_while_off = 1;
  EXPECT_EQ(max_mig_devices(*state, 0), 4U);
  EXPECT_EQ(max_mig_devices(*test_node("T4", Sweep::kPlain, false), 0), 0U);
}

TEST(MigUuid, IsTheSameAgainAfterDestroyAndRebootAndFoundByName) {
  const auto state = test_node(kA100);
  const uint8_t gi = must_create(*state, k2g);
  must_create_ci(*state, gi, 1);
  const std::string uuid = mig_uuid(*state, 0, gi, 0);
  const uint64_t generation = state->gpus[0].gis[gi].generation;
  EXPECT_EQ(uuid.substr(0, 4), "MIG-");
  const std::optional<Instance> found = find_mig_uuid(*state, uuid);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->gi, gi);
  reboot(*state);
  EXPECT_FALSE(find_mig_uuid(*state, uuid));
  EXPECT_EQ(must_create(*state, k2g), gi);
  must_create_ci(*state, gi, 1);
  EXPECT_EQ(mig_uuid(*state, 0, gi, 0), uuid);
  EXPECT_GT(state->gpus[0].gis[gi].generation, generation);
}

}  // namespace
}  // namespace gpuslice::sim
