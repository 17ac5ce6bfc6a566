// Writers die here: by SIGKILL, with the lock held, before each single store of a write, also in
// PID and mount namespaces of their own. Afterwards the world is whole, no update is lost, nobody
// who is dead is listed, and the next writer has mended the trees.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "base/random.h"
#include "sim/abort_point.h"
#include "sim/testing.h"
#include "sim/world.h"

namespace gpuslice::sim {
namespace {

// Trees of two files that must both show the counter.
uint64_t counter_of(const State& state) { return state.gpus[0].calls.create_gi.ok; }

uint64_t test_tree_key(const State& state) { return (counter_of(state) + 1) << 1; }

Status write_number(const std::string& path, uint64_t number) {
  abort_point("trees: write a file");
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return fail(Code::kFailed, "{}: {}", path, std::strerror(errno));
  abort_point("trees: fill a file");
  const std::string text = std::to_string(number);
  const ssize_t wrote = write(fd, text.data(), text.size());
  close(fd);
  if (wrote != static_cast<ssize_t>(text.size())) return fail(Code::kFailed, "{}", path);
  return {};
}

Status test_sync_trees(const std::string& root, const State& state) {
  TRY(write_number(root + "/trees/a", counter_of(state)));
  return write_number(root + "/trees/b", counter_of(state));
}

constexpr WriteHooks kHooks{
    .settle = nullptr, .tree_key = test_tree_key, .sync_trees = test_sync_trees};

Status bump_pair(World& world) {
  return world.write([](State& state) {
    ++state.gpus[0].calls.create_gi.ok;
    ++state.gpus[3].calls.create_gi.ok;
    uint8_t gi = kNone;
    if (state.gpus[1].gis[1].live) {
      (void)destroy_gi(state, 1, 1, kRoot);
    } else {
      (void)create_gi(state, 1, ProfileId{9}, Placement{0, 4}, kRoot, gi);
    }
  });
}

// All that a client does in its life, from attaching to leaving.
int live_a_life(const std::string& root) {
  const auto world = World::open(root, kHooks);
  if (!world) return 1;
  if (!(*world)->attach()) return 2;
  if (!bump_pair(**world)) return 3;
  (*world)->detach();
  return 0;
}

class Kill : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(mkdir((root() + "/trees").c_str(), 0777), 0);
    NodeOptions options;
    for (int i = 0; i < 4; ++i) options.gpus.push_back({"H100-80GB-SXM", Sweep::kPlain});
    Result<std::unique_ptr<World>> made = World::create(root(), options, kHooks);
    ASSERT_TRUE(made) << made.error().text();
    world_ = std::move(*made);
    const Result<Ret> on = world_->write([](State& state) {
      Ret activation = Ret::kUnknown;
      return set_mig_mode(state, 1, true, kRoot, activation);
    });
    ASSERT_TRUE(on && *on == Ret::kSuccess);
  }

  // Whatever was interrupted: everything holds, and the next write makes the trees right.
  void check_all(uint64_t least, uint64_t most) {
    alarm(60);  // a lock that was left behind is a failure, not a hang
    const auto fresh = World::open(root(), kHooks);
    ASSERT_TRUE(fresh) << fresh.error().text();
    const uint64_t seen = counter_of(*(*fresh)->snapshot());
    EXPECT_GE(seen, least);
    EXPECT_LE(seen, most);
    EXPECT_EQ((*fresh)->snapshot()->gpus[3].calls.create_gi.ok, seen) << "torn";
    EXPECT_TRUE((*fresh)->live_clients(*(*fresh)->snapshot()).empty());
    ASSERT_TRUE((*fresh)->write([](State&) {}));
    const std::shared_ptr<const State> swept = (*fresh)->snapshot();
    for (const Client& client : swept->clients) ASSERT_EQ(client.used, 0);
    EXPECT_EQ(read_text(root() + "/trees/a"), std::to_string(seen));
    EXPECT_EQ(read_text(root() + "/trees/b"), std::to_string(seen));
    EXPECT_EQ(counter_of(*world_->snapshot()), seen) << "and this process sees the same";
    alarm(0);
  }

  [[nodiscard]] const std::string& root() const { return folder_.path(); }

  TempFolder folder_;
  std::unique_ptr<World> world_;
};

// How many abort points a life has, and that they are of all kinds.
int count_points(const std::string& root) {
  const pid_t child = fork_child([&] {
    std::multiset<std::string> names;
    collect_abort_points(names);
    if (live_a_life(root) != 0) return 0;
    for (const char* kind :
         {"lock: taken", "clients: lock a slot", "state: copy", "state: checksum",
          "state: sequence", "state: wake", "state: trees key", "trees: write a file",
          "lock: release", "clients: unlock a slot"})
      if (!names.contains(kind)) return 0;
    return static_cast<int>(names.size());
  });
  return wait_child(child);
}

int die_at(const std::string& root, int point) {
  die_at_abort_point(point);
  return live_a_life(root);
}

