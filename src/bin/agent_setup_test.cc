#include "bin/agent_setup.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace gpuslice::bin {
namespace {

namespace fs = std::filesystem;

// What is asked of the API server, and what chooses instead where it is not.
class AgentSetupTest : public ::testing::Test {
 protected:
  AgentSetupTest() : dir_(fs::temp_directory_path() / fmt::format("setup-{}", ::getpid())) {
    fs::remove_all(dir_);
    fs::create_directories(dir_ / "configs");
    std::ofstream(dir_ / "account") << R"(apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
)";
    command_.state_dir = dir_ / "state";
    command_.run_dir = dir_ / "run";
  }
  ~AgentSetupTest() override { fs::remove_all(dir_); }
  void key(const std::string& name) { std::ofstream(dir_ / "configs" / name) << "version: v1\n"; }
  void with_account() {
    command_.kube["kubeconfig"] = dir_ / "account";
    command_.kube["node-name"] = "n1";
  }
  Result<AgentSetup> made(std::vector<std::string> environment = {}) {
    std::vector<char*> entries;
    for (std::string& entry : environment) entries.push_back(entry.data());
    entries.push_back(nullptr);
    return make_setup(command_, entries.data());
  }
  fs::path dir_;
  AgentCommand command_;
};

TEST_F(AgentSetupTest, TheApiServerIsAskedOnlyWhereItHasSomethingToSay) {
  with_account();
  EXPECT_FALSE(made()->kube);
  command_.mig_config = "/mig.yaml";
  auto setup = made();
  ASSERT_TRUE(setup) << setup.error().message;
  EXPECT_TRUE(setup->kube);
  EXPECT_EQ(setup->node, "n1");
  EXPECT_TRUE(setup->partition.source.label_from_api);
  for (std::string AgentCommand::* other :
       {&AgentCommand::mig_label, &AgentCommand::mig_label_file}) {
    command_.*other = "x";
    EXPECT_FALSE(made()->kube);
    EXPECT_FALSE(made()->partition.source.label_from_api);
    command_.*other = "";
  }
  command_.roles = {"plugin"};  // changes no MIG
  EXPECT_FALSE(made()->kube);
  command_.roles.clear();
  command_.no_kube = true;
  EXPECT_FALSE(made()->kube);
  EXPECT_FALSE(made()->partition.source.label_from_api);
}

TEST_F(AgentSetupTest, WithoutAnAccountTheNodesLabelsChooseNothingAndThatIsSaid) {
  command_.mig_config = "/mig.yaml";
  auto setup = made();
  ASSERT_TRUE(setup) << setup.error().message;
  EXPECT_FALSE(setup->kube);
  EXPECT_FALSE(setup->partition.source.label_from_api);
  EXPECT_NE(setup->without_kube.find("this is no pod"), std::string::npos) << setup->without_kube;
  // An account that was named and is no good is an error.
  command_.kube["kubeconfig"] = dir_ / "nowhere";
  EXPECT_FALSE(made());
}

TEST_F(AgentSetupTest, EventsOfHealthGoWhereTheApiServerIsTalkedToOrWhereTheyAreAskedFor) {
  with_account();
  EXPECT_FALSE(made()->kube) << "for nothing else";
  command_.events = "on";
  EXPECT_TRUE(made()->kube);
  EXPECT_TRUE(made()->health_events);
  command_.no_kube = true;
  EXPECT_EQ(made().error().message, "agent: --events on and --no-kube: only one of them can hold");
  command_.no_kube = false;
  command_.events = "auto";
  command_.mig_config = "/mig.yaml";
  EXPECT_TRUE(made()->health_events);
  command_.events = "off";
  EXPECT_TRUE(made()->kube);
  EXPECT_FALSE(made()->health_events);
}

TEST_F(AgentSetupTest, WhichNodeThisIsMustBeKnown) {
  with_account();
  command_.mig_config = "/mig.yaml";
  command_.kube.erase("node-name");
  auto setup = made();
  ASSERT_FALSE(setup);
  EXPECT_EQ(setup.error().code, Code::kUsage);
  EXPECT_NE(setup.error().message.find("--node-name"), std::string::npos);
  EXPECT_NE(setup.error().message.find("--no-kube"), std::string::npos);
  EXPECT_EQ(made({"NODE_NAME=n2"})->node, "n2");
}

