// CDI: what specs say, what driver files are found, and when files are written. The independent
// judge of whole specs is tests/third_party/go_cdi.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/cdi_keeper.h"
#include "agent/cdi_spec.h"
#include "agent/driver_files.h"
#include "agent/memory_files_for_test.h"
#include "config/device_plugin.h"

namespace gpuslice::agent {
namespace {

using Json = nlohmann::json;

ports::Gpu gpu(uint32_t n) {
  ports::Gpu out;
  out.index = GpuIndex{n};
  out.minor = GpuMinor{n};
  out.uuid = "GPU-" + std::to_string(n);
  return out;
}
ports::Gpu mig_gpu(uint32_t n) {
  ports::Gpu out = gpu(n);
  out.mig = ports::MigMode{true, true};
  ports::MigDevice device;
  device.uuid = "MIG-a";
  device.gi = GiId{7};
  out.mig_devices.push_back(device);
  return out;
}

Json parsed(const std::map<std::string, std::string>& specs, std::string_view cls) {
  const auto it = specs.find(cdi_file_name(cls));
  return it == specs.end() ? Json() : Json::parse(it->second);
}

TEST(CdiSpec, IsThisText) {
  CdiSource source;
  source.gpus = {gpu(0)};
  source.control_nodes = {"/dev/nvidiactl"};
  source.dev_root = "/run/nvidia/driver";
  EXPECT_EQ(cdi_specs(source),
            (std::map<std::string, std::string>{{"k8s.device-plugin.nvidia.com-gpu.json", R"({
  "cdiVersion": "0.5.0",
  "kind": "k8s.device-plugin.nvidia.com/gpu",
  "devices": [
    {
      "name": "GPU-0",
      "containerEdits": {
        "deviceNodes": [
          {
            "path": "/dev/nvidia0",
            "hostPath": "/run/nvidia/driver/dev/nvidia0"
          }
        ]
      }
    }
  ],
  "containerEdits": {
    "env": [
      "NVIDIA_VISIBLE_DEVICES=void"
    ],
    "deviceNodes": [
      {
        "path": "/dev/nvidiactl",
        "hostPath": "/run/nvidia/driver/dev/nvidiactl"
      }
    ]
  }
}
)"}}));
}

TEST(CdiSpec, AMigEnabledGpuIsNoDeviceAndItsMigDevicesAre) {
  CdiSource source;
  source.gpus = {gpu(0), mig_gpu(1)};
  const Json devices = parsed(cdi_specs(source), "gpu")["devices"];
  ASSERT_EQ(devices.size(), 2U);
  EXPECT_EQ(devices[0]["name"], "GPU-0");
  EXPECT_EQ(devices[1], Json::parse(R"({"name": "MIG-a", "containerEdits": {"deviceNodes": [
      {"path": "/dev/nvidia1"}, {"path": "/dev/nvidia-caps/nvidia-cap201"},
      {"path": "/dev/nvidia-caps/nvidia-cap202"}]}})"));
  source.index_ids = true;
  const Json by_index = parsed(cdi_specs(source), "gpu")["devices"];
  EXPECT_EQ(by_index[0]["name"], "0");
  EXPECT_EQ(by_index[1]["name"], "1:0");
  source.index_ids = false;
  source.whole_gpus = true;
  const Json whole = parsed(cdi_specs(source), "gpu")["devices"];
  ASSERT_EQ(whole.size(), 3U);
  EXPECT_EQ(whole[1], Json::parse(R"({"name": "GPU-1", "containerEdits": {"deviceNodes": [
      {"path": "/dev/nvidia1"}]}})"));
  EXPECT_EQ(whole[2]["name"], "MIG-a");
  source.whole_gpus = false;
  source.gpus[1].mig_devices.clear();
  source.gpus.erase(source.gpus.begin());
  EXPECT_TRUE(cdi_specs(source).empty()) << "nothing to ask for, no file";
}

