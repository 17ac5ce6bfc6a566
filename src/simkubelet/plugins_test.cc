// The stand-in over its real sockets, against a plugin whose every word the test says.

#include "simkubelet/plugins.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "podresources/api.grpc.pb.h"
#include "simkubelet/fake_plugin.h"

namespace gpuslice::simkubelet {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using Words = std::vector<std::string>;

template <class Holds>
bool eventually(Holds holds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

class PluginsTest : public ::testing::Test {
 protected:
  PluginsTest() {
    std::string pattern = ::testing::TempDir() + "gpuslice-k-XXXXXX";
    dir_ = ::mkdtemp(pattern.data());
    auto plugins =
        Plugins::start({.dir = dir_, .latency = {}, .patience = milliseconds(1500)}, node_);
    EXPECT_TRUE(plugins.has_value());
    plugins_ = std::move(*plugins);
  }
  ~PluginsTest() override {
    plugin_.stop();
    plugins_.reset();
    fs::remove_all(dir_);
  }

  std::string join(const std::string& endpoint = "p.sock") {
    return register_plugin(dir_, {"v1beta1", endpoint, "nvidia.com/gpu", true});
  }
  bool shows(const std::string& expected) {
    return eventually([&] { return shown() == expected; }) || (ADD_FAILURE() << shown(), false);
  }
  std::string shown() {
    const Quantities q = node_.quantities();
    const auto it = q.capacity.find("nvidia.com/gpu");
    if (it == q.capacity.end()) return "-";
    return std::to_string(it->second) + "/" + std::to_string(q.allocatable.at("nvidia.com/gpu"));
  }
  void pass(Duration time) { clock_ns_ += time.count(); }

  template <class Response, class Request, class Call>
  Response pod_resources(const Request& request, Call call, std::string* error = nullptr) {
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto stub = v1::PodResourcesLister::NewStub(
        grpc::CreateCustomChannel("unix://" + dir_ + "/pod-resources/kubelet.sock",
                                  grpc::InsecureChannelCredentials(), args));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    Response response;
    const grpc::Status status = call(*stub, context, request, response);
    if (error != nullptr) *error = status.error_message();
    return response;
  }

  std::atomic<int64_t> clock_ns_{1};
  Node node_{kEndpointGrace, [this] { return MonotonicTime(Duration(clock_ns_)); }};
  std::string dir_;
  std::unique_ptr<Plugins> plugins_;
  FakePlugin plugin_;
};

TEST_F(PluginsTest, RegistrationIsRefusedInTheKubeletsWords) {
  EXPECT_EQ(register_plugin(dir_, {"v1alpha", "p.sock", "nvidia.com/gpu", false}),
            "requested API version \"v1alpha\" is not supported by kubelet. Supported version is "
            "[\"v1beta1\"]");
  EXPECT_EQ(register_plugin(dir_, {"v1beta1", "p.sock", "gpu", false}),
            "the ResourceName \"gpu\" is invalid");
  EXPECT_EQ(register_plugin(dir_, {"v1beta1", "../p.sock", "nvidia.com/gpu", false}),
            "the endpoint \"../p.sock\" is no file name");
  EXPECT_EQ(shown(), "-");
}

TEST_F(PluginsTest, AStreamIsFollowedAndItsEndIsSeenAtOnce) {
  plugin_.list({{"a", true}, {"b", false}});
  plugin_.serve(dir_, "p.sock");
  ASSERT_EQ(join(), "");
  ASSERT_TRUE(shows("2/1"));
  plugin_.list({{"a", true}, {"b", true}, {"c", true}});
  ASSERT_TRUE(shows("3/3"));
  plugin_.list({{"a", true}, {"a", true}});  // not understood: what was said before stays
  plugin_.list({{"a", false}});
  ASSERT_TRUE(shows("1/0"));
  plugin_.list({{"a", true}, {"b", true}});
  ASSERT_TRUE(shows("2/2"));
  plugin_.end_streams();
  ASSERT_TRUE(shows("2/0"));
  pass(std::chrono::minutes(4) + std::chrono::seconds(59));
  EXPECT_EQ(shown(), "2/0");
  pass(std::chrono::seconds(2));
  EXPECT_EQ(shown(), "-");
}

TEST_F(PluginsTest, APluginThatDiesIsAStreamThatEnds) {
  plugin_.list({{"a", true}});
  plugin_.serve(dir_, "p.sock");
  ASSERT_EQ(join(), "");
  ASSERT_TRUE(shows("1/1"));
  plugin_.stop();
  ASSERT_TRUE(shows("1/0"));
}

// Seen on a kubelet 1.34: it asks for the options before it answers, and waits for who will answer.
TEST_F(PluginsTest, RegisteringWithNobodyBehindIsRefusedAfterAWhile) {
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_TRUE(join("nobody.sock").starts_with("failed to get device plugin options: rpc error: "));
  EXPECT_GE(std::chrono::steady_clock::now() - begun, milliseconds(1400));
  EXPECT_EQ(shown(), "-");
}

TEST_F(PluginsTest, RegisteringWaitsForAPluginThatServesInAMoment) {
  plugin_.list({{"a", true}});
  std::thread late([&] {
    std::this_thread::sleep_for(milliseconds(50));
    plugin_.serve(dir_, "p.sock");
  });
  EXPECT_EQ(join(), "");
  late.join();
  EXPECT_TRUE(shows("1/1"));
}

TEST_F(PluginsTest, TheOptionsThatItAskedForCountNotTheOnesThatCame) {
  plugin_.list({{"a", true}});
  plugin_.preferred_available = false;
  plugin_.serve(dir_, "p.sock");
  ASSERT_EQ(join(), "");
  ASSERT_TRUE(shows("1/1"));
  EXPECT_FALSE(node_.choice("nvidia.com/gpu", 1)->preferred_available);
}

TEST_F(PluginsTest, RegisteringAgainReplacesTheStream) {
  plugin_.list({{"a", true}});
  plugin_.serve(dir_, "p.sock");
  ASSERT_EQ(join(), "");
  ASSERT_TRUE(shows("1/1"));
  FakePlugin second;
  second.list({{"b", true}, {"c", true}});
  second.serve(dir_, "second.sock");
  ASSERT_EQ(join("second.sock"), "");
  ASSERT_TRUE(shows("2/2"));
  EXPECT_TRUE(eventually([&] { return plugin_.streams() == 0; }));
  EXPECT_EQ(second.streams(), 1);
  plugin_.list({{"a", true}, {"b", true}, {"c", true}});
  plugin_.stop();
  EXPECT_EQ(shown(), "2/2");
}

TEST_F(PluginsTest, PreferredAndAllocateAsAskedAndAnswered) {
  plugin_.serve(dir_, "p.sock");
  plugin_.preferred = {"c", "m"};
  const auto preferred = plugins_->preferred(
      "p.sock", {.available = {"m", "c", "d"}, .must_include = {"m"}, .count = 2});
  ASSERT_TRUE(preferred.has_value());
  EXPECT_EQ(*preferred, (Words{"c", "m"}));
  ASSERT_EQ(plugin_.asks().size(), 1U);
  EXPECT_EQ(plugin_.asks()[0].available, (Words{"m", "c", "d"}));
  EXPECT_EQ(plugin_.asks()[0].must_include, Words{"m"});
  EXPECT_EQ(plugin_.asks()[0].count, 2U);
  plugin_.allocated.envs["X"] = "1";
  plugin_.allocated.annotations["cdi.k8s.io/x"] = "a.b/c=d";
  plugin_.allocated.cdi_devices = {"a.b/c=e"};
  const auto allocated = plugins_->allocate("p.sock", {"a", "b"});
  ASSERT_TRUE(allocated.has_value());
  EXPECT_EQ(allocated->envs.at("X"), "1");
  EXPECT_EQ(allocated->annotations.at("cdi.k8s.io/x"), "a.b/c=d");
  EXPECT_EQ(allocated->cdi_devices, Words{"a.b/c=e"});
  EXPECT_EQ(plugin_.allocations(), (std::vector<Words>{{"a", "b"}}));
}

TEST_F(PluginsTest, RefusalsKeepGrpcsWords) {
  plugin_.serve(dir_, "p.sock");
  plugin_.preferred_error = "no topology";
  plugin_.allocate_error = "device a was withdrawn";
  EXPECT_EQ(plugins_->preferred("p.sock", {}).error().message,
            "device plugin GetPreferredAllocation rpc failed with err: rpc error: code = Unknown "
            "desc = no topology");
  EXPECT_EQ(plugins_->allocate("p.sock", {"a"}).error().message,
            "rpc error: code = Unknown desc = device a was withdrawn");
  plugin_.preferred_error.clear();
  plugin_.allocate_error.clear();
  plugin_.answer_no_container = true;
  EXPECT_EQ(*plugins_->preferred("p.sock", {}), Words{});
  EXPECT_EQ(plugins_->allocate("p.sock", {"a"}).error().message,
            "no containers return in allocation response");
  EXPECT_TRUE(plugins_->allocate("nobody.sock", {"a"})
                  .error()
                  .message.starts_with("rpc error: code = Unavailable desc = "));
}

TEST_F(PluginsTest, ASocketThatIsRemovedUnderItsStreamStillAnswers) {
  plugin_.list({{"a", true}});
  plugin_.serve(dir_, "p.sock");
  ASSERT_EQ(join(), "");
  ASSERT_TRUE(shows("1/1"));
  fs::remove(dir_ + "/device-plugins/p.sock");
  EXPECT_TRUE(plugins_->allocate("p.sock", {"a"}).has_value());
  EXPECT_EQ(shown(), "1/1");
}

TEST_F(PluginsTest, ARestartWipesTheSocketsAndForgetsPlugins) {
  plugin_.list({{"a", true}});
  plugin_.serve(dir_, "p.sock");
  ASSERT_EQ(join(), "");
  ASSERT_TRUE(shows("1/1"));
  std::ofstream(dir_ + "/device-plugins/kubelet_internal_checkpoint") << "{}";
  std::ofstream(dir_ + "/device-plugins/somebodys-file") << "x";
  fs::create_directory(dir_ + "/device-plugins/somebodys-folder");
  const auto before = fs::exists(dir_ + "/device-plugins/kubelet.sock");
  ASSERT_TRUE(before && fs::exists(dir_ + "/device-plugins/p.sock"));
  ASSERT_TRUE(plugins_->restart().has_value());
  EXPECT_FALSE(fs::exists(dir_ + "/device-plugins/p.sock"));
  EXPECT_TRUE(fs::exists(dir_ + "/device-plugins/kubelet.sock"));
  EXPECT_TRUE(fs::exists(dir_ + "/pod-resources/kubelet.sock"));
  EXPECT_TRUE(fs::exists(dir_ + "/device-plugins/kubelet_internal_checkpoint"));
  EXPECT_TRUE(fs::exists(dir_ + "/device-plugins/somebodys-file"));
  EXPECT_TRUE(fs::exists(dir_ + "/device-plugins/somebodys-folder"));
  EXPECT_EQ(shown(), "0/0");
  EXPECT_TRUE(eventually([&] { return plugin_.streams() == 0; }));
  plugin_.stop();
  plugin_.serve(dir_, "p.sock");
  ASSERT_EQ(join(), "");
  ASSERT_TRUE(shows("1/1"));
}

TEST_F(PluginsTest, PodResourcesAsAKubeletTellsThem) {
  plugin_.list({{"a", true}, {"b", true}, {"c", false}});
  plugin_.serve(dir_, "p.sock");
  ASSERT_EQ(join(), "");
  ASSERT_TRUE(shows("3/2"));
  for (const auto& [name, phase] : {std::pair("run", "Running"), std::pair("wait", "Pending"),
                                    std::pair("done", "Succeeded")}) {
    Pod pod;
    pod.name = name;
    pod.phase = phase;
    if (pod.name != "wait") {
      pod.device_ids["nvidia.com/gpu"] = {"a", "b"};
      pod.listed["nvidia.com/gpu"] = {{"a", true, {1}}};  // b was an init container's
    }
    ASSERT_TRUE(node_.add_pod(pod).has_value());
  }
  const auto list = pod_resources<v1::ListPodResourcesResponse>(
      v1::ListPodResourcesRequest(),
      [](auto& stub, auto& c, const auto& q, auto& a) { return stub.List(&c, q, &a); });
  ASSERT_EQ(list.pod_resources_size(), 1);
  EXPECT_EQ(list.pod_resources(0).name(), "run");
  EXPECT_EQ(list.pod_resources(0).namespace_(), "default");
  ASSERT_EQ(list.pod_resources(0).containers_size(), 1);
  const auto& container = list.pod_resources(0).containers(0);
  EXPECT_EQ(container.name(), "main");
  ASSERT_EQ(container.devices_size(), 1);
  EXPECT_EQ(container.devices(0).resource_name(), "nvidia.com/gpu");
  ASSERT_EQ(container.devices(0).device_ids_size(), 1);
  EXPECT_EQ(container.devices(0).device_ids(0), "a");
  ASSERT_EQ(container.devices(0).topology().nodes_size(), 1);
  EXPECT_EQ(container.devices(0).topology().nodes(0).id(), 1);
  // Held or not: the healthy ones.
  const auto allocatable = pod_resources<v1::AllocatableResourcesResponse>(
      v1::AllocatableResourcesRequest(), [](auto& stub, auto& c, const auto& q, auto& a) {
        return stub.GetAllocatableResources(&c, q, &a);
      });
  ASSERT_EQ(allocatable.devices_size(), 2);
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(allocatable.devices(i).device_ids_size(), 1);
    EXPECT_EQ(allocatable.devices(i).device_ids(0), i == 0 ? "a" : "b");
    EXPECT_FALSE(allocatable.devices(i).has_topology());
  }
  const auto get = [&](const std::string& name, const std::string& space, std::string& error) {
    v1::GetPodResourcesRequest request;
    request.set_pod_name(name);
    request.set_pod_namespace(space);
    return pod_resources<v1::GetPodResourcesResponse>(
        request, [](auto& stub, auto& c, const auto& q, auto& a) { return stub.Get(&c, q, &a); },
        &error);
  };
  std::string error;
  EXPECT_EQ(get("run", "default", error).pod_resources().containers(0).devices(0).device_ids(0),
            "a");
  EXPECT_EQ(error, "");
  get("nobody", "default", error);
  EXPECT_EQ(error, "pod nobody in namespace default not found");
  get("run", "kube-system", error);
  EXPECT_EQ(error, "pod run in namespace kube-system not found");
}

TEST(PluginsStart, AFolderThatIsTooLongOrNoneIsRefused) {
  Node node;
  std::string pattern = ::testing::TempDir() + "gpuslice-k-XXXXXX";
  const std::string dir = ::mkdtemp(pattern.data());
  const std::string deep = dir + "/" + std::string(100, 'd');
  const auto too_long = Plugins::start({.dir = deep}, node);
  ASSERT_FALSE(too_long.has_value());
  EXPECT_EQ(too_long.error().message,
            "--dir " + deep + ": too long: a socket's path has at most 107 characters, and " +
                deep + "/device-plugins/kubelet.sock has " +
                std::to_string(deep.size() + std::string("/device-plugins/kubelet.sock").size()));
  std::ofstream(dir + "/file") << "x";
  const auto no_folder = Plugins::start({.dir = dir + "/file"}, node);
  ASSERT_FALSE(no_folder.has_value());
  EXPECT_EQ(no_folder.error().message,
            dir + "/file/device-plugins: cannot make the folder: Not a directory");
  fs::remove_all(dir);
}

}  // namespace
}  // namespace gpuslice::simkubelet