TEST_F(AgentSetupTest, AConfigFolderWaitsForTheNodeWhereThereIsAnAccount) {
  command_.config_dir = dir_ / "configs";
  with_account();
  auto setup = made();
  ASSERT_TRUE(setup) << setup.error().message;
  EXPECT_TRUE(setup->kube);
  EXPECT_TRUE(setup->config.follows);
  EXPECT_TRUE(setup->config_folder->by_label);
  EXPECT_EQ(setup->config.path, "");
  command_.config_dir.clear();
  command_.config_file = dir_ / "one.yaml";  // says which file
  setup = made();
  EXPECT_FALSE(setup->kube);
  EXPECT_FALSE(setup->config.follows);
  EXPECT_FALSE(setup->config_folder);
}

TEST_F(AgentSetupTest, AFlagThatAnotherTakesBackOrNobodyUsesIsRefused) {
  const auto refused = [&](AgentCommand command) {
    std::swap(command, command_);
    const auto setup = made();
    std::swap(command, command_);
    if (setup) return std::string("taken");
    EXPECT_EQ(setup.error().code, Code::kUsage);
    return setup.error().message;
  };
  AgentCommand both = command_;
  both.config_dir = dir_ / "configs";
  both.config_file = dir_ / "one.yaml";
  EXPECT_EQ(refused(both), "agent: --config and --config-dir: give one of them");
  AgentCommand key = command_;
  key.default_config = "a";
  EXPECT_EQ(refused(key),
            "agent: --default-config a names a key of a mounted ConfigMap, and there is none: add "
            "--config-dir DIR");
  AgentCommand wait = command_;
  wait.mig_wait = "5m";
  EXPECT_EQ(refused(wait),
            "agent: --mig-wait: there is no MIG configuration whose changes could wait: add "
            "--mig-config FILE");
  AgentCommand labels = command_;
  labels.labels_to = "stdout";
  EXPECT_EQ(refused(labels), "taken");
  labels.roles = {"plugin", "mig"};
  EXPECT_EQ(refused(labels),
            "agent: --labels-to stdout and --roles without labels: only one of them can hold");
  AgentCommand socket = command_;
  socket.options[config::Flag::kKubeletSocket] = "";
  EXPECT_EQ(refused(socket),
            "agent: --kubelet-socket \"\": an agent that registers with no kubelet serves nobody; "
            "name the socket, or leave the flag out for the one in --kubelet-dir");
  socket.options[config::Flag::kKubeletSocket] = "/k/kubelet.sock";
  EXPECT_EQ(refused(socket), "taken");
}

// The copy that hooks run is the host's to see: never in a folder of the agent's own image.
TEST_F(AgentSetupTest, TheHooksProgramLiesInTheStateFolder) {
  EXPECT_EQ(made()->cdi.hook, dir_ / "state" / "bin" / "gpuslice");
  command_.state_dir.clear();
  EXPECT_EQ(made()->cdi.hook, "/var/lib/gpuslice/bin/gpuslice");
  command_.root = dir_;  // a simulated node's lies with it
  EXPECT_EQ(made()->cdi.hook, made()->places.state_dir + "/bin/gpuslice");
  EXPECT_TRUE(made()->install_hook);
  command_.cdi_hook_path = "/opt/gpuslice";
  EXPECT_EQ(made()->cdi.hook, "/opt/gpuslice");
  EXPECT_FALSE(made()->install_hook);
}

TEST_F(AgentSetupTest, WithoutAnAccountAStartThatCannotChooseSaysSo) {
  command_.config_dir = dir_ / "configs";
  key("a");
  EXPECT_EQ(made()->config.path, dir_ / "configs" / "a");
  key("b");
  auto setup = made();
  ASSERT_FALSE(setup);
  EXPECT_EQ(setup.error().code, Code::kInvalidConfig);
  EXPECT_NE(setup.error().message.find("there is a, b"), std::string::npos);
  EXPECT_EQ(made({"DEFAULT_CONFIG=b"})->config.path, dir_ / "configs" / "b");
  command_.default_config = "a";
  EXPECT_EQ(made({"DEFAULT_CONFIG=b"})->config.path, dir_ / "configs" / "a");
}

}  // namespace
}  // namespace gpuslice::bin
