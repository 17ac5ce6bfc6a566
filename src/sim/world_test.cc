// The shared world: files, snapshots, clients, forks, many processes. What killing a writer does is
// in world_kill_test.cc.

#include "sim/world.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "sim/clock.h"
#include "sim/show.h"
#include "sim/testing.h"

namespace gpuslice::sim {
namespace {

TEST(World, WhatOneWritesAnotherSees) {
  const TempFolder folder;
  const auto one = must(World::create(folder.path(), four_a100()));
  const auto other = must(World::open(folder.path()));
  const std::shared_ptr<const State> before = other->snapshot();
  EXPECT_EQ(before->node.gpu_count, 4U);
  EXPECT_EQ(before, other->snapshot()) << "the same object while nothing changes";
  Ret activation = Ret::kUnknown;
  const Result<Ret> ret =
      one->write([&](State& state) { return set_mig_mode(state, 2, true, kRoot, activation); });
  ASSERT_TRUE(ret);
  EXPECT_EQ(*ret, Ret::kSuccess);
  EXPECT_EQ(other->snapshot()->gpus[2].mig_current, 1);
  EXPECT_EQ(before->gpus[2].mig_current, 0) << "a snapshot never changes";
}

TEST(World, AWriteThatChangesNothingPublishesNothing) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  const uint64_t sequence = world->sequence();
  ASSERT_TRUE(world->write([](State&) {}));
  EXPECT_EQ(world->sequence(), sequence);
  EXPECT_EQ(bump(*world), 1U);
  EXPECT_EQ(world->sequence(), sequence + 1);
}

TEST(World, GpusHaveNamesOfTheirOwnThatFollowFromTheSeed) {
  const Result<State> one = make_state(four_a100(), 1);
  const Result<State> same = make_state(four_a100(), 1);
  NodeOptions options = four_a100();
  options.seed = 2;
  const Result<State> other = make_state(options, 1);
  ASSERT_TRUE(one && same && other);
  EXPECT_STREQ(one->gpus[0].uuid, same->gpus[0].uuid);
  EXPECT_STRNE(one->gpus[0].uuid, one->gpus[1].uuid);
  EXPECT_STRNE(one->gpus[0].uuid, other->gpus[0].uuid);
  EXPECT_EQ(std::string(one->gpus[0].uuid).size(), 40U);
  EXPECT_STREQ(one->node.driver, "580.65.06");
}

TEST(World, RefusesOptionsWithASentence) {
  NodeOptions none;
  EXPECT_EQ(make_state(none, 1).error().text(),
            "simulated node: 0 GPUs asked for: a node has 1 to 32");
  NodeOptions mirrored;
  mirrored.gpus = {{"A30-24GB", Sweep::kMirrored}};
  EXPECT_EQ(make_state(mirrored, 1).error().code, Code::kImpossible);
  NodeOptions nobody;
  nobody.gpus = {{"Voodoo 2", Sweep::kPlain}};
  EXPECT_EQ(make_state(nobody, 1).error().code, Code::kNotFound);
}

TEST(World, IsMadeOnceInAFolder) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  const auto again = World::create(folder.path(), four_a100());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().text(),
            "simulated node " + folder.path() +
                ": cannot be made: there is a node already; remove the folder "
                "or choose another");
}

TEST(World, MakesTheFoldersAboveItAndSaysWhenItCannot) {
  const TempFolder folder;
  (void)must(World::create(folder.path() + "/a b/c", four_a100()));
  EXPECT_TRUE(World::open(folder.path() + "/a b/c"));
  std::ofstream(folder.path() + "/file") << "x";
  const auto under_a_file = World::create(folder.path() + "/file/node", four_a100());
  ASSERT_FALSE(under_a_file);
  EXPECT_EQ(under_a_file.error().text(), "simulated node: folder " + folder.path() +
                                             "/file/node/world: cannot be made: Not a directory; "
                                             "choose another folder");
}

TEST(World, IsWritableByEverybody) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  for (const char* name : {"/world/state", "/world/clients"}) {
    struct stat file{};
    ASSERT_EQ(stat((folder.path() + name).c_str(), &file), 0);
    EXPECT_EQ(file.st_mode & 0777, 0666U) << name;
  }
}

