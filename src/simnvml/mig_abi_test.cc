// MIG through the C interface: the whole life of instances, and what is refused on the way.

#include <sys/stat.h>
#include <unistd.h>

#include "sim/clients.h"
#include "sim/mig.h"
#include "sim/visibility.h"
#include "simnvml/testing.h"

namespace gpuslice::simnvml {
namespace {

struct MigAbiTest : LibraryTest {
  std::vector<PlacementAbi> placements(Handle device, uint32_t profile) {
    uint32_t count = 0;
    EXPECT_EQ(CALL(nvmlDeviceGetGpuInstancePossiblePlacements_v2, device, profile, nullptr, &count),
              Ret::kSuccess);
    std::vector<PlacementAbi> all(count);
    EXPECT_EQ(
        CALL(nvmlDeviceGetGpuInstancePossiblePlacements_v2, device, profile, all.data(), &count),
        Ret::kSuccess);
    return all;
  }
  uint32_t capacity(Handle device, uint32_t profile) {
    uint32_t count = 99;
    EXPECT_EQ(CALL(nvmlDeviceGetGpuInstanceRemainingCapacity, device, profile, &count),
              Ret::kSuccess);
    return count;
  }
  // Runs `body` in a child without root's rights; the node's config capability is for root alone.
  static int as_nobody(const std::function<int()>& body) {
    return sim::wait_child(sim::fork_child([&] {
      if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) return 99;
      return body();
    }));
  }
};

TEST_F(MigAbiTest, TheWholeLifeOfAnInstance) {
  begin(node_of({kA100}));
  Handle device = gpu();
  uint32_t current = 9, pending = 9, count = 9;
  ASSERT_EQ(CALL(nvmlDeviceGetMigMode, device, &current, &pending), Ret::kSuccess);
  EXPECT_EQ(current, 0U);
  EXPECT_EQ(CALL(nvmlDeviceGetMaxMigDeviceCount, device, &count), Ret::kSuccess);
  EXPECT_EQ(count, 0U);
  Handle none = nullptr;
  EXPECT_EQ(CALL(nvmlDeviceCreateGpuInstance, device, 19, &none), Ret::kNotSupported);
  DeviceAttributes of_none{};
  EXPECT_EQ(CALL(nvmlDeviceGetAttributes_v2, device, &of_none), Ret::kNotSupported)
      << "a whole GPU has none";
  mig_on(device);
  EXPECT_EQ(CALL(nvmlDeviceGetMaxMigDeviceCount, device, &count), Ret::kSuccess);
  EXPECT_EQ(count, 7U);
  EXPECT_EQ(capacity(device, 19), 7U);

  const Made made = make_instance(device, 9, 1);  // 2c.3g
  GiInfo gi{};
  ASSERT_EQ(CALL(nvmlGpuInstanceGetInfo, made.gi, &gi), Ret::kSuccess);
  EXPECT_EQ(gi.device, device);
  EXPECT_EQ(gi.id, 2U) << "3g first goes to the upper half";
  EXPECT_EQ(gi.profile_id, 9U);
  EXPECT_EQ(gi.placement.start, 4U);
  EXPECT_EQ(gi.placement.size, 4U);
  CiInfo ci{};
  ASSERT_EQ(CALL(nvmlComputeInstanceGetInfo_v2, made.ci, &ci), Ret::kSuccess);
  EXPECT_EQ(ci.gpu_instance, made.gi);
  EXPECT_EQ(ci.profile_id, 1U);
  EXPECT_EQ(ci.placement.size, 2U);
  char name[96] = {};
  ASSERT_EQ(CALL(nvmlDeviceGetName, made.device, &name[0], sizeof name), Ret::kSuccess);
  EXPECT_STREQ(name, "NVIDIA A100-SXM4-40GB MIG 2c.3g.20gb");
  const std::string uuid = uuid_of(made.device);
  EXPECT_EQ(uuid.substr(0, 4), "MIG-");
  DeviceAttributes attributes{};
  for (const auto get : {CALL(nvmlDeviceGetAttributes, made.device, &attributes),
                         CALL(nvmlDeviceGetAttributes_v2, made.device, &attributes)})
    ASSERT_EQ(get, Ret::kSuccess);
  EXPECT_EQ(attributes.sm, 28U);
  EXPECT_EQ(attributes.gi_slices, 3U);
  EXPECT_EQ(attributes.ci_slices, 2U);
  EXPECT_EQ(attributes.ce, 3U);
  EXPECT_EQ(attributes.memory_mb, 19968U);

  Handle found = nullptr;
  const std::string old = "MIG-" + uuid_of(device) + "/2/0";
  for (const std::string& text : {uuid, old}) {
    ASSERT_EQ(CALL(nvmlDeviceGetHandleByUUID, text.c_str(), &found), Ret::kSuccess) << text;
    EXPECT_EQ(found, made.device);
  }
  for (const char* text : {"MIG-", "MIG-GPU-", "MIG-GPU-x/y/z", "MIG-GPU-/99/99"})
    EXPECT_EQ(CALL(nvmlDeviceGetHandleByUUID, text, &found), Ret::kNotFound) << text;
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstanceById, device, 2, &found), Ret::kSuccess);
  EXPECT_EQ(found, made.gi);
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstanceById, device, 3, &found), Ret::kNotFound);
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstanceById, device, 1000, &found), Ret::kNotFound);
  EXPECT_EQ(CALL(nvmlGpuInstanceGetComputeInstanceById, made.gi, 0, &found), Ret::kSuccess);
  EXPECT_EQ(found, made.ci);
  EXPECT_EQ(CALL(nvmlGpuInstanceGetComputeInstanceById, made.gi, 1, &found), Ret::kNotFound);
  ASSERT_EQ(CALL(nvmlDeviceGetIndex, made.device, &count), Ret::kSuccess);
  EXPECT_EQ(count, 0U);

  int activation = -1;
  EXPECT_EQ(CALL(nvmlGpuInstanceDestroy, made.gi), Ret::kInUse) << "it has a compute instance";
  EXPECT_EQ(CALL(nvmlDeviceSetMigMode, device, 0, &activation), Ret::kInUse);
  ASSERT_EQ(CALL(nvmlComputeInstanceDestroy, made.ci), Ret::kSuccess);
  EXPECT_EQ(CALL(nvmlComputeInstanceDestroy, made.ci), Ret::kInvalidArgument);
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByUUID, uuid.c_str(), &found), Ret::kNotFound);
  ASSERT_EQ(CALL(nvmlGpuInstanceDestroy, made.gi), Ret::kSuccess);
  EXPECT_EQ(CALL(nvmlGpuInstanceDestroy, made.gi), Ret::kInvalidArgument);
  ASSERT_EQ(CALL(nvmlDeviceSetMigMode, device, 0, &activation), Ret::kSuccess);
  EXPECT_EQ(activation, 0);
}

