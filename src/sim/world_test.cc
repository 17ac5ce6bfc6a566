// The shared world: files, snapshots, clients, forks, many processes. What killing a writer does is
// in world_kill_test.cc.

#include "sim/world.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "sim/clock.h"
#include "sim/show.h"
#include "sim/testing.h"
#include "sim/world_file.h"

namespace gpuslice::sim {
namespace {

NodeOptions four_a100() {
  NodeOptions options;
  for (int i = 0; i < 4; ++i) options.gpus.push_back({"A100-SXM4-40GB", Sweep::kPlain});
  return options;
}

std::unique_ptr<World> must(Result<std::unique_ptr<World>> world) {
  if (!world) {
    ADD_FAILURE() << world.error().text();
    std::abort();
  }
  return std::move(*world);
}

// Counts in a field that nothing else touches.
uint64_t bump(World& world) {
  const Result<uint64_t> now =
      world.write([](State& state) { return ++state.gpus[0].calls.create_gi.ok; });
  return now ? *now : 0;
}

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

// --- files that are not whole
// ---------------------------------------------------------------------

struct Damage {
  const char* what;
  size_t offset;
  std::string bytes;
  const char* cause;
};

TEST(WorldFile, RefusesWhatIsNotWholeAndSaysWhy) {
  const std::string again = "; remove the node's folder and make it anew with gpuslice-sim create";
  const std::vector<Damage> damages = {
      {"magic", 0, "G", "it does not begin as a world file does"},
      {"format", 16, "\x09", "it is of format 9 where this version reads 1"},
      {"byte order", 20, std::string("\x01\x02\x03\x04", 4),
       "it was written by a machine of the other byte order"},
      {"sequence", 40, "\x07", "its checksum is wrong: something else has written to it"},
      {"checksum", 48, "\x01\x02\x03", "its checksum is wrong: something else has written to it"},
      {"state", 4096 + 5000, "\x55", "its checksum is wrong: something else has written to it"},
  };
  for (const Damage& damage : damages) {
    SCOPED_TRACE(damage.what);
    const TempFolder folder;
    (void)must(World::create(folder.path(), four_a100()));
    const std::string path = folder.path() + "/world/state";
    {
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(static_cast<std::streamoff>(damage.offset));
      file.write(damage.bytes.data(), static_cast<std::streamsize>(damage.bytes.size()));
    }
    const auto world = World::open(folder.path());
    ASSERT_FALSE(world);
    EXPECT_EQ(world.error().code, Code::kCorrupt);
    EXPECT_EQ(world.error().text(),
              "simulated node: world file " + path + ": refused: " + damage.cause + again);
  }
}

TEST(WorldFile, RefusesOtherLengthsAndOtherThings) {
  const TempFolder folder;
  const auto missing = World::open(folder.path() + "/none");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Code::kNotFound);
  EXPECT_EQ(
      missing.error().text(),
      "simulated node: no world file " + folder.path() +
          "/none/world/state; make a node with gpuslice-sim create, or name the right folder");
  (void)must(World::create(folder.path(), four_a100()));
  const std::string path = folder.path() + "/world/state";
  ASSERT_EQ(truncate(path.c_str(), 5000), 0);
  const auto cut = World::open(folder.path());
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, Code::kCorrupt);
  EXPECT_NE(cut.error().text().find("it has 5000 bytes where"), std::string::npos);
  ASSERT_EQ(unlink(path.c_str()), 0);
  ASSERT_EQ(mkdir(path.c_str(), 0755), 0);
  const auto directory = World::open(folder.path());
  ASSERT_FALSE(directory);
}

TEST(WorldFile, DamageUnderARunningWorldIsToldByTheNextWrite) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  bump(*world);
  const std::shared_ptr<const State> good = world->snapshot();
  const auto other = must(World::open(folder.path()));
  const int fd = open((folder.path() + "/world/state").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  const std::string junk(64, 'x');
  for (const size_t copy : {size_t{0}, size_t{1}})
    ASSERT_EQ(pwrite(fd, junk.data(), junk.size(),
                     static_cast<off_t>(kWorldPage + copy * kCopyBytes + 4096)),
              64);
  close(fd);
  const Status status = world->write([](State&) {});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kCorrupt);
  EXPECT_EQ(world->snapshot(), good);
  EXPECT_EQ(other->snapshot()->node.gpu_count, 0U) << "it had read nothing yet";
}

// --- clients
// --------------------------------------------------------------------------------------

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
  uint32_t used = 0;
  for (const Client& client : world->snapshot()->clients) used += client.used;
  EXPECT_EQ(used, 2U);
  ASSERT_TRUE(world->write([](State&) {}));
  used = 0;
  for (const Client& client : world->snapshot()->clients) used += client.used;
  EXPECT_EQ(used, 1U) << "the next writer sweeps them";
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

// --- many processes
// -------------------------------------------------------------------------------

TEST(ManyProcesses, TwoHundredReadAndWriteWithoutALostUpdate) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  constexpr int kProcesses = 200;
  constexpr uint64_t kWrites = 10;
  std::vector<pid_t> children;
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
  for (int i = 0; i < 2; ++i)
    threads.emplace_back([&] {
      for (int n = 0; n < 100; ++n)
        (void)world->write([](State& state) {
          ++state.gpus[0].calls.create_gi.ok;
          ++state.gpus[3].calls.create_gi.ok;
        });
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
// -----------------------------------------------------------------------------------------

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
// --------------------------------------------------------------------

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