TEST(World, ARemovedNodeIsSaidToBeRemoved) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  ASSERT_EQ(unlink((folder.path() + "/world/state").c_str()), 0);
  const Status status = world->write([](State&) {});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kNotFound);
  EXPECT_EQ(world->snapshot()->node.gpu_count, 4U) << "readers go on with what they have mapped";
  const auto anew = must(World::create(folder.path(), four_a100()));
  const Status still = world->write([](State&) {});
  ASSERT_FALSE(still) << "another node has the name now";
  EXPECT_EQ(
      still.error().text(),
      "simulated node: world file " + folder.path() +
          "/world/state: was removed since it was opened; open it again, or make the node anew");
  EXPECT_TRUE(anew->write([](State&) {}));
}

TEST(World, WaitingEndsWithAChangeByAnotherProcessOrInTime) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  const uint64_t seen = world->sequence();
  const int64_t start = boottime_ns();
  EXPECT_FALSE(world->wait(seen, 30'000'000));
  EXPECT_GE(boottime_ns() - start, 30'000'000);
  EXPECT_TRUE(world->wait(seen - 1, 60'000'000'000)) << "it has changed already";
  const pid_t child = fork_child([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return bump(*world) == 1 ? 0 : 1;
  });
  EXPECT_TRUE(world->wait(seen, 60'000'000'000));
  EXPECT_LT(boottime_ns() - start, 30'000'000'000);
  EXPECT_EQ(wait_child(child), 0);
  const auto memory = must(World::in_memory(four_a100()));
  const uint64_t before = memory->sequence();
  EXPECT_FALSE(memory->wait(before, 1'000'000));
  bump(*memory);
  EXPECT_TRUE(memory->wait(before, 1'000'000));
}

// --- many processes

TEST(ManyProcesses, TwoHundredReadAndWriteWithoutALostUpdate) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  constexpr int kProcesses = 200;
  constexpr uint64_t kWrites = 10;
  std::vector<pid_t> children;
  children.reserve(kProcesses);
  for (int i = 0; i < kProcesses; ++i)
    children.push_back(fork_child([&, i] {
      const auto own = World::open(folder.path());
      if (!own) return 1;
      const Result<uint16_t> slot = (*own)->attach();
      if (!slot) return 2;
      uint64_t last = 0;
      for (uint64_t n = 0; n < kWrites; ++n) {
        // Two counters that move together: a reader that sees them differ saw a torn world.
        if (i % 2 == 0 && !(*own)->write([](State& state) {
              ++state.gpus[0].calls.create_gi.ok;
              ++state.gpus[3].calls.create_gi.ok;
            }))
          return 3;
        const std::shared_ptr<const State> seen = (*own)->snapshot();
        const uint64_t count = seen->gpus[0].calls.create_gi.ok;
        if (count != seen->gpus[3].calls.create_gi.ok) return 4;
        if (count < last) return 5;
        last = count;
        if (!seen->clients[*slot].used || seen->clients[*slot].pid != getpid()) return 6;
      }
      return 0;
    }));
  for (const pid_t child : children) EXPECT_EQ(wait_child(child), 0);
  EXPECT_EQ(world->snapshot()->gpus[0].calls.create_gi.ok, kWrites * kProcesses / 2);
  ASSERT_TRUE(world->write([](State&) {}));
  EXPECT_TRUE(world->live_clients(*world->snapshot()).empty());
}

TEST(ManyThreads, ReadersSeeWholeWorldsWhileWritersWrite) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  std::atomic<bool> torn{false};
  std::vector<std::thread> threads;
  threads.reserve(6);
  for (int i = 0; i < 2; ++i)
    threads.emplace_back([&] {
      for (int n = 0; n < 100; ++n)
        if (!world->write([](State& state) {
              ++state.gpus[0].calls.create_gi.ok;
              ++state.gpus[3].calls.create_gi.ok;
            }))
          torn.store(true);
    });
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int n = 0; n < 2000; ++n) {
        const std::shared_ptr<const State> seen = world->snapshot();
        if (seen->gpus[0].calls.create_gi.ok != seen->gpus[3].calls.create_gi.ok) torn.store(true);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(torn.load());
  EXPECT_EQ(world->snapshot()->gpus[0].calls.create_gi.ok, 200U);
}

// --- time

TEST(Clock, VirtualTimeStandsUntilSomebodyAdvancesItForAll) {
  const TempFolder folder;
  NodeOptions options = four_a100();
  options.virtual_clock = true;
  const auto world = must(World::create(folder.path(), options));
  const auto other = must(World::open(folder.path()));
  EXPECT_EQ(now_ns(*world->snapshot()), kVirtualEpochNs);
  ASSERT_TRUE(world->write([](State& state) { advance(state, 5'000'000'000); }));
  EXPECT_EQ(now_ns(*other->snapshot()), kVirtualEpochNs + 5'000'000'000);
}

TEST(Clock, RealTimeRunsAdvancesAndNeverGoesBack) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  const int64_t start = now_ns(*world->snapshot());
  EXPECT_LT(std::abs(start - realtime_ns()), 2'000'000'000);
  ASSERT_TRUE(world->write([](State& state) { advance(state, 3'600'000'000'000); }));
  const int64_t later = now_ns(*world->snapshot());
  EXPECT_GE(later, start + 3'600'000'000'000);
  // The machine was booted again: CLOCK_BOOTTIME began anew.
  ASSERT_TRUE(world->write([](State& state) { state.node.clock.offset_ns = 0; }));
  EXPECT_GE(now_ns(*world->snapshot()), later);
}

// --- in memory, and the oracle

TEST(InMemory, ClientsLiveByWord) {
  const auto world = must(World::in_memory(four_a100()));
  const Result<uint16_t> slot = add_simulated_client(*world, 4711, "pod");
  ASSERT_TRUE(slot);
  EXPECT_EQ(world->holder(*slot), 4711);
  ASSERT_TRUE(world->write([&](State& state) { put_work(state, *slot, 0, kNone, kNone); }));
  ASSERT_TRUE(kill_client(*world, *slot));
  EXPECT_EQ(world->holder(*slot), std::nullopt);
  ASSERT_TRUE(world->write([](State&) {}));
  EXPECT_FALSE(working_on(*world->snapshot(), 0, kNone, kNone));
}

TEST(Show, IsTheSameForTheSameWorldAndNamesEverything) {
  const auto one = must(World::in_memory(four_a100()));
  const auto two = must(World::in_memory(four_a100()));
  EXPECT_EQ(show_json(*one), show_json(*two));
  const Result<uint16_t> slot = add_simulated_client(*one, 4711, "pod");
  ASSERT_TRUE(slot);
  ASSERT_TRUE(one->write([&](State& state) {
    Ret activation = Ret::kUnknown;
    remove_client(state, *slot);
    (void)set_mig_mode(state, 1, true, kRoot, activation);
    uint8_t gi = kNone, ci = kNone;
    (void)create_gi(state, 1, ProfileId{9}, std::nullopt, kRoot, gi);
    (void)create_ci(state, 1, gi, 0, std::nullopt, kRoot, ci);
    add_client(state, *slot, {.process = {4711, 9}, .name = "pod", .simulated = true});
    put_work(state, *slot, 1, gi, ci);
  }));
  const std::string json = show_json(*one, [](const State&, uint32_t index) { return index == 1; });
  for (const char* part :
       {R"("driver": "580.65.06")", R"("name": "NVIDIA A100-SXM4-40GB")", R"("visible": true)",
        R"("profile": "1c.3g.20gb")", R"("profileId": 9)", R"("pid": 4711)", R"("startTime": 9)",
        R"("memoryMiB": 1024)", R"("activity": 0.6)", R"("pending": 1)", R"("uuid": "MIG-)"})
    EXPECT_NE(json.find(part), std::string::npos) << part << " in " << json;
}

}  // namespace
}  // namespace gpuslice::sim