TEST_F(MigAbiTest, Placements) {
  begin(node_of({kH100, kT4}));
  Handle device = gpu();
  mig_on(device);
  const std::pair<uint32_t, std::vector<uint32_t>> rows[] = {
      {19, {0, 1, 2, 3, 4, 5, 6}}, {14, {0, 2, 4}}, {9, {0, 4}}, {5, {0}}, {0, {0}},
      {15, {0, 2, 4, 6}}};
  for (const auto& [profile, starts] : rows) {
    const auto all = placements(device, profile);
    ASSERT_EQ(all.size(), starts.size()) << profile;
    for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i].start, starts[i]) << profile;
    PlacementAbi few[16];
    std::memset(few, kFill, sizeof few);
    uint32_t room = static_cast<uint32_t>(starts.size()) - 1;
    EXPECT_EQ(CALL(nvmlDeviceGetGpuInstancePossiblePlacements_v2, device, profile, few, &room),
              Ret::kInsufficientSize);
    EXPECT_EQ(room, starts.size());
    EXPECT_EQ(few[0].start, 0xa5a5a5a5U) << "nothing is written";
    room = 0;
    EXPECT_EQ(CALL(nvmlDeviceGetGpuInstancePossiblePlacements, device, profile, few, &room),
              Ret::kSuccess)
        << "the first knew no room";
    EXPECT_EQ(room, starts.size());
    EXPECT_EQ(CALL(nvmlDeviceGetGpuInstancePossiblePlacements, device, profile, nullptr, &room),
              Ret::kInvalidArgument);
  }
  // Seven places and one instance: the first version's array would be too short.
  ASSERT_EQ(placements(device, 20).size(), 7U);
  PlacementAbi seven[16];
  uint32_t none = 0;
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstancePossiblePlacements, device, 20, seven, &none),
            Ret::kNotSupported);
  uint32_t count = 0;
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstancePossiblePlacements_v2, device, 77, nullptr, &count),
            Ret::kInvalidArgument);
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstancePossiblePlacements_v2, gpu(1), 19, nullptr, &count),
            Ret::kNotSupported);

  Handle gi = nullptr, ci = nullptr;
  const auto make = [&](uint32_t profile, PlacementAbi at) {
    return CALL(nvmlDeviceCreateGpuInstanceWithPlacement, device, profile, &at, &gi);
  };
  EXPECT_EQ(make(19, {7, 1}), Ret::kInvalidArgument) << "not offered";
  EXPECT_EQ(make(19, {0, 2}), Ret::kInvalidArgument);
  EXPECT_EQ(make(19, {256, 1}), Ret::kInvalidArgument) << "not 0";
  EXPECT_EQ(make(77, {0, 1}), Ret::kInvalidArgument);
  ASSERT_EQ(make(9, {0, 4}), Ret::kSuccess);
  EXPECT_EQ(make(19, {0, 1}), Ret::kInsufficientResources) << "occupied";
  EXPECT_EQ(make(0, {0, 8}), Ret::kInsufficientResources);
  EXPECT_EQ(capacity(device, 9), 1U);
  EXPECT_EQ(capacity(device, 0), 0U);

  ASSERT_EQ(CALL(nvmlDeviceGetGpuInstanceById, device, 1, &gi), Ret::kSuccess);
  PlacementAbi inside[8];
  count = 8;
  ASSERT_EQ(CALL(nvmlGpuInstanceGetComputeInstancePossiblePlacements, gi, 0, inside, &count),
            Ret::kSuccess);
  EXPECT_EQ(count, 3U);
  count = 1;
  EXPECT_EQ(CALL(nvmlGpuInstanceGetComputeInstancePossiblePlacements, gi, 0, inside, &count),
            Ret::kInsufficientSize);
  EXPECT_EQ(count, 3U);
  const PlacementAbi middle{1, 1}, beyond{3, 1}, wide{300, 1};
  EXPECT_EQ(CALL(nvmlGpuInstanceCreateComputeInstanceWithPlacement, gi, 0, &wide, &ci),
            Ret::kInvalidArgument);
  EXPECT_EQ(CALL(nvmlGpuInstanceCreateComputeInstanceWithPlacement, gi, 0, &beyond, &ci),
            Ret::kInvalidArgument);
  ASSERT_EQ(CALL(nvmlGpuInstanceCreateComputeInstanceWithPlacement, gi, 0, &middle, &ci),
            Ret::kSuccess);
  EXPECT_EQ(CALL(nvmlGpuInstanceCreateComputeInstanceWithPlacement, gi, 0, &middle, &ci),
            Ret::kInsufficientResources);
  ASSERT_EQ(CALL(nvmlGpuInstanceGetComputeInstanceRemainingCapacity, gi, 0, &count), Ret::kSuccess);
  EXPECT_EQ(count, 2U);
}

