// Injected faults through the C interface; lost and restored GPUs; what a caller sees by the nodes
// that stand in its /dev.

#include "sim/faults.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "sim/visibility.h"
#include "simnvml/testing.h"

namespace gpuslice::simnvml {
namespace {

using sim::Fault;
using sim::FaultKind;

Fault failing(Ret ret) {
  Fault fault;
  fault.ret = static_cast<int32_t>(ret);
  return fault;
}

struct FaultsTest : LibraryTest {
  FaultsTest() {
    begin(node_of({kA100, kH100}));
    handles = {gpu(0), gpu(1)};
  }

  Ret name_of(uint32_t index) {
    char text[96];
    return CALL(nvmlDeviceGetName, handles.at(index), &text[0], sizeof text);
  }
  Ret count() {
    uint32_t n = 0;
    return CALL(nvmlDeviceGetCount_v2, &n);
  }
  std::vector<Handle> handles;
};

TEST_F(FaultsTest, EveryCodeCanBeAnswered) {
  for (uint32_t code = 1; code <= 30; ++code) {
    ASSERT_TRUE(world->write([](sim::State& state) { sim::clear_faults(state); }));
    add_fault("nvmlDeviceGetName", failing(static_cast<Ret>(code)));
    EXPECT_EQ(name_of(0), static_cast<Ret>(code));
  }
}

TEST_F(FaultsTest, ByCallAndPattern) {
  add_fault("nvmlDeviceGetName", failing(Ret::kUnknown));
  uint32_t minor = 0;
  EXPECT_EQ(name_of(0), Ret::kUnknown);
  EXPECT_EQ(CALL(nvmlDeviceGetMinorNumber, handles[0], &minor), Ret::kSuccess);
  add_fault("nvmlDeviceGetM*", failing(Ret::kTimeout));
  EXPECT_EQ(CALL(nvmlDeviceGetMinorNumber, handles[0], &minor), Ret::kTimeout);
  EXPECT_EQ(count(), Ret::kSuccess);
  add_fault("*", failing(Ret::kGpuIsLost));
  EXPECT_EQ(count(), Ret::kGpuIsLost);
  EXPECT_EQ(name_of(0), Ret::kUnknown) << "the first row that strikes";
}

TEST_F(FaultsTest, ByDevice) {
  Fault fault = failing(Ret::kInUse);
  fault.gpu = 1;
  add_fault("*", fault);
  EXPECT_EQ(name_of(0), Ret::kSuccess);
  EXPECT_EQ(name_of(1), Ret::kInUse);
  EXPECT_EQ(count(), Ret::kSuccess) << "a call about no device";
}

TEST_F(FaultsTest, TheNthCallAndSoMany) {
  Fault fault = failing(Ret::kInsufficientResources);
  fault.after = 2;
  fault.times = 3;
  add_fault("nvmlDeviceGetName", fault);
  const Ret ok = Ret::kSuccess, bad = Ret::kInsufficientResources;
  for (const Ret expected : {ok, ok, bad, bad, bad, ok, ok}) EXPECT_EQ(name_of(0), expected);
}

TEST_F(FaultsTest, ByProcess) {
  Fault fault = failing(Ret::kNoPermission);
  fault.pid = ::getpid() + 100'000;
  add_fault("nvmlDeviceGetName", fault);
  EXPECT_EQ(name_of(0), Ret::kSuccess);
  fault.pid = ::getpid();
  add_fault("nvmlDeviceGetName", fault);
  EXPECT_EQ(name_of(0), Ret::kNoPermission);
  const pid_t child = sim::fork_child([&] { return name_of(0) == Ret::kSuccess ? 0 : 1; });
  EXPECT_EQ(sim::wait_child(child), 0) << "a child is another process";
}

TEST_F(FaultsTest, Latency) {
  Fault fault;
  fault.kind = FaultKind::kLatency;
  fault.latency_ns = 200'000'000;
  fault.times = 1;
  add_fault("nvmlDeviceGetName", fault);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(name_of(0), Ret::kSuccess);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(199));
}

TEST_F(FaultsTest, AHangHangsOneCallAndNoOther) {
  Fault fault;
  fault.kind = FaultKind::kHang;
  fault.times = 1;
  add_fault("nvmlDeviceGetName", fault);
  const pid_t child = sim::fork_child([&] {
    (void)name_of(0);
    return 0;
  });
  for (int i = 0; i < 2000; ++i) {
    if (world->snapshot()->faults.rows[0].struck != 0) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(world->snapshot()->faults.rows[0].struck, 1U);
  EXPECT_EQ(name_of(0), Ret::kSuccess);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  EXPECT_EQ(sim::wait_child(child), sim::kKilled);
}

TEST_F(FaultsTest, AHangLastsUntilTheFaultsAreCleared) {
  Fault fault;
  fault.kind = FaultKind::kHang;
  fault.gpu = 0;
  add_fault("nvmlDeviceGetName", fault);
  std::atomic<bool> back{false};
  std::thread hanging([&] {
    EXPECT_EQ(name_of(0), Ret::kSuccess);
    back = true;
  });
  EXPECT_EQ(name_of(1), Ret::kSuccess) << "the other GPU answers meanwhile";
  for (int i = 0; i < 2000 && world->snapshot()->faults.rows[0].struck == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_FALSE(back);
  ASSERT_TRUE(world->write([](sim::State& state) { sim::clear_faults(state); }));
  hanging.join();
  EXPECT_TRUE(back);
}

TEST_F(FaultsTest, OfInitAndShutdown) {
  ASSERT_EQ(CALL(nvmlShutdown), Ret::kSuccess);
  Fault once = failing(Ret::kLibRmVersionMismatch);
  once.times = 1;
  for (const char* name : {"nvmlInit", "nvmlInit_v2", "nvmlInitWithFlags"}) {
    add_fault(name, once);
    EXPECT_EQ(call_by_words(symbol(name), 0, 0), Ret::kLibRmVersionMismatch) << name;
    EXPECT_EQ(count(), Ret::kUninitialized);
    EXPECT_EQ(call_by_words(symbol(name), 0, 0), Ret::kSuccess) << name;
    add_fault("nvmlShutdown", failing(Ret::kUnknown));
    EXPECT_EQ(CALL(nvmlShutdown), Ret::kUnknown);
    EXPECT_EQ(count(), Ret::kSuccess);
    ASSERT_TRUE(world->write([](sim::State& state) { sim::clear_faults(state); }));
    EXPECT_EQ(CALL(nvmlShutdown), Ret::kSuccess);
  }
  Fault slow;
  slow.kind = FaultKind::kLatency;
  slow.latency_ns = 100'000'000;
  add_fault("nvmlInit_v2", slow);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(CALL(nvmlInit_v2), Ret::kSuccess);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(99));
}

TEST_F(FaultsTest, OfMigCallsAreCountedAndChangeNothing) {
  mig_on(handles[0]);
  Fault once = failing(Ret::kInUse);
  once.times = 1;
  for (const char* name :
       {"nvmlDeviceCreateGpuInstance", "nvmlGpuInstanceCreateComputeInstance",
        "nvmlComputeInstanceDestroy", "nvmlGpuInstanceDestroy", "nvmlDeviceSetMigMode"})
    add_fault(name, once);
  Handle gi = nullptr, ci = nullptr;
  int activation = 0;
  EXPECT_EQ(CALL(nvmlDeviceCreateGpuInstance, handles[0], 19, &gi), Ret::kInUse);
  EXPECT_EQ(gi, nullptr);
  ASSERT_EQ(CALL(nvmlDeviceCreateGpuInstance, handles[0], 19, &gi), Ret::kSuccess);
  EXPECT_EQ(CALL(nvmlGpuInstanceCreateComputeInstance, gi, 0, &ci), Ret::kInUse);
  ASSERT_EQ(CALL(nvmlGpuInstanceCreateComputeInstance, gi, 0, &ci), Ret::kSuccess);
  EXPECT_EQ(CALL(nvmlComputeInstanceDestroy, ci), Ret::kInUse);
  EXPECT_EQ(CALL(nvmlComputeInstanceDestroy, ci), Ret::kSuccess);
  EXPECT_EQ(CALL(nvmlGpuInstanceDestroy, gi), Ret::kInUse);
  EXPECT_EQ(CALL(nvmlGpuInstanceDestroy, gi), Ret::kSuccess);
  EXPECT_EQ(CALL(nvmlDeviceSetMigMode, handles[0], 0, &activation), Ret::kInUse);
  EXPECT_EQ(CALL(nvmlDeviceSetMigMode, handles[0], 0, &activation), Ret::kSuccess);
  const sim::CallCounts& calls = world->snapshot()->gpus[0].calls;
  for (const sim::CallCount* one :
       {&calls.create_gi, &calls.create_ci, &calls.destroy_ci, &calls.destroy_gi}) {
    EXPECT_EQ(one->ok, 1U);
    EXPECT_EQ(one->failed, 1U);
  }
  EXPECT_EQ(calls.set_mig_mode.failed, 1U);
}

TEST_F(FaultsTest, ALostGpuAndItsReturn) {
  const std::string uuid = uuid_of(handles[1]);
  char serial[30] = {};
  ASSERT_EQ(CALL(nvmlDeviceGetSerial, handles[1], &serial[0], sizeof serial), Ret::kSuccess);
  ASSERT_TRUE(world->write([](sim::State& state) { state.gpus[1].lost = 1; }));
  uint32_t n = 0;
  Handle found = nullptr;
  EXPECT_EQ(CALL(nvmlDeviceGetCount_v2, &n), Ret::kSuccess);
  EXPECT_EQ(n, 2U) << "it is still counted";
  EXPECT_EQ(CALL(nvmlDeviceGetCount, &n), Ret::kGpuIsLost) << "the first count wants all to work";
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByIndex_v2, 0, &found), Ret::kSuccess);
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByIndex, 0, &found), Ret::kGpuIsLost);
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByIndex_v2, 1, &found), Ret::kGpuIsLost);
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByUUID, uuid.c_str(), &found), Ret::kGpuIsLost);
  EXPECT_EQ(CALL(nvmlDeviceGetHandleBySerial, serial, &found), Ret::kGpuIsLost);
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByPciBusId_v2, "0f:00.0", &found), Ret::kGpuIsLost);
  EXPECT_EQ(name_of(1), Ret::kGpuIsLost);
  EXPECT_EQ(name_of(0), Ret::kSuccess);
  ASSERT_TRUE(world->write([](sim::State& state) { state.gpus[1].lost = 0; }));
  EXPECT_EQ(name_of(1), Ret::kSuccess) << "the old handle works again";
  EXPECT_EQ(uuid_of(gpu(1)), uuid);
}

