#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "nvml/library.h"
#include "nvml/reset.h"
#include "nvml/session.h"

namespace gpuslice::nvml {
namespace {

namespace fs = std::filesystem;

class SessionTest : public ::testing::Test {
 protected:
  SessionTest() {
    std::string pattern = ::testing::TempDir() + "gpuslice nvml XXXXXX";
    root_ = ::mkdtemp(pattern.data());
  }
  ~SessionTest() override { fs::remove_all(root_); }

  void install() {
    fs::create_directories(root_ + "/lib64");
    fs::copy_file(FAKE_NVML, root_ + "/lib64/libnvidia-ml.so.1");
  }

  // The driver's own nvidia-smi, as a script.
  void install_smi(const std::string& script) {
    fs::create_directories(root_ + "/usr/bin");
    const std::string program = root_ + "/usr/bin/nvidia-smi";
    std::ofstream(program) << "#!/bin/sh\n" << script << "\n";
    fs::permissions(program, fs::perms::owner_all);
  }

  std::string root_;
};

TEST_F(SessionTest, AResetIsTheDriversOwnToolsBusiness) {
  install();
  install_smi(
      "test \"$*\" = '--gpu-reset -i 00000000:07:00.0' && echo \"GPU $3 was successfully "
      "reset.\" && echo 'All done.'");
  EXPECT_TRUE(NodeReset(root_).reset("00000000:07:00.0").has_value());
  const std::string smi = root_ + "/usr/bin/nvidia-smi";
  const std::pair<const char*, Code> cases[] = {
      {"The following GPUs could not be reset:\n  GPU 00000000:07:00.0: In use by another client",
       Code::kInUse},
      {"Resetting GPU 00000000:07:00.0 is not supported.", Code::kImpossible},
      {"Unable to reset this GPU: Insufficient Permissions", Code::kNoPermission},
      {"", Code::kFailed}};
  for (const auto& [words, code] : cases) {
    install_smi(std::string("printf '%s\\n' '") + words + "'; exit 1");
    const Status done = NodeReset(root_ + "/").reset("00000000:07:00.0");
    ASSERT_FALSE(done.has_value()) << words;
    EXPECT_EQ(done.error().code, code) << done.error().text();
    EXPECT_TRUE(done.error().message.starts_with("GPU 00000000:07:00.0: " + smi + " --gpu-reset: "))
        << done.error().text();
  }
}

TEST_F(SessionTest, AResetDoesNotRunThisProgramAgain) {
  install();
  fs::create_directories(root_ + "/usr/bin");
  fs::create_symlink(fs::read_symlink("/proc/self/exe"), root_ + "/usr/bin/nvidia-smi");
  const Status done = NodeReset(root_).reset("00000000:07:00.0");
  ASSERT_FALSE(done.has_value());
  EXPECT_EQ(done.error(),
            (Error{Code::kFailed,
                   "GPU 00000000:07:00.0: NVML has no call for a reset, and " + root_ +
                       "/usr/bin/nvidia-smi is gpuslice itself; put the driver's own nvidia-smi "
                       "there, or reboot",
                   {}}));
}

TEST_F(SessionTest, WithoutADriverItSaysWhereItLooked) {
  Session session(root_);
  const Status opened = session.open();
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(
      opened.error(),
      (Error{Code::kUnavailable,
             "NVIDIA driver: libnvidia-ml.so.1 is not there (looked below " + root_ + " in " +
                 library_candidates("/x")[0].substr(3, library_candidates("/x")[0].rfind('/') - 3) +
                 ", …); install the driver, or say where it is with --root",
             {}}));
}

TEST_F(SessionTest, ABrokenLibraryIsNamed) {
  fs::create_directories(root_ + "/lib64");
  std::ofstream(root_ + "/lib64/libnvidia-ml.so.1") << "not a library";
  Session session(root_);
  const Status opened = session.open();
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code, Code::kUnavailable);
  EXPECT_TRUE(opened.error().message.starts_with(
      "NVIDIA driver: libnvidia-ml.so.1 cannot be loaded: " + root_ + "/lib64/libnvidia-ml.so.1: "))
      << opened.error().message;
}

TEST_F(SessionTest, ADriverThatIsNotLoadedIsUnavailable) {
  install();
  ::setenv("FAKE_NVML_NO_DRIVER", "1", 1);
  Session session(root_);
  const Status opened = session.open();
  ::unsetenv("FAKE_NVML_NO_DRIVER");
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error(),
            (Error{Code::kUnavailable, "NVIDIA driver: nvmlInit_v2: Driver Not Loaded (9)", {}}));
  EXPECT_TRUE(session.open().has_value());  // and later it is there
}

