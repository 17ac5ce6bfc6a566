#include "cli/node_for_test.h"

#include <string>

namespace gpuslice::cli {
namespace {

ports::MigDevice mig(uint32_t index, const std::string& profile, uint32_t gi, uint32_t total_mib,
                     uint32_t sm) {
  ports::MigDevice m;
  m.index = index;
  m.uuid = "MIG-00000000-0000-4000-8000-00000000000" + std::to_string(index);
  m.profile = profile;
  m.gi = GiId{gi};
  m.ci = CiId{0};
  m.memory_total_bytes = total_mib * kMib;
  m.memory_used_bytes = 13 * kMib;
  m.bar1_total_bytes = 8191 * kMib;
  m.sm = sm;
  m.ce = 1;
  m.dec = index;
  return m;
}

}  // namespace

ports::Gpu a100_with_mig() {
  ports::Gpu gpu;
  gpu.index = GpuIndex{0};
  gpu.minor = GpuMinor{0};
  gpu.uuid = "GPU-aaaaaaaa-0000-4000-8000-000000000000";
  gpu.name = "NVIDIA A100-SXM4-40GB";
  gpu.bus_id = "00000000:07:00.0";
  gpu.numa_node = 0;
  gpu.memory_total_bytes = 40960 * kMib;
  gpu.mig = ports::MigMode{true, true};
  gpu.mig_devices = {mig(0, "3g.20gb", 2, 19968, 42), mig(1, "1g.5gb", 9, 4864, 14)};
  gpu.memory_reserved_bytes = 571 * kMib;
  gpu.memory_used_bytes = 1050 * kMib;
  gpu.memory_free_bytes = 39339 * kMib;
  gpu.temperature_c = 34;
  gpu.performance_state = 0;
  gpu.power_mw = 56'499;
  gpu.power_limit_mw = gpu.power_default_limit_mw = 400'000;
  gpu.persistence_mode = true;
  gpu.display_active = false;
  gpu.compute_mode = 0;
  gpu.ecc_uncorrected = 0;
  gpu.graphics_mhz = gpu.sm_mhz = 1410;
  gpu.memory_mhz = 1215;
  gpu.pcie_generation = 4;
  gpu.pcie_width = 16;
  gpu.serial = "1324520000001";
  gpu.vbios = "92.00.45.00.03";
  ports::Process p;
  p.pid = 4242;
  p.name = "python3";
  p.memory_bytes = 1024 * kMib;
  p.gi = GiId{2};
  p.ci = CiId{0};
  gpu.processes = {p};
  return gpu;
}

ports::Gpu l40s() {
  ports::Gpu gpu;
  gpu.index = GpuIndex{1};
  gpu.minor = GpuMinor{1};
  gpu.uuid = "GPU-bbbbbbbb-0000-4000-8000-000000000001";
  gpu.name = "NVIDIA L40S";
  gpu.bus_id = "00000000:0F:00.0";
  gpu.memory_total_bytes = 46068 * kMib;
  gpu.memory_reserved_bytes = 500 * kMib;
  gpu.memory_used_bytes = 2600 * kMib;
  gpu.memory_free_bytes = 42968 * kMib;
  gpu.utilisation_percent = 97;
  gpu.memory_utilisation_percent = 38;
  gpu.temperature_c = 61;
  gpu.fan_percent = 78;
  gpu.performance_state = 0;
  gpu.power_mw = 312'501;
  gpu.power_limit_mw = gpu.power_default_limit_mw = 350'000;
  gpu.persistence_mode = false;
  gpu.display_active = false;
  gpu.compute_mode = 3;
  gpu.ecc_uncorrected = 2;
  gpu.graphics_mhz = gpu.sm_mhz = 2520;
  gpu.memory_mhz = 9001;
  ports::Process compute;
  compute.pid = 77;
  compute.name = "/opt/a/very/long/path/to/some/training/program";
  compute.memory_bytes = 2048 * kMib;
  ports::Process graphics;
  graphics.pid = 78;
  graphics.kind = ports::Process::Kind::kGraphics;
  graphics.name = "Xorg";
  graphics.memory_bytes = 40 * kMib;
  ports::Process mps;
  mps.pid = 0;
  mps.kind = ports::Process::Kind::kMps;
  gpu.processes = {compute, graphics, mps};
  return gpu;
}

ports::Gpu a30_pending() {
  ports::Gpu gpu;
  gpu.index = GpuIndex{2};
  gpu.minor = GpuMinor{2};
  gpu.uuid = "GPU-cccccccc-0000-4000-8000-000000000002";
  gpu.name = "NVIDIA A30 with a name too long";
  gpu.bus_id = "00000000:47:00.0";
  gpu.memory_total_bytes = 24576 * kMib;
  gpu.mig = ports::MigMode{false, true};
  return gpu;
}

NodeView node() {
  NodeView view;
  view.driver = {"580.65.06", "13.580.65.06", 13000};
  view.gpus = {a100_with_mig(), l40s(), a30_pending()};
  view.silent = {{3, {Code::kGpuLost, "GPU 3: nvmlDeviceGetHandleByIndex: GPU is lost", {}}}};
  return view;
}

}  // namespace gpuslice::cli
