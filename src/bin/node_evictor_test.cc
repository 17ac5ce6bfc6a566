#include "bin/node_evictor.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "ports/kube_for_test.h"
#include "ports/timers_for_test.h"

namespace gpuslice::bin {
namespace {

class NodeEvictorTest : public ::testing::Test {
 protected:
  NodeEvictorTest() { evictor.begin(api); }
  static ports::PodObject pod(const std::string& name) {
    ports::PodObject out;
    out.name = {"ml", name};
    out.uid = "uid-" + name;
    return out;
  }
  void see(std::vector<ports::PodObject> pods) {
    evictor.on_pods(std::make_shared<const std::vector<ports::PodObject>>(std::move(pods)));
  }
  // It is looked who holds what while the API server shows these.
  void look_at(std::vector<ports::PodObject> pods) {
    see(std::move(pods));
    evictor.before_look();
  }
  void turn() { timers.pass({}); }

  ports::TimersForTest timers;
  ports::KubeForTest api;
  std::vector<std::string> failed;
  NodeEvictor evictor{
      timers, [this](const std::string& name_space, const std::string& pod, const Error& why) {
        failed.push_back(name_space + "/" + pod + ": " + why.message);
      }};
};

TEST_F(NodeEvictorTest, APodIsEvictedByTheUidThatWasSeen) {
  EXPECT_TRUE(api.watches_pods);
  look_at({pod("a"), pod("b")});
  evictor.evict("ml", "b");
  EXPECT_EQ(api.evicted, std::vector<std::string>{"ml/b uid-b"});
  evictor.on_evicted({"ml", "b"}, {});
  evictor.on_evicted({"ml", "b"}, fail(Code::kNotFound, "gone already"));
  EXPECT_TRUE(failed.empty());
  evictor.on_evicted({"ml", "b"}, fail(Code::kInUse, "a PodDisruptionBudget forbids it"));
  EXPECT_EQ(failed, std::vector<std::string>{"ml/b: a PodDisruptionBudget forbids it"});
}

TEST_F(NodeEvictorTest, OneThatIsLeavingIsNotAskedAgain) {
  auto leaving = pod("a");
  leaving.deleting = true;
  look_at({leaving});
  evictor.evict("ml", "a");
  turn();
  EXPECT_TRUE(api.evicted.empty());
  EXPECT_TRUE(failed.empty());
}

TEST_F(NodeEvictorTest, WhoeverHasTheNameByThenIsAnotherPod) {
  look_at({pod("a-0")});
  auto again = pod("a-0");
  again.uid = "uid-of-another";
  see({again, pod("late")});
  evictor.evict("ml", "a-0");
  evictor.evict("ml", "late");
  turn();
  EXPECT_TRUE(api.evicted.empty());
  ASSERT_EQ(failed.size(), 2U);
  EXPECT_NE(failed[0].find("was not known yet"), std::string::npos) << failed[0];
  evictor.before_look();
  evictor.evict("ml", "a-0");
  EXPECT_EQ(api.evicted, std::vector<std::string>{"ml/a-0 uid-of-another"});
}

TEST_F(NodeEvictorTest, WhatCannotHelpIsNotAskedForAndIsToldAfterwards) {
  evictor.evict("ml", "early");
  turn();
  auto of_file = pod("file");
  of_file.is_static = true;
  auto daemon = pod("daemon");
  daemon.daemon = true;
  EXPECT_EQ(evictor.evictable("ml", "early").error().code, Code::kUnavailable);
  look_at({of_file, daemon, pod("a")});
  EXPECT_TRUE(evictor.evictable("ml", "a"));
  EXPECT_EQ(evictor.evictable("ml", "file").error().code, Code::kImpossible);
  EXPECT_EQ(evictor.evictable("ml", "daemon").error().code, Code::kImpossible);
  EXPECT_EQ(evictor.evictable("ml", "nobody").error().code, Code::kUnavailable);
  evictor.evict("ml", "file");
  evictor.evict("ml", "daemon");
  evictor.evict("ml", "nobody");
  EXPECT_EQ(failed.size(), 1U) << "never from within the question";
  turn();
  ASSERT_EQ(failed.size(), 4U);
  EXPECT_NE(failed[0].find("has not listed"), std::string::npos) << failed[0];
  EXPECT_NE(failed[1].find("ml/daemon: it is a DaemonSet's"), std::string::npos) << failed[1];
  EXPECT_NE(failed[2].find("ml/file: it is a static pod"), std::string::npos) << failed[2];
  EXPECT_NE(failed[3].find("no such pod"), std::string::npos) << failed[3];
  EXPECT_TRUE(api.evicted.empty());
}

}  // namespace
}  // namespace gpuslice::bin
