// Handles that are stale, foreign or nonsense; counted init; forks; threads.

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <thread>

#include "base/random.h"
#include "sim/events.h"
#include "sim/mig.h"
#include "simnvml/testing.h"

namespace gpuslice::simnvml {
namespace {

struct HandlesTest : LibraryTest {
  Ret minor_of(Handle handle) {
    uint32_t minor = 0;
    return CALL(nvmlDeviceGetMinorNumber, handle, &minor);
  }
  Ret is_mig(Handle handle) {
    uint32_t is = 9;
    return CALL(nvmlDeviceIsMigDeviceHandle, handle, &is);
  }
};

TEST_F(HandlesTest, InitIsCounted) {
  make(node_of({kA100, kT4}));
  uint32_t count = 0;
  EXPECT_EQ(CALL(nvmlShutdown), Ret::kUninitialized);
  EXPECT_EQ(CALL(nvmlDeviceGetCount_v2, &count), Ret::kUninitialized);
  ASSERT_EQ(CALL(nvmlInit_v2), Ret::kSuccess);
  ASSERT_EQ(CALL(nvmlInit), Ret::kSuccess);
  ASSERT_EQ(CALL(nvmlInitWithFlags, 1), Ret::kSuccess);
  for (int left = 2; left >= 0; --left) {
    EXPECT_EQ(CALL(nvmlDeviceGetCount_v2, &count), Ret::kSuccess);
    EXPECT_EQ(count, 2U);
    EXPECT_EQ(CALL(nvmlShutdown), Ret::kSuccess);
  }
  EXPECT_EQ(CALL(nvmlDeviceGetCount_v2, &count), Ret::kUninitialized);
  EXPECT_EQ(CALL(nvmlShutdown), Ret::kUninitialized);
}

TEST_F(HandlesTest, InitAttachesAndTheLastShutdownDetaches) {
  make(node_of({kA100}));
  const auto clients = [&] { return world->live_clients(*world->snapshot()).size(); };
  EXPECT_EQ(clients(), 0U);
  ASSERT_EQ(CALL(nvmlInitWithFlags, 2), Ret::kSuccess);  // NO_ATTACH
  EXPECT_EQ(clients(), 0U);
  ASSERT_EQ(CALL(nvmlShutdown), Ret::kSuccess);
  ASSERT_EQ(CALL(nvmlInit_v2), Ret::kSuccess);
  ASSERT_EQ(CALL(nvmlInit_v2), Ret::kSuccess);
  EXPECT_EQ(clients(), 1U);
  ASSERT_EQ(CALL(nvmlShutdown), Ret::kSuccess);
  EXPECT_EQ(clients(), 1U);
  ASSERT_EQ(CALL(nvmlShutdown), Ret::kSuccess);
  EXPECT_EQ(clients(), 0U);
}

TEST_F(HandlesTest, TheLastShutdownEndsAllEventSets) {
  begin(node_of({kA100}));
  Handle set = nullptr;
  ASSERT_EQ(CALL(nvmlEventSetCreate, &set), Ret::kSuccess);
  ASSERT_EQ(CALL(nvmlShutdown), Ret::kSuccess);
  ASSERT_EQ(CALL(nvmlInit_v2), Ret::kSuccess);
  EXPECT_EQ(CALL(nvmlEventSetFree, set), Ret::kInvalidArgument);
}

TEST_F(HandlesTest, WithoutANodeThereIsNoDriver) {
  while (CALL(nvmlShutdown) == Ret::kSuccess) {
  }
  ASSERT_EQ(::setenv("GPUSLICE_SIM_ROOT", "/nonexistent", 1), 0);
  EXPECT_EQ(CALL(nvmlInit_v2), Ret::kDriverNotLoaded);
}

TEST_F(HandlesTest, NonsenseIsRefused) {
  begin(node_of({kA100}));
  int local = 0;
  const auto heap = std::make_unique<int>(1);
  for (Handle handle : {Handle{nullptr}, Handle{&local}, Handle{heap.get()}})
    EXPECT_EQ(minor_of(handle), Ret::kInvalidArgument);
  Random random(1);
  for (int i = 0; i < 100'000; ++i) {
    const uint64_t bits = random.next() >> (i % 64);
    ASSERT_EQ(is_mig(std::bit_cast<Handle>(bits)), Ret::kInvalidArgument) << std::hex << bits;
  }
  // One bit off a good one.
  const auto good = std::bit_cast<uint64_t>(gpu());
  for (int bit = 0; bit < 64; ++bit)
    EXPECT_EQ(is_mig(std::bit_cast<Handle>(good ^ uint64_t{1} << bit)), Ret::kInvalidArgument)
        << bit;
}

TEST_F(HandlesTest, AGpuBeyondTheNodesIsRefused) {
  begin(node_of({kA100, kA100}));
  Handle second = gpu(1);
  EXPECT_EQ(minor_of(second), Ret::kSuccess);
  begin(node_of({kA100}));
  EXPECT_EQ(minor_of(second), Ret::kInvalidArgument) << "of another node that has one GPU more";
}

// As often as a handle could be mistaken for a later one by a short counter.
TEST_F(HandlesTest, AStaleHandleIsNeverANewOne) {
  begin(node_of({kA100}));
  mig_on(gpu());
  const Made first = make_instance(gpu(), 0, 4);
  const std::string uuid = uuid_of(first.device);
  for (int i = 0; i < 5000; ++i) {
    ASSERT_TRUE(world->write([](sim::State& state) {
      uint8_t gi = 0, ci = 0;
      const sim::Caller& admin = sim::kRoot;
      EXPECT_EQ(sim::destroy_ci(state, 0, 0, 0, admin), Ret::kSuccess);
      EXPECT_EQ(sim::destroy_gi(state, 0, 0, admin), Ret::kSuccess);
      EXPECT_EQ(sim::create_gi(state, 0, ProfileId{0}, std::nullopt, admin, gi), Ret::kSuccess);
      EXPECT_EQ(sim::create_ci(state, 0, gi, 4, std::nullopt, admin, ci), Ret::kSuccess);
    }));
    char text[96];
    GiInfo gi_info{};
    CiInfo ci_info{};
    ASSERT_EQ(CALL(nvmlDeviceGetUUID, first.device, &text[0], 96), Ret::kInvalidArgument) << i;
    ASSERT_EQ(CALL(nvmlGpuInstanceGetInfo, first.gi, &gi_info), Ret::kInvalidArgument) << i;
    ASSERT_EQ(CALL(nvmlComputeInstanceGetInfo_v2, first.ci, &ci_info), Ret::kInvalidArgument) << i;
  }
  Handle now = nullptr;
  ASSERT_EQ(CALL(nvmlDeviceGetHandleByUUID, uuid.c_str(), &now), Ret::kSuccess)
      << "the same instance again has the same UUID";
  EXPECT_NE(now, first.device);
}

TEST_F(HandlesTest, OfOneKindAreNotOfAnother) {
  begin(node_of({kA100}));
  mig_on(gpu());
  const Made made = make_instance(gpu(), 9, 2);
  EXPECT_EQ(is_mig(made.device), Ret::kSuccess);
  EXPECT_EQ(is_mig(made.gi), Ret::kInvalidArgument);
  EXPECT_EQ(is_mig(made.ci), Ret::kInvalidArgument);
  GiInfo gi{};
  CiInfo ci{};
  for (Handle handle : {gpu(), made.device, made.ci})
    EXPECT_EQ(CALL(nvmlGpuInstanceGetInfo, handle, &gi), Ret::kInvalidArgument);
  for (Handle handle : {gpu(), made.device, made.gi})
    EXPECT_EQ(CALL(nvmlComputeInstanceGetInfo_v2, handle, &ci), Ret::kInvalidArgument);
  uint32_t id = 0;
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstanceId, gpu(), &id), Ret::kInvalidArgument);
  EXPECT_EQ(minor_of(made.device), Ret::kNotSupported) << "a board's number, asked of a MIG device";
  Handle parent = nullptr;
  EXPECT_EQ(CALL(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, made.device, &parent),
            Ret::kSuccess);
  EXPECT_EQ(parent, gpu());
}

