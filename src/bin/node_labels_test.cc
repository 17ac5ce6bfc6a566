#include "bin/node_labels.h"

#include <gtest/gtest.h>

#include <vector>

#include "ports/kube_for_test.h"
#include "ports/timers_for_test.h"

namespace gpuslice::bin {
namespace {

class NodeLabelsTest : public ::testing::Test {
 protected:
  NodeLabelsTest() { labels.begin(api); }
  static ports::NodeObject node(const std::string& uid, const NodeLabels::Labels& shown) {
    return {"n", uid, "1", shown, {}, false};
  }
  const NodeLabels::Labels one{{"a", "1"}};
  const NodeLabels::Labels two{{"a", "2"}};
  ports::TimersForTest timers;
  int told = 0;
  ports::KubeForTest api;
  NodeLabels labels{timers, [this](const Status&) { ++told; }};
};

TEST_F(NodeLabelsTest, WaitsForTheNodeAndSendsTheNewestOnly) {
  labels.want(one);
  labels.want(two);
  EXPECT_TRUE(api.applied.empty());
  labels.on_node(node("u", {}));
  EXPECT_EQ(api.applied, (std::vector{two}));
  labels.want(one);
  labels.on_node(node("u", {}));
  EXPECT_EQ(api.applied.size(), 1U);  // one at a time
  labels.on_labels_applied({});
  EXPECT_EQ(api.applied, (std::vector{two, one}));
  labels.on_labels_applied({});
  labels.on_node(node("u", one));
  labels.want(one);
  EXPECT_EQ(api.applied.size(), 2U);  // nothing changed: nothing is written
  EXPECT_EQ(told, 2);
}

TEST_F(NodeLabelsTest, AnotherNodeOfTheNameIsLabelledAnew) {
  labels.on_node(node("u", {}));
  labels.want(one);
  labels.on_labels_applied({});
  labels.on_node(node("u", one));
  labels.on_node(std::nullopt);
  labels.on_node(node("v", {}));
  EXPECT_EQ(api.applied, (std::vector{one, one}));
}

TEST_F(NodeLabelsTest, AFailureIsToldAndWaited) {
  labels.on_node(node("u", {}));
  labels.want(one);
  labels.on_labels_applied(fail(Code::kUnavailable, "no"));
  EXPECT_EQ(told, 1);
  EXPECT_EQ(api.applied.size(), 1U);
  labels.on_node(node("u", {}));  // news of the node: tried again
  EXPECT_EQ(api.applied.size(), 2U);
}

TEST_F(NodeLabelsTest, ALabelThatIsTakenLongAfterAQuietPauseIsSetAgain) {
  labels.on_node(node("u", {}));
  labels.want(one);
  labels.on_labels_applied({});
  labels.on_node(node("u", {}));   // news older than our change: a pause begins
  labels.on_node(node("u", one));  // and there it is
  timers.pass(2 * kLabelsPause);
  labels.on_node(node("u", two));  // somebody takes it
  timers.pass(2 * kLabelsPause);
  EXPECT_EQ(api.applied, (std::vector{one, one}));
}

}  // namespace
}  // namespace gpuslice::bin