TEST_F(MigAbiTest, EveryEnumOfProfiles) {
  begin(node_of({kA100, "A30-24GB", "RTX-PRO-6000-Blackwell-96GB", kT4}));
  // NVML's enums of the profiles that a board has; all others below 17 are not supported.
  const std::set<uint32_t> offered[] = {
      {0, 1, 2, 3, 4, 7, 9}, {0, 1, 3, 7, 8}, {0, 1, 3, 7, 10, 11, 12, 13, 14, 15, 16}, {}};
  for (uint32_t index = 0; index < 4; ++index) {
    Handle device = gpu(index);
    std::set<uint32_t> found;
    for (uint32_t profile = 0; profile < 30; ++profile) {
      GiProfileInfo v1{};
      GiProfileInfoV2 v2{};
      v2.version = 0x02000098;
      const Ret ret = CALL(nvmlDeviceGetGpuInstanceProfileInfo, device, profile, &v1);
      EXPECT_EQ(CALL(nvmlDeviceGetGpuInstanceProfileInfoV, device, profile, &v2), ret);
      if (profile >= 17) {
        EXPECT_EQ(ret, Ret::kInvalidArgument) << profile << ": ends the list";
        continue;
      }
      EXPECT_TRUE(ret == Ret::kSuccess || ret == Ret::kNotSupported) << sim::ret_name(ret);
      if (ret != Ret::kSuccess) continue;
      found.insert(profile);
      EXPECT_EQ(v1.id, v2.id);
      GiProfileInfoV2 by_id{};
      by_id.version = 0x02000098;
      ASSERT_EQ(CALL(nvmlDeviceGetGpuInstanceProfileInfoByIdV, device, v1.id, &by_id),
                Ret::kSuccess);
      EXPECT_EQ(v2.id, by_id.id);
      EXPECT_EQ(v2.memory_mb, by_id.memory_mb);
      EXPECT_STREQ(v2.name, by_id.name);
    }
    EXPECT_EQ(found, offered[index]) << index;
  }
}

