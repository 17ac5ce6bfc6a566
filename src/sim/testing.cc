#include "sim/testing.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "sim/abort_point.h"

namespace gpuslice::sim {

std::unique_ptr<State> test_node(const std::string& board, Sweep sweep, bool mig, uint32_t gpus) {
  NodeOptions options;
  options.virtual_clock = true;
  for (uint32_t i = 0; i < gpus; ++i) options.gpus.push_back({board, sweep});
  Result<State> made = make_state(options, 1);
  if (!made) {
    ADD_FAILURE() << made.error().text();
    std::abort();
  }
  auto state = std::make_unique<State>(*made);
  for (uint32_t i = 0; mig && i < gpus; ++i) {
    Ret activation = Ret::kUnknown;
    EXPECT_EQ(set_mig_mode(*state, i, true, kRoot, activation), Ret::kSuccess);
    EXPECT_EQ(activation, Ret::kSuccess);
  }
  return state;
}

NodeOptions four_a100() {
  NodeOptions options;
  for (int i = 0; i < 4; ++i) options.gpus.push_back({"A100-SXM4-40GB", Sweep::kPlain});
  return options;
}

std::unique_ptr<World> must(Result<std::unique_ptr<World>> world) {
  if (!world) {
    ADD_FAILURE() << world.error().text();
    std::abort();
  }
  return std::move(*world);
}

uint64_t bump(World& world) {
  const Result<uint64_t> now =
      world.write([](State& state) { return ++state.gpus[0].calls.create_gi.ok; });
  return now ? *now : 0;
}

namespace {

// A test is one thread where it counts its abort points.
int points_left = 0;
std::multiset<std::string>* names_met = nullptr;

void at_abort_point(const char* what) {
  if (names_met != nullptr) names_met->insert(what);
  if (points_left <= 0) return;
  --points_left;
  if (points_left == 0) raise(SIGKILL);
}

}  // namespace

void die_at_abort_point(int n) {
  points_left = n;
  set_abort_point_hook(at_abort_point);
}

void collect_abort_points(std::multiset<std::string>& names) {
  names_met = &names;
  set_abort_point_hook(at_abort_point);
}

int run_walled_in(const std::function<int()>& body) {
  const pid_t outer = fork_child([&] {
    int flags = CLONE_NEWPID | CLONE_NEWNS;
    if (geteuid() != 0) flags |= CLONE_NEWUSER;
    if (unshare(flags) != 0) {
      std::fprintf(stderr,
                   "sim test: cannot make PID and mount namespaces: %s; run as root or allow "
                   "user namespaces\n",
                   std::strerror(errno));
      return 77;
    }
    return wait_child(fork_child([&] {
      if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 78;
      return wait_child(fork_child(body));
    }));
  });
  return wait_child(outer);
}

std::string read_text(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TempFolder::TempFolder() {
  std::string name = std::filesystem::temp_directory_path() / "gpuslice-sim-XXXXXX";
  if (mkdtemp(name.data()) == nullptr) std::abort();
  path_ = name;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

pid_t fork_child(const std::function<int()>& body) {
  const pid_t pid = fork();
  if (pid == 0) _exit(body());
  return pid;
}

int wait_child(pid_t pid) {
  int status = 0;
  if (waitpid(pid, &status, 0) != pid) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool put_work(State& state, uint16_t client, uint8_t gpu, uint8_t gi, uint8_t ci) {
  for (Work& work : state.works) {
    if (work.used) continue;
    work = {.used = 1, .gpu = gpu, .gi = gi, .ci = ci, .client = client};
    work.memory_bytes = uint64_t{1} << 30;
    work.activity_permille = 600;
    return true;
  }
  return false;
}

}  // namespace gpuslice::sim
