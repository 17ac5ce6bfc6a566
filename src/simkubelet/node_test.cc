// The stand-in's bookkeeping against the kubelet's rules, on a clock that the test sets.

#include "simkubelet/node.h"

#include <gtest/gtest.h>

namespace gpuslice::simkubelet {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

const RegisterCall kGpu{"v1beta1", "nvidia-gpu.sock", "nvidia.com/gpu", true};

struct NodeTest : ::testing::Test {
  MonotonicTime now{};
  Node node{kEndpointGrace, [this] { return now; }};

  uint64_t join(const RegisterCall& call = kGpu) {
    const auto life = node.registered(call);
    EXPECT_TRUE(life.has_value());
    return life.value_or(0);
  }
  // "capacity/allocatable", "-" where the resource is gone.
  std::string shown(const std::string& resource = "nvidia.com/gpu") {
    const Quantities q = node.quantities();
    EXPECT_EQ(q.capacity.contains(resource), q.allocatable.contains(resource));
    if (!q.capacity.contains(resource)) return "-";
    return std::to_string(q.capacity.at(resource)) + "/" +
           std::to_string(q.allocatable.at(resource));
  }
  void hold(const std::string& name, const std::vector<std::string>& ids,
            const std::string& phase = "Running") {
    Pod pod;
    pod.name = name;
    pod.phase = phase;
    pod.device_ids["nvidia.com/gpu"] = ids;
    EXPECT_TRUE(node.add_pod(pod).has_value());
  }
  std::vector<std::string> free(uint32_t count = 0) {
    const auto choice = node.choice("nvidia.com/gpu", count);
    return choice ? choice->free : std::vector<std::string>{choice.error().message};
  }
};

using Words = std::vector<std::string>;

TEST_F(NodeTest, AResourceCountsFromItsFirstList) {
  EXPECT_EQ(shown(), "-");
  const uint64_t life = join();
  EXPECT_EQ(shown(), "0/0");
  EXPECT_TRUE(node.devices(kGpu.resource, life, {{"a", true}, {"b", true}}));
  EXPECT_EQ(shown(), "2/2");
  EXPECT_TRUE(node.devices(kGpu.resource, life, {{"a", true}}));
  EXPECT_EQ(shown(), "1/1");
  EXPECT_TRUE(node.devices(kGpu.resource, life, {}));
  EXPECT_EQ(shown(), "0/0");
}

TEST_F(NodeTest, AnUnhealthyDeviceLeavesAllocatableOnly) {
  const uint64_t life = join();
  node.devices(kGpu.resource, life, {{"a", true}, {"b", false}, {"c", true}});
  EXPECT_EQ(shown(), "3/2");
  EXPECT_EQ(free(), (Words{"a", "c"}));
  EXPECT_EQ(node.healthy().at(kGpu.resource), (std::vector<DeviceSeen>{{"a"}, {"c"}}));
  node.devices(kGpu.resource, life, {{"a", true}, {"b", true}, {"c", true}});
  EXPECT_EQ(shown(), "3/3");
}

TEST_F(NodeTest, AStreamThatEndedKeepsItsCapacityForFiveMinutes) {
  const uint64_t life = join();
  node.devices(kGpu.resource, life, {{"a", true}, {"b", false}});
  now += seconds(100);
  node.stream_ended(kGpu.resource, life);
  EXPECT_EQ(shown(), "2/0");
  EXPECT_EQ(free(), Words{});
  EXPECT_TRUE(node.healthy().empty());
  now += minutes(4) + seconds(59);
  EXPECT_EQ(shown(), "2/0");
  now += seconds(1);  // the kubelet asks for more than five minutes
  EXPECT_EQ(shown(), "2/0");
  now += milliseconds(1);
  EXPECT_EQ(shown(), "-");
  EXPECT_EQ(free(), (Words{"this node has no resource nvidia.com/gpu"}));
}

TEST_F(NodeTest, RegisteringAgainEndsTheGrace) {
  const uint64_t old = join();
  node.devices(kGpu.resource, old, {{"a", true}});
  node.stream_ended(kGpu.resource, old);
  now += minutes(4) + seconds(59);
  const uint64_t life = join();
  EXPECT_EQ(shown(), "1/0");
  now += minutes(2);  // beyond the old stream's grace; its own stream has not said anything yet
  EXPECT_EQ(shown(), "1/0");
  EXPECT_TRUE(node.devices(kGpu.resource, life, {{"a", true}, {"b", true}}));
  EXPECT_EQ(shown(), "2/2");
}

TEST_F(NodeTest, RegisteringAgainReplaces) {
  const uint64_t old = join();
  node.devices(kGpu.resource, old, {{"a", true}});
  RegisterCall again = kGpu;
  again.endpoint = "other.sock";
  again.preferred_available = false;
  const uint64_t life = join(again);
  EXPECT_NE(life, old);
  EXPECT_FALSE(node.devices(kGpu.resource, old, {{"x", true}}));  // the old stream is told to end
  EXPECT_TRUE(node.devices(kGpu.resource, life, {{"b", true}}));
  node.stream_ended(kGpu.resource, old);  // and its end is nothing to the new one
  EXPECT_EQ(shown(), "1/1");
  const auto choice = node.choice(kGpu.resource, 1);
  ASSERT_TRUE(choice.has_value());
  EXPECT_EQ(choice->free, Words{"b"});
  EXPECT_EQ(choice->endpoint, "other.sock");
  EXPECT_EQ(choice->life, life);
  EXPECT_FALSE(choice->preferred_available);
}

TEST_F(NodeTest, ARestartKeepsNamesAndPodsAlone) {
  const uint64_t life = join();
  node.devices(kGpu.resource, life, {{"a", true}, {"b", true}});
  hold("p", {"a"});
  node.restart();
  EXPECT_EQ(shown(), "0/0");
  EXPECT_FALSE(node.devices(kGpu.resource, life, {{"a", true}}));
  node.stream_ended(kGpu.resource, life);
  EXPECT_EQ(node.pods().size(), 1U);
  now += minutes(4) + seconds(59);
  EXPECT_EQ(shown(), "0/0");
  const uint64_t next = join();
  node.devices(kGpu.resource, next, {{"a", true}, {"b", true}});
  EXPECT_EQ(shown(), "2/2");
  EXPECT_EQ(free(), Words{"b"});  // the pod has its device still
  node.restart();
  now += minutes(5) + seconds(1);
  EXPECT_EQ(shown(), "-");
}

TEST_F(NodeTest, WhatAPodHoldsIsNotFreeUntilItEnds) {
  const uint64_t life = join();
  node.devices(kGpu.resource, life, {{"a", true}, {"b", true}, {"c", true}});
  hold("one", {"b"});
  EXPECT_EQ(free(), (Words{"a", "c"}));
  EXPECT_EQ(node.healthy().at(kGpu.resource), (std::vector<DeviceSeen>{{"a"}, {"b"}, {"c"}}));
  EXPECT_EQ(shown(), "3/3");  // allocatable is before what is requested
  EXPECT_EQ(free(3), (Words{"0/1 nodes are available: 1 Insufficient nvidia.com/gpu (3 asked for, "
                            "2 free)"}));
  for (const char* phase : {"Failed", "Succeeded"}) {
    node.update_pod("one", [&](Pod& pod) { pod.phase = phase; });
    EXPECT_EQ(free(3).size(), 3U) << phase;
  }
  node.update_pod("one", [](Pod& pod) { pod.phase = "Pending"; });
  EXPECT_EQ(free(), (Words{"a", "c"}));
  EXPECT_TRUE(node.remove_pod("one"));
  EXPECT_FALSE(node.remove_pod("one"));
  EXPECT_EQ(free(), (Words{"a", "b", "c"}));
}

TEST_F(NodeTest, AnUnknownResourceIsAnsweredWithTheNearest) {
  join();
  EXPECT_EQ(node.choice("nvidia.com/gpus", 1).error().text(),
            "this node has no resource nvidia.com/gpus; did you mean nvidia.com/gpu?");
}

TEST_F(NodeTest, PodsByNameAndBounded) {
  hold("p", {});
  Pod same;
  same.name = "p";
  EXPECT_EQ(node.add_pod(same).error().message,
            "pod p exists already; remove it with: gpuslice-sim pod rm p");
  for (size_t i = 1; i < kMaxPods; ++i) hold("p" + std::to_string(i), {});
  Pod more;
  more.name = "more";
  EXPECT_EQ(node.add_pod(more).error().message, "4096 pods: at most 4096");
}

TEST_F(NodeTest, ResourcesAreBounded) {
  RegisterCall call = kGpu;
  for (size_t i = 0; i < kMaxResources; ++i) {
    call.resource = "nvidia.com/r" + std::to_string(i);
    join(call);
  }
  call.resource = "nvidia.com/one-more";
  EXPECT_EQ(node.registered(call).error().message, "64 resources are registered: at most 64");
  call.resource = "nvidia.com/r0";
  join(call);
}

TEST(Take, MustIncludeThenPreferredThenTheLowest) {
  Node::Choice choice;
  choice.free = {"a", "b", "c", "d"};
  EXPECT_EQ(Node::take(choice, {}, {}, 2), (Words{"a", "b"}));
  EXPECT_EQ(Node::take(choice, {}, {"d", "c"}, 2), (Words{"d", "c"}));
  EXPECT_EQ(Node::take(choice, {}, {"d"}, 3), (Words{"d", "a", "b"}));
  EXPECT_EQ(Node::take(choice, {}, {"x", "d", "d"}, 2), (Words{"d", "a"}));
  EXPECT_EQ(Node::take(choice, {}, {"d", "c", "b"}, 1), (Words{"d"}));
  EXPECT_EQ(Node::take(choice, {"m"}, {"m", "c"}, 3), (Words{"m", "c", "a"}));
  EXPECT_EQ(Node::take(choice, {"m", "n"}, {"c"}, 1), (Words{"m"}));
}

}  // namespace
}  // namespace gpuslice::simkubelet
