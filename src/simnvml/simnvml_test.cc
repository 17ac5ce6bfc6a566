// The simulated library as a program meets it: dlopen'ed, by its C symbols, on a world of this
// test's own.

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "sim/trees.h"
#include "sim/world.h"
#include "simnvml/abi.h"

namespace gpuslice::simnvml {
namespace {

namespace fs = std::filesystem;

std::set<std::string> exported() {
  std::set<std::string> out;
  FILE* pipe = ::popen("nm -D --defined-only '" LIBRARY "'", "r");
  char address[64], type[8], name[256];
  while (pipe != nullptr && std::fscanf(pipe, "%63s %7s %255s", address, type, name) == 3) {
    EXPECT_STREQ(type, "T") << name;
    out.insert(name);
  }
  if (pipe != nullptr) ::pclose(pipe);
  return out;
}

std::set<std::string> wanted() {
  std::ifstream in("data/nvml-symbols.txt");
  std::set<std::string> out = {"gpuslice_sim_gpu_reset"};
  for (std::string line; std::getline(in, line);)
    if (!line.empty() && line[0] != '#') out.insert(line.substr(0, line.find(' ')));
  return out;
}

TEST(Library, ExportsJustTheNamesOfADriver) {
  const std::set<std::string> names = exported();
  EXPECT_EQ(names, wanted());
  EXPECT_EQ(names.size(), 437U);
}

struct LibraryTest : testing::Test {
  LibraryTest() {
    root = fs::temp_directory_path() / ("gpuslice-nvml-" + std::to_string(::getpid()));
    fs::remove_all(root);
    fs::create_directories(root);
    EXPECT_TRUE(sim::lay_driver_files(root, "580.65.06", LIBRARY, "").has_value());
    sim::NodeOptions options;
    options.gpus = {{"A100-SXM4-40GB", sim::Sweep::kPlain}, {"T4", sim::Sweep::kPlain}};
    world = std::move(*sim::World::create(root, options));
    ::setenv("GPUSLICE_SIM_ROOT", root.c_str(), 1);
    library = ::dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    EXPECT_NE(library, nullptr) << ::dlerror();
  }
  ~LibraryTest() override {
    while (call("nvmlShutdown") == 0) {
    }
    world.reset();
    fs::remove_all(root);
  }

  template <class... Args>
  int call(const char* name, Args... args) {
    void* symbol = ::dlsym(library, name);
    EXPECT_NE(symbol, nullptr) << name;
    return reinterpret_cast<int (*)(Args...)>(symbol)(args...);
  }
  Handle gpu(uint32_t index) {
    Handle handle = nullptr;
    EXPECT_EQ(call("nvmlDeviceGetHandleByIndex_v2", index, &handle), 0);
    return handle;
  }