TEST_F(FaultsTest, AGpuWithoutItsNodeIsNotThere) {
  const std::string uuid = uuid_of(handles[0]);
  const std::string other = uuid_of(handles[1]);
  ASSERT_EQ(std::filesystem::remove(root + "/dev/nvidia0"), true);
  uint32_t n = 0, index = 9;
  EXPECT_EQ(CALL(nvmlDeviceGetCount_v2, &n), Ret::kSuccess);
  EXPECT_EQ(n, 1U);
  EXPECT_EQ(uuid_of(gpu(0)), other) << "indices count what is seen";
  EXPECT_EQ(CALL(nvmlDeviceGetIndex, gpu(0), &index), Ret::kSuccess);
  EXPECT_EQ(index, 0U);
  Handle found = nullptr;
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByIndex_v2, 1, &found), Ret::kInvalidArgument);
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByUUID, uuid.c_str(), &found), Ret::kNotFound);
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByPciBusId_v2, "00000000:07:00.0", &found), Ret::kNotFound);
  ASSERT_EQ(CALL(nvmlShutdown), Ret::kSuccess);
  ASSERT_EQ(std::filesystem::remove(root + "/dev/nvidiactl"), true);
  EXPECT_EQ(CALL(nvmlInit_v2), Ret::kDriverNotLoaded) << "without the control node";
}

