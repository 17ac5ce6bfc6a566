// What people read of an agent's state, from a document as an agent writes it.

#include "cli/agent_text.h"

#include <gtest/gtest.h>

namespace gpuslice::cli {
namespace {

TEST(AgentText, SaysWhatMatters) {
  const auto text = agent_status_text(R"({
    "version": "0.1.0", "pid": 42, "uptimeSeconds": 61.5, "ready": false,
    "whyNotReady": "nvidia.com/gpu is not registered: no kubelet answers there",
    "driver": {"version": "580.65.06", "busySeconds": 12.2},
    "configuration": {"file": "/c/a.yaml", "inForce": "/c/a.yaml", "fingerprint": "00000000000000ff",
                      "generation": 3, "problem": "/c/a.yaml:3:5: 'replica'"},
    "gpus": [{"index": 0, "uuid": "GPU-0", "name": "NVIDIA A100", "health": "Healthy",
              "migMode": {"current": "enabled", "pending": "enabled"}},
             {"index": 1, "uuid": "GPU-1", "name": "NVIDIA T4", "health": "Unhealthy",
              "reason": "XID 79", "migMode": null}],
    "resources": [{"name": "nvidia.com/gpu", "registered": false, "trouble": "no kubelet",
                   "healthy": 4, "unhealthy": 1, "held": 2}],
    "mig": {"label": "mixed", "state": "failed", "reason": "GPU 0: held", "withheld": ["MIG-a"],
            "withdrawals": [{"by": "PID 7", "gpus": ["GPU-0"]}], "journals": ["GPU-0"]},
    "labels": {"to": "node", "said": {"a": "b"}},
    "apiServer": {"asked": true, "node": "n1", "trouble": ""},
    "queues": [{"name": "event_loop", "length": 0, "limit": 4096, "refused": 0},
               {"name": "local_connections", "length": 1, "limit": 16, "refused": 3}]})");
  ASSERT_TRUE(text.has_value());
  EXPECT_EQ(*text, R"(agent           gpuslice 0.1.0, PID 42, up 62 s
state           not ready: nvidia.com/gpu is not registered: no kubelet answers there
driver          580.65.06 (has not answered for 12 s)
configuration   /c/a.yaml, generation 3, fingerprint 00000000000000ff
  problem       /c/a.yaml:3:5: 'replica'
MIG             label mixed: failed: GPU 0: held
  withheld      MIG-a
  withdrawn     for PID 7: GPU-0
  journals      GPU-0
API server      node n1: answers
labels          1 said to node

GPU   NAME                             UUID                                       MIG   HEALTH
0     NVIDIA A100                      GPU-0                                      on    healthy
1     NVIDIA T4                        GPU-1                                      -     unhealthy: XID 79

RESOURCE                              HEALTHY UNHEALTHY  HELD  KUBELET
nvidia.com/gpu                              4         1     2  not registered: no kubelet

local_connections: full 3 times (it holds 16)
)");
}

TEST(AgentText, WhatIsOfferedAsListDevicesShowsIt) {
  const auto offered = offered_rows(R"({"ready": true,
    "gpus": [{"index": 0, "uuid": "GPU-a"}, {"index": 1, "uuid": "GPU-b"}],
    "resources": [
      {"name": "nvidia.com/gpu", "devices": [
        {"id": "GPU-a::0", "index": "0", "health": "Healthy", "heldBy": "default/p/c"},
        {"id": "GPU-a::1", "index": "0", "health": "Unhealthy", "reason": "XID 79"}],
       "devicesLeftOut": 3},
      {"name": "nvidia.com/mig-1g.5gb", "devices": [
        {"id": "MIG-x", "index": "1:0", "health": "Healthy"}]}]})");
  ASSERT_TRUE(offered.has_value());
  EXPECT_EQ(offered->left_out, 3U);
  EXPECT_EQ("\n" + list_devices(offered->rows, Format::kTable), R"(
RESOURCE                     ID                                             GPU    HELD  HEALTH
nvidia.com/gpu               GPU-a::0                                       0      yes   Healthy
nvidia.com/gpu               GPU-a::1                                       0      no    Unhealthy: XID 79
nvidia.com/mig-1g.5gb        MIG-x                                          1:0    no    Healthy
)");
  EXPECT_EQ(offered->rows[2].gpu_uuid, "GPU-b");
  EXPECT_EQ(offered_rows("{}").error().code, Code::kCorrupt);
}

TEST(AgentText, AnotherVersionsDocumentIsReadAsFarAsItGoes) {
  EXPECT_TRUE(agent_status_text(R"({"ready": true})").has_value());
  EXPECT_TRUE(
      agent_status_text(R"({"ready": true, "gpus": 3, "mig": [], "queues": "x"})").has_value());
  EXPECT_EQ(agent_status_text("{}").error().code, Code::kCorrupt);
  EXPECT_EQ(agent_status_text("\xff").error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace gpuslice::cli
