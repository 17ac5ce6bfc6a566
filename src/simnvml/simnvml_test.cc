// What is exported; what every export answers before init, without arguments, and to nonsense.

#include <cstdio>
#include <map>

#include "simnvml/testing.h"

extern "C" const char* plain_c_walk(const char* library);  // plain_c_for_test.c

namespace gpuslice::simnvml {
namespace {

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
  std::set<std::string> out = {"gpuslice_sim_gpu_reset"};
  for (const SymbolRow& row : symbol_rows()) out.insert(row.name);
  return out;
}

TEST(Library, ExportsJustTheNamesOfADriver) {
  const std::set<std::string> names = exported();
  EXPECT_EQ(names, wanted());
  EXPECT_EQ(names.size(), 437U);
}

// A program that loads it again and again (go-nvml does) would lose a descriptor and a world each
// time.
TEST(Library, StaysInTheProcessThatLoadedItOnce) {
  FILE* pipe = ::popen("readelf -d '" LIBRARY "'", "r");
  ASSERT_NE(pipe, nullptr);
  std::string text;
  for (char part[4096]; std::fgets(part, sizeof part, pipe) != nullptr;) text += part;
  EXPECT_EQ(::pclose(pipe), 0);
  EXPECT_NE(text.find("NODELETE"), std::string::npos) << text;
}

struct EveryExport : LibraryTest {
  static std::vector<std::string> names() {
    std::vector<std::string> out;
    for (const std::string& name : wanted())
      if (name != "nvmlErrorString") out.push_back(name);
    return out;
  }
  // Whether its first argument is a device.
  static bool takes_device(const std::string& name) {
    return (name.starts_with("nvmlDevice") && name.find("GetHandleBy") == std::string::npos &&
            !name.starts_with("nvmlDeviceGetCount")) ||
           name.starts_with("gpuslice");
  }
  static Ret with(const std::string& name, uintptr_t first, uintptr_t others) {
    return call_by_words(symbol(name.c_str()), first, others);
  }
};

TEST_F(EveryExport, IsUninitializedBeforeInit) {
  make(node_of({kA100}));
  for (const std::string& name : names()) {
    if (name.starts_with("nvmlInit")) continue;
    EXPECT_EQ(with(name, 0, 0), Ret::kUninitialized) << name;
  }
}

TEST_F(EveryExport, IsUninitializedAfterTheLastShutdown) {
  begin(node_of({kA100}));
  const auto handle = reinterpret_cast<uintptr_t>(gpu());
  ASSERT_EQ(CALL(nvmlShutdown), Ret::kSuccess);
  for (const std::string& name : names()) {
    if (name.starts_with("nvmlInit")) continue;
    EXPECT_EQ(with(name, handle, 0), Ret::kUninitialized) << name;
  }
}

TEST_F(EveryExport, RefusesNothingAsArguments) {
  begin(node_of({kA100}));
  for (const std::string& name : names()) {
    if (name.starts_with("nvmlInit") || name == "nvmlShutdown") continue;
    const Ret ret = with(name, 0, 0);
    EXPECT_TRUE(ret == Ret::kInvalidArgument || ret == Ret::kNotSupported)
        << name << " answers " << sim::ret_name(ret);
    if (name.starts_with("nvmlDevice") || name.starts_with("gpuslice")) {
      EXPECT_EQ(ret, Ret::kInvalidArgument) << name << ": no device is none";
    }
  }
}

// A good handle, and null or 0 for all the rest. Each call that answers SUCCESS to that is one that
// takes no more than a device, or numbers of which 0 is good.
TEST_F(EveryExport, RefusesADeviceWithNothingElse) {
  begin(node_of({kH100}));
  const std::set<std::string> good = {
      "gpuslice_sim_gpu_reset",
      "nvmlDeviceClearEccErrorCounts",
      "nvmlDeviceResetApplicationsClocks",
      "nvmlDeviceResetGpuLockedClocks",
      "nvmlDeviceSetComputeMode",
      "nvmlDeviceSetPersistenceMode",
  };
  std::set<std::string> answered;
  for (const std::string& name : names()) {
    if (!takes_device(name)) continue;
    const Ret ret = with(name, reinterpret_cast<uintptr_t>(gpu()), 0);
    if (ret == Ret::kSuccess) answered.insert(name);
    EXPECT_TRUE(ret == Ret::kSuccess || ret == Ret::kInvalidArgument || ret == Ret::kNotSupported ||
                ret == Ret::kNotFound)
        << name << " answers " << sim::ret_name(ret);
  }
  EXPECT_EQ(answered, good);
}

TEST_F(EveryExport, RefusesInstancesAndEventSetsThatAreNone) {
  begin(node_of({kA100}));
  int local = 0;
  for (const std::string& name : names()) {
    if (!name.starts_with("nvmlGpuInstance") && !name.starts_with("nvmlComputeInstance") &&
        !name.starts_with("nvmlEventSet"))
      continue;
    for (const uintptr_t handle :
         {uintptr_t{8}, reinterpret_cast<uintptr_t>(gpu()), reinterpret_cast<uintptr_t>(&local)}) {
      if (name == "nvmlEventSetCreate") continue;  // takes a place to write to
      const Ret ret = with(name, handle, 0);
      EXPECT_TRUE(ret == Ret::kInvalidArgument || ret == Ret::kNotSupported)
          << name << " answers " << sim::ret_name(ret);
    }
  }
}

TEST_F(EveryExport, SaysThatAGpuIsLost) {
  begin(node_of({kH100}));
  const auto handle = reinterpret_cast<uintptr_t>(gpu());
  ASSERT_TRUE(world->write([](sim::State& state) { state.gpus[0].lost = 1; }));
  for (const std::string& name : names()) {
    if (!takes_device(name)) continue;
    EXPECT_EQ(with(name, handle, 0), Ret::kGpuIsLost) << name;
  }
}

TEST_F(EveryExport, SaysThatTheDriverIsGone) {
  begin(node_of({kA100}));
  const auto handle = reinterpret_cast<uintptr_t>(gpu());
  ASSERT_TRUE(world->write([](sim::State& state) { state.node.driver_loaded = 0; }));
  for (const std::string& name : names()) {
    if (name.starts_with("nvmlInit") || name == "nvmlShutdown") continue;
    EXPECT_EQ(with(name, handle, 0), Ret::kUnknown) << name;
  }
  while (CALL(nvmlShutdown) == Ret::kSuccess) {
  }
  EXPECT_EQ(CALL(nvmlInit_v2), Ret::kDriverNotLoaded);
}

struct ErrorString : LibraryTest {};

TEST_F(ErrorString, NeedsNoInitAndKnowsEveryInteger) {
  const auto text = reinterpret_cast<decltype(&nvmlErrorString)>(symbol("nvmlErrorString"));
  const std::map<int, const char*> known = {
      {0, "Success"},
      {4, "Insufficient Permissions"},
      {15, "GPU is lost"},
      {18, "Driver/library version mismatch"},
      {999, "Unknown Error"},
      {19, "In use by another client"},
      {-1, "Unknown Error"},
      {23, "Insufficient Resources"},
      {31, "Unknown Error"},
      {25, "Argument version mismatch"},
      {1000, "Unknown Error"},
      {9, "Driver Not Loaded"},
      // As driver 580.159.04 says them.
      {17, "GPU access blocked by the operating system"},
      {22, "vGPU ECC not supported"},
      {24, "Invalid Frequency"},
      {26, "Requested functionality has been deprecated"},
      {27, "System is not in ready state"},
      {28, "No supported GPUs were found"},
      {29, "Resource not in correct state to perform requested operation"},
      {30, "Reset type is not supported for given device"}};
  for (const auto& [code, sentence] : known) EXPECT_STREQ(text(code), sentence) << code;
  for (int code = -2000; code < 2000; ++code) EXPECT_NE(text(code), nullptr);
}

struct PlainC : LibraryTest {};

TEST_F(PlainC, WalksTheNode) {
  make(node_of({kA100}));
  EXPECT_STREQ(plain_c_walk(LIBRARY), nullptr);
}

}  // namespace
}  // namespace gpuslice::simnvml
