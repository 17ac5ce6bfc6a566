// The driver's own files under the root, when writers die at every step of them, or write from
// inside a view of their own.

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "sim/mounts.h"
#include "sim/testing.h"
#include "sim/trees.h"
#include "sim/world.h"

namespace gpuslice::sim {
namespace {

// All that is below the folders that belong to the driver: paths, and what files and links say.
std::map<std::string, std::string> on_disk(const std::string& root) {
  namespace fs = std::filesystem;
  std::map<std::string, std::string> found;
  for (const char* owned : {"dev", "proc", "sys/bus/pci/devices", "sys/devices"})
    for (const auto& entry : fs::recursive_directory_iterator(root + "/" + owned)) {
      const std::string path = entry.path().string().substr(root.size() + 1);
      if (entry.is_symlink()) {
        found[path] = "-> " + fs::read_symlink(entry.path()).string();
      } else if (entry.is_regular_file()) {
        found[path] = read_text(entry.path().string());
      } else if (!entry.is_directory()) {
        found[path] = "node";
      }
    }
  return found;
}

std::map<std::string, std::string> as_it_should_be(const State& state, bool nodes) {
  std::map<std::string, std::string> wanted;
  for (const auto& [path, entry] : tree_of(state)) {
    if (entry.kind == TreeEntry::Kind::kLink) wanted[path] = "-> " + entry.text;
    if (entry.kind == TreeEntry::Kind::kFile) wanted[path] = entry.text;
    if (entry.kind == TreeEntry::Kind::kNode) wanted[path] = nodes ? "node" : "";
  }
  return wanted;
}

// Makes an instance with a compute instance on GPU 1, or takes it away again.
int repartition(const std::string& root) {
  const auto world = World::open(root);
  if (!world) return 1;
  const Status done = (*world)->write([](State& state) {
    uint8_t gi = 1, ci = 0;
    if (state.gpus[1].gis[1].live) {
      (void)destroy_ci(state, 1, gi, ci, kRoot);
      (void)destroy_gi(state, 1, gi, kRoot);
    } else {
      (void)create_gi(state, 1, ProfileId{9}, Placement{0, 4}, kRoot, gi);
      (void)create_ci(state, 1, gi, 2, std::nullopt, kRoot, ci);
    }
  });
  return done ? 0 : 2;
}

// A node with its files, MIG on on GPU 1.
class Trees : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(mkdir((root() + "/dev").c_str(), 0755), 0);
    std::ofstream(root() + "/dev/.gpuslice-node").flush();  // as lay_driver_files() leaves it
    NodeOptions options;
    for (int i = 0; i < 4; ++i) options.gpus.push_back({"H100-80GB-SXM", Sweep::kPlain});
    world_ = must(World::create(root(), options));
    const Result<Ret> on = world_->write([](State& state) {
      Ret activation = Ret::kUnknown;
      return set_mig_mode(state, 1, true, kRoot, activation);
    });
    ASSERT_TRUE(on && *on == Ret::kSuccess);
    nodes_ = on_disk(root()).at("dev/nvidia0") == "node";
    ASSERT_EQ(on_disk(root()), wanted());
  }

  [[nodiscard]] const std::string& root() const { return folder_.path(); }
  [[nodiscard]] bool instance() const { return world_->snapshot()->gpus[1].gis[1].live != 0; }
  [[nodiscard]] std::map<std::string, std::string> wanted() const {
    return as_it_should_be(*world_->snapshot(), nodes_);
  }

  // Repartitions twice, dying before the first step, the second, … until none is left; `run` runs a
  // body in a child of some kind and says how it ended. How many died.
  template <class Run>
  int die_at_every_step(Run run) {
    int killed = 0;
    for (int life = 0; life < 2; ++life) {
      for (int point = 1; point < 400; ++point) {
        SCOPED_TRACE("life " + std::to_string(life) + " point " + std::to_string(point));
        const bool before = instance();
        const int ended = run([&] {
          die_at_abort_point(point);
          return repartition(root());
        });
        alarm(60);  // a lock that was left behind is a failure, not a hang
        EXPECT_TRUE(world_->write([](State&) {}));
        alarm(0);
        const std::shared_ptr<const State> state = world_->snapshot();
        EXPECT_EQ(state->gpus[1].gis[1].live, state->gpus[1].gis[1].cis[0].live) << "torn";
        EXPECT_EQ(on_disk(root()), wanted());
        if (HasFailure()) return killed;
        if (ended == 0) break;
        EXPECT_EQ(ended, kKilled);
        ++killed;
        // Every point is met from the same side.
        if (instance() != before) {
          EXPECT_EQ(repartition(root()), 0);
        }
      }
    }
    return killed;
  }

  TempFolder folder_;
  std::unique_ptr<World> world_;
  bool nodes_ = false;
};

TEST_F(Trees, ADeathAtAnyStepIsMendedByTheNextWriter) {
  const int killed = die_at_every_step([](auto body) { return wait_child(fork_child(body)); });
  EXPECT_GT(killed, 40);
  std::printf("%d deaths, one at each step of the trees\n", killed);
}

TEST_F(Trees, ADeathAtAnyStepInNamespacesOfItsOwnToo) {
  const int killed = die_at_every_step([](auto body) { return run_walled_in(body); });
  EXPECT_GT(killed, 40);
  std::printf("%d deaths, one at each step of the trees\n", killed);
}

TEST_F(Trees, AWriterInAPrivateViewLeavesThemToTheNextOneOutside) {
  const auto before = on_disk(root());
  const int ended = wait_child(fork_child([&] {
    const Status entered =
        enter_view({.root = root(), .nodes = {{"nvidia1", "nvidiactl"}}, .system_paths = false});
    if (!entered) {
      std::fprintf(stderr, "trees_kill_test: %s\n", entered.error().text().c_str());
      return 77;
    }
    if (access((root() + "/dev/nvidia0").c_str(), F_OK) == 0) return 78;  // not in this view
    return repartition(root());
  }));
  ASSERT_EQ(ended, 0) << "the write itself succeeds";
  EXPECT_TRUE(instance());
  EXPECT_EQ(on_disk(root()), before);
  ASSERT_TRUE(world_->attach()) << "who attaches mends";
  EXPECT_EQ(on_disk(root()), wanted());
  EXPECT_NE(on_disk(root()), before);
}

}  // namespace
}  // namespace gpuslice::sim
