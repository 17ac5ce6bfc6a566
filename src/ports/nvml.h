#pragma once

// NVML as the agent and the verbs need it: values of what a driver says, read through a session
// that can be closed and opened again within milliseconds (an open session counts as a client of
// the driver).
//
// All calls block (a hanging driver hangs them): they belong on the NVML worker's thread or in a
// verb. Errors name the object, the call and NVML's words. Not thread-safe.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "gpu/board.h"

namespace gpuslice::ports {

struct DriverInfo {
  std::string version;        // "580.65.06"
  std::string nvml_version;   // "13.580.65.06"
  uint32_t cuda_version = 0;  // 13000 for 13.0
  friend bool operator==(const DriverInfo&, const DriverInfo&) = default;
};

struct Process {
  uint32_t pid = 0;  // in our PID namespace; 0 where it cannot be seen
  enum class Kind : uint8_t { kCompute, kGraphics, kMps } kind = Kind::kCompute;
  std::optional<uint64_t> memory_bytes;  // nothing where the driver does not tell
  std::optional<GiId> gi;
  std::optional<CiId> ci;
  std::string name;  // the executable, as NVML tells; empty where it cannot
  friend bool operator==(const Process&, const Process&) = default;
};

struct MigDevice {
  uint32_t index = 0;   // among the MIG devices of its GPU
  std::string uuid;     // "MIG-…"
  std::string profile;  // "1g.5gb", "1c.3g.20gb"
  ProfileId profile_id;
  GiId gi;
  CiId ci;
  gpu::Placement placement;  // of the GPU instance, in memory slices
  uint64_t memory_total_bytes = 0;
  uint64_t memory_used_bytes = 0;
  uint64_t bar1_total_bytes = 0;
  uint64_t bar1_used_bytes = 0;
  // As NVML's attributes tell; 0 where it does not.
  uint32_t sm = 0, ce = 0, dec = 0, enc = 0, jpeg = 0, ofa = 0;
  uint32_t gi_slices = 0, ci_slices = 0;
  uint64_t memory_mib = 0;
  friend bool operator==(const MigDevice&, const MigDevice&) = default;
};

struct MigMode {
  bool current = false;
  bool pending = false;
  friend bool operator==(const MigMode&, const MigMode&) = default;
};

// What a GPU that is a virtual one (vGPU) tells of the machine that it is a part of.
struct VgpuHost {
  std::string driver_version;  // "580.95.02"
  std::string driver_branch;   // "r581_36"
  friend bool operator==(const VgpuHost&, const VgpuHost&) = default;
};

// One GPU. What the driver does not support on it is empty.
struct Gpu {
  GpuIndex index;
  GpuMinor minor;
  std::string uuid;
  std::string name;
  std::string bus_id;                   // "00000000:07:00.0"
  int64_t numa_node = -1;               // -1: none
  uint32_t pci_device_id = 0;           // device << 16 | vendor
  uint32_t pci_subsystem_id = 0;        // subsystem << 16 | its vendor
  uint32_t pci_class = 0;               // sysfs's: 0x030200 is a 3D controller; 0: not known
  uint32_t cc_major = 0, cc_minor = 0;  // CUDA's compute capability; 0: not told
  std::string fabric_clique;            // "<cluster UUID>.<clique>" of a GPU that joined a fabric
  std::optional<VgpuHost> vgpu;         // it is a virtual GPU
  uint64_t memory_total_bytes = 0;
  std::optional<MigMode> mig;  // empty: no MIG on this board
  std::vector<MigDevice> mig_devices;
  // What it tells of its own state.
  std::optional<uint64_t> ecc_uncorrected;  // volatile: since it was reset or the driver loaded
  std::optional<bool> remap_pending;  // bad memory waits for a reset to be replaced (rows, pages)
  std::optional<bool> remap_failed;   // … and there is nothing left to replace it with
  std::optional<uint32_t> recovery_action;  // NVML's enum: 0 none, see agent/health_policy.h
  std::optional<uint32_t> temperature_c, shutdown_c;  // at the latter the GPU switches itself off
  std::optional<bool> persistence_mode;  // the driver keeps it initialised while nobody uses it
  std::optional<uint64_t> energy_mj;     // counted since the driver initialised it

  // With Detail::kAll only.
  std::optional<uint64_t> memory_reserved_bytes, memory_used_bytes, memory_free_bytes;
  std::optional<uint32_t> utilisation_percent, memory_utilisation_percent;
  std::optional<uint32_t> fan_percent, performance_state;
  std::optional<uint32_t> power_mw, power_limit_mw, power_default_limit_mw;
  std::optional<uint32_t> graphics_mhz, sm_mhz, memory_mhz;
  std::optional<bool> display_active;
  std::optional<uint32_t>
      compute_mode;  // NVML's enum: 0 default, 2 prohibited, 3 exclusive process
  std::optional<uint32_t> pcie_generation, pcie_width;
  std::string serial, vbios;
  std::vector<Process> processes;

  // Now, whatever is pending.
  [[nodiscard]] bool mig_on() const { return mig && mig->current; }
};

// How near two GPUs are, seen from one of them.
struct GpuLink {
  GpuIndex from, to;
  // NVML's level of the nearest common ancestor: 0 same board, 10 one PCIe switch, 20 several,
  // 30 one host bridge, 40 one NUMA node, 50 across the system. Nothing: not told.
  std::optional<uint32_t> ancestor;
  uint32_t nvlinks = 0;  // active ones that lead there, without a switch between
  friend bool operator==(const GpuLink&, const GpuLink&) = default;
};
struct Topology {
  std::vector<GpuLink> links;                 // by from and to; a pair may be missing
  std::map<GpuIndex, uint32_t> switch_links;  // active NVLinks of a GPU that end at an NVSwitch
  friend bool operator==(const Topology&, const Topology&) = default;
};

enum class Detail : uint8_t { kInventory, kAll };

class Nvml {
 public:
  virtual ~Nvml() = default;
  // kUnavailable: no library, or no driver behind it (yet).
  [[nodiscard]] virtual Status open() = 0;
  virtual void close() = 0;
  [[nodiscard]] virtual Result<DriverInfo> driver() = 0;
  [[nodiscard]] virtual Result<uint32_t> gpu_count() = 0;
  // kGpuLost for a GPU that fell off the bus; kNotFound.
  [[nodiscard]] virtual Result<Gpu> gpu(GpuIndex index, Detail detail) = 0;
};

}  // namespace gpuslice::ports
