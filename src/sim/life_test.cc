// What GPUs do over time, on a virtual clock: shares, hard cuts, memory, power, temperature,
// energy.

#include "sim/life.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "sim/clock.h"
#include "sim/show.h"
#include "sim/testing.h"

namespace gpuslice::sim {
namespace {

constexpr uint64_t kGib = uint64_t{1} << 30;
constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr int64_t kSecond = 1'000'000'000;
constexpr ProfileId k1g{19}, k3g{9};

Work work_on(uint8_t gpu, uint32_t permille, uint64_t memory = kGib, uint8_t gi = kNone,
             uint8_t ci = kNone, uint16_t client = 0) {
  Work work;
  work.gpu = gpu;
  work.gi = gi;
  work.ci = ci;
  work.client = client;
  work.activity_permille = permille;
  work.memory_bytes = memory;
  return work;
}

std::vector<uint32_t> shares(const State& state, uint32_t gpu, uint8_t gi = kNone,
                             uint8_t ci = kNone) {
  std::vector<uint32_t> out;
  for (const Grant& grant : grants(state, gpu, gi, ci)) out.push_back(grant.permille);
  return out;
}

TEST(Life, TimeSlicersShareWhatThereIs) {
  struct Case {
    std::vector<uint32_t> wanted, got;
    uint32_t busy;
  };
  const Case cases[] = {
      {{}, {}, 0},
      {{300}, {300}, 300},
      {{300, 600}, {300, 600}, 900},
      {{600, 600}, {500, 500}, 1000},
      {{1000, 1000}, {500, 500}, 1000},
      {{200, 1000}, {200, 800}, 1000},
      {{1000, 200}, {800, 200}, 1000},
      {{1000, 1000, 1000}, {333, 333, 334}, 1000},
      {{100, 1000, 400, 1000}, {100, 300, 300, 300}, 1000},
      {{0, 1000}, {0, 1000}, 1000},
  };
  for (const Case& c : cases) {
    const auto state = test_node("A100-SXM4-40GB", Sweep::kPlain, false);
    for (const uint32_t wanted : c.wanted)
      ASSERT_EQ(add_work(*state, work_on(0, wanted)), AddWork::kAdded);
    EXPECT_EQ(shares(*state, 0), c.got);
    EXPECT_EQ(activity_permille(*state, 0), c.busy);
  }
}

TEST(Life, GpusDoNotShareWithEachOther) {
  const auto state = test_node("A100-SXM4-40GB", Sweep::kPlain, false, 2);
  ASSERT_EQ(add_work(*state, work_on(0, 1000)), AddWork::kAdded);
  ASSERT_EQ(add_work(*state, work_on(1, 1000)), AddWork::kAdded);
  ASSERT_EQ(add_work(*state, work_on(1, 1000)), AddWork::kAdded);
  EXPECT_EQ(shares(*state, 0), (std::vector<uint32_t>{1000}));
  EXPECT_EQ(shares(*state, 1), (std::vector<uint32_t>{500, 500}));
}

struct MigNode {
  std::unique_ptr<State> state = test_node("A100-SXM4-40GB");
  uint8_t small = kNone, large = kNone;  // 1g.5gb, 3g.20gb
  MigNode() {
    uint8_t ci = kNone;
    EXPECT_EQ(create_gi(*state, 0, k1g, std::nullopt, kRoot, small), Ret::kSuccess);
    EXPECT_EQ(create_ci(*state, 0, small, 0, std::nullopt, kRoot, ci), Ret::kSuccess);
    EXPECT_EQ(create_gi(*state, 0, k3g, std::nullopt, kRoot, large), Ret::kSuccess);
    EXPECT_EQ(create_ci(*state, 0, large, 2, std::nullopt, kRoot, ci), Ret::kSuccess);
  }
};

TEST(Life, MigInstancesAreCutHard) {
  MigNode mig;
  State& state = *mig.state;
  ASSERT_EQ(add_work(state, work_on(0, 1000, kGib, mig.small, 0)), AddWork::kAdded);
  ASSERT_EQ(add_work(state, work_on(0, 1000, kGib, mig.small, 0)), AddWork::kAdded);
  ASSERT_EQ(add_work(state, work_on(0, 400, kGib, mig.large, 0)), AddWork::kAdded);
  EXPECT_EQ(shares(state, 0, mig.small, 0), (std::vector<uint32_t>{500, 500}));
  EXPECT_EQ(shares(state, 0, mig.large, 0), (std::vector<uint32_t>{400}));
  EXPECT_EQ(instance_activity_permille(state, 0, mig.small, 0), 1000U);
  EXPECT_EQ(instance_activity_permille(state, 0, mig.large, 0), 400U);
  // 14 of 108 multiprocessors in full and 42 at 400: (14 * 1000 + 42 * 400) / 108.
  EXPECT_EQ(activity_permille(state, 0), 285U);
  EXPECT_EQ(shares(state, 0), std::vector<uint32_t>{});  // nobody has the whole GPU
}

TEST(Life, MemoryOfAnInstanceIsItsOwn) {
  MigNode mig;
  State& state = *mig.state;
  const MemoryUse empty = gi_memory(state, 0, mig.small);
  EXPECT_EQ(empty.total, 4864 * kMib);
  EXPECT_EQ(empty.used, 13 * kMib);
  EXPECT_EQ(add_work(state, work_on(0, 100, empty.free() + 1, mig.small, 0)),
            AddWork::kOutOfMemory);
  EXPECT_EQ(add_work(state, work_on(0, 100, empty.free(), mig.small, 0)), AddWork::kAdded);
  EXPECT_EQ(gi_memory(state, 0, mig.small).free(), 0U);
  EXPECT_EQ(add_work(state, work_on(0, 100, 1, mig.small, 0)), AddWork::kOutOfMemory);
  // Its neighbour has what it had.
  EXPECT_EQ(gi_memory(state, 0, mig.large).used, 3 * 13 * kMib);
  EXPECT_EQ(add_work(state, work_on(0, 100, 10 * kGib, mig.large, 0)), AddWork::kAdded);
  EXPECT_EQ(gpu_memory(state, 0).used, (4864 + 39) * kMib + 10 * kGib);
}

TEST(Life, OutOfMemoryIsTheLastComersAlone) {
  const auto state = test_node("A100-SXM4-40GB", Sweep::kPlain, false);
  ASSERT_EQ(add_work(*state, work_on(0, 600, 30 * kGib)), AddWork::kAdded);
  const auto before = std::make_unique<State>(*state);
  EXPECT_EQ(add_work(*state, work_on(0, 600, 30 * kGib)), AddWork::kOutOfMemory);
  EXPECT_EQ(std::memcmp(before.get(), state.get(), sizeof(State)), 0);
  EXPECT_EQ(shares(*state, 0), (std::vector<uint32_t>{600}));
  EXPECT_EQ(add_work(*state, work_on(0, 600, 9 * kGib)), AddWork::kAdded);
  const MemoryUse use = gpu_memory(*state, 0);
  EXPECT_EQ(use.total, 40960 * kMib);
  EXPECT_EQ(use.reserved, 424 * kMib);
  EXPECT_EQ(use.used, 39 * kGib);
  EXPECT_EQ(use.free(), (40960 - 424 - 39 * 1024) * kMib);
}

TEST(Life, WorkNeedsADeviceAndAPlace) {
  MigNode mig;
  State& state = *mig.state;
  EXPECT_EQ(add_work(state, work_on(1, 1)), AddWork::kNoSuchDevice);
  EXPECT_EQ(add_work(state, work_on(0, 1)), AddWork::kNoSuchDevice);  // no whole GPU under MIG
  EXPECT_EQ(add_work(state, work_on(0, 1, 0, 14, 0)), AddWork::kNoSuchDevice);
  EXPECT_EQ(add_work(state, work_on(0, 1, 0, mig.small, 1)), AddWork::kNoSuchDevice);
  EXPECT_EQ(add_work(state, work_on(0, 1, 0, 200, 200)), AddWork::kNoSuchDevice);
  for (uint32_t i = 0; i < kMaxWorks; ++i)
    ASSERT_EQ(add_work(state, work_on(0, 1, 0, mig.small, 0, i % 2)), AddWork::kAdded);
  EXPECT_EQ(add_work(state, work_on(0, 1, 0, mig.small, 0)), AddWork::kTableFull);
  remove_works_of(state, 1);
  EXPECT_EQ(shares(state, 0, mig.small, 0).size(), kMaxWorks / 2);
  state.gpus[0].lost = 1;
  EXPECT_EQ(add_work(state, work_on(0, 1, 0, mig.small, 0)), AddWork::kNoSuchDevice);
  EXPECT_EQ(activity_permille(state, 0), 0U);
}

// A world of its own clock, with one GPU by its seed.
struct World1 {
  std::unique_ptr<World> world;
  explicit World1(uint64_t seed, const std::string& board = "A100-SXM4-40GB") {
    NodeOptions options;
    options.gpus = {{board, Sweep::kPlain}};
    options.seed = seed;
    world = must(World::in_memory(options));
  }
  void pass(int64_t ns) {
    EXPECT_TRUE(world->write([&](State& s) { advance(s, ns); }).has_value());
  }
  uint16_t load(uint32_t permille) {
    const auto slot = add_simulated_client(*world, 100, "load");
    EXPECT_TRUE(slot.has_value());
    const auto added = world->write(
        [&](State& s) { return add_work(s, work_on(0, permille, kGib, kNone, kNone, *slot)); });
    EXPECT_TRUE(added.has_value() && *added == AddWork::kAdded);
    return *slot;
  }
  [[nodiscard]] Vitals now() const {
    const auto state = world->snapshot();
    return vitals(*state, 0, now_ns(*state));
  }
};

TEST(Life, PowerFollowsWork) {
  World1 one(1);
  const Vitals idle = one.now();
  EXPECT_GE(idle.power_mw, 46'000U * 970 / 1000);
  EXPECT_LE(idle.power_mw, 46'000U * 1030 / 1000);
  EXPECT_EQ(idle.throttle_reasons, 1U);
  EXPECT_EQ(idle.graphics_mhz, 210U);
  EXPECT_EQ(idle.performance_state, 0U);
  const uint16_t first = one.load(500);
  EXPECT_EQ(one.now().power_mw, idle.power_mw + 169'920);
  EXPECT_EQ(one.now().throttle_reasons, 0U);
  EXPECT_EQ(one.now().graphics_mhz, 1410U);
  EXPECT_EQ(one.now().memory_utilisation, 20U);
  one.load(1000);
  EXPECT_EQ(one.now().power_mw, idle.power_mw + 339'840);
  // A lower limit caps power and clocks, and says so.
  ASSERT_TRUE(one.world->write([](State& s) { s.gpus[0].power_limit_mw = 200'000; }).has_value());
  EXPECT_EQ(one.now().power_mw, 200'000U);
  EXPECT_EQ(one.now().power_limit_mw, 200'000U);
  EXPECT_EQ(one.now().throttle_reasons, 4U);
  EXPECT_EQ(one.now().graphics_mhz, 765U);
  // A process that dies takes its part along.
  ASSERT_TRUE(kill_client(*one.world, first).has_value());
  one.pass(1);
  EXPECT_EQ(shares(*one.world->snapshot(), 0), (std::vector<uint32_t>{1000}));
}

TEST(Life, BoardsThatClockTheirMemoryDownIdleInP8) {
  World1 one(1, "L40S");
  EXPECT_EQ(one.now().performance_state, 8U);
  EXPECT_EQ(one.now().memory_mhz, 405U);
  one.load(100);
  EXPECT_EQ(one.now().performance_state, 0U);
  EXPECT_EQ(one.now().memory_mhz, 9001U);
}

TEST(Life, TemperatureTakesItsTime) {
  World1 one(3);
  one.pass(kSecond);
  const uint32_t cold = one.now().temperature_c;
  EXPECT_GE(cold, 30U);
  EXPECT_LE(cold, 37U);
  const uint16_t slot = one.load(1000);
  EXPECT_EQ(one.now().temperature_c, cold);  // not at once
  std::vector<uint32_t> each;
  for (int i = 0; i < 40; ++i) {
    one.pass(15 * kSecond);
    each.push_back(one.now().temperature_c);
  }
  EXPECT_TRUE(std::is_sorted(each.begin(), each.end()));
  const uint32_t hot = each.back();
  EXPECT_GE(hot, 65U);
  EXPECT_LE(hot, 68U);
  // 63 % of the way after 45 s, that is three steps.
  EXPECT_NEAR(each[2], cold + 0.632 * (hot - cold), 1.0);
  ASSERT_TRUE(kill_client(*one.world, slot).has_value());
  one.pass(3600 * kSecond);
  EXPECT_EQ(one.now().temperature_c, cold);
}

TEST(Life, TemperatureIsTheSameInOneStepOrMany) {
  World1 many(5), once(5);
  many.load(700);
  once.load(700);
  for (int i = 0; i < 60; ++i) many.pass(kSecond);
  once.pass(60 * kSecond);
  EXPECT_EQ(many.now().temperature_c, once.now().temperature_c);
  EXPECT_NEAR(static_cast<double>(many.now().energy_mj), static_cast<double>(once.now().energy_mj),
              1.0);
}

TEST(Life, EnergyIsPowerTimesTime) {
  World1 one(1);
  one.pass(kSecond);
  const uint64_t start = one.now().energy_mj;
  const uint64_t idle = one.now().power_mw;
  one.pass(100 * kSecond);
  EXPECT_NEAR(static_cast<double>(one.now().energy_mj - start), static_cast<double>(idle * 100),
              1.0);
  one.load(1000);
  const uint64_t middle = one.now().energy_mj;
  one.pass(10 * kSecond);
  EXPECT_NEAR(static_cast<double>(one.now().energy_mj - middle),
              static_cast<double>((idle + 339'840) * 10), 1.0);
}

// Samples waver by seed around what GetUtilizationRates says, and are just at it over each second.
TEST(Life, SamplesWaverAroundTheMean) {
  const auto samples = [](uint64_t seed, uint32_t permille) {
    World1 one(seed);
    if (permille != 0) one.load(permille);
    one.pass(100 * kSecond);
    const auto state = one.world->snapshot();
    std::vector<uint32_t> all;
    // Whole seconds of the samples' own counting, long after the start.
    const uint64_t newest = static_cast<uint64_t>(now_ns(*state) / 1000) / kSamplePeriodUs / 6 * 6;
    for (uint64_t sample = newest - 60; sample < newest; ++sample) {
      const SampleValues at = sampled(*state, 0, sample);
      EXPECT_LE(at.power_mw, vitals(*state, 0, now_ns(*state)).power_limit_mw);
      all.push_back(at.activity_permille);
    }
    for (size_t second = 0; second < all.size(); second += 6)
      EXPECT_EQ(std::accumulate(all.begin() + static_cast<ptrdiff_t>(second),
                                all.begin() + static_cast<ptrdiff_t>(second) + 6, 0U),
                6 * permille);
    return all;
  };
  const std::vector<uint32_t> one = samples(1, 600);
  EXPECT_EQ(one, samples(1, 600));
  EXPECT_NE(one, samples(2, 600));
  EXPECT_GT(std::set<uint32_t>(one.begin(), one.end()).size(), 10U);
  EXPECT_GE(*std::min_element(one.begin(), one.end()), 560U);
  EXPECT_LE(*std::max_element(one.begin(), one.end()), 640U);
  for (const uint32_t steady : {0U, 1000U})
    EXPECT_EQ(samples(1, steady), std::vector<uint32_t>(60, steady));
}

TEST(Life, SamplesRemember) {
  World1 one(1);
  one.pass(10 * kSecond);
  const uint16_t slot = one.load(1000);
  one.pass(10 * kSecond);
  ASSERT_TRUE(kill_client(*one.world, slot).has_value());
  one.pass(10 * kSecond);
  const auto state = one.world->snapshot();
  const auto at = [&](int64_t time) {
    return sampled(*state, 0, static_cast<uint64_t>(time / 1000) / kSamplePeriodUs)
        .activity_permille;
  };
  const int64_t now = now_ns(*state);
  EXPECT_EQ(at(now), 0U);
  EXPECT_EQ(at(now - 8 * kSecond), 0U);
  EXPECT_EQ(at(now - 12 * kSecond), 1000U);
  EXPECT_EQ(at(now - 18 * kSecond), 1000U);
  EXPECT_EQ(at(now - 22 * kSecond), 0U);
  // Longer than anybody asks for, changing all the time: what is known longest is what was before.
  for (uint32_t i = 0; i < 3 * kMaxStretches; ++i) {
    const uint16_t again = one.load(500);
    one.pass(kSecond);
    ASSERT_TRUE(kill_client(*one.world, again).has_value());
    one.pass(kSecond);
  }
  const auto later = one.world->snapshot();
  const uint32_t oldest = sampled(*later, 0, 0).activity_permille;
  EXPECT_TRUE(oldest == 0 || (oldest >= 450 && oldest <= 550)) << oldest;
}

// The same steps on the same seed: the same bytes; on another seed another board.
std::string story(uint64_t seed) {
  World1 one(seed);
  one.load(300);
  one.pass(20 * kSecond);
  const uint16_t slot = one.load(900);
  one.pass(7 * kSecond);
  EXPECT_TRUE(kill_client(*one.world, slot).has_value());
  one.pass(100 * kSecond);
  const auto state = one.world->snapshot();
  return std::string(reinterpret_cast<const char*>(state.get()), sizeof(State)) +
         show_json(*one.world);
}

TEST(Life, TheSameSeedIsTheSameLife) {
  EXPECT_EQ(story(7) == story(7), true);
  EXPECT_EQ(story(7) == story(8), false);
  std::vector<uint32_t> idle;
  for (uint64_t seed = 0; seed < 40; ++seed) idle.push_back(World1(seed).now().power_mw);
  std::sort(idle.begin(), idle.end());
  idle.erase(std::unique(idle.begin(), idle.end()), idle.end());
  EXPECT_GT(idle.size(), 10U);  // boards differ
  EXPECT_GE(idle.front(), 46'000U * 970 / 1000);
  EXPECT_LE(idle.back(), 46'000U * 1030 / 1000);
}

}  // namespace
}  // namespace gpuslice::sim
