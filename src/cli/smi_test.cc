// The exact text of `nvidia-smi`'s listings, table and queries, on one fixed node.

#include "cli/smi.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/text.h"
#include "cli/node_for_test.h"
#include "cli/smi_table.h"

namespace gpuslice::cli {
namespace {

using Words = std::vector<std::string>;

std::string smi_of(const Words& args, const NodeView& view = node()) {
  const auto request = parse_smi(args);
  if (!request) return request.error().text();
  const auto text = smi(*request, view);
  return text ? *text : text.error().text();
}

TEST(Smi, List) {
  EXPECT_EQ(smi_of({"-L"}),
            "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaaaaaa-0000-4000-8000-000000000000)\n"
            "  MIG 3g.20gb     Device  0: (UUID: MIG-00000000-0000-4000-8000-000000000000)\n"
            "  MIG 1g.5gb      Device  1: (UUID: MIG-00000000-0000-4000-8000-000000000001)\n"
            "GPU 1: NVIDIA L40S (UUID: GPU-bbbbbbbb-0000-4000-8000-000000000001)\n"
            "GPU 2: NVIDIA A30 with a name too long (UUID: "
            "GPU-cccccccc-0000-4000-8000-000000000002)\n"
            "Unable to determine the device handle for gpu 3: GPU 3: nvmlDeviceGetHandleByIndex: "
            "GPU is lost\n");
}

TEST(Smi, ListOfChosenGpus) {
  const std::string l40 = "GPU 1: NVIDIA L40S (UUID: GPU-bbbbbbbb-0000-4000-8000-000000000001)\n";
  for (const Words& args : {Words{"-L", "-i", "1"}, Words{"--id=1", "--list-gpus"},
                            Words{"-L", "-i", "GPU-bbbbbbbb-0000-4000-8000-000000000001"},
                            Words{"-L", "-i", "00000000:0f:00.0"}})
    EXPECT_EQ(smi_of(args), l40);
}

// A GPU that does not answer is still one that can be asked for.
TEST(Smi, OfAGpuThatIsSilent) {
  EXPECT_EQ(smi_of({"-L", "-i", "3"}),
            "Unable to determine the device handle for gpu 3: GPU 3: nvmlDeviceGetHandleByIndex: "
            "GPU is lost\n");
  const std::string table = smi_of({"-i", "3"});
  EXPECT_NE(table.find("\n| GPU 3: nvmlDeviceGetHandleByIndex: GPU is lost  "), std::string::npos);
  EXPECT_EQ(table.find("A100"), std::string::npos);
  EXPECT_EQ(table.find("No devices were found"), std::string::npos);
  EXPECT_EQ(smi_of({"-i", "1"}).find("GPU is lost"), std::string::npos);
  EXPECT_EQ(smi_of({"--query-gpu=index", "--format=csv", "-i", "3"}), "index\n");
}

TEST(Smi, Table) {
  EXPECT_EQ("\n" + smi_of({}), R"(
+-----------------------------------------------------------------------------------------+
| gpuslice smi 580.65.06            Driver Version: 580.65.06      CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
|   0  NVIDIA A100-SXM4-40GB          On  |   00000000:07:00.0 Off |                    0 |
| N/A   34C    P0             56W /  400W |    1050MiB /  40960MiB |     N/A      Default |
|                                         |                        |              Enabled |
+-----------------------------------------+------------------------+----------------------+
|   1  NVIDIA L40S                    Off |   00000000:0F:00.0 Off |                    2 |
| 78%   61C    P0            312W /  350W |    2600MiB /  46068MiB |     97%   E. Process |
|                                         |                        |                  N/A |
+-----------------------------------------+------------------------+----------------------+
|   2  NVIDIA A30 with a name to...   N/A |   00000000:47:00.0 N/A |                  N/A |
| N/A   N/A   N/A             N/A /   N/A |        N/A /  24576MiB |     N/A          N/A |
|                                         |                        |            Disabled* |
+-----------------------------------------+------------------------+----------------------+
| GPU 3: nvmlDeviceGetHandleByIndex: GPU is lost                                          |
+-----------------------------------------------------------------------------------------+

+-----------------------------------------------------------------------------------------+
| MIG devices:                                                                            |
+------------------+----------------------------------+-----------+-----------------------+
| GPU  GI  CI  MIG |              Shared Memory-Usage |        Vol|        Shared         |
|      ID  ID  Dev |                Shared BAR1-Usage | SM     Unc| CE ENC  DEC  OFA  JPG |
|                  |                                  |        ECC|                       |
|==================+==================================+===========+=======================|
|  0    2   0   0  |             13MiB /  19968MiB    | 42      0 |  1   0    0    0    0 |
|                  |              0MiB /   8191MiB    |           |                       |
+------------------+----------------------------------+-----------+-----------------------+
|  0    9   0   1  |             13MiB /   4864MiB    | 14      0 |  1   0    1    0    0 |
|                  |              0MiB /   8191MiB    |           |                       |
+------------------+----------------------------------+-----------+-----------------------+

+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
|    0     2    0            4242      C   python3                                1024MiB |
|    1   N/A  N/A              77      C   ...ng/path/to/some/training/program    2048MiB |
|    1   N/A  N/A              78      G   Xorg                                     40MiB |
|    1   N/A  N/A               0      M                                              N/A |
+-----------------------------------------------------------------------------------------+
)");
}

// What the tool itself printed of an H200 (docs/hardware.md), but for its name.
TEST(Smi, TableOfAnH200) {
  NodeView view = node();
  ports::Gpu gpu = a100_with_mig();
  gpu.name = "NVIDIA H200";
  gpu.bus_id = "00000000:00:06.0";
  gpu.memory_total_bytes = 143771 * kMib;
  gpu.memory_used_bytes = 0;
  gpu.temperature_c = 37;
  gpu.power_mw = 78'644;
  gpu.power_limit_mw = 700'000;
  gpu.utilisation_percent = 0;
  gpu.mig = ports::MigMode{};
  gpu.mig_devices.clear();
  gpu.processes.clear();
  view.gpus = {gpu};
  view.silent.clear();
  view.driver.version = "580.159.04";
  EXPECT_EQ("\n" + smi_of({}, view), R"(
+-----------------------------------------------------------------------------------------+
| gpuslice smi 580.159.04           Driver Version: 580.159.04     CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
|   0  NVIDIA H200                    On  |   00000000:00:06.0 Off |                    0 |
| N/A   37C    P0             78W /  700W |       0MiB / 143771MiB |      0%      Default |
|                                         |                        |             Disabled |
+-----------------------------------------+------------------------+----------------------+

+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
|  No running processes found                                                             |
+-----------------------------------------------------------------------------------------+
)");
}

TEST(Smi, TableWithMigOnAndNoDevices) {
  NodeView view = node();
  view.gpus = {a100_with_mig()};
  view.gpus[0].mig_devices.clear();
  view.gpus[0].processes.clear();
  view.silent.clear();
  EXPECT_EQ("\n" + smi_of({}, view), R"(
+-----------------------------------------------------------------------------------------+
| gpuslice smi 580.65.06            Driver Version: 580.65.06      CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
|   0  NVIDIA A100-SXM4-40GB          On  |   00000000:07:00.0 Off |                    0 |
| N/A   34C    P0             56W /  400W |    1050MiB /  40960MiB |     N/A      Default |
|                                         |                        |              Enabled |
+-----------------------------------------+------------------------+----------------------+

+-----------------------------------------------------------------------------------------+
| MIG devices:                                                                            |
|=========================================================================================|
|  No MIG devices found                                                                   |
+-----------------------------------------------------------------------------------------+

+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
|  No running processes found                                                             |
+-----------------------------------------------------------------------------------------+
)");
}

TEST(Smi, TableOfNothing) {
  NodeView view;
  view.driver = {"535.183.01", "12.535.183.01", 12020};
  EXPECT_EQ("\n" + smi_of({}, view), R"(
+-----------------------------------------------------------------------------------------+
| gpuslice smi 535.183.01           Driver Version: 535.183.01     CUDA Version: 12.2     |
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
| No devices were found                                                                   |
+-----------------------------------------------------------------------------------------+

+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
|  No running processes found                                                             |
+-----------------------------------------------------------------------------------------+
)");
}

// Displayed columns of one line: every character but the bytes that continue one.
size_t columns_of(std::string_view line) {
  return static_cast<size_t>(std::count_if(
      line.begin(), line.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

TEST(Smi, EveryLineOfTheTableIsAsWideAsItsRules) {
  NodeView view = node();
  // The longest values that there are.
  ports::Gpu& gpu = view.gpus[1];
  gpu.index = GpuIndex{31};
  gpu.name = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition";
  gpu.fan_percent = 100;
  gpu.temperature_c = 104;
  gpu.performance_state = 15;
  gpu.power_mw = 1'399'000;
  gpu.power_limit_mw = 1'400'000;
  gpu.memory_total_bytes = 288'000 * kMib;
  gpu.memory_used_bytes = 287'999 * kMib;
  gpu.utilisation_percent = 100;
  gpu.ecc_uncorrected = 18'446'744'073'709'551'615U;
  gpu.processes[0].pid = 4'194'304;
  gpu.processes[0].memory_bytes = 287'999 * kMib;
  ports::MigDevice& mig = view.gpus[0].mig_devices[0];
  mig.gi = GiId{14};
  mig.ci = CiId{7};
  mig.sm = 148;
  mig.memory_total_bytes = mig.memory_used_bytes = mig.bar1_total_bytes = 180'000 * kMib;
  mig.ce = mig.dec = mig.jpeg = 16;
  const std::string table = smi_of({}, view);
  for (const std::string_view line : split(table, '\n')) {
    if (!line.empty()) {
      EXPECT_EQ(columns_of(line), 91U) << line;
    }
  }
}

TEST(Smi, QueryGpu) {
  EXPECT_EQ(smi_of({"--query-gpu=index,name,memory.total,mig.mode.current,power.draw,fan.speed",
                    "--format=csv"}),
            "index, name, memory.total [MiB], mig.mode.current, power.draw [W], fan.speed [%]\n"
            "0, NVIDIA A100-SXM4-40GB, 40960 MiB, Enabled, 56.50 W, [N/A]\n"
            "1, NVIDIA L40S, 46068 MiB, [N/A], 312.50 W, 78 %\n"
            "2, NVIDIA A30 with a name too long, 24576 MiB, Disabled, [N/A], [N/A]\n");
  EXPECT_EQ(smi_of({"--query-gpu=utilization.gpu, memory.used,pstate,compute_mode,count",
                    "--format=csv,noheader,nounits", "-i", "0,1"}),
            "[N/A], 1050, P0, Default, 3\n"
            "97, 2600, P0, Exclusive_Process, 3\n");
  EXPECT_EQ(smi_of({"--query-gpu=pci.bus_id,driver_version,vbios_version,serial,"
                    "ecc.errors.uncorrected.volatile.total,clocks.sm,clocks.mem,"
                    "pcie.link.gen.current,pcie.link.width.max,persistence_mode,temperature.gpu",
                    "--format=csv,nounits", "-i", "0"}),
            "pci.bus_id, driver_version, vbios_version, serial, "
            "ecc.errors.uncorrected.volatile.total, clocks.current.sm, clocks.current.memory, "
            "pcie.link.gen.current, "
            "pcie.link.width.max, persistence_mode, temperature.gpu\n"
            "00000000:07:00.0, 580.65.06, 92.00.45.00.03, 1324520000001, 0, 1410, 1215, 4, 16, "
            "Enabled, 34\n");
  EXPECT_EQ(smi_of({"--query-gpu=index", "--format=csv"}, NodeView()), "index\n");
  // By their first names; and what a device-filter is written from.
  NodeView view = node();
  view.gpus = {a100_with_mig()};
  view.gpus[0].pci_device_id = 0x20b010de;
  view.gpus[0].pci_subsystem_id = 0x134f10de;
  view.gpus[0].cc_major = 8;
  EXPECT_EQ(smi_of({"--query-gpu=gpu_name,gpu_bus_id,pci.device_id,pci.sub_device_id,compute_cap",
                    "--format=csv"},
                   view),
            "name, pci.bus_id, pci.device_id, pci.sub_device_id, compute_cap\n"
            "NVIDIA A100-SXM4-40GB, 00000000:07:00.0, 0x20B010DE, 0x134F10DE, 8.0\n");
}

TEST(Smi, QueryComputeApps) {
  EXPECT_EQ(smi_of({"--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv"}),
            "gpu_uuid, pid, process_name, used_gpu_memory [MiB]\n"
            "GPU-aaaaaaaa-0000-4000-8000-000000000000, 4242, python3, 1024 MiB\n"
            "GPU-bbbbbbbb-0000-4000-8000-000000000001, 77, "
            "/opt/a/very/long/path/to/some/training/program, 2048 MiB\n"
            "GPU-bbbbbbbb-0000-4000-8000-000000000001, 0, [N/A], [N/A]\n");
  EXPECT_EQ(smi_of({"--query-compute-apps=pid,name,gpu_bus_id", "--format=csv,noheader,nounits",
                    "--id", "0"}),
            "4242, python3, 00000000:07:00.0\n");
}

TEST(Smi, ErrorsNameTheWordAndTheNearest) {
  const std::pair<Words, const char*> cases[] = {
      {{"--query-gpu=index"}, "\"--format=\" switch is missing: add --format=csv"},
      {{"--query-gpu=index", "--format=noheader"},
       "\"--format=\" switch is missing: add --format=csv"},
      {{"--query-gpu=indx", "--format=csv"},
       "Field \"indx\" is not a valid field to query with --query-gpu; did you mean index?"},
      {{"--query-gpu=what.is.this", "--format=csv"},
       "Field \"what.is.this\" is not a valid field to query with --query-gpu."},
      {{"--query-gpu=index,,name", "--format=csv"},
       "Field \"\" is not a valid field to query with --query-gpu."},
      {{"--query-compute-apps=pids", "--format=csv"},
       "Field \"pids\" is not a valid field to query with --query-compute-apps; did you mean "
       "pid?"},
      {{"--query-gpu", "--format=csv"},
       "--query-gpu: which fields? such as --query-gpu=index,name"},
      {{"--query-gpu=", "--format=csv"},
       "--query-gpu=: which fields? such as --query-gpu=index,name"},
      {{"--query-gpu=index", "--format=xml"},
       "--format=xml: must be csv, with noheader and nounits if wanted"},
      {{"--format"}, "--format=: must be csv, with noheader and nounits if wanted"},
      {{"--lst-gpus"}, "smi: unknown option --lst-gpus; did you mean --list-gpus?"},
      {{"wibble"}, "smi: unknown option wibble; smi --help lists them"},
      {{"-i"}, "-i: which GPU?"},
      {{"-L", "-i", "7"}, "No devices were found: there is no GPU 7"},
      {{"-L", "-i", "0,x"}, "No devices were found: there is no GPU x"},
  };
  for (const auto& [args, expected] : cases) EXPECT_EQ(smi_of(args), expected);
  EXPECT_EQ(parse_smi(Words{"-x"}).error().code, Code::kUsage);
  EXPECT_EQ(smi(*parse_smi(Words{"-i", "9"}), node()).error().code, Code::kNotFound);
  EXPECT_EQ(smi_of({"-h"}), smi_help());
}

}  // namespace
}  // namespace gpuslice::cli