TEST_F(SessionTest, ReadsWhatTheDriverTellsAndLeavesTheRestEmpty) {
  install();
  fs::create_directories(root_ + "/sys/bus/pci/devices/0000:3b:00.0");
  std::ofstream(root_ + "/sys/bus/pci/devices/0000:3b:00.0/numa_node") << "1\n";
  std::ofstream(root_ + "/sys/bus/pci/devices/0000:3b:00.0/class") << "0x030200\n";
  Session session(root_ + "/");
  ASSERT_TRUE(session.open().has_value());
  EXPECT_EQ(*session.driver(), (ports::DriverInfo{"580.65.06", "", 13000}));
  EXPECT_EQ(*session.gpu_count(), 3u);

  const auto gpu = session.gpu(GpuIndex{0}, ports::Detail::kAll);
  ASSERT_TRUE(gpu.has_value()) << gpu.error().message;
  EXPECT_EQ(gpu->uuid, "GPU-0000");
  EXPECT_EQ(gpu->name, "NVIDIA A30");
  EXPECT_EQ(gpu->minor.value, 4u);
  EXPECT_EQ(gpu->bus_id, "00000000:3B:00.0");
  EXPECT_EQ(gpu->numa_node, 1);
  EXPECT_EQ(gpu->memory_total_bytes, 24000u);
  EXPECT_EQ(gpu->pci_class, 0x030200u);
  EXPECT_EQ(gpu->cc_major, 8u);
  EXPECT_EQ(gpu->cc_minor, 0u);
  EXPECT_EQ(gpu->fabric_clique, "00112233-4455-6677-8899-aabbccddeeff.7");
  EXPECT_EQ(gpu->vgpu, std::nullopt);
  EXPECT_EQ(gpu->mig, std::nullopt);
  EXPECT_EQ(gpu->memory_used_bytes, 100u);
  EXPECT_EQ(gpu->memory_reserved_bytes, std::nullopt);
  EXPECT_EQ(gpu->power_mw, 165000u);
  EXPECT_EQ(gpu->temperature_c, std::nullopt);
  EXPECT_EQ(gpu->serial, "");
  ASSERT_EQ(gpu->processes.size(), 100u);
  EXPECT_EQ(gpu->processes[0], (ports::Process{0, ports::Process::Kind::kCompute, {}, {}, {}, ""}));
  EXPECT_EQ(gpu->processes[1],
            (ports::Process{1, ports::Process::Kind::kCompute, 1, GiId{3}, CiId{0}, "/bin/p1"}));
  EXPECT_EQ(gpu->processes[2], (ports::Process{2, ports::Process::Kind::kCompute, 2, {}, {}, ""}));
}

