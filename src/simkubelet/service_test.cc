// Admission as the kubelet does it, with a launcher that starts nothing of ours.

#include "simkubelet/service.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "base/text.h"

namespace gpuslice::simkubelet {
namespace {

using Json = nlohmann::json;
using Words = std::vector<std::string>;

class FakePlugins final : public Plugins {
 public:
  Status restart() override {
    ++restarts;
    return {};
  }
  Result<Words> preferred(const std::string& endpoint, const Ask& ask) override {
    calls.push_back("preferred " + endpoint + " " + std::to_string(ask.count) + " of " +
                    join(ask.available, ",") + " with " + join(ask.must_include, ","));
    if (!preferred_error.empty()) return fail(Code::kFailed, "{}", preferred_error);
    return likes;
  }
  Result<Allocated> allocate(const std::string& endpoint, const Words& ids) override {
    calls.push_back("allocate " + endpoint + " " + join(ids, ","));
    if (!allocate_error.empty()) return fail(Code::kFailed, "{}", allocate_error);
    Allocated out;
    out.envs["IDS_" + endpoint] = join(ids, ",");
    return out;
  }
  Words calls, likes;
  std::string preferred_error, allocate_error;
  int restarts = 0;
};

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() { offer("nvidia.com/gpu", {{"a", true}, {"b", true}, {"c", true}, {"d", true}}); }

  void offer(const std::string& resource, const std::vector<DeviceSeen>& devices,
             bool preferred = true) {
    const auto life =
        node.registered({"v1beta1", resource.substr(resource.find('/') + 1), resource, preferred});
    ASSERT_TRUE(life.has_value());
    node.devices(resource, *life, devices);
  }
  std::string say(const Json& request) { return service.answer(request.dump()); }
  std::string run(const std::string& name, const Json& request, const Json& init = Json::object()) {
    return say({{"verb", "run"},
                {"name", name},
                {"request", request},
                {"init", init},
                {"command", {"sleep", "1000"}}});
  }
  Json pod(const std::string& name) {
    const Json answer = Json::parse(say({{"verb", "ls"}}));
    for (const Json& one : answer["pods"])
      if (one["name"] == name) return one;
    return {};
  }
  // A process in a session of its own, as launch() makes one.
  static Result<Launched> start(const Launch& launch) {
    Words words = launch.command;
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    pid_t pid = 0;
    const int error = ::posix_spawnp(&pid, argv[0], nullptr, &attributes, argv.data(), environ);
    posix_spawnattr_destroy(&attributes);
    if (error != 0) return fail(Code::kFailed, "no process");
    return Launched{pid, launch.allocated.envs};
  }

