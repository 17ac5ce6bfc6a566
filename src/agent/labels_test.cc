// Kinds of node and their labels. The values are worked out by hand from the rules of GPU feature
// discovery v0.20, one line of them cited beside each case; "4.2 x" is the row of label x.

#include "agent/labels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "config/device_plugin.h"

namespace gpuslice::agent {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

ports::Gpu board(std::string name, uint64_t mib, uint32_t major, uint32_t minor) {
  ports::Gpu gpu;
  gpu.name = std::move(name);
  gpu.memory_total_bytes = mib * kMiB + 12345;  // floor
  gpu.cc_major = major;
  gpu.cc_minor = minor;
  gpu.pci_class = 0x030200;
  return gpu;
}
ports::Gpu a100() {
  ports::Gpu gpu = board("NVIDIA A100-SXM4-40GB", 40960, 8, 0);
  gpu.mig = ports::MigMode{false, false};
  return gpu;
}
ports::Gpu t4() { return board("Tesla T4", 15360, 7, 5); }
ports::Gpu l40s() { return board("NVIDIA L40S", 46068, 8, 9); }

ports::MigDevice mig(const std::string& profile, uint32_t slices, uint64_t mib, uint32_t sm) {
  ports::MigDevice device;
  device.profile = profile;
  device.gi_slices = device.ci_slices = slices;
  device.memory_mib = mib;
  device.sm = sm;
  device.ce = slices;
  return device;
}

struct Node {
  LabelFacts facts;
  std::string config = "version: v1\n";
  std::vector<ports::Gpu> gpus;

  Node() {
    facts.driver = {"580.65.06", "13.580.65.06", 13000};
    facts.machine = "PowerEdge XE8545";
  }
  Node& add(size_t count, const ports::Gpu& gpu) {
    for (size_t i = 0; i < count; ++i) gpus.push_back(gpu);
    return *this;
  }
  Node& add_mig(ports::Gpu gpu, const std::vector<ports::MigDevice>& devices) {
    gpu.mig = ports::MigMode{true, true};
    gpu.mig_devices = devices;
    return add(1, gpu);
  }