// A client's array holds instanceCount handles: never more are written.
TEST_F(MigAbiTest, ListsOfInstances) {
  begin(node_of({kA100}));
  Handle device = gpu();
  mig_on(device);
  for (int i = 0; i < 7; ++i) (void)make_instance(device, 19, 0);
  Handle rows[10];
  std::fill(std::begin(rows), std::end(rows), nullptr);
  uint32_t count = 0;
  ASSERT_EQ(CALL(nvmlDeviceGetGpuInstances, device, 19, rows, &count), Ret::kSuccess);
  EXPECT_EQ(count, 7U);
  EXPECT_EQ(rows[7], nullptr);
  uint32_t last = 0;
  for (uint32_t i = 0; i < count; ++i) {
    GiInfo info{};
    ASSERT_EQ(CALL(nvmlGpuInstanceGetInfo, rows[i], &info), Ret::kSuccess);
    EXPECT_GT(info.id, last) << "ascending";
    last = info.id;
    Handle cis[8];
    uint32_t inside = 9;
    ASSERT_EQ(CALL(nvmlGpuInstanceGetComputeInstances, rows[i], 0, cis, &inside), Ret::kSuccess);
    EXPECT_EQ(inside, 1U);
  }
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstances, device, 77, rows, &count), Ret::kInvalidArgument);
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstances, device, 9, rows, &count), Ret::kSuccess);
  EXPECT_EQ(count, 0U);
  Handle mig = nullptr;
  for (uint32_t i = 0; i < 7; ++i) {
    ASSERT_EQ(CALL(nvmlDeviceGetMigDeviceHandleByIndex, device, i, &mig), Ret::kSuccess);
    uint32_t index = 99;
    ASSERT_EQ(CALL(nvmlDeviceGetIndex, mig, &index), Ret::kSuccess);
    EXPECT_EQ(index, i);
  }
  EXPECT_EQ(CALL(nvmlDeviceGetMigDeviceHandleByIndex, device, 7, &mig), Ret::kInvalidArgument);
  Handle more = nullptr;
  EXPECT_EQ(CALL(nvmlDeviceCreateGpuInstance, device, 19, &more), Ret::kInsufficientResources);
}

