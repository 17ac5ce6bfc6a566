// Event sets: what is delivered to whom, in which order, and how long a wait takes.

#include "sim/events.h"

#include <chrono>
#include <thread>

#include "simnvml/testing.h"

namespace gpuslice::simnvml {
namespace {

constexpr uint64_t kXid = sim::kEventXid;

struct EventsTest : LibraryTest {
  EventsTest() { begin(node_of({kA100, kH100})); }

  Handle set() {
    Handle handle = nullptr;
    EXPECT_EQ(CALL(nvmlEventSetCreate, &handle), Ret::kSuccess);
    return handle;
  }
  void push(const sim::NewEvent& event) {
    ASSERT_TRUE(world->write([&](sim::State& state) { sim::push_event(state, event); }));
  }
  // The XID that comes at once, or 0.
  uint64_t next_xid(Handle handle) {
    EventData data{};
    const Ret ret = CALL(nvmlEventSetWait_v2, handle, &data, 0);
    EXPECT_TRUE(ret == Ret::kSuccess || ret == Ret::kTimeout) << sim::ret_name(ret);
    return ret == Ret::kSuccess ? data.data : 0;
  }
};

TEST_F(EventsTest, XidsOfAnInstanceAndOfNone) {
  Handle events = set();
  ASSERT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(0), kXid, events), Ret::kSuccess);
  push({.type = kXid, .data = 31, .gpu = 0, .gi = 2, .ci = 1});
  push({.type = kXid, .data = 79, .gpu = 0});
  Guarded<EventData> data;
  ASSERT_EQ(CALL(nvmlEventSetWait_v2, events, &data.value, 0), Ret::kSuccess);
  EXPECT_TRUE(data.untouched_from(32));
  EXPECT_EQ(data.value.device, gpu(0));
  EXPECT_EQ(data.value.type, kXid);
  EXPECT_EQ(data.value.data, 31U);
  EXPECT_EQ(data.value.gi, 2U);
  EXPECT_EQ(data.value.ci, 1U);
  ASSERT_EQ(CALL(nvmlEventSetWait_v2, events, &data.value, 0), Ret::kSuccess);
  EXPECT_EQ(data.value.data, 79U);
  EXPECT_EQ(data.value.gi, 0xffffffffU) << "not attributable to an instance";
  EXPECT_EQ(data.value.ci, 0xffffffffU);
  EXPECT_EQ(CALL(nvmlEventSetWait_v2, events, &data.value, 0), Ret::kTimeout);
}

TEST_F(EventsTest, TheFirstWaitKnowsNoInstances) {
  Handle events = set();
  ASSERT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(0), kXid, events), Ret::kSuccess);
  push({.type = kXid, .data = 31, .gpu = 0, .gi = 2, .ci = 1});
  Guarded<EventData> data;
  ASSERT_EQ(CALL(nvmlEventSetWait, events, &data.value, 0), Ret::kSuccess);
  EXPECT_EQ(data.value.data, 31U);
  EXPECT_TRUE(data.untouched_from(24));
}

TEST_F(EventsTest, OnlyWhatIsRegisteredAndOnlyFromThen) {
  Handle events = set();
  push({.type = kXid, .data = 1, .gpu = 0});
  ASSERT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(0), kXid, events), Ret::kSuccess);
  push({.type = kXid, .data = 2, .gpu = 1});                     // another GPU
  push({.type = sim::kEventDoubleBitEcc, .data = 3, .gpu = 0});  // another type
  push({.type = kXid, .data = 4, .gpu = 0});
  ASSERT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(1), kXid, events), Ret::kSuccess);
  ASSERT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(0), sim::kEventDoubleBitEcc, events), Ret::kSuccess);
  push({.type = kXid, .data = 5, .gpu = 1});
  push({.type = sim::kEventDoubleBitEcc, .data = 6, .gpu = 0});
  // Registering again takes nothing away.
  ASSERT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(1), kXid, events), Ret::kSuccess);
  EXPECT_EQ(next_xid(events), 4U);
  EXPECT_EQ(next_xid(events), 5U);
  EXPECT_EQ(next_xid(events), 6U);
  EXPECT_EQ(next_xid(events), 0U);
}

TEST_F(EventsTest, TwoSetsEachGetEveryEvent) {
  Handle one = set(), other = set();
  EXPECT_NE(one, other);
  for (Handle events : {one, other})
    ASSERT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(0), kXid, events), Ret::kSuccess);
  push({.type = kXid, .data = 13, .gpu = 0});
  EXPECT_EQ(next_xid(one), 13U);
  EXPECT_EQ(next_xid(other), 13U);
  ASSERT_EQ(CALL(nvmlEventSetFree, one), Ret::kSuccess);
  push({.type = kXid, .data = 14, .gpu = 0});
  EXPECT_EQ(next_xid(other), 14U);
}

