// CDI specs as they are read, and what a container gets of them.

#include "simkubelet/cdi.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace gpuslice::simkubelet {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

constexpr const char* kJson = R"({
  "cdiVersion": "0.6.0", "kind": "nvidia.com/gpu",
  "containerEdits": {"env": ["ALL=1"], "mounts": [
    {"hostPath": "/usr/lib/a.so", "containerPath": "/lib/a.so", "options": ["ro", "nosuid"]}]},
  "devices": [
    {"name": "0", "containerEdits": {"env": ["ONE=0"],
      "deviceNodes": [{"path": "/dev/nvidia0"}, {"path": "/dev/b", "hostPath": "/dev/nvidia1"}],
      "hooks": [{"hookName": "createContainer", "path": "/usr/bin/hook", "args": ["hook", "x"],
                 "env": ["E=1"], "timeout": 5}]}},
    {"name": "GPU-1:x", "containerEdits": {"env": ["ONE=1"]}}]})";

constexpr const char* kYaml = R"(---
cdiVersion: 0.6.0
kind: nvidia.com/gpu
containerEdits:
  env: [ALL=1]
  mounts:
  - hostPath: /usr/lib/a.so
    containerPath: /lib/a.so
    options: [ro, nosuid]
devices:
- name: "0"
  containerEdits:
    env: [ONE=0]
    deviceNodes:
    - path: /dev/nvidia0
    - {path: /dev/b, hostPath: /dev/nvidia1}
    hooks:
    - hookName: createContainer
      path: /usr/bin/hook
      args: [hook, x]
      env: [E=1]
      timeout: 5
- name: GPU-1:x
  containerEdits: {env: [ONE=1]}
)";

TEST(CdiSpec, JsonAndYamlSayTheSame) {
  for (const auto& [text, format] :
       {std::pair(kJson, CdiFormat::kJson), std::pair(kJson, CdiFormat::kYaml),
        std::pair(kYaml, CdiFormat::kYaml)}) {
    const auto spec = parse_cdi_spec(text, format);
    ASSERT_TRUE(spec.has_value()) << spec.error().message;
    EXPECT_EQ(spec->kind, "nvidia.com/gpu");
    EXPECT_EQ(spec->edits.env, Words{"ALL=1"});
    ASSERT_EQ(spec->edits.mounts.size(), 1U);
    EXPECT_EQ(spec->edits.mounts[0].host_path, "/usr/lib/a.so");
    EXPECT_EQ(spec->edits.mounts[0].container_path, "/lib/a.so");
    EXPECT_TRUE(spec->edits.mounts[0].read_only);
    ASSERT_EQ(spec->devices.size(), 2U);
    const CdiEdits& one = spec->devices.at("0");
    EXPECT_EQ(one.env, Words{"ONE=0"});
    ASSERT_EQ(one.device_nodes.size(), 2U);
    EXPECT_EQ(one.device_nodes[0].path, "/dev/nvidia0");
    EXPECT_EQ(one.device_nodes[0].host_path, "/dev/nvidia0");
    EXPECT_EQ(one.device_nodes[1].path, "/dev/b");
    EXPECT_EQ(one.device_nodes[1].host_path, "/dev/nvidia1");
    ASSERT_EQ(one.hooks.size(), 1U);
    EXPECT_EQ(one.hooks[0].name, "createContainer");
    EXPECT_EQ(one.hooks[0].path, "/usr/bin/hook");
    EXPECT_EQ(one.hooks[0].args, (Words{"hook", "x"}));
    EXPECT_EQ(one.hooks[0].env, Words{"E=1"});
    EXPECT_EQ(one.hooks[0].timeout_s, 5U);
    EXPECT_EQ(spec->devices.at("GPU-1:x").env, Words{"ONE=1"});
  }
}

std::string with(const std::string& rest) {
  return R"({"cdiVersion":"0.6.0","kind":"a.b/c",)" + rest + "}";
}
std::string with_edits(const std::string& edits) {
  return with(R"("devices":[{"name":"d","containerEdits":{)" + edits + "}}]");
}

