#pragma once

// What several tests of sim/ start from. Only for tests.

#include <gtest/gtest.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "sim/mig.h"
#include "sim/world.h"

namespace gpuslice::sim {

inline constexpr Caller kRoot{.admin = true, .client = kNoClient};

// A node of one or more equal boards on a virtual clock, MIG switched on where `mig`.
[[nodiscard]] std::unique_ptr<State> test_node(const std::string& board,
                                               Sweep sweep = Sweep::kPlain, bool mig = true,
                                               uint32_t gpus = 1);

[[nodiscard]] NodeOptions four_a100();
// The world, or the end of the test program.
[[nodiscard]] std::unique_ptr<World> must(Result<std::unique_ptr<World>> world);
// Counts in a field that nothing else touches; 0 when it could not be written.
uint64_t bump(World& world);

// Removes the folder with everything in it at the end of the test.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Forks a child that runs `body` and leaves with what it returns, without running exit handlers.
[[nodiscard]] pid_t fork_child(const std::function<int()>& body);
// The exit status of a child; 128 + signal when one killed it.
[[nodiscard]] int wait_child(pid_t pid);

inline constexpr int kKilled = 128 + 9;  // as wait_child() says it
// Lets this process die by SIGKILL at its n-th abort point from now.
void die_at_abort_point(int n);
// Writes down the abort points that this process meets from now on.
void collect_abort_points(std::multiset<std::string>& names);

// Runs `body` as an ordinary process in PID and mount namespaces of its own (not as their init,
// which cannot be killed from inside). Says how it ended, as wait_child() does; 77 and a sentence
// on stderr where this machine allows no namespaces.
[[nodiscard]] int run_walled_in(const std::function<int()>& body);

[[nodiscard]] std::string read_text(const std::string& path);

// A piece of work of `client`, in the first free place. False when there is none.
bool put_work(State& state, uint16_t client, uint8_t gpu, uint8_t gi, uint8_t ci);

}  // namespace gpuslice::sim