  Labels labels() {
    for (uint32_t i = 0; i < gpus.size(); ++i) {
      gpus[i].index = GpuIndex{i};
      gpus[i].uuid = "GPU-" + std::to_string(i);
      uint32_t n = 0;
      for (ports::MigDevice& device : gpus[i].mig_devices) {
        device.index = n;
        device.gi = GiId{n};
        device.uuid = fmt::format("MIG-{}-{}", i, n++);
      }
    }
    const config::DevicePluginFile file =
        config::read_device_plugin(config, config::Compat::kStrict);
    EXPECT_FALSE(file.problems.has_errors()) << config;
    const config::Effective effective = config::merge({}, file.config, "f").value();
    Hardware hardware;
    hardware.gpus = facts.gpus = gpus;
    const DeviceTable table = make_device_table(hardware, effective, {}).value();
    facts.served = &table;
    facts.mig_strategy = effective.text(config::Flag::kMigStrategy);
    return make_labels(facts);
  }
};

// Two A100 as they come: what the other cases are compared with.
const Labels kPlain = {
    {"nvidia.com/cuda.driver-version.full", "580.65.06"},
    {"nvidia.com/cuda.driver-version.major", "580"},
    {"nvidia.com/cuda.driver-version.minor", "65"},
    {"nvidia.com/cuda.driver-version.revision", "06"},
    {"nvidia.com/cuda.driver.major", "580"},
    {"nvidia.com/cuda.driver.minor", "65"},
    {"nvidia.com/cuda.driver.rev", "06"},
    {"nvidia.com/cuda.runtime-version.full", "13.0"},
    {"nvidia.com/cuda.runtime-version.major", "13"},
    {"nvidia.com/cuda.runtime-version.minor", "0"},
    {"nvidia.com/cuda.runtime.major", "13"},
    {"nvidia.com/cuda.runtime.minor", "0"},
    {"nvidia.com/gpu.compute.major", "8"},
    {"nvidia.com/gpu.compute.minor", "0"},
    {"nvidia.com/gpu.count", "2"},
    {"nvidia.com/gpu.family", "ampere"},
    {"nvidia.com/gpu.machine", "PowerEdge-XE8545"},
    {"nvidia.com/gpu.memory", "40960"},
    {"nvidia.com/gpu.mode", "compute"},
    {"nvidia.com/gpu.product", "NVIDIA-A100-SXM4-40GB"},
    {"nvidia.com/gpu.replicas", "1"},
    {"nvidia.com/gpu.replicas-total", "2"},
    {"nvidia.com/gpu.sharing-strategy", "none"},
    {"nvidia.com/mig.capable", "true"},
    {"nvidia.com/mps.capable", "false"},
    {"nvidia.com/vgpu.present", "false"},
};

struct Case {
  std::string name;
  std::string rule;
  std::function<void(Node&)> node;
  // What differs from kPlain: "gpu.count=4"; "-gpu.memory" is not there.
  std::vector<std::string> differs;
};

const std::string kShared =
    "sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 4}]}}\n";
const ports::MigDevice k1g = mig("1g.5gb", 1, 4864, 14);
const ports::MigDevice k3g = mig("3g.20gb", 3, 19968, 42);

std::vector<std::string> mig_1g(const std::string& at) {
  return {at + ".memory=4864",       at + ".multiprocessors=14", at + ".slices.gi=1",
          at + ".slices.ci=1",       at + ".engines.copy=1",     at + ".engines.decoder=0",
          at + ".engines.encoder=0", at + ".engines.jpeg=0",     at + ".engines.ofa=0"};
}
std::vector<std::string> with(std::vector<std::string> one, const std::vector<std::string>& more) {
  one.insert(one.end(), more.begin(), more.end());
  return one;
}

const Case kCases[] = {
    {"two whole GPUs",
     "4.2 gpu.count: physical GPUs of that model",
     [](Node& n) { n.add(2, a100()); },
     {}},
    {"four replicas",
     "4.2 gpu.replicas: replicas per GPU; gpu.product: -SHARED if replicas > 1",
     [](Node& n) { n.add(2, a100()).config = kShared; },
     {"gpu.replicas=4", "gpu.replicas-total=8", "gpu.sharing-strategy=time-slicing",
      "gpu.product=NVIDIA-A100-SXM4-40GB-SHARED"}},
    {"four replicas, renamed",
     "4.2 gpu.product: -SHARED if replicas > 1 and not renamed",
     [](Node& n) {
       n.add(2, a100()).config =
           "sharing: {timeSlicing: {renameByDefault: true, resources: [{name: gpu, replicas: "
           "4}]}}\n";
     },
     {"gpu.replicas=4", "gpu.replicas-total=8", "gpu.sharing-strategy=time-slicing"}},
    {"one GPU of three shared",
     "8.18: from what is served; most GPUs are whole",
     [](Node& n) {
       n.add(3, a100()).config =
           "sharing: {timeSlicing: {resources: [{name: gpu, replicas: 4, devices: [2]}]}}\n";
     },
     {"gpu.count=3", "gpu.replicas-total=6"}},
    {"no GPU",
     "4.2 vgpu.present and nothing of a GPU",
     [](Node&) {},
     {"-cuda.driver-version.full",
      "-cuda.driver-version.major",
      "-cuda.driver-version.minor",
      "-cuda.driver-version.revision",
      "-cuda.driver.major",
      "-cuda.driver.minor",
      "-cuda.driver.rev",
      "-cuda.runtime-version.full",
      "-cuda.runtime-version.major",
      "-cuda.runtime-version.minor",
      "-cuda.runtime.major",
      "-cuda.runtime.minor",
      "-gpu.compute.major",
      "-gpu.compute.minor",
      "-gpu.count",
      "-gpu.family",
      "-gpu.machine",
      "-gpu.memory",
      "-gpu.mode",
      "-gpu.product",
      "-gpu.replicas",
      "-gpu.replicas-total",
      "-gpu.sharing-strategy",
      "-mig.capable",
      "-mps.capable"}},
    {"T4s",
     "4.2 gpu.family: 7.5 is turing; mig.capable: no GPU answers",
     [](Node& n) { n.add(2, t4()); },
     {"gpu.product=Tesla-T4", "gpu.memory=15360", "gpu.family=turing", "gpu.compute.major=7",
      "gpu.compute.minor=5", "mig.capable=false"}},
    {"a display board in a desktop",
     "4.2 gpu.mode: class 0x0300 is graphics; 8.9 is ada-lovelace",
     [](Node& n) {
       ports::Gpu gpu = board("NVIDIA GeForce RTX 4090", 24564, 8, 9);
       gpu.pci_class = 0x030000;
       n.add(1, gpu).facts.machine = "Standard PC (Q35 + ICH9, 2009)";
     },
     {"gpu.product=NVIDIA-GeForce-RTX-4090", "gpu.memory=24564", "gpu.family=ada-lovelace",
      "gpu.compute.minor=9", "gpu.mode=graphics", "gpu.count=1", "gpu.replicas-total=1",
      "mig.capable=false", "gpu.machine=Standard-PC-Q35-ICH9-2009"}},
    {"H100s in a fabric",
     "4.2 gpu.clique: completed and unique over the GPUs; 9 is hopper",
     [](Node& n) {
       ports::Gpu gpu = board("NVIDIA H100 80GB HBM3", 81559, 9, 0);
       gpu.mig = ports::MigMode{false, false};
       gpu.fabric_clique = "b4a5d1f2-0000-4111-8222-333344445555.32766";
       n.add(2, gpu);
     },
     {"gpu.product=NVIDIA-H100-80GB-HBM3", "gpu.memory=81559", "gpu.family=hopper",
      "gpu.compute.major=9", "gpu.clique=b4a5d1f2-0000-4111-8222-333344445555.32766"}},
    {"two cliques on one node",
     "4.2 gpu.clique: only if unique",
     [](Node& n) {
       ports::Gpu gpu = a100();
       gpu.fabric_clique = "u.1";
       n.add(1, gpu);
       gpu.fabric_clique = "u.2";
       n.add(1, gpu);
     },
     {}},
    {"a driver of two parts, an old CUDA",
     "4.2 cuda.driver-version: rev may be empty; v%1000/10",
     [](Node& n) { n.add(2, a100()).facts.driver = {"418.67", "", 10010}; },
     {"cuda.driver-version.full=418.67", "cuda.driver-version.major=418",
      "cuda.driver-version.minor=67", "cuda.driver-version.revision=", "cuda.driver.major=418",
      "cuda.driver.minor=67", "cuda.driver.rev=", "cuda.runtime-version.full=10.1",
      "cuda.runtime-version.major=10", "cuda.runtime-version.minor=1", "cuda.runtime.major=10",
      "cuda.runtime.minor=1"}},
    {"strategy single without MIG",
     "4.2 mig.strategy: if single or mixed; 2.2: then as none",
     [](Node& n) { n.add(2, a100()).config = "flags: {migStrategy: single}\n"; },
     {"mig.strategy=single"}},
    {"single, seven on each of two", "4.2 single with MIG: gpu.count = MIG devices, memory in MB",
     [](Node& n) {
       const std::vector<ports::MigDevice> seven(7, k1g);
       n.add_mig(a100(), seven).add_mig(a100(), seven);
       n.config = "flags: {migStrategy: single}\n";
     },
     with({"mig.strategy=single", "gpu.product=NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "gpu.count=14",
           "gpu.replicas-total=14"},
          mig_1g("gpu"))},
    {"single, shared",
     "4.2 single with MIG: <model>-MIG-<profile>[-SHARED]",
     [](Node& n) {
       n.add_mig(a100(), {k3g, k3g});
       n.config = "flags: {migStrategy: single}\n" + kShared;
     },
     {"mig.strategy=single", "gpu.product=NVIDIA-A100-SXM4-40GB-MIG-3g.20gb-SHARED", "gpu.count=2",
      "gpu.replicas=4", "gpu.replicas-total=8", "gpu.sharing-strategy=time-slicing",
      "gpu.memory=19968", "gpu.multiprocessors=42", "gpu.slices.gi=3", "gpu.slices.ci=3",
      "gpu.engines.copy=3", "gpu.engines.decoder=0", "gpu.engines.encoder=0", "gpu.engines.jpeg=0",
      "gpu.engines.ofa=0"}},
    {"single, two profiles",
     "4.2 single invalid: product -MIG-INVALID, all 0, no strategy",
     [](Node& n) { n.add_mig(a100(), {k1g, k3g}).config = "flags: {migStrategy: single}\n"; },
     {"mig.strategy=single", "gpu.product=NVIDIA-A100-SXM4-40GB-MIG-INVALID", "gpu.count=0",
      "gpu.replicas=0", "gpu.memory=0", "gpu.sharing-strategy=", "gpu.replicas-total=0"}},
    {"single, MIG beside a whole GPU",
     "2.2 single: no mix of MIG-enabled and -disabled GPUs",
     [](Node& n) {
       n.add_mig(a100(), {k1g, k1g}).add(1, a100()).config = "flags: {migStrategy: single}\n";
     },
     {"mig.strategy=single", "gpu.product=NVIDIA-A100-SXM4-40GB-MIG-INVALID", "gpu.count=0",
      "gpu.replicas=0", "gpu.memory=0", "gpu.sharing-strategy="}},
    {"single, an empty GPU",
     "2.2 single: every MIG-enabled GPU has at least one MIG device",
     [](Node& n) {
       n.add_mig(a100(), {k1g}).add_mig(a100(), {}).config = "flags: {migStrategy: single}\n";
     },
     {"mig.strategy=single", "gpu.product=NVIDIA-A100-SXM4-40GB-MIG-INVALID", "gpu.count=0",
      "gpu.replicas=0", "gpu.memory=0", "gpu.sharing-strategy=", "gpu.replicas-total=1"}},
    {"mixed, one MIG and one whole",
     "4.2 mixed: the same set under mig-<profile>; gpu.count counts "
     "MIG-enabled GPUs too",
     [](Node& n) {
       n.add_mig(a100(), {k1g, k1g}).add(1, a100()).config = "flags: {migStrategy: mixed}\n";
     },
     with({"mig.strategy=mixed", "gpu.replicas-total=1",
           "mig-1g.5gb.product=NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "mig-1g.5gb.count=2",
           "mig-1g.5gb.replicas=1", "mig-1g.5gb.sharing-strategy=none"},
          mig_1g("mig-1g.5gb"))},
    {"mixed, only MIG, shared", "4.2 gpu.replicas: 0 for MIG-enabled GPUs; mig-*.replicas: N",
     [](Node& n) {
       n.add_mig(a100(), {k1g}).config =
           "flags: {migStrategy: mixed}\nsharing: {timeSlicing: {resources: [{name: mig-1g.5gb, "
           "replicas: 2}]}}\n";
     },
     with({"mig.strategy=mixed", "gpu.count=1", "gpu.replicas=0", "gpu.replicas-total=0",
           "mig-1g.5gb.product=NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED", "mig-1g.5gb.count=1",
           "mig-1g.5gb.replicas=2", "mig-1g.5gb.sharing-strategy=time-slicing"},
          mig_1g("mig-1g.5gb"))},
    {"mixed, media extensions", "4.2 mixed: + becomes . in the name; sanitising drops it in values",
     [](Node& n) {
       n.add_mig(a100(), {mig("1g.5gb+me", 1, 4864, 14)}).config = "flags: {migStrategy: mixed}\n";
     },
     with({"mig.strategy=mixed", "gpu.count=1", "gpu.replicas=0", "gpu.replicas-total=0",
           "mig-1g.5gb.me.product=NVIDIA-A100-SXM4-40GB-MIG-1g.5gbme", "mig-1g.5gb.me.count=1",
           "mig-1g.5gb.me.replicas=1", "mig-1g.5gb.me.sharing-strategy=none"},
          mig_1g("mig-1g.5gb.me"))},
    {"mixed, a part of a GPU instance",
     "8.18: what is not served has no labels",
     [](Node& n) {
       n.add_mig(a100(), {mig("1c.3g.20gb", 3, 19968, 14)}).config =
           "flags: {migStrategy: mixed}\n";
     },
     {"mig.strategy=mixed", "gpu.count=1", "gpu.replicas=0", "gpu.replicas-total=0"}},
    {"strategy none with a MIG-enabled GPU",
     "2.2 none: MIG ignored, advertised whole",
     [](Node& n) { n.add_mig(a100(), {k1g}).add(1, a100()); },
     {}},
    {"two models",
     "8.18: majority in the legacy labels, per-model labels beside",
     [](Node& n) {
       n.add(1, t4()).add(2, l40s()).config =
           "sharing: {timeSlicing: {resources: [{name: gpu, replicas: 4, devices: [0]}]}}\n";
     },
     {"gpu.product=NVIDIA-L40S", "gpu.memory=46068", "gpu.family=ada-lovelace",
      "gpu.compute.minor=9", "mig.capable=false", "gpu.replicas-total=6",
      "gpu-model.Tesla-T4.count=1", "gpu-model.Tesla-T4.memory=15360",
      "gpu-model.Tesla-T4.replicas=4", "gpu-model.NVIDIA-L40S.count=2",
      "gpu-model.NVIDIA-L40S.memory=46068", "gpu-model.NVIDIA-L40S.replicas=1"}},
    {"two models, as many of each",
     "8.18: deterministic; the lowest index wins",
     [](Node& n) { n.add(1, t4()).add(2, l40s()).add(1, t4()); },
     {"gpu.product=Tesla-T4", "gpu.memory=15360", "gpu.family=turing", "gpu.compute.major=7",
      "gpu.compute.minor=5", "mig.capable=false", "gpu.replicas-total=4",
      "gpu-model.Tesla-T4.count=2", "gpu-model.Tesla-T4.memory=15360",
      "gpu-model.Tesla-T4.replicas=1", "gpu-model.NVIDIA-L40S.count=2",
      "gpu-model.NVIDIA-L40S.memory=46068", "gpu-model.NVIDIA-L40S.replicas=1"}},
    {"classes that differ",
     "4.2 gpu.mode: mixed is unknown",
     [](Node& n) {
       ports::Gpu gpu = a100();
       gpu.pci_class = 0x030000;
       n.add(1, a100()).add(1, gpu);
     },
     {"gpu.mode=unknown"}},
    {"a virtual GPU",
     "4.2 vgpu: from the PCI vendor capability",
     [](Node& n) {
       ports::Gpu gpu = board("GRID A100-10C", 10240, 8, 0);
       gpu.vgpu = ports::VgpuHost{"580.95.02", "r581_36"};
       n.add(1, gpu);
     },
     {"vgpu.present=true", "vgpu.host-driver-version=580.95.02", "vgpu.host-driver-branch=r581_36",
      "gpu.product=GRID-A100-10C", "gpu.memory=10240", "gpu.count=1", "gpu.replicas-total=1",
      "mig.capable=false"}},
    {"nothing is known",
     "4.2 gpu.memory: omitted if 0; compute: omitted if major 0; machine "
     "unknown",
     [](Node& n) {
       ports::Gpu gpu;
       gpu.name = "NVIDIA Prototype";
       n.add(1, gpu).facts.machine = "";
     },
     {"gpu.product=NVIDIA-Prototype", "-gpu.memory", "-gpu.family", "-gpu.compute.major",
      "-gpu.compute.minor", "gpu.mode=unknown", "gpu.count=1", "gpu.replicas-total=1",
      "mig.capable=false", "gpu.machine=unknown"}},
    {"a GPU lost before our start",
     "8.18: no gap; one without a name is of the majority",
     [](Node& n) { n.add(1, a100()).add(1, ports::Gpu()); },
     {}},
    {"a long name",
     "8.18: values always valid: at most 63, a letter or digit at both ends",
     [](Node& n) {
       ports::Gpu gpu =
           board("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 97887, 12, 0);
       n.add_mig(gpu, {mig("1g.24gb", 1, 24192, 46)}).config =
           "flags: {migStrategy: single}\n" + kShared;
       n.facts.machine = "-- A machine whose maker thought that sixty-three letters are few (1) --";
     },
     {"mig.strategy=single",
      "gpu.product=NVIDIA-RTX-PRO-6000-Blackwell-Max-Q-Workstat-MIG-1g.24gb-SHARED", "gpu.count=1",
      "gpu.memory=24192", "gpu.replicas=4", "gpu.replicas-total=4",
      "gpu.sharing-strategy=time-slicing", "gpu.family=blackwell", "gpu.compute.major=12",
      "gpu.multiprocessors=46", "gpu.slices.gi=1", "gpu.slices.ci=1", "gpu.engines.copy=1",
      "gpu.engines.decoder=0", "gpu.engines.encoder=0", "gpu.engines.jpeg=0", "gpu.engines.ofa=0",
      "gpu.machine=A-machine-whose-maker-thought-that-sixty-three-letters-are-few"}},
};

TEST(Labels, OfEveryKindOfNode) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name + ": " + c.rule);
    Labels expected = kPlain;
    for (const std::string& difference : c.differs) {
      if (difference[0] == '-') {
        EXPECT_EQ(expected.erase("nvidia.com/" + difference.substr(1)), 1U) << difference;
        continue;
      }
      const size_t equals = difference.find('=');
      expected["nvidia.com/" + difference.substr(0, equals)] = difference.substr(equals + 1);
    }
    Node node;
    c.node(node);
    const Labels labels = node.labels();
    EXPECT_EQ(labels, expected);
    for (const auto& [key, value] : labels) {
      EXPECT_TRUE(is_label_key(key)) << key;
      EXPECT_TRUE(is_label_value(value)) << key << "=" << value;
    }
    EXPECT_EQ(node.labels(), labels) << "the same input, the same labels";
  }
}