TEST(CdiSpec, FilesMountsAndHooks) {
  CdiSource source;
  source.gpus = {gpu(0)};
  source.driver_root = "/r";
  source.files.libraries = {"/usr/lib64/libcuda.so.580"};
  source.files.sockets = {"/run/nvidia-persistenced/socket"};
  source.files.links = {{"/usr/lib64/libcuda.so.1", "libcuda.so.580"}};
  source.files.library_folders = {"/usr/lib64"};
  source.extra_mounts = {{"/a", "/b", true}, {"/c", "/d", false}};
  source.hook = "/opt/gpuslice";
  const Json edits = parsed(cdi_specs(source), "gpu")["containerEdits"];
  EXPECT_EQ(edits["mounts"], Json::parse(R"([
      {"hostPath": "/r/usr/lib64/libcuda.so.580", "containerPath": "/usr/lib64/libcuda.so.580",
       "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"]},
      {"hostPath": "/r/run/nvidia-persistenced/socket",
       "containerPath": "/run/nvidia-persistenced/socket",
       "options": ["ro", "nosuid", "nodev", "rbind", "rprivate", "noexec"]},
      {"hostPath": "/a", "containerPath": "/b", "options": ["rw", "rbind", "rprivate"]},
      {"hostPath": "/c", "containerPath": "/d", "options": ["ro", "rbind", "rprivate"]}])"));
  EXPECT_EQ(edits["hooks"], Json::parse(R"([
      {"hookName": "createContainer", "path": "/opt/gpuslice", "args": ["gpuslice", "hook",
       "create-symlinks", "--link", "libcuda.so.580::/usr/lib64/libcuda.so.1"]},
      {"hookName": "createContainer", "path": "/opt/gpuslice", "args": ["gpuslice", "hook",
       "update-ldcache", "--folder", "/usr/lib64"]}])"));
  source.disabled_hooks = {"create-symlinks"};
  EXPECT_EQ(parsed(cdi_specs(source), "gpu")["containerEdits"]["hooks"].size(), 1U);
  source.disabled_hooks = {"all"};
  EXPECT_FALSE(parsed(cdi_specs(source), "gpu")["containerEdits"].contains("hooks"));
}

TEST(CdiSpec, OtherClassesHaveFilesOfTheirOwn) {
  CdiSource source;
  source.imex_channels = {"0"};
  source.extras["gds"] = {{"/dev/nvidia-fs0"}, {"/run/udev"}};
  source.extras["mofed"] = {};
  const auto specs = cdi_specs(source);
  ASSERT_EQ(specs.size(), 2U);
  EXPECT_EQ(parsed(specs, "imex-channel"), Json::parse(R"({"cdiVersion": "0.5.0",
      "kind": "k8s.device-plugin.nvidia.com/imex-channel", "devices": [{"name": "0",
      "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia-caps-imex-channels/channel0"}]}}]})"));
  EXPECT_EQ(parsed(specs, "gds")["devices"], Json::parse(R"([{"name": "all", "containerEdits": {
      "deviceNodes": [{"path": "/dev/nvidia-fs0"}], "mounts": [{"hostPath": "/run/udev",
      "containerPath": "/run/udev",
      "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"]}]}}])"));
}

TEST(ExtraMount, IsReadStrictly) {
  EXPECT_EQ(parse_extra_mount("/a:/b").value(), (ExtraMount{"/a", "/b", false}));
  EXPECT_EQ(parse_extra_mount("/a:/b:rw").value(), (ExtraMount{"/a", "/b", true}));
  for (const char* bad : {"", "/a", "/a:", "a:/b", "/a:b", "/a:/b:x", "/a:/b:rw:"})
    EXPECT_EQ(parse_extra_mount(bad).error().code, Code::kUsage) << bad;
}

