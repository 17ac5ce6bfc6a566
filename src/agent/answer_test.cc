// Allocate's answer, field by field. The expected values are written out from the tables of what
// NVIDIA's plugin v0.20 answers, not from this code.

#include "agent/answer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "agent/device_nodes.h"

namespace gpuslice::agent {
namespace {

using ports::ContainerAnswer;

constexpr const char* kUuid = "11111111-2222-4333-8444-555555555555";

AnswerDevice gpu(uint32_t n) {
  return {"GPU-" + std::to_string(n), std::to_string(n), {gpu_node(GpuMinor{n})}};
}

// The MIG device with GPU instance 7 and compute instance 0 of GPU 1.
AnswerDevice mig() {
  return {"MIG-a", "1:0", mig_nodes(GpuMinor{1}, GiId{7}, CiId{0}, CapMinors())};
}

AnswerForm form() {
  AnswerForm out;
  out.control_nodes = {"/dev/nvidiactl", "/dev/nvidia-uvm"};
  return out;
}

ContainerAnswer of(const std::vector<AnswerDevice>& devices, const AnswerForm& form) {
  return answer(devices, form, kUuid);
}

TEST(Answer, EnvvarNamesTheDevices) {
  EXPECT_EQ(of({gpu(0), gpu(3)}, form()),
            (ContainerAnswer{{{"NVIDIA_VISIBLE_DEVICES", "GPU-0,GPU-3"}}, {}, {}, {}, {}}));
  AnswerForm by_index = form();
  by_index.index_ids = true;
  EXPECT_EQ(of({gpu(0), mig()}, by_index),
            (ContainerAnswer{{{"NVIDIA_VISIBLE_DEVICES", "0,1:0"}}, {}, {}, {}, {}}));
}

TEST(Answer, VolumeMountsNameThemByPaths) {
  AnswerForm mounts = form();
  mounts.envvar = false;
  mounts.volume_mounts = true;
  const ContainerAnswer golden{{{"NVIDIA_VISIBLE_DEVICES", "/var/run/nvidia-container-devices"}},
                               {{"/var/run/nvidia-container-devices/GPU-0", "/dev/null", false},
                                {"/var/run/nvidia-container-devices/MIG-a", "/dev/null", false}},
                               {},
                               {},
                               {}};
  EXPECT_EQ(of({gpu(0), mig()}, mounts), golden);
  mounts.envvar = true;  // the mounts win
  EXPECT_EQ(of({gpu(0), mig()}, mounts), golden);
}

TEST(Answer, CdiAnnotationsAreUnderAKeyOfTheirOwn) {
  AnswerForm cdi = form();
  cdi.envvar = false;
  cdi.cdi_annotations = true;
  EXPECT_EQ(of({gpu(0), gpu(1)}, cdi),
            (ContainerAnswer{{},
                             {},
                             {},
                             {{"cdi.k8s.io/nvidia-device-plugin_11111111-2222-4333-8444-"
                               "555555555555",
                               "k8s.device-plugin.nvidia.com/gpu=GPU-0,"
                               "k8s.device-plugin.nvidia.com/gpu=GPU-1"}},
                             {}}));
  cdi.cdi_annotation_prefix = "cdi.example.org/";
  EXPECT_EQ(of({gpu(0)}, cdi).annotations.begin()->first,
            "cdi.example.org/nvidia-device-plugin_11111111-2222-4333-8444-555555555555");
}

TEST(Answer, CdiCriNamesThemInTheirOwnField) {
  AnswerForm cdi = form();
  cdi.envvar = false;
  cdi.cdi_cri = true;
  // CDI alone: neither device nodes nor the switches of the other strategies.
  cdi.pass_device_specs = cdi.gds = cdi.mofed = cdi.gdrcopy = true;
  EXPECT_EQ(of({mig()}, cdi),
            (ContainerAnswer{{}, {}, {}, {}, {"k8s.device-plugin.nvidia.com/gpu=MIG-a"}}));
  cdi.index_ids = true;
  EXPECT_EQ(of({gpu(2), mig()}, cdi).cdi_devices,
            (std::vector<std::string>{"k8s.device-plugin.nvidia.com/gpu=2",
                                      "k8s.device-plugin.nvidia.com/gpu=1:0"}));
}

TEST(Answer, AllFourTogether) {
  AnswerForm all = form();
  all.volume_mounts = all.cdi_annotations = all.cdi_cri = all.pass_device_specs = true;
  EXPECT_EQ(
      of({gpu(0)}, all),
      (ContainerAnswer{{{"NVIDIA_VISIBLE_DEVICES", "/var/run/nvidia-container-devices"}},
                       {{"/var/run/nvidia-container-devices/GPU-0", "/dev/null", false}},
                       {{"/dev/nvidiactl", "/dev/nvidiactl", "rw"},
                        {"/dev/nvidia-uvm", "/dev/nvidia-uvm", "rw"},
                        {"/dev/nvidia0", "/dev/nvidia0", "rw"}},
                       {{"cdi.k8s.io/nvidia-device-plugin_11111111-2222-4333-8444-555555555555",
                         "k8s.device-plugin.nvidia.com/gpu=GPU-0"}},
                       {"k8s.device-plugin.nvidia.com/gpu=GPU-0"}}));
}

TEST(Answer, DeviceSpecsOfAMigDeviceHoldItsCapabilities) {
  AnswerForm specs = form();
  specs.pass_device_specs = true;
  specs.dev_root = "/run/nvidia/driver";
  // 3 + 135 * 1 + 9 * 7 = 201 opens the GPU instance, 202 the compute instance.
  EXPECT_EQ(of({mig()}, specs).devices,
            (std::vector<ports::DeviceNode>{
                {"/dev/nvidiactl", "/run/nvidia/driver/dev/nvidiactl", "rw"},
                {"/dev/nvidia-uvm", "/run/nvidia/driver/dev/nvidia-uvm", "rw"},
                {"/dev/nvidia1", "/run/nvidia/driver/dev/nvidia1", "rw"},
                {"/dev/nvidia-caps/nvidia-cap201",
                 "/run/nvidia/driver/dev/nvidia-caps/nvidia-cap201", "rw"},
                {"/dev/nvidia-caps/nvidia-cap202",
                 "/run/nvidia/driver/dev/nvidia-caps/nvidia-cap202", "rw"}}));
  // Two devices of one GPU: its node once.
  AnswerDevice other = mig();
  other.nodes = mig_nodes(GpuMinor{1}, GiId{8}, CiId{0}, CapMinors());
  EXPECT_EQ(of({mig(), other}, specs).devices.size(), 7U);
}

TEST(Answer, TheSwitchesAreEnvironmentOfTheStrategiesThatAreNotCdi) {
  AnswerForm one = form();
  one.gdrcopy = true;
  EXPECT_EQ(of({gpu(0)}, one).envs,
            (std::map<std::string, std::string>{{"NVIDIA_VISIBLE_DEVICES", "GPU-0"},
                                                {"NVIDIA_GDRCOPY", "enabled"}}));
  one.gdrcopy = false;
  one.gds = true;
  EXPECT_EQ(of({gpu(0)}, one).envs,
            (std::map<std::string, std::string>{{"NVIDIA_VISIBLE_DEVICES", "GPU-0"},
                                                {"NVIDIA_GDS", "enabled"}}));
  one.gds = false;
  one.mofed = true;
  EXPECT_EQ(of({gpu(0)}, one).envs,
            (std::map<std::string, std::string>{{"NVIDIA_VISIBLE_DEVICES", "GPU-0"},
                                                {"NVIDIA_MOFED", "enabled"}}));
  // Under CDI they are devices of specs of their own, where there is one.
  one.envvar = false;
  one.cdi_cri = true;
  one.cdi_classes = {"gds", "mofed", "gdrcopy"};
  EXPECT_EQ(of({gpu(0)}, one), (ContainerAnswer{{},
                                                {},
                                                {},
                                                {},
                                                {"k8s.device-plugin.nvidia.com/gpu=GPU-0",
                                                 "k8s.device-plugin.nvidia.com/gds=all",
                                                 "k8s.device-plugin.nvidia.com/mofed=all",
                                                 "k8s.device-plugin.nvidia.com/gdrcopy=all"}}));
}

TEST(Answer, ImexChannelsInEveryStrategy) {
  AnswerForm imex = form();
  imex.imex_channels = {"0"};
  EXPECT_EQ(of({gpu(0)}, imex).envs.at("NVIDIA_IMEX_CHANNELS"), "0");
  imex.envvar = false;
  imex.volume_mounts = true;
  imex.pass_device_specs = true;
  imex.control_nodes = {};
  EXPECT_EQ(of({gpu(0)}, imex),
            (ContainerAnswer{{{"NVIDIA_VISIBLE_DEVICES", "/var/run/nvidia-container-devices"}},
                             {{"/var/run/nvidia-container-devices/GPU-0", "/dev/null", false},
                              {"/var/run/nvidia-container-devices/imex/0", "/dev/null", false}},
                             {{"/dev/nvidia0", "/dev/nvidia0", "rw"},
                              {"/dev/nvidia-caps-imex-channels/channel0",
                               "/dev/nvidia-caps-imex-channels/channel0", "rw"}},
                             {},
                             {}}));
  imex.volume_mounts = false;
  imex.cdi_cri = true;
  EXPECT_EQ(of({gpu(0)}, imex).cdi_devices,
            (std::vector<std::string>{"k8s.device-plugin.nvidia.com/gpu=GPU-0",
                                      "k8s.device-plugin.nvidia.com/imex-channel=0"}));
}

TEST(CapMinors, TheDriversFileGoesBeforeTheScheme) {
  auto minors =
      gpu::parse_mig_minors("config 1\nmonitor 2\ngpu0/gi0/access 40\ngpu0/gi0/ci3/access 44\n");
  ASSERT_TRUE(minors.has_value()) << minors.error().message;
  const CapMinors caps(*minors);
  EXPECT_EQ(caps.gi(GpuMinor{0}, GiId{0}), 40U);
  EXPECT_EQ(caps.ci(GpuMinor{0}, GiId{0}, CiId{3}), 44U);
  EXPECT_EQ(caps.ci(GpuMinor{0}, GiId{0}, CiId{0}), 41U);  // beside its GPU instance
  EXPECT_EQ(caps.gi(GpuMinor{0}, GiId{1}), 12U);
  EXPECT_EQ(caps.gi(GpuMinor{0}, GiId{2}), 21U);
  EXPECT_EQ(caps.ci(GpuMinor{31}, GiId{14}, CiId{7}), 4322U);  // the last one there is
}

TEST(RandomUuid, IsOneOfVersionFourAndFollowsTheSeed) {
  Random a(7), b(7), c(8);
  const std::string one = random_uuid(a);
  EXPECT_EQ(one, random_uuid(b));
  EXPECT_NE(one, random_uuid(c));
  EXPECT_NE(one, random_uuid(a));
  ASSERT_EQ(one.size(), 36U);
  EXPECT_EQ(one[14], '4');
  EXPECT_NE(std::string("89ab").find(one[19]), std::string::npos) << one;
}

}  // namespace
}  // namespace gpuslice::agent