TEST(CdiSpec, WhatIsWrongIsNamedWithItsPlace) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "the file: this is not JSON"},
      {"[]", "the file: holds no object"},
      {"{}", "cdiVersion: \"\" is no version of CDI, such as 0.6.0"},
      {R"({"cdiVersion":7})", "cdiVersion: is no text"},
      {R"({"cdiVersion":"9.0.0"})", "cdiVersion: \"9.0.0\" is no version of CDI, such as 0.6.0"},
      {R"({"cdiVersion":"0.6.0"})", "kind: \"\" is no VENDOR/CLASS"},
      {R"({"cdiVersion":"0.6.0","kind":"a"})", "kind: \"a\" is no VENDOR/CLASS"},
      {R"({"cdiVersion":"0.6.0","kind":"0a/b"})", "kind: \"0a/b\" is no VENDOR/CLASS"},
      {R"({"cdiVersion":"0.6.0","kind":"a/b/c"})", "kind: \"a/b/c\" is no VENDOR/CLASS"},
      {with(R"("containerEdits":[])"), "containerEdits: is no object"},
      {with(R"("devices":{})"), "devices: is no list"},
      {with(R"("devices":[1])"), "devices[0]: is no object"},
      {with(R"("devices":[{"name":"-"}])"), "devices[0].name: \"-\" is no device name"},
      {with(R"("devices":[{"name":"d"}])"), "devices[0]: device d has no containerEdits"},
      {with(R"("devices":[{"name":"d","containerEdits":{"env":["A=1"]}},)"
            R"({"name":"d","containerEdits":{"env":["A=1"]}}])"),
       "devices[1]: device d stands there twice"},
      {with_edits(R"("env":"A=1")"), "devices[0].containerEdits.env: is no list"},
      {with_edits(R"("env":[1])"), "devices[0].containerEdits.env[0]: is no text"},
      {with_edits(R"("env":["A"])"), "devices[0].containerEdits.env: \"A\" is no NAME=VALUE"},
      {with_edits(R"("env":["=1"])"), "devices[0].containerEdits.env: \"=1\" is no NAME=VALUE"},
      {with_edits(R"("deviceNodes":[{}])"),
       "devices[0].containerEdits.deviceNodes[0].path: is not there"},
      {with_edits(R"("deviceNodes":[{"path":"/dev/\u0000"}])"),
       "devices[0].containerEdits.deviceNodes[0].path: a NUL in it"},
      {with_edits(R"("mounts":[{"hostPath":"/a"}])"),
       "devices[0].containerEdits.mounts[0].containerPath: is not there"},
      {with_edits(R"("hooks":[{"path":"/x"}])"),
       "devices[0].containerEdits.hooks[0].hookName: is not there"},
      {with_edits(R"("hooks":[{"path":"/x","hookName":"createcontainer"}])"),
       "devices[0].containerEdits.hooks[0].hookName: \"createcontainer\" is no hook of OCI"},
      {with_edits(R"("hooks":[{"path":"/x","hookName":"poststop","timeout":-1}])"),
       "devices[0].containerEdits.hooks[0].timeout: a whole number of seconds up to 3600"},
      {with_edits(R"("hooks":[{"path":"/x","hookName":"poststop","args":["a\u0000"]}])"),
       "devices[0].containerEdits.hooks[0].args[0]: a NUL in it"},
  };
  for (const auto& [text, why] : cases) {
    const auto spec = parse_cdi_spec(text, CdiFormat::kJson);
    ASSERT_FALSE(spec.has_value()) << text;
    EXPECT_EQ(spec.error().message, why) << text;
  }
}

TEST(CdiSpec, YamlThatIsNoneOrGrowsIsRefused) {
  EXPECT_EQ(parse_cdi_spec("a: [1", CdiFormat::kYaml).error().message.substr(0, 7), "line 1,");
  EXPECT_EQ(parse_cdi_spec("? [a]\n: b\n", CdiFormat::kYaml).error().message,
            "the document: a key that is no text");
  std::string deep = "a: ";
  for (int i = 0; i < 40; ++i) deep += "[";
  EXPECT_EQ(parse_cdi_spec(deep + std::string(40, ']'), CdiFormat::kYaml).error().message,
            "the document: nested too deeply");
  // Every line is ten times the one before it.
  std::string laughs = "l0: &l0 [x]\n";
  for (int i = 1; i < 9; ++i) {
    laughs += "l" + std::to_string(i) + ": &l" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) laughs += (j ? ", *l" : "*l") + std::to_string(i - 1);
    laughs += "]\n";
  }
  EXPECT_EQ(parse_cdi_spec(laughs, CdiFormat::kYaml).error().message,
            "the document: more than 200000 values");
  EXPECT_EQ(parse_cdi_spec(std::string(kMaxCdiFile + 1, ' '), CdiFormat::kJson).error().message,
            "the file: larger than 4194304 bytes");
}

