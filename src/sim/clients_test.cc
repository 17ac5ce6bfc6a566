// Who is attached, who is alive, and what a fork does to both.

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "sim/testing.h"
#include "sim/world.h"

namespace gpuslice::sim {
namespace {

uint32_t used_slots_of(const World& world) {
  const std::shared_ptr<const State> state = world.snapshot();
  uint32_t used = 0;
  for (const Client& client : state->clients) used += client.used;
  return used;
}

TEST(Clients, AttachIsOncePerWorldAndGoesWithTheProcess) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  const Result<uint16_t> slot = world->attach();
  ASSERT_TRUE(slot);
  EXPECT_EQ(*world->attach(), *slot);
  EXPECT_EQ(world->holder(*slot), getpid());

  const pid_t child = fork_child([&] {
    if (world->attached()) return 1;  // a child is not attached by its parent's lock
    if (world->holder(*slot) != getppid()) return 2;
    const Result<uint16_t> own = world->attach();
    if (!own || *own == *slot) return 3;
    if (world->holder(*own) != getpid()) return 4;
    raise(SIGKILL);
    return 5;
  });
  EXPECT_EQ(wait_child(child), 128 + SIGKILL);
  EXPECT_EQ(world->holder(*slot), getpid()) << "the child's death is not the parent's";
  const std::vector<LiveClient> live = world->live_clients(*world->snapshot());
  ASSERT_EQ(live.size(), 1U) << "readers do not see the dead";
  EXPECT_EQ(live[0].slot, *slot);
  EXPECT_EQ(used_slots_of(*world), 2U);
  ASSERT_TRUE(world->write([](State&) {}));
  EXPECT_EQ(used_slots_of(*world), 1U) << "the next writer sweeps them";
  world->detach();
  EXPECT_FALSE(world->attached());
  EXPECT_EQ(world->snapshot()->clients[*slot].used, 0);
}

TEST(Clients, TwoWorldsOfOneProcessHaveTwoSlotsAndNeitherDropsTheOther) {
  const TempFolder folder;
  const auto one = must(World::create(folder.path(), four_a100()));
  const Result<uint16_t> first = one->attach();
  uint16_t second_slot = kNoClient;
  {
    const auto two = must(World::open(folder.path()));
    const Result<uint16_t> second = two->attach();
    ASSERT_TRUE(first && second);
    EXPECT_NE(*first, *second);
    second_slot = *second;
  }
  EXPECT_EQ(one->snapshot()->clients[second_slot].used, 0) << "closing a world detaches";
  // A child asks: the byte of the first slot is still locked although a world was closed.
  EXPECT_EQ(wait_child(fork_child([&] { return one->holder(*first) == getppid() ? 0 : 1; })), 0);
}

TEST(Clients, ADeadOneTakesItsWorkAndHandlesAlong) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  const pid_t child = fork_child([&] {
    const Result<uint16_t> slot = world->attach();
    if (!slot) return 1;
    const Status done = world->write([&](State& state) {
      put_work(state, *slot, 1, kNone, kNone);
      (void)subscribe(state, *slot, 1, 0, kNone);
    });
    return done ? 0 : 2;
  });
  EXPECT_EQ(wait_child(child), 0);
  EXPECT_TRUE(working_on(*world->snapshot(), 1, kNone, kNone));
  const Result<Ret> ret = world->write([&](State& state) { return reset_gpu(state, 1, kRoot); });
  ASSERT_TRUE(ret);
  EXPECT_EQ(*ret, Ret::kSuccess) << "nobody is in the way of a write that sweeps first";
  EXPECT_EQ(world->snapshot()->subscriptions[0].used, 0);
}

TEST(Clients, WhatAnImageBeforeAnExecHeldIsSweptByTheNewOne) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  // As after exec: the same process, another image, and the lock has gone with the old one.
  ProcessId before = this_process();
  before.image ^= 1;
  ASSERT_TRUE(world->write(
      [&](State& state) { add_client(state, 5, {.process = before, .name = "before exec"}); }));
  const Result<uint16_t> slot = world->attach();
  ASSERT_TRUE(slot);
  EXPECT_EQ(*slot, 0);
  EXPECT_EQ(world->snapshot()->clients[5].used, 0);
  // Another copy of the library in this image: its lock cannot be seen from here, but it lives.
  ASSERT_TRUE(world->write(
      [&](State& state) { add_client(state, 6, {.process = this_process(), .name = "twin"}); }));
  ASSERT_TRUE(world->write([](State&) {}));
  EXPECT_EQ(world->snapshot()->clients[6].used, 1);
  EXPECT_EQ(world->holder(6), getpid());
}

TEST(Clients, AForkWhileOtherThreadsWriteLeavesTheChildFree) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    while (!stop.load()) bump(*world);
  });
  std::thread reader([&] {
    while (!stop.load()) (void)world->snapshot();
  });
  for (int round = 0; round < 20; ++round)
    EXPECT_EQ(wait_child(fork_child([&] {
                alarm(20);  // a deadlock is a failure, not a hang
                return bump(*world) > 0 && world->attach() ? 0 : 1;
              })),
              0);
  stop.store(true);
  writer.join();
  reader.join();
}

TEST(Clients, AllSlotsTakenIsSaid) {
  const auto world = must(World::in_memory(four_a100()));
  for (uint32_t i = 0; i < kMaxClients; ++i)
    ASSERT_TRUE(add_simulated_client(*world, static_cast<int32_t>(100 + i), "many"));
  EXPECT_EQ(world->attach().error().code, Code::kUnavailable);
  ASSERT_TRUE(kill_client(*world, 17));
  const Result<uint16_t> slot = world->attach();
  ASSERT_TRUE(slot);
  EXPECT_EQ(*slot, 17);
}

}  // namespace
}  // namespace gpuslice::sim
