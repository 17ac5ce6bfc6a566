// How many NVML getters a second the library under ROOT answers to one process and to several at
// once. Prints rows of a markdown table.
//
//   nvml_bench LIBRARY

#include <dlfcn.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kFor = std::chrono::seconds(2);

[[noreturn]] void die(const std::string& why) {
  fmt::print(stderr, "nvml_bench: {}\n", why);
  std::_Exit(1);
}

template <class Function>
Function* find(void* library, const char* name) {
  auto* function = reinterpret_cast<Function*>(dlsym(library, name));
  if (function == nullptr) die(fmt::format("no function {}", name));
  return function;
}

struct Memory {
  unsigned long long total, free, used;
};

// Calls five getters in turn on every GPU for kFor; returns how many calls were made.
uint64_t ask(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) die(dlerror());
  auto* init = find<int()>(library, "nvmlInit_v2");
  auto* count_of = find<int(unsigned*)>(library, "nvmlDeviceGetCount_v2");
  auto* handle_of = find<int(unsigned, void**)>(library, "nvmlDeviceGetHandleByIndex_v2");
  auto* memory_of = find<int(void*, Memory*)>(library, "nvmlDeviceGetMemoryInfo");
  auto* utilisation_of = find<int(void*, unsigned*)>(library, "nvmlDeviceGetUtilizationRates");
  auto* temperature_of = find<int(void*, int, unsigned*)>(library, "nvmlDeviceGetTemperature");
  auto* power_of = find<int(void*, unsigned*)>(library, "nvmlDeviceGetPowerUsage");
  auto* uuid_of = find<int(void*, char*, unsigned)>(library, "nvmlDeviceGetUUID");
  unsigned count = 0;
  if (init() != 0 || count_of(&count) != 0 || count == 0) die("no GPUs");
  std::vector<void*> handles(count);
  for (unsigned i = 0; i < count; ++i) {
    if (handle_of(i, &handles[i]) != 0) die("no handle");
  }
  uint64_t calls = 0;
  const auto until = Clock::now() + kFor;
  while (Clock::now() < until) {
    for (void* handle : handles) {
      Memory memory{};
      unsigned utilisation[2] = {};
      unsigned value = 0;
      char uuid[96];
      if (memory_of(handle, &memory) != 0 || utilisation_of(handle, utilisation) != 0 ||
          temperature_of(handle, 0, &value) != 0 || power_of(handle, &value) != 0 ||
          uuid_of(handle, uuid, sizeof uuid) != 0) {
        die("a getter failed");
      }
      calls += 5;
    }
  }
  return calls;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) die("usage: nvml_bench LIBRARY");
  for (const int processes : {1, 8}) {
    void* shared = mmap(nullptr, sizeof(std::atomic<uint64_t>), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) die("no memory");
    auto* total = new (shared) std::atomic<uint64_t>(0);
    for (int i = 0; i < processes; ++i) {
      const pid_t pid = fork();
      if (pid < 0) die("cannot fork");
      if (pid == 0) {
        total->fetch_add(ask(argv[1]));
        std::_Exit(0);
      }
    }
    for (int i = 0; i < processes; ++i) {
      int status = 0;
      wait(&status);
      if (status != 0) die("a process failed");
    }
    const double seconds = std::chrono::duration<double>(kFor).count();
    fmt::print("| NVML getters, {} process{} | — | {:.0f} thousand a second |\n", processes,
               processes == 1 ? "" : "es", static_cast<double>(total->load()) / seconds / 1000);
  }
  return 0;
}