  MonotonicTime now{};
  Node node{kEndpointGrace, [this] { return now; }};
  FakePlugins plugins;
  std::vector<Launch> launches;
  std::string launch_error;
  KubeletCommand command{.root = "/root", .dir = "/dir"};
  Service service{command, node, plugins, [this](const Launch& launch) -> Result<Launched> {
                    launches.push_back(launch);
                    if (!launch_error.empty()) return fail(Code::kFailed, "{}", launch_error);
                    return start(launch);
                  }};
};

TEST_F(ServiceTest, APodIsAskedForPreferredThenAllocatedThenStarted) {
  plugins.likes = {"d", "b"};
  EXPECT_EQ(run("p", {{"nvidia.com/gpu", 2}}), "{}");
  EXPECT_EQ(plugins.calls, (Words{"preferred gpu 2 of a,b,c,d with ", "allocate gpu d,b"}));
  ASSERT_EQ(launches.size(), 1U);
  EXPECT_EQ(launches[0].root, "/root");
  EXPECT_EQ(launches[0].command, (Words{"sleep", "1000"}));
  EXPECT_EQ(launches[0].allocated.envs.at("IDS_gpu"), "d,b");
  const Json one = pod("p");
  EXPECT_EQ(one["phase"], "Running");
  EXPECT_EQ(one["reason"], "");
  EXPECT_EQ(one["deviceIds"], Json({"d", "b"}));
  EXPECT_EQ(one["resources"], Json({{"nvidia.com/gpu", "2"}}));
  EXPECT_EQ(one["env"], Json({{"IDS_gpu", "d,b"}}));
  EXPECT_EQ(one["uid"], launches[0].uid);
  EXPECT_EQ(::kill(one["pid"].get<int>(), 0), 0);
  EXPECT_EQ(run("q", {{"nvidia.com/gpu", 2}}), "{}");
  EXPECT_EQ(plugins.calls.back(), "allocate gpu a,c");
}

TEST_F(ServiceTest, APluginWithoutPreferencesIsNotAsked) {
  offer("nvidia.com/gpu", {{"b", true}, {"a", true}}, false);
  EXPECT_EQ(run("p", {{"nvidia.com/gpu", 1}}), "{}");
  EXPECT_EQ(plugins.calls, Words{"allocate gpu a"});
}

TEST_F(ServiceTest, PreferencesForWhatIsNotFreeDoNotCount) {
  plugins.likes = {"x", "b", "b"};
  EXPECT_EQ(run("p", {{"nvidia.com/gpu", 2}}), "{}");
  EXPECT_EQ(plugins.calls.back(), "allocate gpu b,a");
}

TEST_F(ServiceTest, AnInitContainersDevicesMustBeIncluded) {
  plugins.likes = {"c"};
  EXPECT_EQ(run("p", {{"nvidia.com/gpu", 2}}, {{"nvidia.com/gpu", 1}}), "{}");
  EXPECT_EQ(plugins.calls, (Words{"preferred gpu 1 of a,b,c,d with ", "allocate gpu c",
                                  "preferred gpu 2 of c,a,b,d with c", "allocate gpu c,a"}));
  EXPECT_EQ(pod("p")["deviceIds"], Json({"c", "a"}));
  EXPECT_EQ(launches[0].allocated.envs.at("IDS_gpu"), "c,a");
  say({{"verb", "rm"}, {"names", {"p"}}});
  // More in the init container than after it: nothing is asked for, what is left over stays the
  // pod's.
  plugins.calls.clear();
  plugins.likes = {};
  EXPECT_EQ(run("q", {{"nvidia.com/gpu", 1}}, {{"nvidia.com/gpu", 3}}), "{}");
  EXPECT_EQ(plugins.calls,
            (Words{"preferred gpu 3 of a,b,c,d with ", "allocate gpu a,b,c", "allocate gpu a"}));
  EXPECT_EQ(pod("q")["deviceIds"], Json({"a", "b", "c"}));
}

TEST_F(ServiceTest, AFailedAllocateIsAnUnexpectedAdmissionError) {
  plugins.allocate_error = "rpc error: code = Unknown desc = boom";
  EXPECT_EQ(run("p", {{"nvidia.com/gpu", 1}}), "{}");
  EXPECT_EQ(pod("p")["phase"], "Failed");
  EXPECT_EQ(pod("p")["reason"], "UnexpectedAdmissionError");
  EXPECT_EQ(
      pod("p")["message"],
      "Pod was rejected: Allocate failed due to rpc error: code = Unknown desc = boom, which is "
      "unexpected");
  EXPECT_EQ(pod("p")["deviceIds"], Json::array());
  EXPECT_TRUE(launches.empty());
  plugins.allocate_error.clear();
  plugins.preferred_error = "no way";
  EXPECT_EQ(run("q", {{"nvidia.com/gpu", 4}}), "{}");
  EXPECT_EQ(pod("q")["reason"], "UnexpectedAdmissionError");
  EXPECT_EQ(pod("q")["message"],
            "Pod was rejected: Allocate failed due to no way, which is unexpected");
  // It is not tried again, and holds nothing.
  plugins.preferred_error.clear();
  service.look_at_pods();
  EXPECT_EQ(pod("q")["phase"], "Failed");
  EXPECT_EQ(run("r", {{"nvidia.com/gpu", 4}}), "{}");
  EXPECT_EQ(pod("r")["phase"], "Running");
}

TEST_F(ServiceTest, APodWaitsUntilThereIsEnough) {
  EXPECT_EQ(run("p", {{"nvidia.com/gpu", 5}}), "{}");
  EXPECT_EQ(pod("p")["phase"], "Pending");
  EXPECT_EQ(pod("p")["reason"], "Unschedulable");
  EXPECT_EQ(pod("p")["message"],
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu (5 asked for, 4 free)");
  EXPECT_EQ(run("q", {{"nvidia.com/gpu", 1}}, {{"nvidia.com/gpu", 5}}), "{}");
  EXPECT_EQ(pod("q")["phase"], "Pending");  // its init container alone is too large
  EXPECT_TRUE(plugins.calls.empty());
  say({{"verb", "rm"}, {"names", {"q"}}});
  offer("nvidia.com/gpu", {{"a", true}, {"b", true}, {"c", true}, {"d", true}, {"e", true}});
  service.look_at_pods();
  EXPECT_EQ(pod("p")["phase"], "Running");
  EXPECT_EQ(pod("p")["reason"], "");
}

TEST_F(ServiceTest, AllResourcesOrNone) {
  offer("nvidia.com/mig-1g.5gb", {{"m", true}}, false);
  EXPECT_EQ(run("p", {{"nvidia.com/gpu", 1}, {"nvidia.com/mig-1g.5gb", 2}}), "{}");
  EXPECT_EQ(pod("p")["reason"], "Unschedulable");
  EXPECT_TRUE(plugins.calls.empty());
  EXPECT_EQ(run("q", {{"nvidia.com/gpu", 1}, {"nvidia.com/mig-1g.5gb", 1}}), "{}");
  EXPECT_EQ(pod("q")["deviceIds"], Json({"a", "m"}));
  EXPECT_EQ(launches.at(0).allocated.envs,
            (std::map<std::string, std::string>{{"IDS_gpu", "a"}, {"IDS_mig-1g.5gb", "m"}}));
}

TEST_F(ServiceTest, AContainerThatCannotStartFailsItsPodWithTheSentence) {
  launch_error = "CDI device injection failed: unresolvable CDI devices a.b/c=d";
  EXPECT_EQ(run("p", {{"nvidia.com/gpu", 1}}), "{}");
  EXPECT_EQ(pod("p")["phase"], "Failed");
  EXPECT_EQ(pod("p")["reason"], "CreateContainerError");
  EXPECT_EQ(pod("p")["message"], launch_error);
}

TEST_F(ServiceTest, AProcessThatEndsEndsItsPod) {
  const auto ends = [&](const std::string& name, const Words& words) {
    EXPECT_EQ(say({{"verb", "run"},
                   {"name", name},
                   {"request", {{"nvidia.com/gpu", 1}}},
                   {"command", words}}),
              "{}");
    for (int i = 0; i < 5000 && pod(name)["phase"] == "Running"; ++i) {
      service.look_at_pods();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return pod(name)["phase"].get<std::string>() + " " + pod(name)["reason"].get<std::string>() +
           " " + pod(name)["message"].get<std::string>();
  };
  EXPECT_EQ(ends("good", {"true"}), "Succeeded Completed exit status 0");
  EXPECT_EQ(ends("bad", {"sh", "-c", "exit 3"}), "Failed Error exit status 3");
  EXPECT_EQ(ends("killed", {"sh", "-c", "kill -9 $$"}), "Failed Error ended by signal 9");
  EXPECT_EQ(run("all", {{"nvidia.com/gpu", 4}}), "{}");  // the dead hold nothing
  EXPECT_EQ(pod("all")["phase"], "Running");
}

TEST_F(ServiceTest, PodsAreRemovedByNameOrAll) {
  run("p", {{"nvidia.com/gpu", 1}});
  run("q", {{"nvidia.com/gpu", 1}});
  const int pid = pod("p")["pid"];
  EXPECT_EQ(say({{"verb", "rm"}, {"names", {"p"}}}), "{}");
  EXPECT_EQ(::kill(pid, 0), -1);
  EXPECT_EQ(say({{"verb", "rm"}, {"names", {"p"}}}), R"({"error":"there is no pod p"})");
  EXPECT_EQ(say({{"verb", "rm"}, {"all", true}}), "{}");
  EXPECT_EQ(Json::parse(say({{"verb", "ls"}}))["pods"], Json::array());
  EXPECT_EQ(run("p", {{"nvidia.com/gpu", 1}}), "{}");
  EXPECT_EQ(run("p", {{"nvidia.com/gpu", 1}}),
            R"({"error":"pod p exists already; remove it with: gpuslice-sim pod rm p"})");
}

TEST_F(ServiceTest, TheNodeAsKubernetesWritesIt) {
  run("p", {{"nvidia.com/gpu", 1}});
  offer("nvidia.com/mig-1g.5gb", {{"m", false}}, false);
  EXPECT_EQ(Json::parse(say({{"verb", "node"}})),
            Json({{"capacity", {{"nvidia.com/gpu", "4"}, {"nvidia.com/mig-1g.5gb", "1"}}},
                  {"allocatable", {{"nvidia.com/gpu", "4"}, {"nvidia.com/mig-1g.5gb", "0"}}},
                  {"registrations", {{"nvidia.com/gpu", 1}, {"nvidia.com/mig-1g.5gb", 1}}}}));
  EXPECT_EQ(Json::parse(say({{"verb", "restart"}}))["servedAtMs"].size(), 1U);
  EXPECT_EQ(plugins.restarts, 1);
  const Json twice = Json::parse(say({{"verb", "restart"}, {"times", 2}}))["servedAtMs"];
  EXPECT_EQ(plugins.restarts, 3);
  EXPECT_LE(twice.at(0).get<double>(), twice.at(1).get<double>());
  EXPECT_EQ(service.answer("nonsense"), R"({"error":"malformed request: no JSON object"})");
}

}  // namespace
}  // namespace gpuslice::simkubelet
