// crowd ROUNDS: see README.md. Declares the few calls that it makes itself, as small programs do.

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

namespace {

using Handle = void*;
struct Memory {
  unsigned version;
  unsigned long long total, reserved, free, used;
};
struct GiInfo {
  Handle device;
  unsigned id, profile, start, size;
};
constexpr unsigned kMemoryV2 = 0x02000028;
constexpr unsigned kOneSlice = 19;
constexpr int kInsufficientResources = 23;

void* library = nullptr;

template <class... Arguments>
int call(const char* name, Arguments... arguments) {
  auto* function = reinterpret_cast<int (*)(Arguments...)>(dlsym(library, name));
  if (function == nullptr) {
    std::printf("no %s\n", name);
    std::exit(1);
  }
  return function(arguments...);
}

void must(const char* name, int code) {
  if (code == 0) return;
  std::printf("%s: %d\n", name, code);
  std::exit(1);
}

struct Gpu {
  Handle handle;
  std::string uuid;
};

std::string uuid_of(Handle device) {
  char text[96] = {};
  must("uuid", call("nvmlDeviceGetUUID", device, static_cast<char*>(text), 96u));
  return text;
}

unsigned read_all(const std::vector<Gpu>& gpus) {
  unsigned wrong = 0;
  for (const Gpu& gpu : gpus) {
    Memory memory{kMemoryV2, 0, 0, 0, 0};
    must("memory", call("nvmlDeviceGetMemoryInfo_v2", gpu.handle, &memory));
    if (memory.total != memory.reserved + memory.free + memory.used) ++wrong;
    if (uuid_of(gpu.handle) != gpu.uuid) ++wrong;
  }
  return wrong;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  if (library == nullptr) {
    std::puts(dlerror());
    return 1;
  }
  must("init", call("nvmlInit_v2"));
  unsigned count = 0;
  must("count", call("nvmlDeviceGetCount_v2", &count));
  std::vector<Gpu> gpus;
  for (unsigned i = 0; i < count; ++i) {
    Handle handle = nullptr;
    must("handle", call("nvmlDeviceGetHandleByIndex_v2", i, &handle));
    gpus.push_back({handle, uuid_of(handle)});
  }
  std::cout << "ready" << std::endl;
  std::string line;
  std::getline(std::cin, line);
  unsigned created = 0, refused = 0, destroyed = 0, wrong = 0;
  for (int round = std::atoi(argv[1]); round > 0; --round) {
    wrong += read_all(gpus);
    Handle gi = nullptr;
    const int code = call("nvmlDeviceCreateGpuInstance", gpus[0].handle, kOneSlice, &gi);
    if (code == kInsufficientResources) {
      ++refused;
      continue;
    }
    must("create", code);
    ++created;
    GiInfo info{};
    must("info", call("nvmlGpuInstanceGetInfo", gi, &info));
    if (info.profile != kOneSlice) ++wrong;
    must("destroy", call("nvmlGpuInstanceDestroy", gi));
    ++destroyed;
  }
  std::cout << "created " << created << " refused " << refused << " destroyed " << destroyed
            << " wrong " << wrong << std::endl;
  while (std::getline(std::cin, line)) {
  }
  must("shutdown", call("nvmlShutdown"));
}
