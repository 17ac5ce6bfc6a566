#pragma once

// GPU boards as NVML reports them, for the simulated node and for tests: never planner input (a
// real driver's profile sets, names and MiB differ between versions; ask NVML).
//
// MIG rows come from data/mig-profiles.yaml, which names the source of each; a test compares them.
// Whole-GPU constants come from NVIDIA's product briefs and public nvidia-smi listings. All
// immutable, compiled in.

#include <compare>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"

namespace gpuslice::gpu {

// Memory slices of the board for GPU instances, compute slices of the GPU instance for compute
// instances.
struct Placement {
  uint8_t start = 0;
  uint8_t size = 0;
  friend auto operator<=>(const Placement&, const Placement&) = default;
};

enum class Arch : uint8_t { kTuring, kAmpere, kAda, kHopper, kBlackwell };

// A GPU instance profile.
struct Profile {
  std::string_view name;    // "1g.5gb+me", without NVML's "MIG "
  uint8_t gi_enum = 0;      // argument of nvmlDeviceGetGpuInstanceProfileInfo
  ProfileId id;             // nvmlGpuInstanceProfileInfo.id, what -cgi takes
  uint8_t slices = 0;       // compute slices
  uint32_t memory_mib = 0;  // nvmlGpuInstanceProfileInfo.memorySizeMB
  uint32_t sm = 0;          // multiprocessors
  uint8_t ce = 0, dec = 0, enc = 0, jpeg = 0, ofa = 0;
  uint8_t max_instances = 0;
  std::span<const Placement> placements;  // ascending
  [[nodiscard]] bool gfx() const { return name.ends_with("+gfx"); }
};

// A compute instance profile inside a GPU instance of some number of slices.
struct CiProfile {
  uint8_t ci_enum = 0;    // argument of nvmlGpuInstanceGetComputeInstanceProfileInfo; equals the id
  std::string_view name;  // "1c"
  uint8_t slices = 0;
  uint8_t max_instances = 0;
  std::span<const Placement> placements;
  bool revision_1 = false;  // 1_SLICE_REV1: one slice with media engines
};

// How a change of the MIG mode takes effect.
enum class ModeChange : uint8_t { kNone, kReset, kResetless };

struct Clocks {  // MHz
  uint32_t graphics_idle = 0, graphics_base = 0, graphics_max = 0;
  uint32_t memory_idle = 0, memory_max = 0;
  uint32_t video_max = 0;
  uint32_t video_idle = 0;  // 0: not known
  uint32_t memory_low =
      0;  // a lower clock that may be asked for, not that of an idle board; 0: none
  uint32_t graphics_app = 0;  // the default application clock; 0: graphics_base
};

struct Power {  // mW
  uint32_t idle = 0, min_limit = 0, max_limit = 0, default_limit = 0;
};

struct Temperatures {  // degrees Celsius
  uint32_t idle = 0, full_load = 0, slowdown = 0, shutdown = 0, max_operating = 0, memory_max = 0;
};

struct Links {
  uint8_t pcie_generation = 0, pcie_width = 0;
  uint8_t nvlinks = 0;         // 0: none
  uint8_t nvlink_version = 0;  // 3: A100, 4: H100
  bool nvswitch = false;       // an HGX board: every link ends at a switch
  uint32_t nvlink_mbps = 0;    // MB/s of one link, one direction
};

struct Board {
  std::string_view key;   // row of data/mig-profiles.yaml, or the name of a board without MIG
  std::string_view name;  // as nvmlDeviceGetName answers: "NVIDIA A100-SXM4-40GB"
  Arch arch = Arch::kAmpere;
  uint8_t brand = 14;  // NVML brand type: 14 NVIDIA, 12 NVIDIA RTX, 2 Tesla
  uint8_t cc_major = 0, cc_minor = 0;
  uint32_t pci_device_id = 0;     // device << 16 | 0x10de
  uint32_t pci_subsystem_id = 0;  // subsystem << 16 | vendor
  uint32_t pci_class = 0x030200;  // 3D controller
  uint32_t chip_id = 0;           // enters the UUID
  uint32_t memory_total_mib = 0;
  uint32_t memory_reserved_mib = 0;  // nvmlMemory_v2.reserved with nothing running
  uint32_t bar1_mib = 0;
  uint32_t memory_bus_bits = 0;
  uint32_t remap_banks = 640;  // of nvmlDeviceGetRowRemapperHistogram
  uint32_t sm = 0;
  uint32_t cores_per_sm = 0;
  uint8_t compute_slices = 0;  // 0: no MIG
  uint8_t memory_units = 0;    // what placements count in: 8, 4, 12
  ModeChange mode_change = ModeChange::kNone;
  bool ecc = true;
  uint8_t fans = 0;  // passive boards have none that NVML shows
  uint8_t encoders = 0;
  Clocks clocks;
  Power power;
  Temperatures temperatures;
  Links links;
  std::string_view vbios;
  std::string_view part_number;
  std::span<const Profile> profiles;  // in the order of their NVML enums; empty: no MIG
  [[nodiscard]] bool mig() const { return !profiles.empty(); }
};

// Every board that can be simulated, in a fixed order (part of the world file's format: append
// only).
[[nodiscard]] std::span<const Board> boards();

// By product name with or without "NVIDIA ", by key, case ignored: "A100-SXM4-40GB", "nvidia h200",
// "T4". kImpossible for a board that is known but whose numbers are not (says which); kNotFound
// with the nearest name else.
[[nodiscard]] Result<const Board*> find_board(std::string_view name);

// What compute instances fit into a GPU instance of `slices` compute slices.
[[nodiscard]] std::span<const CiProfile> ci_profiles(uint8_t slices);

// Multiprocessors of a compute instance of `ci_slices` inside `gi`.
[[nodiscard]] uint32_t ci_multiprocessors(const Board& board, const Profile& gi, uint8_t ci_slices);

// The gigabytes in a profile's name by go-nvlib's rule: round-half-away(ceil(8 * gi / total) / 8 *
// ceil(total GiB)).
[[nodiscard]] uint32_t profile_gigabytes(uint32_t gi_memory_mib, uint32_t total_mib);

}  // namespace gpuslice::gpu