TEST_F(Kill, BeforeEveryStoreOfALife) {
  const int points = count_points(root());
  ASSERT_GT(points, 30);
  ASSERT_LT(points, 120);
  for (int point = 1; point <= points; ++point) {
    SCOPED_TRACE(point);
    const uint64_t before = counter_of(*world_->snapshot());
    const int ended = wait_child(fork_child([&] { return die_at(root(), point); }));
    ASSERT_EQ(ended, kKilled);
    check_all(before, before + 1);  // an update is whole, or not there
  }
  std::printf("%d abort points, a death at each\n", points);
}

TEST_F(Kill, BeforeEveryStoreInNamespacesOfItsOwn) {
  const int points = count_points(root());
  ASSERT_GT(points, 30);
  for (int point = 1; point <= points; ++point) {
    SCOPED_TRACE(point);
    const uint64_t before = counter_of(*world_->snapshot());
    const int ended = run_walled_in([&] { return die_at(root(), point); });
    ASSERT_EQ(ended, kKilled);
    check_all(before, before + 1);
  }
  std::printf("%d abort points in namespaces of its own, a death at each\n", points);
}

TEST_F(Kill, AWalledInWriterLeavesTheTreesToTheNextOne) {
  const std::string trees = root() + "/trees";
  ASSERT_TRUE(bump_pair(*world_));
  const std::string before = read_text(trees + "/a");
  const int ended = run_walled_in([&] {
    if (mount(trees.c_str(), trees.c_str(), nullptr, MS_BIND, nullptr) != 0) return 1;
    if (mount("none", trees.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) != 0)
      return 2;
    return live_a_life(root());
  });
  ASSERT_EQ(ended, 0) << "the write itself succeeds";
  EXPECT_EQ(read_text(trees + "/a"), before);
  ASSERT_TRUE(world_->attach()) << "who attaches mends";
  EXPECT_EQ(read_text(trees + "/a"), std::to_string(counter_of(*world_->snapshot())));
  EXPECT_EQ(read_text(trees + "/b"), std::to_string(counter_of(*world_->snapshot())));
  world_->detach();
}

TEST_F(Kill, PidsAreSeenInTheAskersNamespace) {
  std::array<int, 2> ready{}, done{};
  ASSERT_EQ(pipe2(ready.data(), O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(done.data(), O_CLOEXEC), 0);
  const Result<uint16_t> own = world_->attach();
  ASSERT_TRUE(own);
  std::thread inside([&] {
    EXPECT_EQ(run_walled_in([&] {
                const auto world = World::open(root(), kHooks);
                if (!world) return 1;
                const Result<uint16_t> slot = (*world)->attach();
                if (!slot) return 2;
                if ((*world)->holder(*slot) != getpid()) return 3;
                if ((*world)->holder(*own) != 0) return 4;  // alive, but not to be seen from here
                const auto number = static_cast<char>(*slot);
                char one = 0;
                if (write(ready[1], &number, 1) != 1) return 5;
                return read(done[0], &one, 1) == 1 ? 0 : 6;
              }),
              0);
  });
  char slot = 0;
  ASSERT_EQ(read(ready[0], &slot, 1), 1);
  const std::optional<int32_t> pid = world_->holder(static_cast<uint16_t>(slot));
  ASSERT_TRUE(pid);
  EXPECT_GT(*pid, 2) << "its number here, not in there";
  EXPECT_EQ(kill(*pid, 0), 0);
  ASSERT_EQ(write(done[1], "x", 1), 1);
  inside.join();
  for (const int fd : {ready[0], ready[1], done[0], done[1]}) close(fd);
  world_->detach();
}

TEST_F(Kill, NoUpdateIsLostWhenProcessesDieAtRandom) {
  // What the writers know to be written, outside the world.
  void* const shared = mmap(nullptr, sizeof(std::atomic<uint64_t>), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  auto* const confirmed = new (shared) std::atomic<uint64_t>{0};
  const auto writer = [&] {
    const auto world = World::open(root(), kHooks);
    if (!world || !(*world)->attach()) return 1;
    for (;;) {
      if (!bump_pair(**world)) return 2;
      confirmed->fetch_add(1);
    }
  };
  Random random(7);
  std::vector<pid_t> children;
  children.reserve(6);
  for (int i = 0; i < 6; ++i) children.push_back(fork_child(writer));
  uint64_t killed = 0;
  for (int round = 0; round < 60; ++round) {
    // They get somewhere between two deaths, however slow the machine.
    const uint64_t enough = confirmed->load() + 3;
    while (confirmed->load() < enough) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(5000)));
    const size_t victim = random.below(children.size());
    kill(children[victim], SIGKILL);
    EXPECT_EQ(wait_child(children[victim]), kKilled);
    ++killed;
    children[victim] = fork_child(writer);
  }
  for (const pid_t child : children) {
    kill(child, SIGKILL);
    EXPECT_EQ(wait_child(child), kKilled);
    ++killed;
  }
  const uint64_t sure = confirmed->load();
  const uint64_t there = counter_of(*world_->snapshot());
  EXPECT_GT(sure, 100U);
  EXPECT_GE(there, sure) << "what was answered is there";
  EXPECT_LE(there, sure + killed) << "each death may have published one more than it could say";
  check_all(sure, sure + killed);
  munmap(shared, sizeof(std::atomic<uint64_t>));
}

}  // namespace
}  // namespace gpuslice::sim
