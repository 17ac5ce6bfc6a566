#pragma once

// What the tests of the agent's controller of MIG layouts have in common: two boards, three labels,
// and a driver that can be made to fail. Only for tests.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "partition_node.h"

namespace gpuslice::mig_test {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using Texts = std::vector<std::string>;

inline constexpr const char* kConfig = R"(version: v1
mig-configs:
  small:
    - {devices: all, mig-enabled: true, mig-devices: {1g.5gb: 7}}
  halves:
    - {devices: all, mig-enabled: true, mig-devices: {3g.20gb: 2}}
  off:
    - {devices: all, mig-enabled: false}
  first:
    - {devices: [0], mig-enabled: true, mig-devices: {3g.20gb: 2}}
)";
inline constexpr const char* kSmall =
    "1g.5gb at 0:1, 1g.5gb at 1:1, 1g.5gb at 2:1, 1g.5gb at 3:1, 1g.5gb at 4:1, 1g.5gb at 5:1, "
    "1g.5gb at 6:1";
inline constexpr const char* kHalves = "3g.20gb at 0:4, 3g.20gb at 4:4";

inline sim::NodeOptions two_boards() {
  sim::NodeOptions options;
  options.gpus = {{"A100-SXM4-40GB", sim::Sweep::kPlain}, {"A100-SXM4-40GB", sim::Sweep::kPlain}};
  return options;
}

class PartitionTest : public testing::Test {
 protected:
  PartitionTest() { node.files.files[kMigConfig] = kConfig; }

  void driver_fails(const std::string& word) {
    node.calls_fail(word, {Code::kFailed, "unknown error", {}});
  }
  // A change of GPU 0 that an earlier life of the agent has begun.
  void leave_journal() {
    mig::Change change(node.ports(), Node::options(), node.gpu(0));
    ASSERT_TRUE(change.prepare(wish({{"3g.20gb", 2}})));
  }
  [[nodiscard]] bool journal_left() const {
    return node.files.files.contains(
        mig::journal_path(Node::options().journal_folder, node.gpu(0).uuid));
  }
  [[nodiscard]] std::string state() const { return agent.status().state; }
  [[nodiscard]] const std::string& reason() const { return agent.status().reason; }
  [[nodiscard]] size_t times(const std::string& question) const {
    return static_cast<size_t>(std::count(agent.asked.begin(), agent.asked.end(), question));
  }
  void expect_layouts(const std::string& first, const std::string& second) {
    EXPECT_EQ(agent.layout(0), first);
    EXPECT_EQ(agent.layout(1), second);
  }
  void another_program_takes_an_instance_of(uint32_t gpu) {
    sim::WorldNvml other(*node.world);
    const auto there = node.look(gpu);
    const ports::GpuInstance& first = there.instances.at(0);
    const std::string uuid = node.gpu(gpu).uuid;
    ASSERT_TRUE(other.destroy_ci(uuid, first.id, first.cis.at(0).id).has_value());
    ASSERT_TRUE(other.destroy_gi(uuid, first.id).has_value());
  }
  void another_program_switches_on(uint32_t gpu) {
    mig::Change change(node.ports(), Node::options(), node.gpu(gpu));
    change.run(wish({{"7g.40gb", 1}}));
    ASSERT_EQ(change.report().end, mig::End::kDone);
  }
  // "GPU-… twice" where a device was withdrawn more than once.
  [[nodiscard]] Texts withdrawn_twice() const {
    std::set<std::string> seen;
    Texts out;
    for (const std::set<std::string>& one : agent.withdrawals)
      for (const std::string& uuid : one)
        if (!seen.insert(uuid).second) out.push_back(uuid + " twice");
    return out;
  }

  Node node{two_boards()};
  PartitionNode agent{node};
};

}  // namespace gpuslice::mig_test
