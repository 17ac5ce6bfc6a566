#include "nvml/reset.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/text.h"
#include "nvml/calls.h"
#include "nvml/library.h"

namespace gpuslice::nvml {
namespace {

constexpr const char* kSimulatedReset = "gpuslice_sim_gpu_reset";
constexpr size_t kMostOutput = 16 * 1024;

Status reset_simulated(std::unique_ptr<Library> library, const std::string& bus_id) {
  Calls calls(std::move(library));
  TRY(calls.must("NVIDIA driver", "nvmlInit_v2"));
  api::Device device = nullptr;
  Status done = calls.must(bus_id, "nvmlDeviceGetHandleByPciBusId_v2", bus_id.c_str(), &device);
  if (done) done = calls.must("GPU " + bus_id, kSimulatedReset, device);
  (void)calls.call("nvmlShutdown");
  // The export's name says nothing to whoever reads the error.
  if (!done) {
    std::string& message = done.error().message;
    const size_t at = message.find(kSimulatedReset);
    if (at != std::string::npos) message.replace(at, std::strlen(kSimulatedReset), "reset");
  }
  return done;
}

struct Ran {
  int status = 0;
  std::string output;
};

// Runs `program` and gathers what it prints; killed after kResetSeconds.
Result<Ran> run(const std::string& program, const std::string& bus_id) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0)
    return fail(Code::kFailed, "{}: cannot be run: {}", program, std::strerror(errno));
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, pipe[1], STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, pipe[1], STDERR_FILENO);
  std::array<std::string, 4> words = {program, "--gpu-reset", "-i", bus_id};
  std::array<char*, 5> argv = {words[0].data(), words[1].data(), words[2].data(), words[3].data(),
                               nullptr};
  pid_t pid = 0;
  const int failed =
      ::posix_spawnp(&pid, program.c_str(), &actions, nullptr, argv.data(), ::environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(pipe[1]);
  if (failed != 0) {
    ::close(pipe[0]);
    return fail(Code::kUnavailable, "{}: cannot be run: {}", program, std::strerror(failed));
  }
  Ran ran;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(kResetSeconds);
  bool late = false;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        until - std::chrono::steady_clock::now());
    pollfd wait{pipe[0], POLLIN, 0};
    const int ready = left.count() <= 0 ? 0 : ::poll(&wait, 1, static_cast<int>(left.count()));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      late = true;
      ::kill(pid, SIGKILL);
      break;
    }
    std::array<char, 1024> buffer{};
    const ssize_t got = ::read(pipe[0], buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    if (ran.output.size() < kMostOutput) ran.output.append(buffer.data(), static_cast<size_t>(got));
  }
  ::close(pipe[0]);
  while (::waitpid(pid, &ran.status, 0) < 0 && errno == EINTR) {
  }
  if (late)
    return fail(Code::kTimeout, "{} --gpu-reset: no end after {} s; it was killed", program,
                kResetSeconds);
  return ran;
}

// gpuslice itself may stand there under the tool's name: it would run itself for ever.
bool is_this_program(const std::string& path) {
  struct stat there{};
  struct stat self{};
  return ::stat(path.c_str(), &there) == 0 && ::stat("/proc/self/exe", &self) == 0 &&
         there.st_dev == self.st_dev && there.st_ino == self.st_ino;
}

// Its words as one line.
std::string one_line(std::string_view output) {
  std::string line;
  for (const std::string_view part : split(output, '\n')) {
    const std::string_view words = trim(part);
    if (!words.empty()) line += (line.empty() ? "" : " | ") + std::string(words);
  }
  return line;
}

}  // namespace

NodeReset::NodeReset(std::string root) : root_(std::move(root)) {
  while (root_.ends_with('/')) root_.pop_back();
}

Status NodeReset::reset(const std::string& bus_id) {
  TRY_ASSIGN(std::unique_ptr<Library> library, Library::load(root_));
  if (library->function<void()>(kSimulatedReset) != nullptr)
    return reset_simulated(std::move(library), bus_id);
  library.reset();
  const std::string own = root_ + "/usr/bin/nvidia-smi";
  const std::string program = ::access(own.c_str(), X_OK) == 0 ? own : "nvidia-smi";
  if (is_this_program(program))
    return fail(Code::kFailed,
                "GPU {}: NVML has no call for a reset, and {} is gpuslice itself; put the driver's "
                "own nvidia-smi there, or reboot",
                bus_id, program);
  TRY_ASSIGN(const Ran ran, run(program, bus_id));
  if (WIFEXITED(ran.status) && WEXITSTATUS(ran.status) == 0 &&
      ran.output.find("successfully reset") != std::string::npos)
    return {};
  const std::string said = one_line(ran.output);
  Code code = Code::kFailed;
  if (ran.output.find("In use by another client") != std::string::npos) code = Code::kInUse;
  if (ran.output.find("ot supported") != std::string::npos ||
      ran.output.find("Not Supported") != std::string::npos)
    code = Code::kImpossible;
  if (ran.output.find("Insufficient Permissions") != std::string::npos) code = Code::kNoPermission;
  return fail(code, "GPU {}: {} --gpu-reset: {}", bus_id, program,
              said.empty() ? "it said nothing" : said);
}

}  // namespace gpuslice::nvml
