// What a container gets, as it is worked out on a node's files; and hooks.

#include "simkubelet/runtime.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "sim/trees.h"
#include "sim/world.h"

namespace gpuslice::simkubelet {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

const Words kControl = {"nvidia-modeset", "nvidia-uvm", "nvidia-uvm-tools", "nvidiactl"};

class RuntimeTest : public ::testing::Test {
 protected:
  RuntimeTest() {
    std::string pattern = ::testing::TempDir() + "gpuslice-rt-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
    sim::NodeOptions options;
    for (int i = 0; i < 2; ++i) options.gpus.push_back({"A100-SXM4-40GB", sim::Sweep::kPlain});
    // The library is not loaded here: any file will do.
    EXPECT_TRUE(sim::lay_driver_files(root_, options.driver, "/etc/hostname", "").has_value());
    auto world = sim::World::create(root_, options);
    EXPECT_TRUE(world.has_value());
    world_ = std::move(*world);
    fs::create_directories(root_ + "/var/run/cdi");
    fs::create_directories(root_ + "/usr/bin");
    fs::create_directories(root_ + "/usr/lib");
  }
  ~RuntimeTest() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text, bool executable = false) {
    std::ofstream(root_ + path) << text;
    if (executable) fs::permissions(root_ + path, fs::perms::owner_all);
  }
  void spec(const std::string& edits) {
    write("/var/run/cdi/s.json",
          R"({"cdiVersion":"0.6.0","kind":"a.b/c","devices":[{"name":"d","containerEdits":{)" +
              edits + "}}]}");
    launch_.allocated.cdi_devices = {"a.b/c=d"};
  }
  ContainerPlan plan() {
    launch_.root = root_;
    auto made = plan_container(launch_);
    if (!made) ADD_FAILURE() << made.error().message;
    return made ? *std::move(made) : ContainerPlan();
  }
  std::string refusal() {
    launch_.root = root_;
    const auto made = plan_container(launch_);
    return made ? "" : made.error().message;
  }
  static Words with_control(Words nodes) {
    nodes.insert(nodes.end(), kControl.begin(), kControl.end());
    std::sort(nodes.begin(), nodes.end());
    return nodes;
  }
  std::string uuid(uint32_t gpu) const { return world_->snapshot()->gpus[gpu].uuid; }

  std::string root_;
  std::unique_ptr<sim::World> world_;
  Launch launch_;
};

TEST_F(RuntimeTest, VisibleDevicesMakeNodes) {
  const std::pair<std::string, Words> cases[] = {
      {"", {}},
      {"none", {}},
      {"void", {}},
      {"0", with_control({"nvidia0"})},
      {"1,0,1", with_control({"nvidia0", "nvidia1"})},
      {"all", with_control({"nvidia0", "nvidia1"})},
      {uuid(1), with_control({"nvidia1"})},
  };
  for (const auto& [visible, nodes] : cases) {
    launch_.allocated.envs = {{"NVIDIA_VISIBLE_DEVICES", visible}};
    EXPECT_EQ(plan().nodes, nodes) << visible;
  }
  for (const char* unknown : {"2", "GPU-x", "0:0", "MIG-x", "0,"}) {
    launch_.allocated.envs = {{"NVIDIA_VISIBLE_DEVICES", unknown}};
    EXPECT_TRUE(refusal().starts_with(std::string("NVIDIA_VISIBLE_DEVICES=") + unknown +
                                      ": unknown device "))
        << unknown;
  }
}

TEST_F(RuntimeTest, CdiEditsAreApplied) {
  write("/usr/lib/libcuda.so", "lib");
  launch_.allocated.envs = {{"A", "allocate"}, {"B", "allocate"}};
  spec(R"("env":["B=cdi","C=x=y"],
    "deviceNodes":[{"path":"/dev/nvidia1"},{"path":"/dev/other","hostPath":"/dev/nvidia0"},
                   {"path":"/dev/null"}],
    "mounts":[{"hostPath":"/usr/lib/libcuda.so","containerPath":"/c/libcuda.so","options":["ro"]},
              {"hostPath":"/etc/hostname","containerPath":"/c/hostname"},
              {"hostPath":"/nowhere","containerPath":"/c/nowhere"}],
    "hooks":[{"hookName":"createContainer","path":"/usr/bin/x","args":["x","1"]},
             {"hookName":"poststop","path":"/usr/bin/y"}])");
  const ContainerPlan made = plan();
  EXPECT_EQ(made.env,
            (std::map<std::string, std::string>{{"A", "allocate"}, {"B", "cdi"}, {"C", "x=y"}}));
  EXPECT_EQ(made.nodes, Words{"nvidia1"});
  Words mounts;
  for (const auto& m : made.mounts)
    mounts.push_back(m.host + " " + m.at + (m.read_only ? " ro" : ""));
  EXPECT_EQ(mounts, (Words{root_ + "/dev/nvidia0 /dev/other", "/dev/null /dev/null",
                           root_ + "/usr/lib/libcuda.so /c/libcuda.so ro",
                           "/etc/hostname /c/hostname", root_ + "/nowhere /c/nowhere"}));
  ASSERT_EQ(made.hooks.size(), 1U);
  EXPECT_EQ(made.hooks[0].path, "/usr/bin/x");
  EXPECT_EQ(made.hooks[0].args, (Words{"x", "1"}));
}

