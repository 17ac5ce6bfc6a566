// The nearest set of GPUs, against every set there is.

#include "agent/closeness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <numeric>
#include <vector>

#include "base/random.h"

namespace gpuslice::agent {
namespace {

std::vector<ClosenessGpu> gpus(size_t count) {
  std::vector<ClosenessGpu> out;
  for (uint32_t i = 0; i < count; ++i) out.push_back({GpuIndex{i}, i < count / 2 ? 0 : 1});
  return out;
}

std::vector<size_t> first(size_t count) {
  std::vector<size_t> out(count);
  std::iota(out.begin(), out.end(), size_t{0});
  return out;
}

void link(ports::Topology& topology, uint32_t a, uint32_t b, std::optional<uint32_t> ancestor,
          uint32_t nvlinks) {
  topology.links.push_back({GpuIndex{a}, GpuIndex{b}, ancestor, nvlinks});
  topology.links.push_back({GpuIndex{b}, GpuIndex{a}, ancestor, nvlinks});
}

// A DGX-1V: two quads of one or two NVLinks, a link from each to its twin.
ports::Topology hybrid_cube() {
  ports::Topology out;
  constexpr uint32_t kLinks[8][8] = {{0, 1, 1, 2, 2, 0, 0, 0}, {1, 0, 2, 1, 0, 2, 0, 0},
                                     {1, 2, 0, 2, 0, 0, 1, 0}, {2, 1, 2, 0, 0, 0, 0, 1},
                                     {2, 0, 0, 0, 0, 1, 1, 2}, {0, 2, 0, 0, 1, 0, 2, 1},
                                     {0, 0, 1, 0, 1, 2, 0, 2}, {0, 0, 0, 1, 2, 1, 2, 0}};
  for (uint32_t a = 0; a < 8; ++a)
    for (uint32_t b = a + 1; b < 8; ++b)
      link(out, a, b, a / 2 == b / 2 ? 10U : a / 4 == b / 4 ? 40U : 50U, kLinks[a][b]);
  return out;
}

TEST(Closeness, ScoresAPair) {
  ports::Topology t;
  link(t, 0, 1, 0, 0);   // one board
  link(t, 0, 2, 10, 0);  // one switch
  link(t, 0, 3, 20, 0);
  link(t, 0, 4, 30, 2);  // a host bridge and two NVLinks
  link(t, 0, 5, 40, 0);
  link(t, 0, 6, 50, 0);
  const Closeness c(gpus(8), t);
  const std::vector<uint32_t> expected = {60, 50, 40, 230, 20, 10, 10};
  for (size_t b = 1; b < 8; ++b) {
    EXPECT_EQ(c.score(0, b), expected[b - 1]) << b;
    EXPECT_EQ(c.score(b, 0), expected[b - 1]) << b;
  }
  EXPECT_EQ(c.score(2, 3), 20U) << "not told: the NUMA nodes are one";
}

TEST(Closeness, OfTwoAnswersTheLesserCounts) {
  ports::Topology t;
  t.links.push_back({GpuIndex{0}, GpuIndex{1}, 10, 4});
  t.links.push_back({GpuIndex{1}, GpuIndex{0}, 40, 1});
  t.links.push_back({GpuIndex{0}, GpuIndex{2}, 10, 4});  // the other end says nothing
  const Closeness c(gpus(3), t);
  EXPECT_EQ(c.score(0, 1), 120U);
  EXPECT_EQ(c.score(0, 2), 50U);
}

TEST(Closeness, AnNvswitchJoinsAllThatHaveLinksIntoIt) {
  ports::Topology t;
  t.switch_links = {{GpuIndex{0}, 12}, {GpuIndex{1}, 12}, {GpuIndex{2}, 10}};
  std::vector<ClosenessGpu> four = gpus(4);
  for (ClosenessGpu& gpu : four) gpu.numa_node = -1;
  const Closeness c(four, t);
  EXPECT_EQ(c.score(0, 1), 1200U);
  EXPECT_EQ(c.score(0, 2), 1000U);
  EXPECT_EQ(c.score(0, 3), 0U);
}

TEST(NearestSet, OfAHybridCube) {
  const Closeness c(gpus(8), hybrid_cube());
  const std::vector<size_t> all = first(8);
  // The best quads are the two halves; the lower one of equals.
  EXPECT_EQ(nearest_set(c, all, {}, 4), (std::vector<size_t>{0, 1, 2, 3}));
  // GPU 3 is taken by the two NVLinks of a pair: 2-3 shares a switch as well.
  EXPECT_EQ(nearest_set(c, all, {}, 2), (std::vector<size_t>{2, 3}));
  EXPECT_EQ(nearest_set(c, all, std::vector<size_t>{4}, 2), (std::vector<size_t>{4, 7}));
  EXPECT_EQ(nearest_set(c, all, {}, 8), all);
  EXPECT_TRUE(nearest_set(c, all, {}, 0).empty());
}

TEST(NearestSet, WithoutATopologyTheNumaNodesAndThenTheLowest) {
  const Closeness c(gpus(8), {});
  EXPECT_EQ(nearest_set(c, std::vector<size_t>{1, 2, 5, 6, 7}, {}, 3),
            (std::vector<size_t>{5, 6, 7}));
  std::vector<ClosenessGpu> bare = gpus(8);
  for (ClosenessGpu& gpu : bare) gpu.numa_node = -1;
  EXPECT_EQ(nearest_set(Closeness(bare, {}), std::vector<size_t>{1, 2, 5}, {}, 2),
            (std::vector<size_t>{1, 2}));
}

// One alone leaves the rest together: GPU 2 is the odd one.
TEST(NearestSet, TakesWhatTheOthersMissLeast) {
  ports::Topology t;
  link(t, 0, 1, 10, 4);
  link(t, 0, 2, 50, 0);
  link(t, 1, 2, 50, 0);
  EXPECT_EQ(nearest_set(Closeness(gpus(3), t), first(3), {}, 1), std::vector<size_t>{2});
}

struct Random16 {
  Closeness closeness;
  std::vector<size_t> available, must;
  size_t count = 0;
};

Random16 random_case(Random& random, size_t most) {
  const size_t size = 2 + random.below(most - 1);
  ports::Topology t;
  for (uint32_t a = 0; a < size; ++a)
    for (uint32_t b = 0; b < size; ++b)
      if (a != b && random.chance(9, 10))
        t.links.push_back({GpuIndex{a}, GpuIndex{b}, static_cast<uint32_t>(random.below(6) * 10),
                           static_cast<uint32_t>(random.chance(1, 2) ? random.below(3) : 0)});
  Random16 out;
  out.closeness = Closeness(gpus(size), t);
  for (size_t i = 0; i < size; ++i)
    if (random.chance(4, 5)) out.available.push_back(i);
  if (out.available.empty()) out.available.push_back(0);
  out.count = random.below(out.available.size() + 1);
  for (const size_t i : out.available)
    if (out.must.size() < out.count && random.chance(1, 6)) out.must.push_back(i);
  return out;
}

// Every set, compared by the contract's three rules.
std::vector<size_t> by_brute_force(const Random16& c) {
  struct Best {
    uint64_t inside = 0, rest = 0;
    std::vector<size_t> set;
  };
  std::optional<Best> best;
  const size_t n = c.available.size();
  for (uint32_t mask = 0; mask < 1U << n; ++mask) {
    if (static_cast<size_t>(std::popcount(mask)) != c.count) continue;
    Best one;
    std::vector<size_t> others;
    for (size_t i = 0; i < n; ++i) (mask >> i & 1 ? one.set : others).push_back(c.available[i]);
    if (!std::includes(one.set.begin(), one.set.end(), c.must.begin(), c.must.end())) continue;
    const auto sum = [&](const std::vector<size_t>& set) {
      uint64_t total = 0;
      for (const size_t a : set)
        for (const size_t b : set)
          if (a < b) total += c.closeness.score(a, b);
      return total;
    };
    one.inside = sum(one.set);
    one.rest = sum(others);
    const bool better =
        !best || one.inside > best->inside ||
        (one.inside == best->inside &&
         (one.rest > best->rest || (one.rest == best->rest && one.set < best->set)));
    if (better) best = one;
  }
  return best->set;
}

TEST(NearestSet, IsTheBestOfAllSets) {
  Random random(20261126);
  for (int i = 0; i < 3000; ++i) {
    const Random16 c = random_case(random, 10);
    EXPECT_EQ(nearest_set(c.closeness, c.available, c.must, c.count), by_brute_force(c)) << i;
  }
}

TEST(NearestSet, BeyondSixteenItIsAValidSetAndAGoodOne) {
  ports::Topology t;
  for (uint32_t a = 0; a < 24; ++a)
    for (uint32_t b = a + 1; b < 24; ++b) link(t, a, b, 40, a / 4 == b / 4 ? 4 : 0);
  const Closeness c(gpus(24), t);
  EXPECT_EQ(nearest_set(c, first(24), {}, 4), (std::vector<size_t>{0, 1, 2, 3}));
  EXPECT_EQ(nearest_set(c, first(24), std::vector<size_t>{9}, 4),
            (std::vector<size_t>{8, 9, 10, 11}));
  for (size_t count = 0; count <= 24; ++count) {
    const std::vector<size_t> set = nearest_set(c, first(24), {}, count);
    EXPECT_EQ(set.size(), count);
    EXPECT_TRUE(std::is_sorted(set.begin(), set.end()));
    EXPECT_EQ(std::adjacent_find(set.begin(), set.end()), set.end());
  }
}

}  // namespace
}  // namespace gpuslice::agent