TEST_F(SessionTest, ReadsMigDevicesPastAHole) {
  install();
  Session session(root_);
  ASSERT_TRUE(session.open().has_value());
  const auto gpu = session.gpu(GpuIndex{1}, ports::Detail::kInventory);
  ASSERT_TRUE(gpu.has_value()) << gpu.error().message;
  EXPECT_EQ(gpu->mig, (ports::MigMode{true, false}));
  EXPECT_EQ(gpu->numa_node, -1);
  EXPECT_EQ(gpu->pci_class, 0u);
  EXPECT_EQ(gpu->fabric_clique, "");
  ASSERT_EQ(gpu->mig_devices.size(), 2u);
  const ports::MigDevice& first = gpu->mig_devices[0];
  EXPECT_EQ(first.index, 0u);
  EXPECT_EQ(first.uuid, "MIG-aaaa");
  EXPECT_EQ(first.profile, "1g.6gb");
  EXPECT_EQ(first.gi.value, 3u);
  EXPECT_EQ(first.profile_id.value, 14u);
  EXPECT_EQ(first.placement, (gpu::Placement{2, 1}));
  EXPECT_EQ(first.memory_total_bytes, 6000u);
  EXPECT_EQ(first.sm, 10u);
  EXPECT_EQ(first.gi_slices, 16u);
  EXPECT_EQ(first.ci_slices, 17u);
  EXPECT_EQ(first.memory_mib, 5952u);
  const ports::MigDevice& second = gpu->mig_devices[1];
  EXPECT_EQ(second.index, 2u);
  EXPECT_EQ(second.profile, "1c.2g.12gb");
  EXPECT_EQ(second.placement, (gpu::Placement{0, 0}));  // no access to its capability
}

TEST_F(SessionTest, ReadsHowNearGpusAreAndLeavesOutWhatIsNotTold) {
  install();
  Session session(root_);
  ASSERT_TRUE(session.open().has_value());
  const ports::Topology topology = session.topology({GpuIndex{0}, GpuIndex{1}});
  EXPECT_EQ(topology.links,
            (std::vector<ports::GpuLink>{{GpuIndex{0}, GpuIndex{1}, 30, 1},
                                         {GpuIndex{1}, GpuIndex{0}, std::nullopt, 1}}));
  EXPECT_EQ(topology.switch_links, (std::map<GpuIndex, uint32_t>{{GpuIndex{0}, 2}}));
}

TEST_F(SessionTest, ALostGpuIsAnErrorOfItsOwn) {
  install();
  Session session(root_);
  ASSERT_TRUE(session.open().has_value());
  EXPECT_EQ(session.gpu(GpuIndex{2}, ports::Detail::kInventory).error(),
            (Error{Code::kGpuLost, "GPU 2: nvmlDeviceGetUUID: GPU is lost (15)", {}}));
  EXPECT_TRUE(session.gpu(GpuIndex{0}, ports::Detail::kInventory).has_value());
  EXPECT_EQ(session.gpu(GpuIndex{9}, ports::Detail::kInventory).error().message,
            "GPU 9: nvmlDeviceGetHandleByIndex_v2: Unknown Error (2)");
}

TEST_F(SessionTest, OpensAndClosesAsOftenAsOneLikes) {
  install();
  void* library = ::dlopen((root_ + "/lib64/libnvidia-ml.so.1").c_str(), RTLD_NOW);
  ASSERT_NE(library, nullptr);
  auto* open_count = reinterpret_cast<int (*)()>(::dlsym(library, "fake_nvml_open_count"));
  ASSERT_NE(open_count, nullptr);
  Session session(root_);
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(session.open().has_value());
    ASSERT_TRUE(session.open().has_value());  // open already: nothing happens
    EXPECT_EQ(open_count(), 1);
    session.close();
    session.close();
    EXPECT_EQ(open_count(), 0);
  }
  ::dlclose(library);
}

TEST(CodeOfReturn, MapsWhatMattersToTheAgent) {
  EXPECT_EQ(code_of_return(3), Code::kImpossible);
  EXPECT_EQ(code_of_return(4), Code::kNoPermission);
  EXPECT_EQ(code_of_return(6), Code::kNotFound);
  EXPECT_EQ(code_of_return(9), Code::kUnavailable);
  EXPECT_EQ(code_of_return(10), Code::kTimeout);
  EXPECT_EQ(code_of_return(15), Code::kGpuLost);
  EXPECT_EQ(code_of_return(16), Code::kNeedsReset);
  EXPECT_EQ(code_of_return(18), Code::kUnavailable);
  EXPECT_EQ(code_of_return(19), Code::kInUse);
  EXPECT_EQ(code_of_return(999), Code::kFailed);
}

}  // namespace
}  // namespace gpuslice::nvml