// A child reads on with its parent's handles, is no client until it inits, and then one of its own.
TEST_F(HandlesTest, AChildReadsOnAndAttachesByItsOwnInit) {
  begin(node_of({kA100}));
  Handle handle = gpu();
  const auto clients = [&] { return world->live_clients(*world->snapshot()).size(); };
  ASSERT_EQ(clients(), 1U);
  const pid_t child = sim::fork_child([&] {
    if (minor_of(handle) != Ret::kSuccess) return 1;
    if (world->live_clients(*world->snapshot()).size() != 1) return 2;
    if (CALL(nvmlInit_v2) != Ret::kSuccess) return 3;
    if (minor_of(handle) != Ret::kSuccess) return 4;
    const auto live = world->live_clients(*world->snapshot());
    if (live.size() != 2) return 5;
    if (CALL(nvmlShutdown) != Ret::kSuccess) return 6;
    return minor_of(handle) == Ret::kUninitialized ? 0 : 7;
  });
  EXPECT_EQ(sim::wait_child(child), 0);
  EXPECT_EQ(clients(), 1U) << "the parent is attached as before";
  EXPECT_EQ(minor_of(handle), Ret::kSuccess);
}

TEST_F(HandlesTest, AChildThatOnlyShutsDownLeavesItsParentAlone) {
  begin(node_of({kA100}));
  const pid_t child = sim::fork_child([&] { return CALL(nvmlShutdown) == Ret::kSuccess ? 0 : 1; });
  EXPECT_EQ(sim::wait_child(child), 0);
  EXPECT_EQ(world->live_clients(*world->snapshot()).size(), 1U);
}