TEST_F(MigAbiTest, WithoutRootNothingChanges) {
  begin(node_of({kA100}));
  mig_on(gpu());
  const Made made = make_instance(gpu(), 9, 2);
  ASSERT_EQ(::chmod(root.c_str(), 0755), 0);
  if (::geteuid() != 0) {
    const std::string config = root + "/dev/nvidia-caps/nvidia-cap1";
    ASSERT_TRUE(std::filesystem::remove(config));
  }
  const int answer = as_nobody([&] {
    if (CALL(nvmlInit_v2) != Ret::kSuccess) return 1;
    int activation = 0;
    Handle handle = nullptr;
    uint32_t current = 0, pending = 0;
    const Ret no = Ret::kNoPermission;
    if (CALL(nvmlDeviceGetMigMode, gpu(), &current, &pending) != Ret::kSuccess) return 2;
    if (CALL(nvmlDeviceSetMigMode, gpu(), 0, &activation) == Ret::kSuccess) return 3;
    if (CALL(nvmlDeviceCreateGpuInstance, gpu(), 19, &handle) != no) return 4;
    if (CALL(nvmlGpuInstanceCreateComputeInstance, made.gi, 0, &handle) != no) return 5;
    if (CALL(nvmlComputeInstanceDestroy, made.ci) != no) return 6;
    if (CALL(nvmlGpuInstanceDestroy, made.gi) != no) return 7;
    if (CALL(gpuslice_sim_gpu_reset, gpu()) != no) return 8;
    if (CALL(nvmlDeviceSetPersistenceMode, gpu(), 1) != no) return 9;
    if (CALL(nvmlDeviceSetPowerManagementLimit, gpu(), 300'000) != no) return 10;
    if (CALL(nvmlDeviceSetComputeMode, made.device, 3) != no) return 11;
    return CALL(nvmlDeviceClearEccErrorCounts, gpu(), 0) == no ? 0 : 12;
  });
  EXPECT_EQ(answer, 0);
  // Full listings want the monitor's capability.
  std::filesystem::remove(root + "/dev/nvidia-caps/nvidia-cap2");
  const int listing = as_nobody([&] {
    uint32_t count = 0;
    Handle rows[8];
    return CALL(nvmlDeviceGetGpuInstances, gpu(), 9, rows, &count) == Ret::kNoPermission ? 0 : 1;
  });
  EXPECT_EQ(listing, 0);
}

TEST_F(MigAbiTest, WorkStandsInTheWay) {
  begin(node_of({kA100}));
  mig_on(gpu());
  const Made made = make_instance(gpu(), 9, 2);
  sim::Work work;
  work.gi = 2;
  work.ci = 0;
  work.memory_bytes = 1 << 20;
  const uint16_t client = add_process(4242, work);
  EXPECT_EQ(CALL(nvmlComputeInstanceDestroy, made.ci), Ret::kInUse);
  EXPECT_EQ(CALL(gpuslice_sim_gpu_reset, gpu()), Ret::kInUse);
  ASSERT_TRUE(sim::kill_client(*world, client));
  EXPECT_EQ(CALL(gpuslice_sim_gpu_reset, gpu()), Ret::kSuccess);
  GiInfo info{};
  EXPECT_EQ(CALL(nvmlGpuInstanceGetInfo, made.gi, &info), Ret::kInvalidArgument);
  uint32_t current = 0, pending = 0;
  ASSERT_EQ(CALL(nvmlDeviceGetMigMode, gpu(), &current, &pending), Ret::kSuccess);
  EXPECT_EQ(current, 1U) << "an A100 keeps its mode";
  EXPECT_EQ(uuid_of(make_instance(gpu(), 9, 2).device).size(), 40U);
}

TEST_F(MigAbiTest, AModeThatOthersKeepFromChangingStaysPending) {
  begin(node_of({kA100, kH100}));
  const Result<uint16_t> other = sim::add_simulated_client(*world, 4242, "monitor");
  ASSERT_TRUE(other);
  ASSERT_TRUE(world->write([&](sim::State& state) { sim::attach_gpus(state, *other, 3); }));
  int activation = -1;
  uint32_t current = 9, pending = 9;
  ASSERT_EQ(CALL(nvmlDeviceSetMigMode, gpu(0), 1, &activation), Ret::kSuccess);
  EXPECT_EQ(static_cast<Ret>(activation), Ret::kInUse);
  ASSERT_EQ(CALL(nvmlDeviceGetMigMode, gpu(0), &current, &pending), Ret::kSuccess);
  EXPECT_EQ(current, 0U);
  EXPECT_EQ(pending, 1U);
  ASSERT_EQ(CALL(nvmlDeviceSetMigMode, gpu(1), 1, &activation), Ret::kSuccess);
  EXPECT_EQ(static_cast<Ret>(activation), Ret::kSuccess) << "an H100 needs no reset";
  EXPECT_EQ(CALL(nvmlDeviceSetMigMode, gpu(1), 2, &activation), Ret::kInvalidArgument);
}

// A strict node: an open handle of another process stands in the way, and its end frees it.
TEST_F(MigAbiTest, OnAStrictNodeHandlesHold) {
  sim::NodeOptions options = node_of({kA100});
  options.strict_clients = true;
  begin(options);
  mig_on(gpu());
  const Made made = make_instance(gpu(), 9, 2);
  int ready[2], done[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(done), 0);
  const pid_t child = sim::fork_child([&] {
    ::close(done[1]);
    Handle gi = nullptr, ci = nullptr;
    if (CALL(nvmlInit_v2) != Ret::kSuccess) return 1;
    if (CALL(nvmlDeviceGetGpuInstanceById, gpu(), 2, &gi) != Ret::kSuccess) return 2;
    if (CALL(nvmlGpuInstanceGetComputeInstanceById, gi, 0, &ci) != Ret::kSuccess) return 3;
    char byte = 1;
    if (::write(ready[1], &byte, 1) != 1) return 4;
    return ::read(done[0], &byte, 1) == 0 ? 0 : 5;
  });
  char byte = 0;
  ::close(ready[1]);
  EXPECT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_EQ(CALL(nvmlComputeInstanceDestroy, made.ci), Ret::kInUse);
  ::close(done[1]);
  EXPECT_EQ(sim::wait_child(child), 0);
  EXPECT_EQ(CALL(nvmlComputeInstanceDestroy, made.ci), Ret::kSuccess) << "its own are no hindrance";
  EXPECT_EQ(CALL(nvmlGpuInstanceDestroy, made.gi), Ret::kSuccess);
  ::close(ready[0]);
  ::close(done[0]);
}

}  // namespace
}  // namespace gpuslice::simnvml
