// What an XID does to devices, for how long, and what a restart remembers, by tables.

#include "agent/health.h"

#include <gtest/gtest.h>

#include <memory>
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

bool ignored(const char* disable, const char* enable, uint64_t xid) {
  std::vector<std::string> problems;
  const XidPolicy policy(disable, enable, problems);
  EXPECT_TRUE(problems.empty()) << problems[0];
  return policy.ignores(xid);
}

TEST(XidPolicy, NvidiasDefaultsAndBothVariables) {
  const struct {
    const char* disable;
    const char* enable;
    std::vector<uint64_t> ignored, counted;
  } cases[] = {
      {"", "", {13, 31, 43, 45, 68, 109}, {0, 48, 63, 74, 79, 94, 95, 999}},
      {"all", "", {13, 79, 48, 999}, {}},
      {"xids", "", {13, 79}, {}},
      {" XIDS ", "", {79}, {}},
      // NVIDIA's plugin checks nothing at all then.
      {"all", "79", {13, 48, 95}, {79}},
      {"all", "79, 95", {13, 48}, {79, 95}},
      // NVIDIA's plugin takes 0 for all.
      {"0", "", {0, 13}, {79}},
      {"79,48", "", {13, 48, 79}, {95}},
      {"79", "all", {}, {13, 31, 79, 95}},
      {"all", "xids", {}, {13, 79}},
      {"79", "79", {13}, {79}},
      {"", "13,,109,", {31, 43, 45, 68}, {13, 109, 79}},
  };
  for (const auto& one : cases) {
    for (const uint64_t xid : one.ignored)
      EXPECT_TRUE(ignored(one.disable, one.enable, xid))
          << one.disable << " / " << one.enable << ": XID " << xid;
    for (const uint64_t xid : one.counted)
      EXPECT_FALSE(ignored(one.disable, one.enable, xid))
          << one.disable << " / " << one.enable << ": XID " << xid;
  }
}

TEST(XidPolicy, WhatMeansNothingIsToldAndTheRestCounts) {
  std::vector<std::string> problems;
  const XidPolicy policy("79,ecc,-1", "13x", problems);
  EXPECT_EQ(
      problems,
      (std::vector<std::string>{
          "DP_DISABLE_HEALTHCHECKS: \"ecc\" is none of all, xids and the number of an XID: it "
          "is left out",
          "DP_DISABLE_HEALTHCHECKS: \"-1\" is none of all, xids and the number of an XID: it "
          "is left out",
          "DP_ENABLE_HEALTHCHECKS: \"13x\" is none of all, xids and the number of an XID: it "
          "is left out"}));
  EXPECT_TRUE(policy.ignores(79));
  EXPECT_TRUE(policy.ignores(13));
}

struct HealthTest : ::testing::Test {
  MemoryFiles files;
  std::string said;
  Log log{[this](std::string_view line) { said += line; }, [] { return kNow; }};
  HealthOptions options;
  std::unique_ptr<Health> health;
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
    health->on_event(event, gpus, kNow);
    health->write();
  }
  void look(const Reasons& silent = {}, const std::set<std::string>& mute = {}) {
    health->on_inventory(gpus, silent, mute);
    health->write();
  }
  [[nodiscard]] Reasons reasons() const { return reasons_of(health->marks(), gpus); }
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
  health->on_event({"GPU-0", ports::GpuEvent::Kind::kDoubleBitEcc, 0, {}, {}}, gpus, kNow);
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
  files.files[kFile] = "gpuslice-health 1 b\nGPU-0 - - 79\n";
  start();
  EXPECT_NE(said.find("line \"GPU-0 - - 79\" is no mark"), std::string::npos) << said;
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
  health->on_event({"GPU-0", ports::GpuEvent::Kind::kXid, 79, GiId{1}, {}}, gpus, kNow);
  look();
  EXPECT_EQ(health->marks().size(), 2U);
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
  EXPECT_TRUE(health->marks().empty());
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
  EXPECT_EQ(health->marks().size(), 1U) << "there is none";
}

TEST_F(HealthTest, AStormIsBounded) {
  for (uint32_t i = 0; i < 3000; ++i)
    health->on_event({"GPU-1", ports::GpuEvent::Kind::kXid, 79, GiId{i}, CiId{0}}, gpus, kNow);
  EXPECT_LE(health->marks().size(), 1024U);
  EXPECT_EQ(reasons().at("GPU-1"), kReason79);
  for (uint64_t code = 200; code < 800; ++code)
    health->on_event({"GPU-0", ports::GpuEvent::Kind::kXid, code, {}, {}}, gpus, kNow);
  EXPECT_LE(health->counts().size(), 513U);
}

}  // namespace
}  // namespace gpuslice::agent