TEST(DriverFiles, AreFoundByTheDriversVersion) {
  MemoryFiles files;
  const std::string lib = "/r/usr/lib/x86_64-linux-gnu/";
  for (const char* name :
       {"libcuda.so", "libcuda.so.1", "libcuda.so.580.65.06", "libnvidia-ml.so.1",
        "libnvidia-ml.so.580.65.06", "libnvidia-old.so.550.1", "libc.so.6",
        "vdpau/libvdpau_nvidia.so.580.65.06", "xlibx.so.580.65.06"})
    files.files[lib + name] = "";
  files.files["/r/lib/x86_64-linux-gnu/libcuda.so.580.65.06"] = "";  // the same, by its other name
  files.files["/r/usr/bin/nvidia-smi"] = "";
  files.files["/r/bin/nvidia-smi"] = "";
  files.files["/r/run/nvidia-persistenced/socket"] = "";
  files.files["/r/lib/firmware/nvidia/580.65.06/gsp_ga10x.bin"] = "";
  files.files["/r/lib/firmware/nvidia/580.65.06/README"] = "";
  const std::string at = "/usr/lib/x86_64-linux-gnu";
  const DriverFiles expected{{at + "/libcuda.so.580.65.06", at + "/libnvidia-ml.so.580.65.06",
                              at + "/vdpau/libvdpau_nvidia.so.580.65.06"},
                             {"/usr/bin/nvidia-smi"},
                             {"/run/nvidia-persistenced/socket"},
                             {"/lib/firmware/nvidia/580.65.06/gsp_ga10x.bin"},
                             {{at + "/libcuda.so.1", "libcuda.so.580.65.06"},
                              {at + "/libcuda.so", "libcuda.so.1"},
                              {at + "/libnvidia-ml.so.1", "libnvidia-ml.so.580.65.06"}},
                             {at, at + "/vdpau"}};
  EXPECT_EQ(find_driver_files(files, "/r", "580.65.06"), expected);
  EXPECT_TRUE(find_driver_files(files, "/r", "999").libraries.empty());
  EXPECT_EQ(find_driver_files(files, "/r", ""), DriverFiles());
}

struct CdiKeeperTest : testing::Test {
  MemoryFiles files;
  std::vector<std::string> logged;
  Log log{[this](std::string_view line) { logged.emplace_back(line); }, [] { return WallTime(); },
          Level::kWarning};
  Hardware hardware;
  AnswerForm form;
  CapMinors caps;
  std::string driver = "580.65.06";
  std::string strategy = "mixed";

  CdiKeeperTest() {
    hardware.gpus = {gpu(0), gpu(1)};
    form.cdi_cri = true;
    files.files["/usr/lib64/libcuda.so.580.65.06"] = "";
  }
  void look(CdiKeeper& keeper) {
    config::Said said;
    said.options[config::Flag::kMigStrategy] = strategy;
    const auto config = config::merge(said, {}, "f").value();
    form.cdi_classes.clear();
    keeper.look({hardware, driver, caps, config, "", ""}, form);
  }
  [[nodiscard]] CdiKeeper keeper() { return {{"/cdi", "/gpuslice", {}, {}}, "", files, log}; }
  const std::string path = "/cdi/k8s.device-plugin.nvidia.com-gpu.json";
};

TEST_F(CdiKeeperTest, WritesWhenSomethingChangedAndFollowsMig) {
  CdiKeeper one = keeper();
  look(one);
  look(one);
  EXPECT_EQ(files.writes, 1);
  hardware.gpus[1] = mig_gpu(1);
  look(one);
  EXPECT_EQ(files.writes, 2);
  EXPECT_NE(files.files[path].find("\"MIG-a\""), std::string::npos);
  EXPECT_EQ(files.files[path].find("\"GPU-1\""), std::string::npos);
  strategy = "none";  // then it is offered whole, and a pod that gets it must be able to start
  look(one);
  EXPECT_NE(files.files[path].find("\"GPU-1\""), std::string::npos);
  strategy = "mixed";
  hardware.gpus[1].mig_devices.clear();
  look(one);
  EXPECT_EQ(files.files[path].find("\"MIG-a\""), std::string::npos);
  hardware.gpus.clear();
  look(one);
  EXPECT_FALSE(files.files.contains(path)) << "removed with the last device";
  EXPECT_EQ(one.trouble(), "");
}

