// A MIG device that is about to go and the kubelet's Allocate for it, raced on purpose.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <set>
#include <string>
#include <thread>

#include "agent/allocation.h"
#include "agent/device_table.h"
#include "config/device_plugin.h"

namespace gpuslice::agent {
namespace {

constexpr size_t kDevices = 7;
constexpr const char* kResource = "nvidia.com/mig-1g.5gb";
constexpr Duration kGrace = std::chrono::seconds(30);

std::string id_of(size_t i) { return fmt::format("MIG-{}", i); }

Hardware one_gpu_of_seven() {
  Hardware hardware;
  ports::Gpu gpu;
  gpu.index = GpuIndex{0};
  gpu.uuid = "GPU-0";
  gpu.mig = ports::MigMode{true, true};
  for (size_t i = 0; i < kDevices; ++i) {
    ports::MigDevice device;
    device.index = static_cast<uint32_t>(i);
    device.uuid = id_of(i);
    device.profile = "1g.5gb";
    device.gi = GiId{static_cast<uint32_t>(7 + i)};
    gpu.mig_devices.push_back(device);
  }
  hardware.gpus.push_back(gpu);
  return hardware;
}

config::Effective mixed() {
  const config::DevicePluginFile file =
      config::read_device_plugin("flags: {migStrategy: mixed}", config::Compat::kStrict);
  return config::merge({}, file.config, "f").value();
}

struct WithdrawalTest : testing::Test {
  // As the agent makes its tables: again while something is given out meanwhile.
  void put() {
    while (true) {
      const uint64_t ledger = desk.ledger_version();
      const DeviceTable tables = make_device_table(hardware, config, desk.held()).value();
      if (desk.set_tables(tables, {}, ledger)) return;
    }
  }
  Result<ports::AllocateAnswer> allocate(size_t i) {
    return desk.service(kResource).allocate({{{id_of(i)}}});
  }
  // As the source of holders looks at it before a change goes on.
  [[nodiscard]] std::set<std::string> held_at_a_look() const {
    std::set<std::string> out;
    for (const LedgerEntry& entry : desk.ledger()) out.insert(entry.id);
    return out;
  }

  Hardware hardware = one_gpu_of_seven();
  config::Effective config = mixed();
  AllocationDesk desk{[] { return MonotonicTime{std::chrono::hours(1)}; }, 1};
};

TEST_F(WithdrawalTest, WhatIsAboutToGoIsListedForItsHolderAndGivenToNobody) {
  put();
  ASSERT_TRUE(allocate(0).has_value());
  hardware.withheld = {id_of(0), id_of(1)};
  put();
  // Its holder has ended, which the ledger does not know yet.
  EXPECT_EQ(allocate(0).error().message,
            "nvidia.com/mig-1g.5gb: device MIG-0 is about to go, by a change of MIG; the pod must "
            "be admitted anew");
  EXPECT_EQ(allocate(1).error().message,
            "nvidia.com/mig-1g.5gb: device MIG-1 is not offered (any more); the pod must be "
            "admitted anew");
  EXPECT_TRUE(allocate(2).has_value());
  EXPECT_EQ(
      desk.service(kResource).preferred({{{{id_of(0), id_of(3)}, {}, 1}}}).value().containers.at(0),
      std::vector<std::string>{id_of(3)});
  hardware.withheld = {"GPU-0"};
  put();
  EXPECT_FALSE(allocate(2).has_value()) << "of a GPU that is withheld as a whole";
  hardware.withheld.clear();
  put();
  EXPECT_TRUE(allocate(0).has_value());
}

// Whatever a change takes away, because nobody held it when it looked, nobody has been given, and
// nobody is given. Pods come and end all the while.
TEST_F(WithdrawalTest, NobodyHoldsWhatNobodyWasSeenToHold) {
  // Per device: a pod runs on it; it is withdrawn; a look has found it free, and it is destroyed.
  std::array<std::atomic<bool>, kDevices> runs{}, withdrawn{}, gone{};
  std::atomic<uint64_t> round{0}, admitted{0}, refused{0};
  std::atomic<uint64_t> given_late{0}, given_unseen{0};
  std::atomic<bool> stop{false};
  put();
  std::thread kubelet([&] {
    for (size_t n = 0; !stop; ++n) {
      const size_t i = n % kDevices;
      if (runs[i]) {
        std::this_thread::yield();
        continue;
      }
      const uint64_t began = round;
      const bool late = withdrawn[i];
      if (!allocate(i)) {
        ++refused;
        continue;
      }
      ++admitted;
      runs[i] = true;
      const bool unseen = gone[i];
      if (round != began) continue;  // it was offered again meanwhile
      given_late += late ? 1 : 0;
      given_unseen += unseen ? 1 : 0;
    }
  });
  const auto pods_but = [&](std::optional<size_t> ended) {
    std::vector<ports::PodDevices> pods;
    for (size_t i = 0; i < kDevices; ++i)
      if (runs[i] && i != ended) pods.push_back({"default", id_of(i), "c", kResource, {id_of(i)}});
    return pods;
  };
  const auto end_pod = [&](size_t i) {
    // The kubelet knows it first, and then our ledger.
    desk.reconcile(pods_but({}), kGrace);
    if (!runs[i]) return;
    runs[i] = false;
    desk.reconcile(pods_but(i), kGrace);
  };
  uint64_t destroyed = 0, left = 0;
  const uint64_t enough = 50;
  for (uint64_t n = 0; n < 100'000 && (n < 300 || destroyed < enough || left < enough); ++n) {
    const size_t i = n % kDevices;
    if (n % 3 == 0) end_pod(i);
    hardware.withheld = {id_of(i)};
    put();
    withdrawn[i] = true;
    if (n % 2 == 0) end_pod(i);
    if (held_at_a_look().contains(id_of(i))) {
      ++left;
    } else {
      ++destroyed;
      gone[i] = true;
    }
    // The kubelet gets a moment to try it.
    const uint64_t tries = refused;
    for (int wait = 0; wait < 5 && !runs[i] && refused == tries; ++wait) std::this_thread::yield();
    gone[i] = withdrawn[i] = false;
    ++round;
    hardware.withheld.clear();
    put();
  }
  stop = true;
  kubelet.join();
  EXPECT_EQ(given_late, 0U) << "given out after it was withdrawn";
  EXPECT_EQ(given_unseen, 0U) << "given out, and a look at the ledger did not show it";
  // It was a race.
  EXPECT_GE(destroyed, enough);
  EXPECT_GE(left, enough);
  EXPECT_GT(admitted, 0U);
  EXPECT_GT(refused, 0U);
}

}  // namespace
}  // namespace gpuslice::agent
