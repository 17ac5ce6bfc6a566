// The exact text of `gpuslice list`, on one fixed node.

#include "cli/list.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/node_for_test.h"

namespace gpuslice::cli {
namespace {

using Words = std::vector<std::string>;

TEST(List, GpusAsATable) {
  EXPECT_EQ("\n" + list_gpus(node(), Format::kTable), R"(
INDEX NAME                             UUID                                     BUS-ID               MEMORY MIG              HEALTH
0     NVIDIA A100-SXM4-40GB            GPU-aaaaaaaa-0000-4000-8000-000000000000 00000000:07:00.0   40960MiB on, 2 devices    Healthy
1     NVIDIA L40S                      GPU-bbbbbbbb-0000-4000-8000-000000000001 00000000:0F:00.0   46068MiB -                Healthy
2     NVIDIA A30 with a name too long  GPU-cccccccc-0000-4000-8000-000000000002 00000000:47:00.0   24576MiB off (on pending) Healthy
3     -                                -                                        -                         - -                Unhealthy: GPU 3: nvmlDeviceGetHandleByIndex: GPU is lost
)");
}

TEST(List, AGpuThatAnAgentMarkedIsNotTalkedHealthy) {
  NodeView view = node();
  view.unhealthy[view.gpus[1].uuid] = "XID 79 at 2026-09-21T14:13:20Z";
  EXPECT_NE(list_gpus(view, Format::kTable)
                .find("-                Unhealthy: XID 79 at 2026-09-21T14:13:20Z\n"),
            std::string::npos);
  const auto rows = nlohmann::json::parse(list_gpus(view, Format::kJson));
  EXPECT_EQ(rows[0]["health"], "Healthy");
  EXPECT_FALSE(rows[0].contains("reason"));
  EXPECT_EQ(rows[1]["health"], "Unhealthy");
  EXPECT_EQ(rows[1]["reason"], "XID 79 at 2026-09-21T14:13:20Z");
}

TEST(List, GpusAsJsonAndYaml) {
  NodeView view = node();
  view.gpus = {a100_with_mig(), l40s()};
  EXPECT_EQ("\n" + list_gpus(view, Format::kJson), R"(
[
  {
    "index": 0,
    "minor": 0,
    "uuid": "GPU-aaaaaaaa-0000-4000-8000-000000000000",
    "name": "NVIDIA A100-SXM4-40GB",
    "busId": "00000000:07:00.0",
    "numaNode": 0,
    "memoryMiB": 40960,
    "migMode": {
      "current": "enabled",
      "pending": "enabled"
    },
    "migDevices": 2,
    "health": "Healthy"
  },
  {
    "index": 1,
    "minor": 1,
    "uuid": "GPU-bbbbbbbb-0000-4000-8000-000000000001",
    "name": "NVIDIA L40S",
    "busId": "00000000:0F:00.0",
    "numaNode": -1,
    "memoryMiB": 46068,
    "migMode": null,
    "migDevices": 0,
    "health": "Healthy"
  },
  {
    "index": 3,
    "health": "Unhealthy",
    "reason": "GPU 3: nvmlDeviceGetHandleByIndex: GPU is lost"
  }
]
)");
  EXPECT_EQ("\n" + list_gpus(view, Format::kYaml), R"(
- index: 0
  minor: 0
  uuid: "GPU-aaaaaaaa-0000-4000-8000-000000000000"
  name: "NVIDIA A100-SXM4-40GB"
  busId: "00000000:07:00.0"
  numaNode: 0
  memoryMiB: 40960
  migMode:
    current: "enabled"
    pending: "enabled"
  migDevices: 2
  health: "Healthy"
- index: 1
  minor: 1
  uuid: "GPU-bbbbbbbb-0000-4000-8000-000000000001"
  name: "NVIDIA L40S"
  busId: "00000000:0F:00.0"
  numaNode: -1
  memoryMiB: 46068
  migMode: null
  migDevices: 0
  health: "Healthy"
- index: 3
  health: "Unhealthy"
  reason: "GPU 3: nvmlDeviceGetHandleByIndex: GPU is lost"
)");
  EXPECT_EQ(list_gpus(NodeView(), Format::kJson), "[]\n");
  EXPECT_EQ(list_gpus(NodeView(), Format::kYaml), "[]\n");
  EXPECT_EQ(nlohmann::json::parse(list_gpus(node(), Format::kJson)).size(), 4U);
  view.silent[0].index = 1;  // one that does not answer stands in its place
  view.gpus[1].index = GpuIndex{3};
  const auto rows = nlohmann::json::parse(list_gpus(view, Format::kJson));
  EXPECT_EQ(rows[1]["health"], "Unhealthy");
  EXPECT_EQ(rows[2]["index"], 3);
}

TEST(Format, IsFoundOnACommandLineThatIsWrongOtherwise) {
  EXPECT_EQ(asked_format(Words{"plan", "-o", "json"}), Format::kJson);
  EXPECT_EQ(asked_format(Words{"-oyaml", "--labell"}), Format::kYaml);
  EXPECT_EQ(asked_format(Words{"--output=json"}), Format::kJson);
  EXPECT_EQ(asked_format(Words{"--output-format", "yaml"}), Format::kYaml);
  EXPECT_EQ(asked_format(Words{"-o"}), Format::kTable);
  EXPECT_EQ(asked_format(Words{"-o", "xml", "json"}), Format::kTable);
}

const std::vector<DeviceRow> kRows = {
    {"nvidia.com/gpu", "GPU-bbbbbbbb-0000-4000-8000-000000000001::0", true, "",
     "GPU-bbbbbbbb-0000-4000-8000-000000000001", "1", true},
    {"nvidia.com/mig-1g.5gb", "MIG-00000000-0000-4000-8000-000000000001", false, "XID 79",
     "GPU-aaaaaaaa-0000-4000-8000-000000000000", "0:1", false}};

TEST(List, Devices) {
  EXPECT_EQ("\n" + list_devices(kRows, Format::kTable), R"(
RESOURCE                     ID                                             GPU    HELD  HEALTH
nvidia.com/gpu               GPU-bbbbbbbb-0000-4000-8000-000000000001::0    1      yes   Healthy
nvidia.com/mig-1g.5gb        MIG-00000000-0000-4000-8000-000000000001       0:1    no    Unhealthy: XID 79
)");
  EXPECT_EQ("\n" + list_devices(kRows, Format::kJson), R"(
[
  {
    "resource": "nvidia.com/gpu",
    "id": "GPU-bbbbbbbb-0000-4000-8000-000000000001::0",
    "health": "Healthy",
    "gpuUuid": "GPU-bbbbbbbb-0000-4000-8000-000000000001",
    "index": "1",
    "held": true
  },
  {
    "resource": "nvidia.com/mig-1g.5gb",
    "id": "MIG-00000000-0000-4000-8000-000000000001",
    "health": "Unhealthy",
    "gpuUuid": "GPU-aaaaaaaa-0000-4000-8000-000000000000",
    "index": "0:1",
    "held": false,
    "reason": "XID 79"
  }
]
)");
  EXPECT_EQ("\n" + list_devices(kRows, Format::kYaml), R"(
- resource: "nvidia.com/gpu"
  id: "GPU-bbbbbbbb-0000-4000-8000-000000000001::0"
  health: "Healthy"
  gpuUuid: "GPU-bbbbbbbb-0000-4000-8000-000000000001"
  index: "1"
  held: true
- resource: "nvidia.com/mig-1g.5gb"
  id: "MIG-00000000-0000-4000-8000-000000000001"
  health: "Unhealthy"
  gpuUuid: "GPU-aaaaaaaa-0000-4000-8000-000000000000"
  index: "0:1"
  held: false
  reason: "XID 79"
)");
}

TEST(List, FormatsByName) {
  EXPECT_EQ(*parse_format("table"), Format::kTable);
  EXPECT_EQ(*parse_format("json"), Format::kJson);
  EXPECT_EQ(*parse_format("yaml"), Format::kYaml);
  EXPECT_EQ(parse_format("JSON").error().text(), "-o JSON: must be table, json or yaml");
  EXPECT_EQ(parse_format("JSON").error().code, Code::kUsage);
}

TEST(List, NamesOfAnyBytesStayJson) {
  NodeView view;
  view.gpus.resize(1);
  view.gpus[0].name = "a \"name\"\n\xff";
  EXPECT_FALSE(
      nlohmann::json::parse(list_gpus(view, Format::kJson), nullptr, false).is_discarded());
}

}  // namespace
}  // namespace gpuslice::cli