TEST_F(RuntimeTest, AnnotationsNameDevicesToo) {
  spec(R"("deviceNodes":[{"path":"/dev/nvidia0"}])");
  launch_.allocated.cdi_devices.clear();
  EXPECT_EQ(plan().nodes, Words{});
  launch_.allocated.annotations = {{"cdi.k8s.io/nvidia-device-plugin_1", "a.b/c=d"}};
  EXPECT_EQ(plan().nodes, Words{"nvidia0"});
}

TEST_F(RuntimeTest, PathsBelowTheRootAreTakenAsTheyAre) {
  write("/usr/lib/libcuda.so", "lib");
  launch_.allocated.device_nodes = {{"/dev/nvidia0", root_ + "/dev/nvidia0"}};
  launch_.allocated.mounts = {{"/c", root_ + "/usr/lib", true}, {"/c", "/etc", false}};
  const ContainerPlan made = plan();
  EXPECT_EQ(made.nodes, Words{"nvidia0"});
  ASSERT_EQ(made.mounts.size(), 1U);  // one for each place: the last
  EXPECT_EQ(made.mounts[0].at, "/c");
  EXPECT_FALSE(made.mounts[0].read_only);
}

TEST_F(RuntimeTest, ADeviceThatIsNotThereIsASentence) {
  spec(R"("deviceNodes":[{"path":"/dev/nvidia7"}])");
  EXPECT_EQ(refusal(), "failed to stat device /dev/nvidia7: no such file or directory");
  launch_.allocated.cdi_devices = {"vendor.com/class=name"};
  EXPECT_EQ(refusal(),
            "CDI device injection failed: unresolvable CDI devices "
            "vendor.com/class=name");
}

TEST_F(RuntimeTest, AHookGetsTheStateArgumentsAndEnvironment) {
  write("/usr/bin/hook",
        "#!/bin/sh\ncat >" + root_ + "/said\necho \"$0 $1 $E ${PATH-no path}\" >>" + root_ +
            "/said\n",
        true);
  EXPECT_TRUE(run_hook({"createContainer", "/usr/bin/hook", {"name", "one"}, {"E=2"}, 5}, root_,
                       "{\"state\":1}\n")
                  .has_value());
  std::ifstream said(root_ + "/said");
  const std::string text{std::istreambuf_iterator<char>(said), {}};
  EXPECT_TRUE(text.starts_with("{\"state\":1}\n")) << text;
  EXPECT_NE(text.find(" one 2 "), std::string::npos) << text;
}

TEST_F(RuntimeTest, AHookThatIsNotThereIsLeftOut) {
  write("/usr/bin/plain", "#!/bin/sh\nexit 1\n");
  EXPECT_TRUE(run_hook({"createContainer", "/usr/bin/nowhere", {}, {}, 5}, root_, "").has_value());
  EXPECT_TRUE(run_hook({"createContainer", "/bin/false", {}, {}, 5}, root_, "").has_value());
  EXPECT_TRUE(run_hook({"createContainer", "/usr/bin/plain", {}, {}, 5}, root_, "").has_value());
}

TEST_F(RuntimeTest, AHookThatFailsOrHangsIsASentence) {
  write("/usr/bin/bad", "#!/bin/sh\nexit 3\n", true);
  write("/usr/bin/slow", "#!/bin/sh\nexec sleep 100\n", true);
  EXPECT_EQ(run_hook({"createContainer", "/usr/bin/bad", {}, {}, 5}, root_, "{}").error().message,
            "hook /usr/bin/bad: exit status 3");
  EXPECT_EQ(run_hook({"createContainer", "/usr/bin/slow", {}, {}, 1}, root_, "{}").error().message,
            "hook /usr/bin/slow: not done within 1 s");
}

}  // namespace
}  // namespace gpuslice::simkubelet