class CdiSpecsTest : public ::testing::Test {
 protected:
  CdiSpecsTest() {
    std::string pattern = ::testing::TempDir() + "gpuslice-cdi-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
    fs::create_directories(root_ + "/etc/cdi");
    fs::create_directories(root_ + "/var/run/cdi");
  }
  ~CdiSpecsTest() override { fs::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    std::ofstream(root_ + path) << text;
  }
  Result<CdiEdits> resolve(const Words& names) { return CdiSpecs::of_node(root_).resolve(names); }
  std::string root_;
};

std::string spec_of(const std::string& device, const std::string& value) {
  return R"({"cdiVersion":"0.6.0","kind":"a.b/c","containerEdits":{"env":["SPEC=)" + value +
         R"("]},"devices":[{"name":")" + device + R"(","containerEdits":{"env":["DEVICE=)" +
         device + value + R"("]}}]})";
}

TEST_F(CdiSpecsTest, EditsOfASpecOnceAndOfEachDevice) {
  write("/var/run/cdi/gpu.json", kJson);
  write("/etc/cdi/other.yaml", spec_of("o", "1"));
  write("/etc/cdi/readme.txt", "no spec");
  const auto edits = resolve({"nvidia.com/gpu=GPU-1:x", "a.b/c=o", "nvidia.com/gpu=0"});
  ASSERT_TRUE(edits.has_value()) << edits.error().message;
  EXPECT_EQ(edits->env, (Words{"ALL=1", "ONE=1", "SPEC=1", "DEVICE=o1", "ONE=0"}));
  EXPECT_EQ(edits->mounts.size(), 1U);
  EXPECT_EQ(edits->device_nodes.size(), 2U);
  EXPECT_EQ(edits->hooks.size(), 1U);
  EXPECT_TRUE(resolve({})->empty());
}

TEST_F(CdiSpecsTest, AnUnknownDeviceIsNamedAsContainerdNamesIt) {
  EXPECT_EQ(resolve({"vendor.com/class=name"}).error().message,
            "CDI device injection failed: unresolvable CDI devices vendor.com/class=name");
  write("/var/run/cdi/gpu.json", kJson);
  EXPECT_EQ(resolve({"nvidia.com/gpu=7", "nvidia.com/gpu=0", "x.y/z=a"}).error().message,
            "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=7, x.y/z=a");
}

TEST_F(CdiSpecsTest, AFileThatIsNotRightGivesNothingAndIsNamed) {
  write("/var/run/cdi/bad.json", "{");
  write("/var/run/cdi/gpu.json", kJson);
  EXPECT_TRUE(resolve({"nvidia.com/gpu=0"}).has_value());
  EXPECT_EQ(resolve({"a.b/c=o"}).error().message,
            "CDI device injection failed: unresolvable CDI devices a.b/c=o (" + root_ +
                "/var/run/cdi/bad.json: the file: this is not JSON)");
}

TEST_F(CdiSpecsTest, RunGoesBeforeEtcAndEqualsExcludeEachOther) {
  write("/etc/cdi/a.json", spec_of("d", "etc"));
  write("/var/run/cdi/a.json", spec_of("d", "run"));
  EXPECT_EQ(resolve({"a.b/c=d"})->env, (Words{"SPEC=run", "DEVICE=drun"}));
  write("/var/run/cdi/b.json", spec_of("d", "again"));
  EXPECT_EQ(resolve({"a.b/c=d"}).error().message,
            "CDI device injection failed: unresolvable CDI devices a.b/c=d (" + root_ +
                "/var/run/cdi/b.json: a.b/c=d is defined by another file of this folder too)");
}

TEST(CdiNames, OfTheFieldAndOfAnnotationsEachOnce) {
  Allocated allocated;
  allocated.cdi_devices = {"a.b/c=1", "a.b/c=2", "a.b/c=1"};
  allocated.annotations = {{"cdi.k8s.io/x_1", "a.b/c=2,a.b/c=3"}, {"other.io/x", "no names"}};
  EXPECT_EQ(*cdi_names(allocated), (Words{"a.b/c=1", "a.b/c=2", "a.b/c=3"}));
  allocated.annotations["cdi.k8s.io/y"] = "a.b/c=4,,";
  EXPECT_EQ(cdi_names(allocated).error().message,
            "failed to parse CDI device annotations: cdi.k8s.io/y: invalid CDI device name \"\"");
}

}  // namespace
}  // namespace gpuslice::simkubelet
