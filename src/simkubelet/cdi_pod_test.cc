// End to end: a real stand-in, a plugin that answers with CDI devices, specs and a hook on the
// node, and what a pod then finds.

#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "simkubelet/fake_plugin.h"

namespace gpuslice::simkubelet {
namespace {

namespace fs = std::filesystem;

struct Said {
  int status = -1;
  std::string text;
};

Said sh(const std::string& command) {
  Said said;
  FILE* pipe = ::popen((command + " 2>&1 </dev/null").c_str(), "r");
  std::array<char, 4096> buffer{};
  for (size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    said.text.append(buffer.data(), n);
  said.status = WEXITSTATUS(::pclose(pipe));
  return said;
}

template <class Holds>
bool eventually(Holds holds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

class CdiPodTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "gpuslice-cdi-XXXXXX";
    tmp_ = ::mkdtemp(pattern.data());
    root_ = tmp_ + "/node";
    dir_ = tmp_ + "/kubelet";
    const Said made =
        sh(std::string(GPUSLICE_SIM) + " create --gpus 2xA100-SXM4-40GB --root " + root_);
    ASSERT_EQ(made.status, 0) << made.text;
    if (sh(std::string(GPUSLICE_SIM) + " exec --root " + root_ + " --private-mounts -- true")
            .status != 0)
      GTEST_SKIP() << "no mount namespace is to be had here";
    std::vector<std::string> words = {GPUSLICE_SIM, "kubelet", "--root", root_, "--dir", dir_};
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ASSERT_EQ(::posix_spawn(&kubelet_, GPUSLICE_SIM, nullptr, nullptr, argv.data(), environ), 0);
    // It answers: with a refusal, since nothing serves yet.
    ASSERT_TRUE(eventually([&] {
      return register_plugin(dir_, {"v0", "p.sock", "a.b/none", false}).contains("not supported");
    }));
    plugin_.list({{"one", true}, {"two", true}});
    plugin_.serve(dir_, "p.sock");
    ASSERT_EQ(register_plugin(dir_, {"v1beta1", "p.sock", "nvidia.com/gpu", true}), "");
    fs::create_directories(root_ + "/var/run/cdi");
    fs::create_directories(root_ + "/etc/cdi");
    fs::create_directories(tmp_ + "/at");
    write(root_ + "/usr/share/on-node", "a file of the node\n");
  }
  void TearDown() override {
    if (kubelet_ > 0) {
      ::kill(kubelet_, SIGTERM);
      ::waitpid(kubelet_, nullptr, 0);
    }
    plugin_.stop();
    fs::remove_all(tmp_);
  }
  static void write(const std::string& path, const std::string& text, bool executable = false) {
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path) << text;
    if (executable) fs::permissions(path, fs::perms::owner_all);
  }
  static std::string text(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  Said run(const std::string& pod, const std::string& script) {
    write(tmp_ + "/" + pod + ".sh", script);
    return sh(std::string(GPUSLICE_SIM) + " pod --dir " + dir_ + " run " + pod +
              " --request nvidia.com/gpu=1 -- sh " + tmp_ + "/" + pod + ".sh");
  }

  std::string tmp_, root_, dir_;
  pid_t kubelet_ = 0;
  FakePlugin plugin_;
};

TEST_F(CdiPodTest, APodGetsWhatTheSpecsSay) {
  write(
      root_ + "/var/run/cdi/gpu.yaml",
      "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\n"
      "containerEdits:\n"
      "  env: [OF_ALL=1]\n"
      "  mounts:\n  - {hostPath: /usr/share/on-node, containerPath: " +
          tmp_ +
          "/at/here, options: [ro]}\n"
          "  hooks:\n  - {hookName: createContainer, path: /usr/bin/a-hook, args: [a-hook, word]}\n"
          "  - {hookName: createContainer, path: /usr/bin/not-there}\n"
          "devices:\n- name: one\n  containerEdits:\n    env: [OF_ONE=1]\n"
          "    deviceNodes: [{path: /dev/nvidia1}]\n");
  write(root_ + "/etc/cdi/ctl.json",
        R"({"cdiVersion":"0.5.0","kind":"nvidia.com/ctl","devices":[{"name":"all",)"
        R"("containerEdits":{"deviceNodes":[{"path":"/dev/nvidiactl"}]}}]})");
  write(
      root_ + "/usr/bin/a-hook",
      "#!/bin/sh\ncat >" + tmp_ + "/state\n(echo $1; cd /dev; echo nvidia*) >" + tmp_ + "/hooked\n",
      true);
  plugin_.allocated.cdi_devices = {"nvidia.com/gpu=one"};
  plugin_.allocated.annotations["cdi.k8s.io/x"] = "nvidia.com/ctl=all";
  const Said said =
      run("p", "(echo $OF_ALL $OF_ONE; cd /dev; echo nvidia*; cat " + tmp_ + "/at/here; echo x >>" +
                   tmp_ + "/at/here || echo read-only) >" + tmp_ + "/out.new 2>/dev/null\nmv " +
                   tmp_ + "/out.new " + tmp_ + "/out\nexec sleep 1000\n");
  EXPECT_EQ(said.status, 0) << said.text;
  EXPECT_EQ(said.text, "pod p: Running [\"one\"]\n");
  ASSERT_TRUE(eventually([&] { return fs::exists(tmp_ + "/out"); }));
  EXPECT_EQ(text(tmp_ + "/out"), "1 1\nnvidia1 nvidiactl\na file of the node\nread-only\n");
  EXPECT_EQ(text(tmp_ + "/hooked"), "word\nnvidia1 nvidiactl\n");  // in the pod's view
  const auto state = nlohmann::json::parse(text(tmp_ + "/state"), nullptr, false);
  ASSERT_TRUE(state.is_object()) << text(tmp_ + "/state");
  EXPECT_EQ(state["status"], "creating");
  EXPECT_GT(state["pid"], 0);
  EXPECT_TRUE(state["bundle"].is_string());
  EXPECT_EQ(text(tmp_ + "/at/here"), "");  // nothing of the view is seen outside
}

TEST_F(CdiPodTest, AnUnknownDeviceIsAContainerThatCannotStart) {
  plugin_.allocated.cdi_devices = {"vendor.com/class=name"};
  const Said said = run("p", "exec sleep 1000\n");
  EXPECT_NE(said.status, 0);
  EXPECT_EQ(said.text,
            "gpuslice-sim: pod p: Failed: CreateContainerError: CDI device injection failed: "
            "unresolvable CDI devices vendor.com/class=name\n");
}

TEST_F(CdiPodTest, AHookThatFailsIsAContainerThatCannotStart) {
  write(root_ + "/usr/bin/bad", "#!/bin/sh\nexit 3\n", true);
  write(root_ + "/var/run/cdi/a.json",
        R"({"cdiVersion":"0.5.0","kind":"a.b/c","devices":[{"name":"d","containerEdits":{)"
        R"("hooks":[{"hookName":"createContainer","path":"/usr/bin/bad"}]}}]})");
  plugin_.allocated.cdi_devices = {"a.b/c=d"};
  const Said said = run("p", "touch " + tmp_ + "/ran\n");
  EXPECT_EQ(said.text,
            "gpuslice-sim: pod p: Failed: CreateContainerError: container: hook /usr/bin/bad: exit "
            "status 3\n");
  EXPECT_FALSE(fs::exists(tmp_ + "/ran"));
}

TEST_F(CdiPodTest, ACommandThatIsNotThereIsAContainerThatCannotStart) {
  const Said said = sh(std::string(GPUSLICE_SIM) + " pod --dir " + dir_ +
                       " run p --request nvidia.com/gpu=1 -- /not/there");
  EXPECT_EQ(said.text,
            "gpuslice-sim: pod p: Failed: CreateContainerError: container: /not/there: No such "
            "file or directory\n");
}

}  // namespace
}  // namespace gpuslice::simkubelet
