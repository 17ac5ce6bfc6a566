// The agent and the health of its GPUs, on ports that the test plays: what the kubelet is shown and
// which Events are told.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "agent/agent.h"
#include "agent/memory_files_for_test.h"

namespace gpuslice::agent {
namespace {

struct OneClock final : ports::Clock {
  MonotonicTime mono{std::chrono::seconds(1000)};
  [[nodiscard]] MonotonicTime now() const override { return mono; }
  [[nodiscard]] WallTime wall() const override {
    return WallTime(std::chrono::seconds(1'790'000'000) + mono.time_since_epoch());
  }
};

struct OneDriver final : ports::Driver {
  int asked = 0;
  void ask_inventory() override { ++asked; }
};

// A kubelet that takes everything at once.
struct OneKubelet final : ports::Kubelet {
  std::map<std::string, std::shared_ptr<const ports::DeviceList>> lists;
  int publications = 0;
  std::vector<std::string> registering;
  Status serve(const std::string& resource, ports::PluginService&,
               std::shared_ptr<const ports::DeviceList> list) override {
    lists[resource] = std::move(list);
    return {};
  }
  void publish(const std::string& resource,
               std::shared_ptr<const ports::DeviceList> list) override {
    ++publications;
    lists[resource] = std::move(list);
  }
  void stop(const std::string& resource) override { lists.erase(resource); }
  [[nodiscard]] bool socket_in_place(const std::string&) const override { return true; }
  [[nodiscard]] bool watched(const std::string&) const override { return true; }
  void register_plugin(const std::string& resource) override { registering.push_back(resource); }
  int asked_pods = 0;
  void list_pods() override { ++asked_pods; }
  [[nodiscard]] std::string kubelet_socket() const override { return "1"; }
};

struct AgentHealth : ::testing::Test {
  MemoryFiles files;
  OneClock clock;
  OneDriver driver;
  OneKubelet kubelet;
  std::string said;
  Log log{[this](std::string_view line) { said += line; }, [this] { return clock.wall(); }};
  std::vector<std::string> events;
  AgentOptions options;
  std::unique_ptr<Agent> agent;
  std::vector<ports::Gpu> gpus;
  std::optional<ports::Gpu> known_to_others;  // of a silent GPU

  AgentHealth() {
    files.files["/c"] = "version: v1\n";
    options.config.path = "/c";
    options.ledger_path = "/run/ledger";
    options.health_event = [this](const ports::KubeEvent& event) {
      events.push_back(fmt::format("{} {}: {}", event.warning ? "Warning" : "Normal", event.reason,
                                   event.message));
    };
    for (uint32_t i = 0; i < 8; ++i) {
      ports::Gpu gpu;
      gpu.index = GpuIndex{i};
      gpu.uuid = fmt::format("GPU-{}", i);
      gpus.push_back(gpu);
    }
    start();
  }
  void start() {
    agent = std::make_unique<Agent>(options, AgentPorts{files, clock, driver, kubelet}, log);
    agent->start();
    run();
    agent->on_pods(std::vector<ports::PodDevices>{});
  }
  // As T0 does after each event: until nothing is to be done at once.
  void run() {
    bool again = true;
    while (again) {
      again = agent->reconcile() <= clock.mono;
      for (const std::string& resource : std::exchange(kubelet.registering, {})) {
        agent->on_registered(resource, {});
        again = true;
      }
    }
  }
  // The driver answers; those of `silent` do not.
  void look(const std::map<uint32_t, Error>& silent = {}) {
    clock.mono += std::chrono::seconds(5);
    ports::Inventory inventory;
    inventory.driver.version = "580.65.06";
    for (const ports::Gpu& gpu : gpus) {
      const auto found = silent.find(gpu.index.value);
      if (found == silent.end())
        inventory.gpus.push_back(gpu);
      else
        inventory.silent.push_back({gpu.index, found->second, known_to_others});
    }
    agent->on_inventory(std::move(inventory));
    run();
  }
  // "7 healthy, unhealthy: GPU-3"
  [[nodiscard]] std::string shown() const {
    const auto found = kubelet.lists.find("nvidia.com/gpu");
    if (found == kubelet.lists.end()) return "nothing";
    int healthy = 0;
    std::string sick;
    for (const ports::Device& device : found->second->devices) {
      healthy += device.healthy ? 1 : 0;
      if (!device.healthy) sick += " " + device.id;
    }
    return fmt::format("{} healthy{}", healthy, sick.empty() ? "" : ", unhealthy:" + sick);
  }
};

const Error kLost{Code::kGpuLost, "GPU 3: nvmlDeviceGetUUID: GPU is lost (15)", {}};
const Error kHangs{Code::kTimeout, "GPU 3: nvmlDeviceGetName does not return", {}};

TEST_F(AgentHealth, OneLostGpuOfEightIsListedWithItsReasonAndSevenAreServed) {
  look();
  EXPECT_EQ(shown(), "8 healthy");
  look({{3, kLost}});
  EXPECT_EQ(shown(), "7 healthy, unhealthy: GPU-3");
  EXPECT_EQ(agent->status()->unhealthy,
            (std::map<std::string, std::string>{{"GPU-3", kLost.message}}));
  EXPECT_TRUE(agent->status()->ready);
  look();
  EXPECT_EQ(shown(), "8 healthy");
  EXPECT_EQ(kubelet.publications, 2);
}

TEST_F(AgentHealth, AGpuThatWasLostBeforeTheStartIsListedToo) {
  look();
  agent.reset();
  start();
  look({{3, kLost}});
  EXPECT_EQ(shown(), "7 healthy, unhealthy: GPU-3");
}

TEST_F(AgentHealth, AGpuThatIsLostAtTheFirstLookIsListedWhereOthersKnowWhichItIs) {
  look({{3, kLost}});
  EXPECT_EQ(shown(), "7 healthy");
  known_to_others = gpus[3];
  look({{3, kLost}});
  EXPECT_EQ(shown(), "7 healthy, unhealthy: GPU-3");
  known_to_others.reset();
  look({{3, kLost}});
  EXPECT_EQ(shown(), "7 healthy, unhealthy: GPU-3") << "it is known from now on";
}

TEST_F(AgentHealth, AGpuThatHangsIsSilentAndKeepsItsMarks) {
  look();
  agent->on_gpu_event({"GPU-3", ports::GpuEvent::Kind::kXid, 79, {}, {}});
  look({{3, kHangs}});
  EXPECT_EQ(shown(), "7 healthy, unhealthy: GPU-3");
  look();
  EXPECT_EQ(shown(), "7 healthy, unhealthy: GPU-3") << "it was not lost";
}

TEST_F(AgentHealth, WithoutADriverItWaitsAndServesGpusThatAppearLater) {
  agent->on_inventory(fail(Code::kUnavailable, "NVIDIA driver: libnvidia-ml.so.1 is not there"));
  run();
  EXPECT_EQ(shown(), "nothing");
  EXPECT_EQ(agent->status()->why_not_ready,
            "no driver: NVIDIA driver: libnvidia-ml.so.1 is not there");
  const std::vector<ports::Gpu> all = std::exchange(gpus, {});
  look();
  EXPECT_EQ(shown(), "nothing");
  EXPECT_EQ(agent->status()->why_not_ready, "no GPU on this node");
  const int asked = driver.asked;
  clock.mono += std::chrono::seconds(1);
  run();
  EXPECT_EQ(driver.asked, asked + 1) << "it looks again within a second";
  gpus = {all[0]};
  look();
  EXPECT_EQ(shown(), "1 healthy");
  gpus = all;
  look();
  EXPECT_EQ(shown(), "8 healthy");
  EXPECT_TRUE(agent->status()->ready);
}

TEST_F(AgentHealth, ADriverThatDoesNotAnswerAtAllIsToldAfterAWhile) {
  look();
  clock.mono += std::chrono::seconds(5);
  run();  // it asks
  clock.mono += std::chrono::seconds(29);
  run();
  EXPECT_EQ(shown(), "8 healthy");
  clock.mono += std::chrono::seconds(1);
  run();
  EXPECT_EQ(kubelet.lists.at("nvidia.com/gpu")->devices.size(), 8U);
  EXPECT_EQ(agent->status()->unhealthy.at("GPU-0"), "the driver has not answered for 30 s");
  EXPECT_EQ(shown().substr(0, 9), "0 healthy");
  const int asked = driver.asked;
  clock.mono += std::chrono::seconds(60);
  run();
  EXPECT_EQ(driver.asked, asked) << "one question hangs, not many";
  look();
  EXPECT_EQ(shown(), "8 healthy");
}

TEST_F(AgentHealth, EventsAreToldWhenHealthChangesAndNotOtherwise) {
  gpus[1].mig = ports::MigMode{true, true};
  ports::MigDevice device;
  device.uuid = "MIG-a";
  device.profile = "1g.5gb";
  device.gi = GiId{7};
  gpus[1].mig_devices.push_back(device);
  look();
  EXPECT_TRUE(events.empty());
  look({{3, kLost}});
  look({{3, kLost}});
  EXPECT_EQ(events, (std::vector<std::string>{"Warning GpuUnhealthy: GPU 3 (GPU-3): unhealthy: " +
                                              kLost.message}));
  events.clear();
  look();
  EXPECT_EQ(events, (std::vector<std::string>{"Normal GpuHealthy: GPU 3 (GPU-3): healthy again"}));
  events.clear();
  for (int i = 0; i < 3; ++i) {
    clock.mono += std::chrono::seconds(1);
    agent->on_gpu_event({"GPU-1", ports::GpuEvent::Kind::kXid, 94, GiId{7}, {}});
    run();
  }
  EXPECT_EQ(events, (std::vector<std::string>{"Warning GpuUnhealthy: GPU 1, MIG device 1g.5gb "
                                              "(MIG-a): unhealthy: XID 94"}))
      << "without the time: equal ones count";
  events.clear();
  gpus[1].ecc_uncorrected = 1;
  look();
  look();
  EXPECT_EQ(events, (std::vector<std::string>{
                        "Warning GpuTrouble: GPU 1 (GPU-1): 1 uncorrectable ECC error since its "
                        "last reset; its MIG devices are given out all the same"}));
  events.clear();
  gpus[1].mig_devices.clear();
  gpus[1].ecc_uncorrected = 0;
  look();
  EXPECT_TRUE(events.empty()) << "what is gone did not become healthy: " << events[0];
}

TEST_F(AgentHealth, WhatWaitsForAPodToEndIsAskedAfterFromTheEditOn) {
  const auto replicas = [&](int n) {
    files.files["/c"] = fmt::format(
        "version: v1\nsharing: {{timeSlicing: {{resources: [{{name: gpu, replicas: {}}}]}}}}\n", n);
    agent->on_config_changed();
    run();
  };
  const ports::PodDevices pod{
      "default", "p", "c", "nvidia.com/gpu", {"GPU-0::0", "GPU-0::1", "GPU-0::3"}};
  replicas(4);
  look();
  for (int i = 0; i < 2; ++i) {  // once more after what was new in it
    agent->on_pods(std::vector{pod});
    run();
    clock.mono += options.pods_interval_waiting;
    run();
  }
  EXPECT_EQ(shown(), "32 healthy");
  const int before = kubelet.asked_pods;
  replicas(2);
  EXPECT_EQ(shown(), "17 healthy");
  clock.mono += options.pods_interval_waiting;
  run();
  EXPECT_EQ(kubelet.asked_pods, before + 1);
  agent->on_pods(std::vector<ports::PodDevices>{});
  run();
  EXPECT_EQ(shown(), "16 healthy");
}

TEST_F(AgentHealth, ACleanProbeIsConfiguredByTheFile) {
  files.files["/c"] = "version: v1\nflags: {plugin: {xidCleanProbe: 94=20s}}\n";
  agent->on_config_changed();
  run();
  look();
  agent->on_gpu_event({"GPU-0", ports::GpuEvent::Kind::kXid, 94, {}, {}});
  for (int i = 0; i < 4; ++i) look();
  EXPECT_EQ(shown(), "7 healthy, unhealthy: GPU-0");
  look();
  EXPECT_EQ(shown(), "8 healthy");
}

}  // namespace
}  // namespace gpuslice::agent
