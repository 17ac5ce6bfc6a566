// What plugins and the pod verbs send, as it is understood or refused.

#include "simkubelet/messages.h"

#include <gtest/gtest.h>

#include "deviceplugin/api.pb.h"

namespace gpuslice::simkubelet {
namespace {

using Words = std::vector<std::string>;

v1beta1::RegisterRequest register_request(const std::string& version, const std::string& endpoint,
                                          const std::string& resource) {
  v1beta1::RegisterRequest request;
  request.set_version(version);
  request.set_endpoint(endpoint);
  request.set_resource_name(resource);
  return request;
}

std::string refused(const v1beta1::RegisterRequest& request) {
  const auto call = read(request);
  return call ? "" : call.error().message;
}

TEST(Register, IsRead) {
  v1beta1::RegisterRequest request = register_request("v1beta1", "n.sock", "nvidia.com/gpu");
  request.mutable_options()->set_get_preferred_allocation_available(true);
  const auto call = read(request);
  ASSERT_TRUE(call.has_value());
  EXPECT_EQ(call->endpoint, "n.sock");
  EXPECT_EQ(call->resource, "nvidia.com/gpu");
  EXPECT_TRUE(call->preferred_available);
  EXPECT_FALSE(read(register_request("v1beta1", "n.sock", "nvidia.com/gpu"))->preferred_available);
}

TEST(Register, OtherVersionsAreRefusedInTheKubeletsWords) {
  for (const char* version : {"", "v1alpha", "v1beta2", "V1BETA1", "v1beta1 "})
    EXPECT_EQ(refused(register_request(version, "n.sock", "nvidia.com/gpu")),
              std::string("requested API version \"") + version +
                  "\" is not supported by kubelet. Supported version is [\"v1beta1\"]");
}

TEST(Register, NamesAreExtendedResources) {
  const std::string name63(63, 'n');
  const std::string domain244 = std::string(240, 'd') + ".com";
  for (const std::string& good :
       {std::string("nvidia.com/gpu"), std::string("nvidia.com/mig-1g.5gb.me"),
        std::string("nvidia.com/gpu.shared"), std::string("a/B_9"), "nvidia.com/" + name63,
        domain244 + "/x", std::string("x-y.z/gpu")})
    EXPECT_EQ(refused(register_request("v1beta1", "n.sock", good)), "") << good;
  for (const std::string& bad :
       {std::string(), std::string("gpu"), std::string("/gpu"), std::string("nvidia.com/"),
        std::string("nvidia.com/g/u"), std::string("kubernetes.io/gpu"),
        std::string("node.kubernetes.io/gpu"), std::string("my-kubernetes.io/gpu"),
        std::string("requests.nvidia.com/gpu"), std::string("Nvidia.com/gpu"),
        std::string("nvidia..com/gpu"), std::string("-n/gpu"), std::string("n-/gpu"),
        std::string("nvidia.com/-gpu"), std::string("nvidia.com/gpu."),
        std::string("nvidia.com/g u"), "nvidia.com/" + name63 + "n", "d" + domain244 + "/x"})
    EXPECT_EQ(refused(register_request("v1beta1", "n.sock", bad)),
              "the ResourceName \"" + bad.substr(0, 128) + "\" is invalid");
}

TEST(Register, AnEndpointIsAFileName) {
  for (const std::string& good : {std::string("nvidia-gpu.sock"), std::string("..."),
                                  std::string("a b"), std::string(200, 'e')})
    EXPECT_EQ(refused(register_request("v1beta1", good, "nvidia.com/gpu")), "") << good;
  for (const std::string& bad :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("/a"),
        std::string("../x.sock"), std::string(201, 'e')})
    EXPECT_EQ(refused(register_request("v1beta1", bad, "nvidia.com/gpu")),
              "the endpoint \"" + bad.substr(0, 128) + "\" is no file name");
  EXPECT_EQ(refused(register_request("v1beta1", std::string("a\0b", 3), "nvidia.com/gpu")),
            "the endpoint \"a\\u0000b\" is no file name");
}

TEST(Devices, HealthyIsTheOnlyGoodWord) {
  v1beta1::ListAndWatchResponse response;
  for (const char* health : {"Healthy", "Unhealthy", "healthy", "", "Unknown"}) {
    v1beta1::Device* device = response.add_devices();
    device->set_id(std::string("id-") + health);
    device->set_health(health);
  }
  const auto devices = read(response);
  ASSERT_TRUE(devices.has_value());
  Words good;
  for (const DeviceSeen& device : *devices)
    if (device.healthy) good.push_back(device.id);
  EXPECT_EQ(devices->size(), 5U);
  EXPECT_EQ(good, Words{"id-Healthy"});
}

TEST(Devices, EachIdOnceAndNoneEmpty) {
  v1beta1::ListAndWatchResponse response;
  EXPECT_TRUE(read(response).has_value());
  response.add_devices()->set_id("a");
  response.add_devices()->set_id("b");
  response.add_devices()->set_id("a");
  EXPECT_EQ(read(response).error().message, "device a is listed twice");
  response.mutable_devices(2)->set_id("");
  EXPECT_EQ(read(response).error().message, "a device without an id");
  EXPECT_EQ(check_devices(std::vector<DeviceSeen>(kMaxDevices + 1)).error().message,
            "200001 devices: at most 200000");
}

TEST(Allocate, EveryFieldIsRead) {
  v1beta1::AllocateResponse response;
  EXPECT_EQ(read(response).error().message, "no containers return in allocation response");
  v1beta1::ContainerAllocateResponse* one = response.add_container_responses();
  (*one->mutable_envs())["NVIDIA_VISIBLE_DEVICES"] = "GPU-1";
  (*one->mutable_annotations())["cdi.k8s.io/x"] = "a.b/c=d";
  v1beta1::Mount* mount = one->add_mounts();
  mount->set_host_path("/h");
  mount->set_container_path("/c");
  mount->set_read_only(true);
  v1beta1::DeviceSpec* device = one->add_devices();
  device->set_host_path("/root/dev/nvidia0");
  device->set_container_path("/dev/nvidia0");
  one->add_cdi_devices()->set_name("a.b/c=e");
  response.add_container_responses();  // of nobody
  const auto allocated = read(response);
  ASSERT_TRUE(allocated.has_value());
  EXPECT_EQ(allocated->envs.at("NVIDIA_VISIBLE_DEVICES"), "GPU-1");
  ASSERT_EQ(allocated->mounts.size(), 1U);
  EXPECT_EQ(allocated->mounts[0].host_path, "/h");
  EXPECT_EQ(allocated->mounts[0].container_path, "/c");
  EXPECT_TRUE(allocated->mounts[0].read_only);
  ASSERT_EQ(allocated->device_nodes.size(), 1U);
  EXPECT_EQ(allocated->device_nodes[0].host_path, "/root/dev/nvidia0");
  EXPECT_EQ(allocated->device_nodes[0].container_path, "/dev/nvidia0");
  EXPECT_EQ(allocated->annotations.at("cdi.k8s.io/x"), "a.b/c=d");
  EXPECT_EQ(allocated->cdi_devices, Words{"a.b/c=e"});
}

TEST(Allocate, AnotherResourceAddsWhatIsNotThereYet) {
  Allocated first{
      {{"A", "1"}, {"B", "1"}}, {{"/m", "/1", true}}, {{"/dev/a", "/1"}}, {{"k", "1"}}, {"c=1"}};
  first.add({{{"B", "2"}, {"C", "2"}},
             {{"/m", "/2", false}, {"/n", "/2", false}},
             {{"/dev/a", "/2"}, {"/dev/b", "/2"}},
             {{"k", "2"}, {"l", "2"}},
             {"c=1", "c=2"}});
  EXPECT_EQ(first.envs, (std::map<std::string, std::string>{{"A", "1"}, {"B", "1"}, {"C", "2"}}));
  EXPECT_EQ(first.annotations, (std::map<std::string, std::string>{{"k", "1"}, {"l", "2"}}));
  ASSERT_EQ(first.mounts.size(), 2U);
  EXPECT_EQ(first.mounts[0].host_path, "/1");
  EXPECT_EQ(first.mounts[1].container_path, "/n");
  ASSERT_EQ(first.device_nodes.size(), 2U);
  EXPECT_EQ(first.device_nodes[0].host_path, "/1");
  EXPECT_EQ(first.device_nodes[1].container_path, "/dev/b");
  EXPECT_EQ(first.cdi_devices, (Words{"c=1", "c=2"}));
}

TEST(Preferred, OfTheFirstContainer) {
  v1beta1::PreferredAllocationResponse response;
  EXPECT_EQ(read(response), Words{});
  response.add_container_responses()->add_deviceids("a");
  response.mutable_container_responses(0)->add_deviceids("b");
  response.add_container_responses()->add_deviceids("c");
  EXPECT_EQ(read(response), (Words{"a", "b"}));
}

TEST(PodCall, IsRead) {
  const auto run = read_call(
      R"({"verb":"run","name":"p","request":{"nvidia.com/gpu":2},"init":{"nvidia.com/gpu":1},)"
      R"("work":"--memory 1Gi","command":["a","b"]})");
  ASSERT_TRUE(run.has_value()) << run.error().message;
  EXPECT_EQ(run->verb, PodCall::Verb::kRun);
  EXPECT_EQ(run->name, "p");
  EXPECT_EQ(run->request.at("nvidia.com/gpu"), 2U);
  EXPECT_EQ(run->init.at("nvidia.com/gpu"), 1U);
  EXPECT_EQ(run->work, "--memory 1Gi");
  EXPECT_EQ(run->command, (Words{"a", "b"}));
  const auto rm = read_call(R"({"verb":"rm","names":["a"],"all":true})");
  ASSERT_TRUE(rm.has_value());
  EXPECT_EQ(rm->verb, PodCall::Verb::kRemove);
  EXPECT_EQ(rm->names, Words{"a"});
  EXPECT_TRUE(rm->all);
  EXPECT_EQ(read_call(R"({"verb":"node"})")->verb, PodCall::Verb::kNode);
  EXPECT_EQ(read_call(R"({"verb":"ls"})")->verb, PodCall::Verb::kList);
  EXPECT_EQ(read_call(R"({"verb":"restart"})")->verb, PodCall::Verb::kRestart);
  EXPECT_EQ(read_call(R"({"verb":"restart"})")->times, 1U);
  EXPECT_EQ(read_call(R"({"verb":"restart","times":2})")->times, 2U);
}

TEST(PodCall, WhatIsWrongIsNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "malformed request: no JSON object"},
      {"{", "malformed request: no JSON object"},
      {"[]", "malformed request: no JSON object"},
      {"\xff", "malformed request: no JSON object"},
      {"{}", "unknown verb \"\""},
      {R"({"verb":3})", "malformed request: verb is no text"},
      {R"({"verb":"walk"})", "unknown verb \"walk\""},
      {R"({"verb":"run"})", "a pod's name has 1 to 253 characters"},
      {R"({"verb":"run","name":"p","request":[]})", "malformed request: request is no object"},
      {R"({"verb":"run","name":"p","request":{"r":-1}})",
       "malformed request: request of r: a whole number from 1 to 1000"},
      {R"({"verb":"run","name":"p","request":{"r":1.5}})",
       "malformed request: request of r: a whole number from 1 to 1000"},
      {R"({"verb":"run","name":"p","request":{"r":"1"}})",
       "malformed request: request of r: a whole number from 1 to 1000"},
      {R"({"verb":"run","name":"p","request":{"r":1001}})",
       "malformed request: request of r: a whole number from 1 to 1000"},
      {R"({"verb":"run","name":"p","init":{"r":0}})",
       "malformed request: init of r: a whole number from 1 to 1000"},
      {R"({"verb":"run","name":"p","work":1})", "malformed request: work is no text"},
      {R"({"verb":"run","name":"p","command":"x"})", "malformed request: command is no list"},
      {R"({"verb":"run","name":"p","command":[1]})",
       "malformed request: command is no list of texts"},
      {R"({"verb":"run","name":"p","command":["a\u0000"]})",
       "malformed request: command: a NUL in it"},
      {R"({"verb":"restart","times":0})", "malformed request: times: a whole number from 1 to 10"},
      {R"({"verb":"restart","times":11})", "malformed request: times: a whole number from 1 to 10"},
      {R"({"verb":"restart","times":"2"})",
       "malformed request: times: a whole number from 1 to 10"},
      {R"({"verb":"rm","names":{}})", "malformed request: names is no list"},
      {R"({"verb":"rm","all":1})", "malformed request: all is neither true nor false"},
  };
  for (const auto& [line, why] : cases) {
    const auto call = read_call(line);
    ASSERT_FALSE(call.has_value()) << line;
    EXPECT_EQ(call.error().message, why) << line;
  }
  EXPECT_EQ(read_call(R"({"verb":"run","name":")" + std::string(254, 'p') + "\"}").error().message,
            "a pod's name has 1 to 253 characters");
}

}  // namespace
}  // namespace gpuslice::simkubelet