TEST_F(CdiKeeperTest, ARestartWritesNothingThatIsThere) {
  {
    CdiKeeper one = keeper();
    look(one);
  }
  EXPECT_TRUE(files.files.contains(path)) << "it stays when the agent ends";
  files.files["/cdi/k8s.device-plugin.nvidia.com-gds.json"] = "{}";  // of an earlier life
  CdiKeeper two = keeper();
  look(two);
  EXPECT_EQ(files.writes, 1);
  EXPECT_FALSE(files.files.contains("/cdi/k8s.device-plugin.nvidia.com-gds.json"));
}

TEST_F(CdiKeeperTest, WhatAnotherProgramTookAwayOrWroteOverIsWrittenAgain) {
  CdiKeeper one = keeper();
  look(one);
  const std::string text = files.files.at(path);
  files.files.erase(path);
  look(one);
  EXPECT_EQ(files.files.at(path), text);
  files.files[path] = "{}";  // NVIDIA's plugin, whose specs have the same names
  look(one);
  EXPECT_EQ(files.files.at(path), text);
}

TEST_F(CdiKeeperTest, AnotherStrategyRemovesOursAndNobodyElses) {
  files.files["/cdi/other.json"] = "{}";
  CdiKeeper one = keeper();
  look(one);
  form.cdi_cri = false;
  look(one);
  EXPECT_FALSE(files.files.contains(path));
  EXPECT_TRUE(files.files.contains("/cdi/other.json"));
  files.files[path] = "{}";  // NVIDIA's plugin's, say: we write none
  CdiKeeper two = keeper();
  look(two);
  EXPECT_TRUE(files.files.contains(path));
}

TEST_F(CdiKeeperTest, AClassWithASpecIsNamedInTheAnswer) {
  form.gds = form.gdrcopy = form.mofed = true;
  files.files["/dev/nvidia-fs0"] = "";
  files.files["/dev/gdrdrv"] = "";
  CdiKeeper one = keeper();
  look(one);
  EXPECT_EQ(form.cdi_classes, (std::vector<std::string>{"gds", "gdrcopy"}));
  EXPECT_TRUE(files.files.contains("/cdi/k8s.device-plugin.nvidia.com-gdrcopy.json"));
}

TEST_F(CdiKeeperTest, AFullDiskIsTroubleThatEnds) {
  files.full = true;
  CdiKeeper one = keeper();
  look(one);
  look(one);
  EXPECT_EQ(
      one.trouble(),
      "CDI: " + path + ": no space left on device; pods that ask for its devices cannot start");
  EXPECT_EQ(logged.size(), 1U);
  files.full = false;
  look(one);
  EXPECT_EQ(one.trouble(), "");
  EXPECT_EQ(files.writes, 1);
}

TEST_F(CdiKeeperTest, AHookThatCannotBeInstalledIsNotNamed) {
  bool works = false;
  int calls = 0;
  CdiKeeper one({"/cdi",
                 "/gpuslice",
                 [&]() -> Status {
                   ++calls;
                   if (works) {
                     files.files["/gpuslice"] = "a program";
                     return {};
                   }
                   return fail(Code::kNoPermission, "/gpuslice: read-only file system");
                 },
                 {}},
                "", files, log);
  look(one);
  EXPECT_EQ(files.files[path].find("\"hooks\""), std::string::npos);
  EXPECT_EQ(logged.size(), 1U);
  works = true;
  look(one);
  look(one);
  EXPECT_NE(files.files[path].find("\"/gpuslice\""), std::string::npos);
  EXPECT_EQ(calls, 2);
  files.files.erase("/gpuslice");  // no container could start
  look(one);
  EXPECT_EQ(calls, 3);
  EXPECT_TRUE(files.files.contains("/gpuslice"));
}

TEST_F(CdiKeeperTest, WithoutDriverFilesItSaysSo) {
  files.files.erase("/usr/lib64/libcuda.so.580.65.06");
  CdiKeeper one = keeper();
  look(one);
  look(one);
  ASSERT_EQ(logged.size(), 1U);
  EXPECT_NE(
      logged[0].find("CDI: no library of driver 580.65.06 lies below /: containers get device "
                     "nodes alone; is --driver-root right?"),
      std::string::npos);
  EXPECT_TRUE(files.files.contains(path));
}

}  // namespace
}  // namespace gpuslice::agent
