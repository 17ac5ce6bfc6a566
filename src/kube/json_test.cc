// Cutting a JSON stream at any byte, and what is read of the pieces.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kube/json_cutter.h"
#include "kube/objects.h"

namespace gpuslice::kube {
namespace {

struct Cutting {
  std::vector<std::string> pieces;
  std::string envelope;
  Status status;
};

Cutting cut(JsonCutter::Cut how, std::string_view text, size_t step) {
  Cutting cutting;
  JsonCutter cutter(how);
  for (size_t at = 0; at < text.size() && cutting.status; at += step)
    cutting.status = cutter.push(text.substr(at, step), [&](std::string_view piece) {
      cutting.pieces.emplace_back(piece);
      return Status();
    });
  if (!cutting.status) return cutting;
  Result<std::string> envelope = cutter.end();
  if (envelope) {
    cutting.envelope = *envelope;
  } else {
    cutting.status = std::unexpected(envelope.error());
  }
  return cutting;
}

TEST(JsonCutter, CutsAStreamWhereverItsPiecesBegin) {
  const std::string one = R"({"type":"ADDED","object":{"a":"} \" ]{","b":[1,{}]}})";
  const std::string two = R"({"type":"BOOKMARK"})";
  const std::string text = one + "\n" + two + "\r\n  ";
  for (size_t step = 1; step <= text.size(); ++step) {
    const Cutting cutting = cut(JsonCutter::Cut::kStream, text, step);
    ASSERT_TRUE(cutting.status) << cutting.status.error().message;
    EXPECT_EQ(cutting.pieces, (std::vector<std::string>{one, two})) << step;
  }
}

TEST(JsonCutter, CutsTheItemsOutOfAListAndKeepsTheRest) {
  const std::string text =
      R"({"kind":"PodList","metadata":{"resourceVersion":"7","items":[{"no":1}]},"items":[{"a":1},)"
      R"( {"b":{"items":[{}]}}],"x":[{"no":2}]})";
  for (size_t step = 1; step <= text.size(); ++step) {
    const Cutting cutting = cut(JsonCutter::Cut::kItems, text, step);
    ASSERT_TRUE(cutting.status) << cutting.status.error().message;
    EXPECT_EQ(cutting.pieces, (std::vector<std::string>{R"({"a":1})", R"({"b":{"items":[{}]}})"}));
    EXPECT_EQ(cutting.envelope,
              R"({"kind":"PodList","metadata":{"resourceVersion":"7","items":[{"no":1}]},)"
              R"("items":[0, 0],"x":[{"no":2}]})");
  }
}

TEST(JsonCutter, RefusesWhatIsNoSuchText) {
  for (const std::string_view text :
       {"[]", "7", "\"{}\"", "{]", "{\"a\":[}", "}", "<html>", "{} x", "{\"items\":[{\"a\":1}"}) {
    EXPECT_FALSE(cut(JsonCutter::Cut::kItems, text, 1).status) << text;
    EXPECT_FALSE(cut(JsonCutter::Cut::kStream, text, 3).status) << text;
  }
  EXPECT_FALSE(cut(JsonCutter::Cut::kItems, "{}{}", 4).status);
  EXPECT_FALSE(cut(JsonCutter::Cut::kItems, "", 1).status);
}

TEST(JsonCutter, HoldsNoMoreThanItsLimits) {
  const std::string huge = R"({"a":")" + std::string(kMaxObjectBytes, 'x');
  const Cutting object = cut(JsonCutter::Cut::kStream, huge, 4096);
  ASSERT_FALSE(object.status);
  EXPECT_EQ(object.status.error().message, "an object of more than 4194304 bytes in the answer");
  EXPECT_FALSE(cut(JsonCutter::Cut::kItems, huge, 4096).status);
  EXPECT_FALSE(cut(JsonCutter::Cut::kStream, "{\"a\":" + std::string(80, '['), 1).status);
}