TEST_F(HandlesTest, ForksWhileThreadsInitAndWait) {
  begin(node_of({kA100}));
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop.load()) {
        EXPECT_EQ(CALL(nvmlInit_v2), Ret::kSuccess);
        Handle set = nullptr;
        EXPECT_EQ(CALL(nvmlEventSetCreate, &set), Ret::kSuccess);
        EXPECT_EQ(CALL(nvmlEventSetFree, set), Ret::kSuccess);
        EXPECT_EQ(CALL(nvmlShutdown), Ret::kSuccess);
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    const pid_t child = sim::fork_child([&] {
      Handle set = nullptr;
      ::alarm(20);  // rather than wait for ever
      return CALL(nvmlInit_v2) == Ret::kSuccess &&
                     CALL(nvmlEventSetCreate, &set) == Ret::kSuccess &&
                     CALL(nvmlShutdown) == Ret::kSuccess
                 ? 0
                 : 1;
    });
    ASSERT_EQ(sim::wait_child(child), 0) << i;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

// Eight threads walk the node while instances come and go: each answer is one of those that a
// changing node gives, and what is read is whole.
TEST_F(HandlesTest, ThreadsHammerAChangingWorld) {
  begin(node_of({kA100, kH100}));
  mig_on(gpu(0));
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> walks{0};
  const auto fine = [](Ret ret) {
    return ret == Ret::kSuccess || ret == Ret::kNotFound || ret == Ret::kInvalidArgument ||
           ret == Ret::kGpuIsLost || ret == Ret::kInUse || ret == Ret::kInsufficientResources;
  };
  const auto walk = [&] {
    for (uint32_t index = 0; index < 2; ++index) {
      Handle device = nullptr;
      Ret ret = CALL(nvmlDeviceGetHandleByIndex_v2, index, &device);
      EXPECT_TRUE(fine(ret)) << sim::ret_name(ret);
      if (ret != Ret::kSuccess) continue;
      for (uint32_t i = 0; i < 7; ++i) {
        Handle mig = nullptr;
        if (CALL(nvmlDeviceGetMigDeviceHandleByIndex, device, i, &mig) != Ret::kSuccess) continue;
        char uuid[96] = {};
        ret = CALL(nvmlDeviceGetUUID, mig, &uuid[0], sizeof uuid);
        EXPECT_TRUE(fine(ret)) << sim::ret_name(ret);
        if (ret == Ret::kSuccess) {
          EXPECT_EQ(std::string(uuid).size(), 40U) << uuid;
        }
        DeviceAttributes attributes{};
        ret = CALL(nvmlDeviceGetAttributes_v2, mig, &attributes);
        if (ret == Ret::kSuccess) {
          EXPECT_EQ(attributes.sm % 14, 0U) << attributes.sm;
        }
      }
    }
    walks.fetch_add(1);
  };
  const auto make_and_break = [&] {
    Handle device = nullptr, gi = nullptr, ci = nullptr;
    if (CALL(nvmlDeviceGetHandleByIndex_v2, 0, &device) != Ret::kSuccess) return;
    if (CALL(nvmlDeviceCreateGpuInstance, device, 19, &gi) != Ret::kSuccess) return;
    const Ret made = CALL(nvmlGpuInstanceCreateComputeInstance, gi, 0, &ci);
    EXPECT_TRUE(fine(made)) << sim::ret_name(made);
    EXPECT_TRUE(made != Ret::kSuccess || fine(CALL(nvmlComputeInstanceDestroy, ci)));
    EXPECT_TRUE(fine(CALL(nvmlGpuInstanceDestroy, gi)));
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      while (!stop.load()) i < 6 ? walk() : make_and_break();
    });
  }
  for (uint64_t i = 0; i < 60; ++i) {
    ASSERT_TRUE(world->write([&](sim::State& state) {
      state.gpus[1].lost = i % 2;
      sim::push_event(state, {.type = sim::kEventXid, .data = i, .gpu = 0});
    }));
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(walks.load(), 10U);
  for (const sim::Gi& gi : world->snapshot()->gpus[0].gis) EXPECT_EQ(gi.live, 0);
}

}  // namespace
}  // namespace gpuslice::simnvml