TEST_F(EventsTest, MigChangesAreTold) {
  Handle events = set();
  ASSERT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(0), sim::kEventMigConfig, events), Ret::kSuccess);
  mig_on(gpu(0));
  EventData data{};
  ASSERT_EQ(CALL(nvmlEventSetWait_v2, events, &data, 0), Ret::kSuccess);
  EXPECT_EQ(data.type, sim::kEventMigConfig);
  EXPECT_EQ(data.gi, 0xffffffffU);
}

TEST_F(EventsTest, WhatIsNotSupportedRegistersNothing) {
  Handle events = set();
  unsigned long long supported = 0;
  ASSERT_EQ(CALL(nvmlDeviceGetSupportedEventTypes, gpu(0), &supported), Ret::kSuccess);
  EXPECT_EQ(supported, 0x11fU);
  EXPECT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(0), kXid | 0x80, events), Ret::kNotSupported);
  push({.type = kXid, .data = 13, .gpu = 0});
  EXPECT_EQ(next_xid(events), 0U);
  EXPECT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(0), kXid, gpu(0)), Ret::kInvalidArgument);
  mig_on(gpu(1));
  const Made made = make_instance(gpu(1), 9, 2);
  EXPECT_EQ(CALL(nvmlDeviceRegisterEvents, made.device, kXid, events), Ret::kNotSupported)
      << "the parent registers";
}

TEST_F(EventsTest, AFreedSetIsGoneForEver) {
  Handle freed = set();
  ASSERT_EQ(CALL(nvmlEventSetFree, freed), Ret::kSuccess);
  for (int i = 0; i < 100; ++i) {
    Handle fresh = set();
    EXPECT_NE(fresh, freed);
    EventData data{};
    EXPECT_EQ(CALL(nvmlEventSetWait_v2, freed, &data, 0), Ret::kInvalidArgument);
    EXPECT_EQ(CALL(nvmlEventSetFree, freed), Ret::kInvalidArgument);
    EXPECT_EQ(CALL(nvmlEventSetFree, fresh), Ret::kSuccess);
  }
  EXPECT_EQ(CALL(nvmlEventSetWait_v2, nullptr, nullptr, 0), Ret::kInvalidArgument);
}

TEST_F(EventsTest, TheNumberOfSetsIsBounded) {
  std::vector<Handle> all;
  Handle handle = nullptr;
  while (all.size() < 5000 && CALL(nvmlEventSetCreate, &handle) == Ret::kSuccess)
    all.push_back(handle);
  EXPECT_EQ(all.size(), 1024U);
  EXPECT_EQ(CALL(nvmlEventSetCreate, &handle), Ret::kMemory);
  for (Handle one : all) EXPECT_EQ(CALL(nvmlEventSetFree, one), Ret::kSuccess);
}

TEST_F(EventsTest, AnOverflowLosesTheOldest) {
  Handle events = set();
  ASSERT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(0), kXid, events), Ret::kSuccess);
  ASSERT_TRUE(world->write([](sim::State& state) {
    for (uint64_t i = 1; i <= sim::kEventRing + 10; ++i)
      sim::push_event(state, {.type = kXid, .data = i, .gpu = 0});
  }));
  for (uint64_t i = 11; i <= sim::kEventRing + 10; ++i) ASSERT_EQ(next_xid(events), i);
  EXPECT_EQ(next_xid(events), 0U);
}

struct Stopwatch {
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  [[nodiscard]] int64_t ms() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                                 start)
        .count();
  }
};

TEST_F(EventsTest, AWaitLastsAsLongAsItIsTold) {
  Handle events = set();
  ASSERT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(0), kXid, events), Ret::kSuccess);
  EventData data{};
  const Stopwatch stopwatch;
  EXPECT_EQ(CALL(nvmlEventSetWait_v2, events, &data, 300), Ret::kTimeout);
  EXPECT_GE(stopwatch.ms(), 299);
  EXPECT_LT(stopwatch.ms(), 3000);
}

TEST_F(EventsTest, AnEventEndsAWait) {
  Handle events = set();
  ASSERT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(0), kXid, events), Ret::kSuccess);
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    push({.type = kXid, .data = 48, .gpu = 0});
  });
  EventData data{};
  const Stopwatch stopwatch;
  EXPECT_EQ(CALL(nvmlEventSetWait_v2, events, &data, 20'000), Ret::kSuccess);
  EXPECT_LT(stopwatch.ms(), 10'000);
  EXPECT_EQ(data.data, 48U);
  other.join();
}

TEST_F(EventsTest, FreeingASetEndsItsWait) {
  Handle events = set();
  ASSERT_EQ(CALL(nvmlDeviceRegisterEvents, gpu(0), kXid, events), Ret::kSuccess);
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(CALL(nvmlEventSetFree, events), Ret::kSuccess);
  });
  EventData data{};
  EXPECT_EQ(CALL(nvmlEventSetWait_v2, events, &data, 20'000), Ret::kInvalidArgument);
  other.join();
}

}  // namespace
}  // namespace gpuslice::simnvml