TEST(Labels, TheTimestampIsAnOption) {
  Node node;
  node.add(1, a100());
  EXPECT_FALSE(node.labels().contains(std::string(kTimestampLabel)));
  node.facts.timestamp = 1764130000;
  EXPECT_EQ(node.labels().at("nvidia.com/gfd.timestamp"), "1764130000");
}

TEST(Labels, FamiliesByComputeCapability) {
  const std::vector<std::tuple<uint32_t, uint32_t, std::string>> families = {
      {1, 3, "tesla"},      {2, 0, "fermi"},        {3, 5, "kepler"}, {4, 0, "undefined"},
      {5, 2, "maxwell"},    {6, 1, "pascal"},       {7, 0, "volta"},  {7, 5, "turing"},
      {8, 6, "ampere"},     {8, 9, "ada-lovelace"}, {9, 0, "hopper"}, {10, 0, "blackwell"},
      {11, 0, "undefined"}, {12, 0, "blackwell"},   {13, 0, "rubin"}, {14, 0, "undefined"}};
  for (const auto& [major, minor, family] : families) {
    Node node;
    node.add(1, board("x", 1, major, minor));
    EXPECT_EQ(node.labels().at("nvidia.com/gpu.family"), family) << major << "." << minor;
  }
}

TEST(Labels, ALongModelHasKeysThatHold) {
  Node node;
  node.add(1, board("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 97887, 12, 0));
  node.add(1, board("T4 - an odd name -", 15360, 7, 5));
  for (const auto& [key, value] : node.labels()) EXPECT_TRUE(is_label_key(key)) << key;
}

TEST(LabelValue, IsCutAndTrimmed) {
  EXPECT_EQ(label_value("._-a-b_."), "a-b");
  EXPECT_EQ(label_value("a\n=b/c"), "abc");
  EXPECT_EQ(label_value(std::string(70, 'a')), std::string(63, 'a'));
  EXPECT_EQ(label_value(std::string(55, 'a') + "-bb", "-SHARED"), std::string(55, 'a') + "-SHARED");
  EXPECT_EQ(label_value("", "-MIG-INVALID"), "MIG-INVALID");
  EXPECT_FALSE(is_label_value("-a"));
  EXPECT_FALSE(is_label_value("a."));
  EXPECT_FALSE(is_label_value("a b"));
  EXPECT_FALSE(is_label_value(std::string(64, 'a')));
  EXPECT_FALSE(is_label_key("gpu.count"));
  EXPECT_FALSE(is_label_key("nvidia.com/"));
}

TEST(Sanitise, KeepsWhatFeatureDiscoveryKeeps) {
  EXPECT_EQ(sanitise("NVIDIA A100-SXM4-40GB"), "NVIDIA-A100-SXM4-40GB");
  EXPECT_EQ(sanitise("  Standard PC (Q35 + ICH9, 2009) "), "Standard-PC-Q35-ICH9-2009");
  EXPECT_EQ(sanitise("a\tb"), "ab");
}

}  // namespace
}  // namespace gpuslice::agent
