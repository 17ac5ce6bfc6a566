// What XIDs and troubles do to devices, for how long, and what a restart remembers.

#include "agent/health.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/device_table.h"
#include "agent/memory_files_for_test.h"
#include "config/device_plugin.h"

namespace gpuslice::agent {
namespace {

constexpr const char* kFile = "/run/ledger.health";
const WallTime kNow{std::chrono::seconds(1'790'000'000)};
const std::string kReason79 = "XID 79 at 2026-09-21T14:13:20Z";

using Reasons = std::map<std::string, std::string>;

struct HealthTest : ::testing::Test {
  MemoryFiles files;
  std::string said;
  Log log{[this](std::string_view line) { said += line; }, [] { return kNow; }};
  HealthOptions options;
  std::unique_ptr<Health> health;
  std::string driver = "580.65.06";
  MonotonicTime now{std::chrono::seconds(100)};
  std::optional<MonotonicTime> begun;  // of a look; nothing: just now
  // GPU-0 whole; GPU-1 with two GPU instances, the first of two compute instances.
  std::vector<ports::Gpu> gpus;

  HealthTest() {
    gpus.resize(2);
    for (uint32_t i = 0; i < 2; ++i) {
      gpus[i].index = GpuIndex{i};
      gpus[i].uuid = "GPU-" + std::to_string(i);
    }
    gpus[1].mig = ports::MigMode{true, true};
    add("MIG-a", 1, 0);
    add("MIG-b", 1, 1);
    add("MIG-c", 2, 0);
    start();
  }
  void add(const std::string& uuid, uint32_t gi, uint32_t ci) {
    ports::MigDevice device;
    device.uuid = uuid;
    device.profile = "1g.5gb";
    device.index = static_cast<uint32_t>(gpus[1].mig_devices.size());
    device.gi = GiId{gi};
    device.ci = CiId{ci};
    gpus[1].mig_devices.push_back(device);
  }
  void remove(const std::string& uuid) {
    std::erase_if(gpus[1].mig_devices, [&](const auto& device) { return device.uuid == uuid; });
  }
  void start(const std::string& boot = "b") {
    health = std::make_unique<Health>(options, kFile, files, log);
    health->start(boot);
  }
  void xid(const std::string& gpu, uint64_t code, std::optional<uint32_t> gi = {},
           std::optional<uint32_t> ci = {}) {
    ports::GpuEvent event;
    event.gpu = gpu;
    event.xid = code;
    if (gi) event.gi = GiId{*gi};
    if (ci) event.ci = CiId{*ci};
    health->on_event(event, gpus, now, kNow);
    health->write();
  }
  void look(const Reasons& silent = {}, const std::set<std::string>& mute = {}) {
    health->on_inventory({gpus, silent, mute, driver, begun.value_or(now), now, kNow});
    health->write();
  }
  // Looks every five seconds, as the agent does.
  void look_for(int seconds) {
    for (int passed = 0; passed < seconds; passed += 5) {
      now += std::chrono::seconds(5);
      look();
    }
  }
  [[nodiscard]] Reasons reasons() const { return reasons_of(health->record(), gpus); }
};

TEST_F(HealthTest, AnXidGoesToWhatItNames) {
  xid("GPU-1", 79, 1, 1);
  EXPECT_EQ(reasons(), (Reasons{{"MIG-b", kReason79}}));
  xid("GPU-1", 79, 2);
  EXPECT_EQ(reasons(), (Reasons{{"MIG-b", kReason79}, {"MIG-c", kReason79}}));
  start("another boot");
  xid("GPU-1", 79, 1);
  EXPECT_EQ(reasons(), (Reasons{{"MIG-a", kReason79}, {"MIG-b", kReason79}})) << "all of the GI";
  xid("GPU-0", 79);
  EXPECT_EQ(reasons().count("GPU-0"), 1U);
  EXPECT_EQ(reasons().count("GPU-1"), 0U);
}

TEST_F(HealthTest, ADoubleBitErrorIsXid48) {
  health->on_event({"GPU-0", ports::GpuEvent::Kind::kDoubleBitEcc, 0, {}, {}}, gpus, now, kNow);
  EXPECT_EQ(reasons(), (Reasons{{"GPU-0", "XID 48 at 2026-09-21T14:13:20Z"}}));
}

TEST_F(HealthTest, IgnoredOnesAreCountedAndSaidOnce) {
  for (int i = 0; i < 3; ++i) xid("GPU-0", 31);
  EXPECT_TRUE(reasons().empty());
  EXPECT_EQ(files.files.count(kFile), 0U);
  EXPECT_EQ(health->counts(), (XidCounts{{{"GPU-0", 31}, 3}}));
  EXPECT_EQ(said.find("XID 31"), said.rfind("XID 31")) << said;
}

TEST_F(HealthTest, EveryReplicaAndEveryMigDeviceOfAMarkedGpuIsUnhealthyInOneList) {
  xid("GPU-0", 79);
  xid("GPU-1", 79);
  const auto table = [&](const char* text) {
    const config::DevicePluginFile file = config::read_device_plugin(text, config::Compat::kStrict);
    Hardware hardware;
    hardware.gpus = gpus;
    hardware.unhealthy = reasons();
    return make_device_table(hardware, config::merge({}, file.config, "f").value(), {}).value();
  };
  const auto unhealthy = [](const DeviceTable& of, const std::string& resource) {
    size_t count = 0;
    for (const ports::Device& device : of.resources.at(resource)->list->devices)
      count += device.healthy ? 0 : 1;
    return count;
  };
  const DeviceTable mixed = table(
      "{flags: {migStrategy: mixed}, sharing: {timeSlicing: {resources: [{name: gpu, "
      "replicas: 4}]}}}");
  EXPECT_EQ(unhealthy(mixed, "nvidia.com/gpu"), 4U);
  EXPECT_EQ(mixed.resources.at("nvidia.com/gpu")->list->devices.size(), 4U);
  EXPECT_EQ(unhealthy(mixed, "nvidia.com/mig-1g.5gb"), 3U);
  EXPECT_EQ(mixed.resources.at("nvidia.com/gpu")->bases[0].why_unhealthy, kReason79);
}

TEST_F(HealthTest, ARestartKeepsItAndARebootDoesNot) {
  xid("GPU-0", 79);
  xid("GPU-1", 95, 1, 1);
  const Reasons before = reasons();
  EXPECT_EQ(before.size(), 2U);
  start();
  EXPECT_EQ(reasons(), before);
  look();
  EXPECT_EQ(reasons(), before);
  const std::string gpu = "GPU 0: " + kReason79 + ", before this start: all of it is unhealthy";
  EXPECT_NE(said.find(gpu + " until the GPU is reset"), std::string::npos) << said;
  EXPECT_NE(said.find("GPU 1, GPU instance 1, compute instance 1: XID 95"), std::string::npos);
  look();
  EXPECT_EQ(said.find(gpu), said.rfind(gpu)) << "said once";
  start("another boot");
  EXPECT_TRUE(reasons().empty());
}

TEST_F(HealthTest, AFullDiskIsTriedAgainAndACorruptFileIsTold) {
  files.full = true;
  xid("GPU-0", 79);
  EXPECT_NE(said.find("a restart of the agent would take these GPUs for healthy"),
            std::string::npos);
  files.full = false;
  health->write();
  start();
  EXPECT_EQ(reasons().size(), 1U);
  files.files[kFile] = "gpuslice-health 3 b -\nxid GPU-0 - - 79\n";
  start();
  EXPECT_NE(said.find("line \"xid GPU-0 - - 79\" is no mark"), std::string::npos) << said;
  EXPECT_TRUE(reasons().empty());
}

TEST_F(HealthTest, AGpuThatWasLostAndCameBackIsHealthy) {
  xid("GPU-0", 79);
  xid("GPU-1", 79);
  look({{"GPU-0", "GPU is lost"}});
  EXPECT_EQ(reasons().size(), 2U);
  start();  // also when the agent was away when it came back
  look();
  EXPECT_EQ(reasons(), (Reasons{{"GPU-1", kReason79}}));
  EXPECT_NE(said.find("GPU-0: XID 79 at 2026-09-21T14:13:20Z is over: the GPU was lost and came "
                      "back"),
            std::string::npos)
      << said;
}

TEST_F(HealthTest, AnXidAfterTheLossOutlivesTheComingBack) {
  xid("GPU-0", 95);
  look({{"GPU-0", "GPU is lost"}});
  xid("GPU-1", 79, 1, 0);
  health->on_event({"GPU-0", ports::GpuEvent::Kind::kXid, 79, GiId{1}, {}}, gpus, now, kNow);
  look();
  EXPECT_EQ(health->record().marks.size(), 2U);
  EXPECT_EQ(reasons().count("GPU-0"), 0U);
  // Also where it names the same as the one that the loss takes away.
  xid("GPU-0", 95);
  look({{"GPU-0", "GPU is lost"}});
  xid("GPU-0", 79);
  look();
  EXPECT_EQ(reasons().at("GPU-0"), kReason79);
}

TEST_F(HealthTest, AGpuThatWasMerelySilentIsNot) {
  xid("GPU-0", 79);
  look({{"GPU-0", "Unknown Error"}}, {"GPU-0"});
  look();
  EXPECT_EQ(reasons(), (Reasons{{"GPU-0", kReason79}}));
}

TEST_F(HealthTest, OurResetHealsAllOfTheGpu) {
  xid("GPU-1", 79);
  xid("GPU-1", 95, 1, 1);
  xid("GPU-0", 79);
  health->on_reset("GPU-1");
  EXPECT_EQ(reasons(), (Reasons{{"GPU-0", kReason79}}));
}

TEST_F(HealthTest, AnInstanceThatIsGoneIsForgottenAndAnotherInItsPlaceIsHealthy) {
  xid("GPU-1", 79, 1, 1);
  remove("MIG-b");
  look();
  EXPECT_TRUE(health->record().marks.empty());
  add("MIG-b", 1, 1);  // the UUID of one that is made anew in the same place is the same
  look();
  EXPECT_TRUE(reasons().empty());
  // Of another UUID under the same ids: another one.
  xid("GPU-1", 79, 2, 0);
  remove("MIG-c");
  add("MIG-d", 2, 0);
  look();
  EXPECT_TRUE(reasons().empty());
}

TEST_F(HealthTest, WhatWeDestroyedIsForgottenAlthoughNoLookMissedIt) {
  xid("GPU-1", 79, 1, 1);
  xid("GPU-1", 79, 2, 0);
  health->on_destroyed({"MIG-b", "MIG-a"});
  look();
  EXPECT_EQ(reasons(), (Reasons{{"MIG-c", kReason79}}));
}

// An inventory that was read before the instance was made does not undo what came in between.
TEST_F(HealthTest, AnInstanceThatWasNotSeenYetIsMarkedWhenItIs) {
  xid("GPU-1", 79, 5, 0);
  look();
  add("MIG-e", 5, 0);
  look();
  EXPECT_EQ(reasons(), (Reasons{{"MIG-e", kReason79}}));
  xid("GPU-1", 79, 6, 0);
  for (int i = 0; i < 3; ++i) look();
  EXPECT_EQ(health->record().marks.size(), 1U) << "there is none";
}

TEST_F(HealthTest, WhatItTellsOfItselfCountsAsLongAsItTellsIt) {
  gpus[0].ecc_uncorrected = 1;
  gpus[1].ecc_uncorrected = 1;  // it has instances: which of them it was, an XID says
  look();
  const Reasons ecc = {{"GPU-0", "1 uncorrectable ECC error since its last reset"}};
  EXPECT_EQ(reasons(), ecc);
  EXPECT_EQ(health->troubles().size(), 2U);
  EXPECT_NE(said.find("GPU 1: 1 uncorrectable ECC error since its last reset: its MIG devices are "
                      "given out all the same"),
            std::string::npos)
      << said;
  start();
  EXPECT_EQ(reasons(), ecc) << "before the first look after a restart, too";
  look({{"GPU-0", "nvmlDeviceGetName has not answered for 5 s"}}, {"GPU-0"});
  EXPECT_EQ(reasons(), ecc) << "a GPU that says nothing takes nothing back";
  xid("GPU-0", 79);
  EXPECT_EQ(reasons(), (Reasons{{"GPU-0", kReason79 + "; " + ecc.at("GPU-0")}}));
  EXPECT_EQ(reasons_of(health->record(), gpus, Since::kLeftOut).at("GPU-0"),
            "XID 79; " + ecc.at("GPU-0"));
  gpus[0].ecc_uncorrected = 0;
  look();
  EXPECT_EQ(reasons(), (Reasons{{"GPU-0", kReason79}}));
  EXPECT_NE(said.find("GPU 0: 1 uncorrectable ECC error since its last reset: over"),
            std::string::npos)
      << said;
}

TEST_F(HealthTest, AResetByAnotherProgramIsSeenByWhatTheGpuAskedFor) {
  xid("GPU-0", 79);
  gpus[0].recovery_action = 0;
  look();
  EXPECT_EQ(reasons().size(), 1U) << "a GPU that never asked tells of no reset";
  gpus[0].recovery_action = 1;
  look();
  start();  // also when the agent was away meanwhile
  look({{"GPU-0", "Unknown Error"}}, {"GPU-0"});
  EXPECT_EQ(reasons().size(), 1U);
  gpus[0].recovery_action = 0;
  look();
  EXPECT_TRUE(reasons().empty());
  EXPECT_NE(said.find("asks no more: it was reset"), std::string::npos) << said;
}

TEST_F(HealthTest, AResetByAnotherProgramIsSeenByACounterThatBeganAnew) {
  gpus[0].energy_mj = gpus[1].energy_mj = 1000;
  gpus[0].persistence_mode = gpus[1].persistence_mode = true;
  look();
  xid("GPU-0", 79);
  xid("GPU-1", 79, 1, 1);
  look_for(10);
  EXPECT_EQ(reasons().size(), 2U);
  start();  // also when the agent was away meanwhile
  look();
  gpus[0].energy_mj = 1001;
  look();
  start();
  EXPECT_EQ(reasons().size(), 2U) << "a restart of the agent resets nothing";
  gpus[0].energy_mj = 20;
  look();
  EXPECT_EQ(reasons(), (Reasons{{"MIG-b", kReason79}}));
  EXPECT_NE(said.find("initialised the GPU anew: it was reset"), std::string::npos) << said;
}

TEST_F(HealthTest, ACounterThatBeginsAnewWithEachUserTellsOfNoReset) {
  gpus[0].energy_mj = 1000;
  xid("GPU-0", 79);
  for (const std::optional<bool> persistence : {std::optional<bool>(), std::optional(false)}) {
    gpus[0].persistence_mode = persistence;
    gpus[0].energy_mj = *gpus[0].energy_mj + 1000;
    look();
    start();
    gpus[0].energy_mj = 1;
    look();
    EXPECT_EQ(reasons().size(), 1U);
  }
}

TEST_F(HealthTest, AFailureSinceTheLastLookIsNotEndedByAResetBeforeIt) {
  gpus[0].energy_mj = 1000;
  gpus[0].persistence_mode = true;
  look();
  EXPECT_TRUE(health->on_event({"GPU-0", ports::GpuEvent::Kind::kXid, 79, {}, {}}, gpus, now, kNow))
      << "a look now tells a reset before it from one that comes";
  look();
  gpus[0].energy_mj = 20;
  EXPECT_TRUE(
      health->on_event({"GPU-0", ports::GpuEvent::Kind::kXid, 95, {}, {}}, gpus, now, kNow));
  look();
  gpus[0].energy_mj = 21;
  look();
  EXPECT_EQ(reasons().size(), 1U) << "what was told before that failure counts no more";
  EXPECT_FALSE(
      health->on_event({"GPU-0", ports::GpuEvent::Kind::kXid, 31, {}, {}}, gpus, now, kNow));
  gpus[0].energy_mj = 10;
  look();
  EXPECT_TRUE(reasons().empty());
}

TEST_F(HealthTest, ALookThatBeganBeforeAFailureSaysNothingOfWhatCameBeforeIt) {
  gpus[0].energy_mj = 1000;
  gpus[0].persistence_mode = true;
  gpus[0].recovery_action = 1;
  // The GPU is read, reset, and fails; then what was read is told.
  begun = now;
  now += std::chrono::seconds(4);
  xid("GPU-0", 79);
  look();
  begun.reset();
  gpus[0].energy_mj = 20;
  gpus[0].recovery_action = 0;
  look();
  EXPECT_EQ(reasons().size(), 1U);
  gpus[0].energy_mj = 10;
  look();
  EXPECT_TRUE(reasons().empty());
}

TEST_F(HealthTest, AFailureOfAnInstanceThatWasMadeAfterTheResetStays) {
  gpus[1].energy_mj = 1000;
  gpus[1].persistence_mode = true;
  gpus[1].recovery_action = 1;
  xid("GPU-1", 79);
  look();
  // Before the next look it is reset, and an instance of its new layout fails.
  gpus[1].energy_mj = 20;
  gpus[1].recovery_action = 0;
  xid("GPU-1", 48, 1, 1);
  look();
  ASSERT_EQ(reasons().size(), 1U);
  EXPECT_NE(reasons()["MIG-b"].find("XID 48"), std::string::npos);
}

TEST_F(HealthTest, AFailureAfterTheResetIsNotTakenForTheOneBefore) {
  xid("GPU-0", 79);
  gpus[0].recovery_action = 4;
  look();
  xid("GPU-0", 95);
  gpus[0].recovery_action = 0;
  look();
  EXPECT_EQ(reasons().size(), 1U);
}

TEST_F(HealthTest, AnotherDriverBeginsAnew) {
  look();
  xid("GPU-0", 79);
  xid("GPU-1", 94, 1, 0);
  look();
  EXPECT_EQ(reasons().size(), 2U);
  start();
  driver = "580.95.05";
  look();
  EXPECT_TRUE(reasons().empty());
  EXPECT_NE(said.find("driver 580.95.05 took the place of 580.65.06"), std::string::npos) << said;
}

struct CleanProbe : HealthTest {
  CleanProbe() {
    health->set_clean_probes({{94, std::chrono::seconds(60)}});
    look();
  }
};

TEST_F(CleanProbe, HealsAfterItsTimeAndNotBefore) {
  xid("GPU-1", 94, 1, 0);
  xid("GPU-0", 79);
  EXPECT_NE(said.find("unhealthy until it has been clean for 60 s"), std::string::npos) << said;
  look_for(60);
  EXPECT_EQ(reasons().count("MIG-a"), 1U) << "the first look was after five seconds";
  look_for(5);
  EXPECT_EQ(reasons(), (Reasons{{"GPU-0", kReason79}})) << "the other waits for a reset";
}

TEST_F(CleanProbe, AFurtherXidBeginsItAnewAndAnIgnoredOneDoesNot) {
  xid("GPU-1", 94, 1, 0);
  look_for(50);
  xid("GPU-1", 94, 2, 0);
  look_for(30);
  xid("GPU-1", 31, 1, 0);
  look_for(30);
  EXPECT_EQ(reasons().size(), 2U);
  look_for(5);
  EXPECT_TRUE(reasons().empty());
}

TEST_F(CleanProbe, SilenceTroubleAndAGapAreNotClean) {
  xid("GPU-0", 94);
  look_for(60);
  look({{"GPU-0", "hangs"}}, {"GPU-0"});
  look_for(60);
  EXPECT_EQ(reasons().size(), 1U);
  gpus[0].recovery_action = 4;
  look();
  gpus[0].recovery_action = 3;
  look_for(60);
  gpus[0].recovery_action = {};
  look_for(60);
  EXPECT_EQ(reasons().size(), 1U);
  now += std::chrono::seconds(600);  // nobody looked
  look();
  EXPECT_EQ(reasons().size(), 1U);
  look_for(60);
  EXPECT_TRUE(reasons().empty());
}

TEST_F(CleanProbe, AGraverXidTakesItsPlace) {
  xid("GPU-0", 94);
  xid("GPU-0", 79);
  EXPECT_EQ(reasons(), (Reasons{{"GPU-0", kReason79}}));
  xid("GPU-0", 94);
  look_for(120);
  EXPECT_EQ(reasons(), (Reasons{{"GPU-0", kReason79}}));
}

TEST_F(CleanProbe, ARestartBeginsItAnewAndAnotherConfigurationCounts) {
  xid("GPU-0", 94);
  look_for(55);
  start();
  health->set_clean_probes({{94, std::chrono::seconds(60)}});
  look_for(60);
  EXPECT_EQ(reasons().size(), 1U);
  health->set_clean_probes({});
  look_for(60);
  EXPECT_EQ(reasons().size(), 1U);
  health->set_clean_probes({{94, std::chrono::seconds(30)}});
  look_for(5);
  EXPECT_TRUE(reasons().empty());
}

TEST_F(HealthTest, AStormIsBounded) {
  for (uint32_t i = 0; i < 3000; ++i)
    health->on_event({"GPU-1", ports::GpuEvent::Kind::kXid, 79, GiId{i}, CiId{0}}, gpus, now, kNow);
  EXPECT_LE(health->record().marks.size(), 1024U);
  EXPECT_EQ(reasons().at("GPU-1"), kReason79);
  for (uint64_t code = 200; code < 800; ++code)
    health->on_event({"GPU-0", ports::GpuEvent::Kind::kXid, code, {}, {}}, gpus, now, kNow);
  EXPECT_LE(health->counts().size(), 513U);
}

}  // namespace
}  // namespace gpuslice::agent
