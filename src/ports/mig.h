#pragma once

// MIG as the planner, the executor and the verbs need it: what NVML offers, what is there, and the
// calls that change it. GPUs are named by UUID: an index may move when another GPU is lost.
//
// Like ports/nvml.h: calls block, errors name the object, the call and NVML's words, the session
// must be open, not thread-safe. Nothing here retries.

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "gpu/board.h"
#include "ports/nvml.h"

namespace gpuslice::ports {

// A GPU instance profile as the driver describes it.
struct GiProfile {
  ProfileId id;
  uint32_t nvml_enum = 0;  // NVML_GPU_INSTANCE_PROFILE_…: what mig-parted's checkpoints name
  std::string name;        // "1g.5gb+me", without NVML's "MIG "
  uint32_t slices = 0;
  uint32_t most = 0;  // instanceCount: how many fit on an empty GPU
  uint32_t memory_mib = 0;
  uint32_t sm = 0, ce = 0, dec = 0, enc = 0, jpeg = 0, ofa = 0;
  std::vector<gpu::Placement> placements;  // all, free or not, ascending
  friend bool operator==(const GiProfile&, const GiProfile&) = default;
};

// What the driver answers about its profiles. With MIG off some drivers do not answer (535), and
// some answer wrongly for some boards: then `trusted` is false, and only switching MIG on tells.
struct GiProfiles {
  bool trusted = true;
  std::vector<GiProfile> profiles;  // by NVML's enum
};

// A compute instance profile inside a GPU instance that is there.
struct CiProfile {
  ProfileId id;
  std::string name;  // "1c.3g.20gb"; "3g.20gb" where it fills the GPU instance
  uint32_t slices = 0;
  uint32_t most = 0;
  uint32_t free = 0;  // how many could be made now
  uint32_t sm = 0, ce = 0, dec = 0, enc = 0, jpeg = 0, ofa = 0;
  std::vector<gpu::Placement> placements;
  friend bool operator==(const CiProfile&, const CiProfile&) = default;
};

struct ComputeInstance {
  CiId id;
  ProfileId profile;
  gpu::Placement placement;  // in compute slices of the GPU instance
  std::string uuid;          // "MIG-…"; empty where the driver does not say
  friend bool operator==(const ComputeInstance&, const ComputeInstance&) = default;
};

struct GpuInstance {
  GiId id;
  ProfileId profile;
  gpu::Placement placement;          // in memory slices of the board
  std::vector<ComputeInstance> cis;  // by id
  friend bool operator==(const GpuInstance&, const GpuInstance&) = default;
};

// What became of a change of the MIG mode that the driver took.
enum class Activation : uint8_t {
  kDone,        // in force
  kInUse,       // pending: somebody uses the GPU
  kNeedsReset,  // pending: a reset or a reboot is needed
};

class Mig {
 public:
  virtual ~Mig() = default;

  // kImpossible: a board without MIG.
  [[nodiscard]] virtual Result<MigMode> mig_mode(const std::string& gpu) = 0;
  // Does a change of the mode need a reset of the GPU (NVML field 184)? Ampere: yes; Hopper and
  // newer: no.
  [[nodiscard]] virtual Result<bool> mode_needs_reset(const std::string& gpu) = 0;
  [[nodiscard]] virtual Result<GiProfiles> gi_profiles(const std::string& gpu) = 0;
  // How many of a profile could be made now.
  [[nodiscard]] virtual Result<uint32_t> gi_free(const std::string& gpu, ProfileId profile) = 0;
  [[nodiscard]] virtual Result<std::vector<CiProfile>> ci_profiles(const std::string& gpu,
                                                                   GiId gi) = 0;
  // By GPU instance id; empty with MIG off. kNoPermission without root or access to mig/config.
  [[nodiscard]] virtual Result<std::vector<GpuInstance>> instances(const std::string& gpu) = 0;
  // Who computes on it, with the instance where MIG is on.
  [[nodiscard]] virtual Result<std::vector<Process>> processes(const std::string& gpu) = 0;

  [[nodiscard]] virtual Result<Activation> set_mig_mode(const std::string& gpu, bool on) = 0;
  // At an explicit placement; without one (`smi mig -cgi` alone) the driver chooses.
  [[nodiscard]] virtual Result<GiId> create_gi(const std::string& gpu, ProfileId profile,
                                               std::optional<gpu::Placement> placement) = 0;
  [[nodiscard]] virtual Status destroy_gi(const std::string& gpu, GiId gi) = 0;
  [[nodiscard]] virtual Result<CiId> create_ci(const std::string& gpu, GiId gi, ProfileId profile,
                                               std::optional<gpu::Placement> placement) = 0;
  [[nodiscard]] virtual Status destroy_ci(const std::string& gpu, GiId gi, CiId ci) = 0;
};

// NVML has no call for a GPU reset.
class GpuReset {
 public:
  virtual ~GpuReset() = default;
  // No NVML session of ours may be open. kInUse: somebody holds the GPU; kImpossible: this machine
  // cannot reset it (a VM), a reboot is needed.
  [[nodiscard]] virtual Status reset(const std::string& bus_id) = 0;
};

}  // namespace gpuslice::ports