  fs::path root;
  std::unique_ptr<sim::World> world;
  void* library = nullptr;
};

TEST_F(LibraryTest, InitIsCounted) {
  uint32_t count = 0;
  EXPECT_EQ(call("nvmlDeviceGetCount_v2", &count), 1);
  const auto text = reinterpret_cast<const char* (*)(int)>(::dlsym(library, "nvmlErrorString"));
  EXPECT_STREQ(text(19), "In use by another client");
  ASSERT_EQ(call("nvmlInit_v2"), 0);
  ASSERT_EQ(call("nvmlInit_v2"), 0);
  EXPECT_EQ(call("nvmlShutdown"), 0);
  EXPECT_EQ(call("nvmlDeviceGetCount_v2", &count), 0);
  EXPECT_EQ(count, 2U);
  EXPECT_EQ(call("nvmlShutdown"), 0);
  EXPECT_EQ(call("nvmlShutdown"), 1);
}

TEST_F(LibraryTest, HandlesThatAreNotOursAreRefused) {
  ASSERT_EQ(call("nvmlInit_v2"), 0);
  char name[96];
  int local = 0;
  EXPECT_EQ(call("nvmlDeviceGetName", Handle{nullptr}, &name[0], 96U), 2);
  EXPECT_EQ(call("nvmlDeviceGetName", Handle{&local}, &name[0], 96U), 2);
  EXPECT_EQ(call("nvmlDeviceGetName", gpu(0), &name[0], 5U), 7)
      << "too short, and nothing is written";
  EXPECT_EQ(call("nvmlDeviceGetName", gpu(0), &name[0], 96U), 0);
  EXPECT_STREQ(name, "NVIDIA A100-SXM4-40GB");
  Handle beyond = nullptr;
  EXPECT_EQ(call("nvmlDeviceGetHandleByIndex_v2", 2U, &beyond), 2);
}

TEST_F(LibraryTest, OldNamesKeepTheirOldSizes) {
  ASSERT_EQ(call("nvmlInit_v2"), 0);
  struct {
    PciInfoV2 info;
    uint8_t guard[32];
  } pci;
  std::memset(&pci, 0xaa, sizeof pci);
  ASSERT_EQ(call("nvmlDeviceGetPciInfo", gpu(0), &pci.info), 0);
  EXPECT_EQ(pci.info.reserved[0], 0xaaaaaaaaU) << "v1 ends after 36 bytes";
  ASSERT_EQ(call("nvmlDeviceGetPciInfo_v2", gpu(0), &pci.info), 0);
  EXPECT_EQ(pci.info.reserved[3], 0U);
  EXPECT_EQ(pci.guard[0], 0xaa);
}

TEST_F(LibraryTest, VersionWordsAreChecked) {
  ASSERT_EQ(call("nvmlInit_v2"), 0);
  MemoryV2 memory{};
  EXPECT_EQ(call("nvmlDeviceGetMemoryInfo_v2", gpu(0), &memory), 25);
  memory.version = 0x02000028;
  ASSERT_EQ(call("nvmlDeviceGetMemoryInfo_v2", gpu(0), &memory), 0);
  EXPECT_EQ(memory.total, 40960ULL << 20);
  EXPECT_EQ(memory.total, memory.reserved + memory.free + memory.used);
  MemoryV1 v1{};
  ASSERT_EQ(call("nvmlDeviceGetMemoryInfo", gpu(0), &v1), 0);
  EXPECT_EQ(v1.used, memory.used + memory.reserved) << "v1 counts the reserved as used";
}

TEST_F(LibraryTest, MigFromModeToDevice) {
  ASSERT_EQ(call("nvmlInit_v2"), 0);
  int activation = -1;
  EXPECT_EQ(call("nvmlDeviceSetMigMode", gpu(1), 1U, &activation), 3) << "a T4 has no MIG";
  ASSERT_EQ(call("nvmlDeviceSetMigMode", gpu(0), 1U, &activation), 0);
  EXPECT_EQ(activation, 0);
  Handle gi = nullptr;
  ASSERT_EQ(call("nvmlDeviceCreateGpuInstance", gpu(0), 9U, &gi), 0);
  GiInfo info{};
  ASSERT_EQ(call("nvmlGpuInstanceGetInfo", gi, &info), 0);
  EXPECT_EQ(info.id, 2U) << "3g first goes to the upper half";
  EXPECT_EQ(info.placement.start, 4U);
  Handle ci = nullptr;
  ASSERT_EQ(call("nvmlGpuInstanceCreateComputeInstance", gi, 2U, &ci), 0);
  CiInfo ci_info{};
  ASSERT_EQ(call("nvmlComputeInstanceGetInfo_v2", ci, &ci_info), 0);
  char uuid[96] = {};
  ASSERT_EQ(call("nvmlDeviceGetUUID", ci_info.device, &uuid[0], 96U), 0);
  EXPECT_EQ(std::string(uuid).substr(0, 4), "MIG-");
  Handle found = nullptr;
  ASSERT_EQ(call("nvmlDeviceGetHandleByUUID", static_cast<const char*>(uuid), &found), 0);
  EXPECT_EQ(found, ci_info.device);
  EXPECT_EQ(call("nvmlGpuInstanceDestroy", gi), 19) << "it has a compute instance";
  ASSERT_EQ(call("nvmlComputeInstanceDestroy", ci), 0);
  EXPECT_EQ(call("nvmlDeviceGetUUID", ci_info.device, &uuid[0], 96U), 2) << "a stale handle";
  ASSERT_EQ(call("nvmlGpuInstanceDestroy", gi), 0);
}

}  // namespace
}  // namespace gpuslice::simnvml
