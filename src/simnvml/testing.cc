#include "simnvml/testing.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "sim/faults.h"
#include "sim/life.h"
#include "sim/trees.h"

namespace gpuslice::simnvml {

#ifdef __clang__
__attribute__((no_sanitize("function")))
#endif
Ret call_by_words(void* function, uintptr_t first, uintptr_t others) {
  using Words = int (*)(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t,
                        uintptr_t);
  return static_cast<Ret>(reinterpret_cast<Words>(function)(first, others, others, others, others,
                                                            others, others, others));
}

LibraryTest::LibraryTest() = default;

LibraryTest::~LibraryTest() {
  if (world) [[maybe_unused]]
    const Status cleared = world->write([](sim::State& state) {
      sim::clear_faults(state);
      state.node.driver_loaded = 1;
    });
  while (CALL(nvmlShutdown) == Ret::kSuccess) {
  }
}

void LibraryTest::make(const sim::NodeOptions& options) {
  while (CALL(nvmlShutdown) == Ret::kSuccess) {
  }
  world.reset();
  folder_ = std::make_unique<sim::TempFolder>();
  root = folder_->path();
  ASSERT_TRUE(sim::lay_driver_files(root, options.driver, LIBRARY, ""));
  world = sim::must(sim::World::create(root, options));
  ASSERT_EQ(::setenv("GPUSLICE_SIM_ROOT", root.c_str(), 1), 0);
}

void LibraryTest::begin(const sim::NodeOptions& options) {
  make(options);
  ASSERT_EQ(CALL(nvmlInit_v2), Ret::kSuccess);
}

void* LibraryTest::symbol(const char* name) {
  static void* const kLibrary = ::dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
  EXPECT_NE(kLibrary, nullptr) << ::dlerror();
  void* found = ::dlsym(kLibrary, name);
  EXPECT_NE(found, nullptr) << name;
  return found;
}

Handle LibraryTest::gpu(uint32_t index) {
  Handle handle = nullptr;
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByIndex_v2, index, &handle), Ret::kSuccess);
  return handle;
}

std::string LibraryTest::uuid_of(Handle device) {
  char text[96] = {};
  EXPECT_EQ(CALL(nvmlDeviceGetUUID, device, &text[0], sizeof text), Ret::kSuccess);
  return text;
}

void LibraryTest::mig_on(Handle device) {
  int activation = -1;
  ASSERT_EQ(CALL(nvmlDeviceSetMigMode, device, 1, &activation), Ret::kSuccess);
  ASSERT_EQ(activation, 0);
}

LibraryTest::Made LibraryTest::make_instance(Handle device, uint32_t profile, uint32_t ci_profile) {
  Made made;
  EXPECT_EQ(CALL(nvmlDeviceCreateGpuInstance, device, profile, &made.gi), Ret::kSuccess);
  EXPECT_EQ(CALL(nvmlGpuInstanceCreateComputeInstance, made.gi, ci_profile, &made.ci),
            Ret::kSuccess);
  CiInfo info{};
  EXPECT_EQ(CALL(nvmlComputeInstanceGetInfo_v2, made.ci, &info), Ret::kSuccess);
  made.device = info.device;
  return made;
}

uint16_t LibraryTest::add_process(int32_t pid, const sim::Work& work) {
  const Result<uint16_t> client = sim::add_simulated_client(*world, pid, "work");
  EXPECT_TRUE(client);
  sim::Work mine = work;
  mine.client = *client;
  EXPECT_EQ(world->write([&](sim::State& state) { return sim::add_work(state, mine); }),
            sim::AddWork::kAdded);
  return *client;
}

void LibraryTest::add_fault(const char* call, const sim::Fault& fault) {
  const Result<bool> added = world->write(
      [&](sim::State& state) { return sim::add_fault(state, fault, call).has_value(); });
  ASSERT_TRUE(added && *added);
}

std::vector<SymbolRow> symbol_rows() {
  std::ifstream in("data/nvml-symbols.txt");
  std::vector<SymbolRow> rows;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    std::string name, since, in_535, in_550;
    words >> name >> since >> in_535 >> in_550;
    rows.push_back({name, in_535 == "y", in_550 == "y"});
  }
  return rows;
}

}  // namespace gpuslice::simnvml