TEST(Objects, ANode) {
  const Result<ApiObject> read = read_object(R"({"kind":"Node","apiVersion":"v1","metadata":{
      "name":"n1","uid":"u-1","resourceVersion":"12","labels":{"a/b":"c","metadata":"x"},
      "annotations":{"k":"v"},"managedFields":[{"manager":"m","name":"not this"}]},
      "spec":{"unschedulable":true,"podCIDR":"10.0.0.0/24"},
      "status":{"images":[{"names":["x"],"sizeBytes":99999999999999999999}],"phase":"Running"}})");
  ASSERT_TRUE(read) << read.error().message;
  const ports::NodeObject node = node_of(*read);
  EXPECT_EQ(node, (ports::NodeObject{
                      "n1", "u-1", "12", {{"a/b", "c"}, {"metadata", "x"}}, {{"k", "v"}}, true}));
}

TEST(Objects, APodWithLimits) {
  const Result<WatchEvent> read = read_watch_event(R"({"type":"MODIFIED","object":{"kind":"Pod",
      "metadata":{"name":"p","namespace":"ml","uid":"u","resourceVersion":"3","deletionTimestamp":"2026-01-01T00:00:00Z",
        "ownerReferences":[{"kind":"ReplicaSet"},{"kind":"DaemonSet"}]},
      "spec":{"containers":[{"name":"not the pod's","resources":{"limits":{"nvidia.com/gpu":"2","cpu":"1"}}},
                            {"resources":{"limits":{"nvidia.com/gpu":1,"x.y/z":"1k","a.b/c":"-4"}}}],
              "initContainers":[{"resources":{"limits":{"nvidia.com/gpu":"1"}}}]},
      "status":{"phase":"Running","containerStatuses":[{"phase":"no"}]}}})");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->type, "MODIFIED");
  EXPECT_EQ(read->object.version, "3");
  ports::PodObject pod;
  pod.name = {"ml", "p"};
  pod.uid = "u";
  pod.phase = "Running";
  pod.deleting = true;
  pod.daemon = true;
  pod.limits = {{"nvidia.com/gpu", 4}};
  EXPECT_EQ(pod_of(read->object), pod);
}

TEST(Objects, StaticPodsAreKnownByTheirMirror) {
  Result<ApiObject> read = read_object(
      R"({"metadata":{"name":"p","annotations":{"kubernetes.io/config.mirror":"abc"}}})");
  ASSERT_TRUE(read);
  EXPECT_TRUE(pod_of(*read).is_static);
}

TEST(Objects, AConfigMapAndWrongTypes) {
  Result<ApiObject> read = read_object(
      R"({"metadata":{"name":"m","namespace":"ns","labels":7,"uid":{"a":"b"}},"data":{"a":"x: 1\n","b":[1],"c":null},
          "binaryData":{"z":"AAAA"}})");
  ASSERT_TRUE(read);
  const ports::ConfigMapObject map = config_map_of(*read);
  EXPECT_EQ(map.data, (std::map<std::string, std::string>{{"a", "x: 1\n"}}));
  EXPECT_EQ(map.uid, "");
  EXPECT_EQ(map.name, (ports::ObjectName{"ns", "m"}));
}

TEST(Objects, NotJson) {
  for (const std::string_view text : {"", "{", "7", "[]", "{\"a\":}", "{\"a\":\"\xff\"}", "null"})
    EXPECT_FALSE(read_object(text)) << text;
}

TEST(Objects, DeepTextsAreReadWithoutBeingNamed) {
  std::string text = R"({"metadata":{"name":"n"},"deep":)";
  for (int i = 0; i < 50; ++i) text += R"({"metadata":[)";
  for (int i = 0; i < 50; ++i) text += "]}";
  text += R"(,"spec":{"unschedulable":true}})";
  const Result<ApiObject> read = read_object(text);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->name, "n");
  EXPECT_TRUE(read->unschedulable);
}

}  // namespace
}  // namespace gpuslice::kube