TEST_F(FaultsTest, AMigDeviceWithoutItsCapabilityNodesIsNotThere) {
  mig_on(handles[1]);
  const Made one = make_instance(handles[1], 9, 2);
  const Made two = make_instance(handles[1], 9, 2);
  const std::string uuid_one = uuid_of(one.device), uuid_two = uuid_of(two.device);
  uint32_t gi = 0, ci = 0;
  ASSERT_EQ(CALL(nvmlDeviceGetGpuInstanceId, one.device, &gi), Ret::kSuccess);
  ASSERT_EQ(CALL(nvmlDeviceGetComputeInstanceId, one.device, &ci), Ret::kSuccess);
  const auto node = [&](uint32_t minor) {
    return fmt::format("{}/dev/nvidia-caps/nvidia-cap{}", root, minor);
  };
  std::filesystem::remove(node(sim::ci_cap_minor(1, gi, ci)));
  Handle found = nullptr;
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByUUID, uuid_one.c_str(), &found), Ret::kNotFound);
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByUUID, uuid_two.c_str(), &found), Ret::kSuccess);
  ASSERT_EQ(CALL(nvmlDeviceGetMigDeviceHandleByIndex, handles[1], 0, &found), Ret::kSuccess);
  EXPECT_EQ(uuid_of(found), uuid_two);
  EXPECT_EQ(CALL(nvmlDeviceGetMigDeviceHandleByIndex, handles[1], 1, &found), Ret::kNotFound);
  std::filesystem::remove(root + "/dev/nvidia1");
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByUUID, uuid_two.c_str(), &found), Ret::kNotFound)
      << "its GPU is not there";
}

}  // namespace
}  // namespace gpuslice::simnvml
