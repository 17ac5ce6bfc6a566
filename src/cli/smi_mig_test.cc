// `smi mig`, `smi -mig` and `smi --gpu-reset`: the exact text and exit codes that scripts read, on
// a node of fakes: two A100s and a board without MIG.

#include "cli/smi_mig.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "cli/smi_mig_driver_for_test.h"
#include "cli/smi_mig_list.h"

namespace gpuslice::cli {
namespace {

using Words = std::vector<std::string>;

ports::Gpu board(uint32_t index, std::string uuid, std::string bus_id, std::string name,
                 std::optional<ports::MigMode> mig) {
  ports::Gpu gpu;
  gpu.index = GpuIndex{index};
  gpu.uuid = std::move(uuid);
  gpu.bus_id = std::move(bus_id);
  gpu.name = std::move(name);
  gpu.mig = mig;
  return gpu;
}

class SmiMig : public testing::Test {
 protected:
  Fake fake;
  NodeView node;
  std::string hints;

  void SetUp() override {
    node.gpus = {board(0, "GPU-a", "00000000:07:00.0", "NVIDIA A100", ports::MigMode{true, true}),
                 board(1, "GPU-b", "00000000:0F:00.0", "NVIDIA A100", ports::MigMode{true, true}),
                 board(2, "GPU-t4", "00000000:47:00.0", "Tesla T4", std::nullopt)};
  }
  // What stands on standard output, then "-> exit code".
  std::string run(const Words& args) {
    hints.clear();
    std::string out;
    const auto request = parse_smi_mig(args);
    if (!request) return request.error().text();
    const SmiMigPorts ports{fake,
                            fake,
                            fake,
                            fake,
                            "/run/mig",
                            [&](std::string_view text) { out += text; },
                            [&](std::string_view text) { hints += std::string(text) + "\n"; }};
    const int code = run_smi_mig(*request, node, ports);
    EXPECT_TRUE(fake.is_open);
    return out + fmt::format("-> {}", code);
  }
  void mig_off() {
    for (ports::Gpu& gpu : node.gpus)
      if (gpu.mig) gpu.mig = ports::MigMode{};
  }
};

TEST_F(SmiMig, GpuInstanceProfiles) {
  fake.there["GPU-a"] = {{GiId{2}, ProfileId{9}, {4, 4}, {}}};
  EXPECT_EQ("\n" + run({"mig", "-lgip", "-i", "0"}), R"(
+-------------------------------------------------------------------------------+
| GPU instance profiles:                                                        |
| GPU   Name               ID    Instances   Memory     P2P    SM    DEC   ENC  |
|                                Free/Total   GiB              CE    JPEG  OFA  |
|===============================================================================|
|   0  MIG 1g.5gb          19     4/7        4.75       No     14     0     0   |
|                                                               1     0     0   |
+-------------------------------------------------------------------------------+
|   0  MIG 1g.5gb+me       20     4/1        4.75       No     14     1     0   |
|                                                               1     1     1   |
+-------------------------------------------------------------------------------+
|   0  MIG 3g.20gb          9     1/2        19.50      No     42     2     0   |
|                                                               3     0     0   |
+-------------------------------------------------------------------------------+
|   0  MIG 7g.40gb          0     0/1        39.25      No     132    0     0   |
|                                                               7     0     0   |
+-------------------------------------------------------------------------------+
-> 0)");
  EXPECT_EQ(run({"mig", "--list-gpu-instance-possible-placements", "--id=GPU-b"}),
            "GPU  1 Profile ID 19 Placements: {0,1,2,3,4,5,6}:1\n"
            "GPU  1 Profile ID 20 Placements: {0,1,2,3,4,5,6}:1\n"
            "GPU  1 Profile ID  9 Placements: {0,4}:4\n"
            "GPU  1 Profile ID  0 Placement : {0}:8\n"
            "-> 0");
}

TEST_F(SmiMig, Instances) {
  fake.there["GPU-a"] = {{GiId{2}, ProfileId{9}, {4, 4}, {{CiId{0}, ProfileId{2}, {0, 3}, ""}}},
                         {GiId{11}, ProfileId{19}, {0, 1}, {{CiId{0}, ProfileId{0}, {0, 1}, ""}}}};
  EXPECT_EQ("\n" + run({"mig", "-lgi"}), R"(
+-------------------------------------------------------+
| GPU instances:                                        |
| GPU   Name             Profile  Instance   Placement  |
|                          ID       ID       Start:Size |
|=======================================================|
|   0  MIG 1g.5gb          19       11          0:1     |
+-------------------------------------------------------+
|   0  MIG 3g.20gb          9        2          4:4     |
+-------------------------------------------------------+
-> 0)");
  EXPECT_EQ("\n" + run({"mig", "-lci"}), R"(
+-------------------------------------------------------+
| Compute instances:                                    |
| GPU     GPU       Name             Profile   Instance |
|       Instance                       ID        ID     |
|         ID                                            |
|=======================================================|
|   0      2       MIG 3g.20gb          2         0     |
+-------------------------------------------------------+
|   0     11       MIG 1g.5gb           0         0     |
+-------------------------------------------------------+
-> 0)");
  EXPECT_EQ("\n" + run({"mig", "-lcip", "-gi", "2"}), R"(
+--------------------------------------------------------------------------------------+
| Compute instance profiles:                                                           |
| GPU     GPU       Name             Profile  Instances   Exclusive       Shared       |
|       Instance                       ID     Free/Total     SM       DEC   ENC   OFA  |
|         ID                                                          CE    JPEG       |
|======================================================================================|
|   0      2       MIG 1c.3g.20gb       0      3/3           14        2     0     0   |
|                                                                      3     0         |
+--------------------------------------------------------------------------------------+
|   0      2       MIG 3g.20gb          2*     1/1           42        2     0     0   |
|                                                                      3     0         |
+--------------------------------------------------------------------------------------+
-> 0)");
  EXPECT_EQ(run({"mig", "-lcipp", "-gi=2"}),
            "GPU  0 GI  2 Profile ID  0 Placements: {0,1,2}:1\n"
            "GPU  0 GI  2 Profile ID  2 Placement : {0}:3\n-> 0");
  EXPECT_EQ(run({"mig", "-lgi", "-i", "1"}), "No GPU instances found: Not Found\n-> 6");
  EXPECT_EQ(run({"mig", "-lci", "-i", "1"}), "No compute instances found: Not Found\n-> 6");
  EXPECT_EQ(run({"mig", "-lcip", "-i", "1"}), "No GPU instances found: Not Found\n-> 6");
}

TEST_F(SmiMig, ListsWithoutPermission) {
  fake.failing["instances"] = no_permission();
  EXPECT_EQ(run({"mig", "-lgi"}),
            "Failed to display GPU instances: Insufficient Permissions\n-> 4");
  EXPECT_EQ(run({"mig", "-lci"}),
            "Failed to display compute instances: Insufficient Permissions\n-> 4");
  EXPECT_EQ(hints, "GPU 0: nvmlSomething: Insufficient Permissions (4); run it as root\n");
}

TEST_F(SmiMig, NoGpuWithMigOn) {
  mig_off();
  for (const Words& words : {Words{"mig", "-lgi"}, Words{"mig", "-lci"}, Words{"mig", "-lcip"},
                             Words{"mig", "-cgi", "19"}, Words{"mig", "-cci"}, Words{"mig", "-dci"},
                             Words{"mig", "-dgi"}}) {
    const bool list = words[1].starts_with("-l");
    EXPECT_EQ(run(words), fmt::format("No MIG-enabled devices found.\n-> {}", list ? 0 : 6))
        << words[1];
    EXPECT_EQ(hints,
              "MIG is off on every GPU that was asked for: nvidia-smi -mig 1 switches it on; "
              "gpuslice list profiles shows what each could do\n");
  }
  EXPECT_EQ(fake.calls, Words());
}

// Branch 580 answers with MIG off; where a driver does not, or is not believed, there is nothing to
// list.
TEST_F(SmiMig, ProfilesWithMigOff) {
  const std::string table = run({"mig", "-lgip"});
  const std::string places = run({"mig", "-lgipp"});
  ASSERT_TRUE(places.starts_with("GPU  0 Profile ID 19 Placements: {0,1,2,3,4,5,6}:1\n")) << places;
  mig_off();
  EXPECT_EQ(run({"mig", "-lgip"}), table);
  EXPECT_EQ(run({"mig", "-lgipp"}), places);
  EXPECT_EQ(hints, "");
  fake.failing["gi_free"] = not_supported();
  EXPECT_EQ(run({"mig", "-lgip"}), "No MIG-enabled devices found.\n-> 0");
  EXPECT_EQ(run({"mig", "-lgipp"}), places) << "whose places are told, unlike their number";
  fake.failing["gi_profiles"] = not_supported();
  EXPECT_EQ(run({"mig", "-lgipp"}), "No MIG-enabled devices found.\n-> 0");
  fake.failing.erase("gi_profiles");
  fake.trusted = false;
  EXPECT_EQ(run({"mig", "-lgipp"}), "No MIG-enabled devices found.\n-> 0");
  fake.failing["gi_profiles"] = no_permission();
  EXPECT_TRUE(run({"mig", "-lgipp"}).ends_with("Insufficient Permissions\n-> 4"));
}

// The guide's mistake: 9 is 3g.20gb, of which two fit.
TEST_F(SmiMig, TheGuidesSevenNines) {
  EXPECT_EQ(run({"mig", "-cgi", "9,9,9,9,9,9,9", "-C", "-i", "0"}),
            "Successfully created GPU instance ID  1 on GPU  0 using profile MIG 3g.20gb (ID  9)\n"
            "Successfully created compute instance ID  0 on GPU  0 GPU instance ID  1 using "
            "profile MIG 3g.20gb (ID  2)\n"
            "Successfully created GPU instance ID  2 on GPU  0 using profile MIG 3g.20gb (ID  9)\n"
            "Successfully created compute instance ID  0 on GPU  0 GPU instance ID  2 using "
            "profile MIG 3g.20gb (ID  2)\n"
            "Unable to create a GPU instance on GPU  0 using profile 9: Insufficient Resources\n"
            "Failed to create GPU instances: Insufficient Resources\n-> 23");
  EXPECT_EQ(hints,
            "GPU 0: there is no room for another 3g.20gb (profile 9); nvidia-smi mig -lgi shows "
            "what is there, -lgip what is free\n");
  EXPECT_EQ(fake.there["GPU-a"].size(), 2U) << "those made before the failing one stay";
  EXPECT_TRUE(fake.locked.empty());
}

TEST_F(SmiMig, ProfilesByNameAndPlace) {
  EXPECT_EQ(
      run({"mig", "--create-gpu-instance=19:3, MIG 1g.5gb ,1G.5GB+ME:6", "-i", "00000000:0f:00.0"}),
      "Successfully created GPU instance ID 10 on GPU  1 using profile MIG 1g.5gb (ID 19)\n"
      "Successfully created GPU instance ID  7 on GPU  1 using profile MIG 1g.5gb (ID 19)\n"
      "Successfully created GPU instance ID 13 on GPU  1 using profile MIG 1g.5gb+me (ID 20)"
      "\n-> 0");
  EXPECT_EQ(fake.calls,
            (Words{"create GPU-b 19 3", "create GPU-b 19 anywhere", "create GPU-b 20 6"}));
}

TEST_F(SmiMig, CreatesOnEveryGpuWithMig) {
  EXPECT_EQ(run({"mig", "-cgi", "19"}),
            "Successfully created GPU instance ID  7 on GPU  0 using profile MIG 1g.5gb (ID 19)\n"
            "Successfully created GPU instance ID  7 on GPU  1 using profile MIG 1g.5gb (ID 19)\n"
            "-> 0");
}

TEST_F(SmiMig, AProfileThatThereIsNot) {
  uint32_t id = 7;
  for (const char* profile : {"99", "1g.6gb"}) {
    EXPECT_EQ(run({"mig", "-cgi", fmt::format("19,{}", profile), "-i", "0"}),
              fmt::format("Successfully created GPU instance ID {:>2} on GPU  0 using profile MIG "
                          "1g.5gb (ID 19)\n"
                          "Unable to create a GPU instance on GPU  0 using profile {}: Invalid "
                          "Argument\n"
                          "Failed to create GPU instances: Invalid Argument\n-> 2",
                          id++, profile));
    EXPECT_EQ(hints, fmt::format("GPU 0 (NVIDIA A100): it has no profile {}; it has 19 (1g.5gb), "
                                 "20 (1g.5gb+me), 9 (3g.20gb), 0 (7g.40gb)\n",
                                 profile));
  }
}

TEST_F(SmiMig, RefusedCreations) {
  fake.failing["create_gi"] = in_use();
  fake.working["GPU-a"] = {{77, ports::Process::Kind::kCompute, {}, {}, {}, "python3"}};
  EXPECT_EQ(run({"mig", "-cgi", "19", "-i", "0"}),
            "Unable to create a GPU instance on GPU  0 using profile 19: In use by another client\n"
            "Failed to create GPU instances: In use by another client\n-> 19");
  EXPECT_EQ(hints, "GPU 0: used by PID 77 (python3)\n");
  fake.failing["create_gi"] = no_permission();
  EXPECT_EQ(run({"mig", "-cgi", "19", "-i", "0"}),
            "Unable to create a GPU instance on GPU  0 using profile 19: Insufficient Permissions\n"
            "Failed to create GPU instances: Insufficient Permissions\n-> 4");
  fake.failing.clear();
  fake.failing["create_ci"] = no_room();
  EXPECT_EQ(run({"mig", "-cgi", "9", "-C", "-i", "1"}),
            "Successfully created GPU instance ID  1 on GPU  1 using profile MIG 3g.20gb (ID  9)\n"
            "Unable to create a compute instance on GPU  1 GPU instance ID  1 using profile 2: "
            "Insufficient Resources\n"
            "Failed to create compute instances: Insufficient Resources\n-> 23");
}

TEST_F(SmiMig, ComputeInstances) {
  fake.there["GPU-a"] = {{GiId{2}, ProfileId{9}, {4, 4}, {}}, {GiId{7}, ProfileId{19}, {0, 1}, {}}};
  EXPECT_EQ(run({"mig", "-cci", "-i", "0"}),
            "Successfully created compute instance ID  0 on GPU  0 GPU instance ID  2 using "
            "profile MIG 3g.20gb (ID  2)\n"
            "Successfully created compute instance ID  0 on GPU  0 GPU instance ID  7 using "
            "profile MIG 1g.5gb (ID  0)\n-> 0");
  EXPECT_EQ(run({"mig", "-cci", "0,1c.3g.20gb:2", "-gi", "2", "-i", "0"}),
            "Successfully created compute instance ID  1 on GPU  0 GPU instance ID  2 using "
            "profile MIG 1c.3g.20gb (ID  0)\n"
            "Successfully created compute instance ID  2 on GPU  0 GPU instance ID  2 using "
            "profile MIG 1c.3g.20gb (ID  0)\n-> 0");
  EXPECT_EQ(fake.there["GPU-a"][0].cis[2].placement, (gpu::Placement{2, 1}));
  EXPECT_EQ(run({"mig", "-cci", "5", "-gi", "2", "-i", "0"}),
            "Unable to create a compute instance on GPU  0 GPU instance ID  2 using profile 5: "
            "Invalid Argument\n"
            "Failed to create compute instances: Invalid Argument\n-> 2");
  EXPECT_EQ(run({"mig", "-cci", "-gi", "3"}), "No GPU instances found: Not Found\n-> 6");
}

TEST_F(SmiMig, Destroying) {
  fake.there["GPU-a"] = {{GiId{1}, ProfileId{9}, {0, 4}, {{CiId{0}, ProfileId{2}, {0, 3}, ""}}},
                         {GiId{2}, ProfileId{9}, {4, 4}, {{CiId{0}, ProfileId{2}, {0, 3}, ""}}}};
  fake.working["GPU-a"] = {{77, ports::Process::Kind::kCompute, {}, GiId{2}, CiId{0}, ""}};
  EXPECT_EQ(run({"mig", "-dci"}),
            "Successfully destroyed compute instance ID  0 from GPU  0 GPU instance ID  1\n"
            "Unable to destroy compute instance ID  0 from GPU  0 GPU instance ID  2: In use by "
            "another client\n"
            "Failed to destroy compute instances: In use by another client\n-> 19");
  EXPECT_EQ(hints, "GPU 0, GPU instance 2: used by PID 77\n");
  EXPECT_EQ(run({"mig", "-dgi"}),
            "Successfully destroyed GPU instance ID  1 from GPU  0\n"
            "Unable to destroy GPU instance ID  2 from GPU  0: In use by another client\n"
            "Failed to destroy GPU instances: In use by another client\n-> 19");
  EXPECT_EQ(hints,
            "GPU 0, GPU instance 2: it has a compute instance; nvidia-smi mig -dci -gi 2 -i 0 "
            "first\nGPU 0, GPU instance 2: used by PID 77\n");
  EXPECT_EQ(run({"mig", "-dci", "-ci", "3"}), "No compute instances found: Not Found\n-> 6");
  EXPECT_EQ(run({"mig", "-dgi", "-gi", "5"}), "No GPU instances found: Not Found\n-> 6");
  fake.failing["instances"] = no_permission();
  EXPECT_EQ(run({"mig", "-dgi"}),
            "Failed to destroy GPU instances: Insufficient Permissions\n-> 4");
}

TEST_F(SmiMig, Mode) {
  node.gpus.pop_back();
  EXPECT_EQ(run({"-mig", "1"}),
            "Enabled MIG Mode for GPU 00000000:07:00.0\n"
            "Enabled MIG Mode for GPU 00000000:0F:00.0\nAll done.\n-> 0");
  EXPECT_EQ(run({"-i", "1", "--multi-instance-gpu=DISABLED"}),
            "Disabled MIG Mode for GPU 00000000:0F:00.0\nAll done.\n-> 0");
  EXPECT_EQ(fake.calls, (Words{"mode GPU-a true", "mode GPU-b true", "mode GPU-b false"}));
}

TEST_F(SmiMig, ModeThatIsPending) {
  fake.modes = {{"GPU-a", ports::Activation::kInUse}, {"GPU-b", ports::Activation::kNeedsReset}};
  fake.working["GPU-a"] = {{77, ports::Process::Kind::kCompute, {}, {}, {}, "python3"}};
  EXPECT_EQ(run({"-mig", "1", "-i", "0,1"}),
            "Warning: MIG mode is in pending enable state for GPU 00000000:07:00.0:In use by "
            "another client\n"
            "00000000:07:00.0 is currently being used by one or more other processes (a CUDA "
            "program, or one that watches GPUs). End them and try again, or reboot, to make MIG "
            "mode effective.\n"
            "Warning: MIG mode is in pending enable state for GPU 00000000:0F:00.0:Not Supported\n"
            "Reboot the system or try nvidia-smi --gpu-reset to make MIG mode effective on GPU "
            "00000000:0F:00.0\n"
            "All done.\n-> 0");
  EXPECT_EQ(hints, "GPU 0: used by PID 77 (python3)\n");
  fake.working.clear();
  EXPECT_TRUE(run({"-mig", "0", "-i", "1"})
                  .starts_with("Warning: MIG mode is in pending disable state for GPU "
                               "00000000:0F:00.0:Not Supported\n"));
}

TEST_F(SmiMig, ModeOfABoardWithoutMig) {
  EXPECT_EQ(run({"-mig", "1"}),
            "Enabled MIG Mode for GPU 00000000:07:00.0\n"
            "Enabled MIG Mode for GPU 00000000:0F:00.0\n"
            "Unable to enable MIG Mode for GPU 00000000:47:00.0: Not Supported\n"
            "Treating as warning and moving on.\nAll done.\n-> 0");
  EXPECT_EQ(hints, "GPU 2 (Tesla T4): this board has no MIG\n");
  EXPECT_EQ(run({"-mig", "1", "-i", "2"}),
            "Unable to enable MIG Mode for GPU 00000000:47:00.0: Not Supported\n"
            "Treating as warning and moving on.\nAll done.\n-> 3");
}

TEST_F(SmiMig, ModeRefused) {
  fake.there["GPU-a"] = {{GiId{1}, ProfileId{9}, {0, 4}, {}}};
  EXPECT_EQ(run({"-mig", "0"}),
            "Unable to disable MIG Mode for GPU 00000000:07:00.0: In use by another client\n"
            "Terminating early due to previous errors.\n-> 19");
  EXPECT_EQ(hints,
            "GPU 0: it has 1 GPU instance: nvidia-smi mig -dci -i 0 and nvidia-smi mig -dgi -i 0 "
            "first\n");
  fake.failing["set_mig_mode"] = no_permission();
  EXPECT_EQ(run({"-mig", "1", "-i", "0"}),
            "Unable to enable MIG Mode for GPU 00000000:07:00.0: Insufficient Permissions\n"
            "Terminating early due to previous errors.\n-> 4");
}

TEST_F(SmiMig, Reset) {
  EXPECT_EQ(run({"--gpu-reset", "-i", "0,GPU-b"}),
            "GPU 00000000:07:00.0 was successfully reset.\n"
            "GPU 00000000:0F:00.0 was successfully reset.\nAll done.\n-> 0");
  EXPECT_EQ(fake.calls, (Words{"reset 00000000:07:00.0", "reset 00000000:0F:00.0"}));
  fake.unresettable["00000000:07:00.0"] = in_use();
  fake.working["GPU-a"] = {{77, ports::Process::Kind::kCompute, {}, {}, {}, "python3"}};
  EXPECT_EQ(run({"-r"}),
            "GPU 00000000:0F:00.0 was successfully reset.\n"
            "GPU 00000000:47:00.0 was successfully reset.\n"
            "The following GPUs could not be reset:\n"
            "  GPU 00000000:07:00.0: In use by another client\n\n"
            "1 device is currently being used by one or more other processes (a CUDA program, or "
            "one that watches GPUs). End them and try again, or reboot.\n-> 255");
  EXPECT_EQ(hints, "GPU 0: used by PID 77 (python3)\n");
  fake.unresettable["00000000:0F:00.0"] = in_use();
  EXPECT_NE(run({"-r"}).find("\n2 devices are currently being used by one or more other processes"),
            std::string::npos);
}

TEST_F(SmiMig, ResetThatThereIsNot) {
  fake.unresettable["00000000:07:00.0"] = not_supported();
  EXPECT_EQ(run({"--gpu-reset", "-i", "0"}),
            "Resetting GPU 00000000:07:00.0 is not supported.\n-> 3");
  fake.unresettable["00000000:07:00.0"] = no_permission();
  EXPECT_EQ(run({"--gpu-reset", "-i", "0"}),
            "The following GPUs could not be reset:\n"
            "  GPU 00000000:07:00.0: Insufficient Permissions\n\n-> 4");
}

// An apply, or the agent, is at it.
TEST_F(SmiMig, AGpuThatIsBeingChanged) {
  fake.locked.insert("/run/mig/GPU-a.lock");
  const std::string busy = "GPU 0: busy, by PID 4242, since 2026-11-24T10:00:00Z; try again\n";
  const std::pair<Words, const char*> cases[] = {
      {{"mig", "-cgi", "19", "-i", "0"},
       "Unable to create a GPU instance on GPU  0 using profile 19: In use by another client\n"
       "Failed to create GPU instances: In use by another client\n-> 19"},
      {{"mig", "-cci", "-i", "0"},
       "Failed to create compute instances: In use by another client\n-> 19"},
      {{"mig", "-dci", "-i", "0"},
       "Failed to destroy compute instances: In use by another client\n-> 19"},
      {{"mig", "-dgi", "-i", "0"},
       "Failed to destroy GPU instances: In use by another client\n-> 19"},
      {{"-mig", "1", "-i", "0"},
       "Unable to enable MIG Mode for GPU 00000000:07:00.0: In use by another client\n"
       "Terminating early due to previous errors.\n-> 19"},
      {{"-r", "-i", "0"},
       "The following GPUs could not be reset:\n"
       "  GPU 00000000:07:00.0: In use by another client\n\n"
       "1 device is currently being used by one or more other processes (a CUDA program, or one "
       "that watches GPUs). End them and try again, or reboot.\n-> 255"}};
  for (const auto& [words, text] : cases) {
    EXPECT_EQ(run(words), text);
    EXPECT_EQ(hints, busy);
  }
  EXPECT_EQ(fake.calls, Words()) << "the driver is not asked to change anything";
  EXPECT_TRUE(run({"mig", "-lgip", "-i", "0"}).ends_with("-> 0")) << "looking needs no lock";
}

TEST_F(SmiMig, GpusThatAreNotThere) {
  EXPECT_EQ(run({"mig", "-lgip", "-i", "7"}), "No devices were found\n-> 6");
  EXPECT_EQ(hints, "there is no GPU 7; nvidia-smi -L lists those of this node\n");
  node.silent = {{3, nvml_error(Code::kGpuLost, "GPU is lost", 15)}};
  EXPECT_EQ(run({"-mig", "1", "-i", "3"}),
            "Unable to determine the device handle for gpu 3: GPU is lost\n-> 15");
  EXPECT_EQ(run({"mig", "-lgipp"}).substr(0, 61),
            "Unable to determine the device handle for gpu 3: GPU is lost\n");
  EXPECT_EQ(fake.calls, Words());
}

TEST_F(SmiMig, Usage) {
  const std::pair<Words, const char*> cases[] = {
      {{"mig", "-cgi"}, "-cgi: a profile, such as 19 or 1g.5gb, is missing"},
      {{"mig", "-cgi", "-C"}, "-cgi: a profile, such as 19 or 1g.5gb, is missing"},
      {{"mig", "-cgi", "19,,9"}, "-cgi 19,,9: a profile is missing"},
      {{"mig", "-cgi", "19:x"},
       "-cgi 19:x: after the colon stands where the instance begins, as 19:4"},
      {{"mig", "-cgi", "19", "-dgi"}, "mig: -cgi and -dgi do not go together"},
      {{"mig", "-lgi", "-C"}, "mig: -C goes with -cgi: it makes a compute instance in each"},
      {{"mig", "-dgi", "-gi", "x"}, "-gi x: x is not an id"},
      {{"mig", "-dgi", "-gi"}, "-gi: an id is missing"},
      {{"mig", "-lgi", "-i"}, "-i: a GPU is missing"},
      {{"mig", "-lgpi"}, "mig: unknown option -lgpi; did you mean -lgip?"},
      {{"mig", "--frobnicate"}, "mig: unknown option --frobnicate; nvidia-smi mig -h lists them"},
      {{"-mig"}, "-mig: 0 or 1 is missing"},
      {{"-mig", "2"}, "-mig 2: it is 0 (disabled) or 1 (enabled)"},
      {{"-mig", "1", "-L"}, "smi: -L does not go with -mig; -i ID[,ID…] does"},
      {{"-r", "-L"}, "smi: -L does not go with --gpu-reset; -i ID[,ID…] does"}};
  for (const auto& [words, text] : cases) {
    EXPECT_TRUE(is_smi_mig(words));
    EXPECT_EQ(run(words), text);
  }
  EXPECT_FALSE(is_smi_mig(Words{"-L", "-i", "0"}));
  EXPECT_FALSE(is_smi_mig(Words{}));
  EXPECT_EQ(parse_smi_mig(Words{"mig", "-h"})->what, SmiMigRequest::What::kHelp);
}

TEST(SmiMigTables, LongNamesKeepTheirColumns) {
  ports::CiProfile ci{ProfileId{0}, "1c.2g.48gb+me.all", 1, 2, 2, 46, 1, 1, 1, 1, 1, {{0, 1}}};
  const ports::GiProfile gi = profile(65, 15, "1g.24gb+me.all", 1, 1, 24192, 188, {0, 3, 6, 9}, 3);
  EXPECT_NE(
      ci_profile_table({{0, 3, ci, true}})
          .find("|   0      3       MIG 1c.2g.48gb+me.all 0*    2/2           46        1     "
                "1     1   |\n"),
      std::string::npos);
  EXPECT_NE(gi_profile_table({{0, gi, 1}})
                .find("|   0  MIG 1g.24gb+me.all  65     1/1        23.62      No     188    0     "
                      "0   |\n"),
            std::string::npos);
  EXPECT_NE(ci_table({{0, 3, ci.name, {CiId{1}, ProfileId{0}, {0, 1}, ""}}})
                .find("|   0      3       MIG 1c.2g.48gb+me.all 0        1     |\n"),
            std::string::npos);
  EXPECT_NE(gi_table({{0, gi.name, {GiId{13}, ProfileId{65}, {9, 3}, {}}}})
                .find("|   0  MIG 1g.24gb+me.all  65       13          9:3     |\n"),
            std::string::npos);
}

TEST(SmiExitCode, IsThatOfNvml) {
  EXPECT_EQ(smi_exit_code(no_room()), 23);
  EXPECT_EQ(smi_exit_code({Code::kFailed, "GPU 0: nvmlX: Unknown Error (999)", {}}), 231);
  EXPECT_EQ(smi_exit_code({Code::kUnavailable, "libnvidia-ml.so.1: not there", {}}), 9);
  EXPECT_EQ(smi_exit_code({Code::kUsage, "what?", {}}), 2);
  EXPECT_EQ(smi_exit_code({Code::kNotFound, "no GPU (7)x", {}}), 6);
}

}  // namespace
}  // namespace gpuslice::cli
