#pragma once

// mig-parted's configuration, version v1, as typed values: labels, each a list of entries that say
// which GPUs get which MIG devices. Read strictly: what mig-parted takes silently and does nothing
// with (a malformed device-filter, a zero count) is an error with its place; what works there,
// works. Beyond it: a bare index, GPU UUIDs and PCI addresses in `devices`, explicit placements.
//
// Only what can be judged without hardware is judged here: mig/label.h does the rest.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/problems.h"
#include "gpu/profile_name.h"

namespace gpuslice::config {

// One GPU as `devices` names it.
struct GpuRef {
  enum class Kind : uint8_t { kIndex, kUuid, kBusId };
  Kind kind = Kind::kIndex;
  uint32_t index = 0;  // of kIndex: position in PCI order
  std::string text;    // "GPU-…"; of kBusId as NVML writes it: "00000000:07:00.0"
  Place place;
};

// "0xDDDDVVVV" or "0xDDDDVVVV:0xSSSSVVVV".
struct DeviceFilter {
  uint32_t device = 0;  // device << 16 | vendor
  std::optional<uint32_t> subsystem;
  std::string text;
  Place place;
};

struct WantedProfile {
  gpu::ProfileName name;
  std::string text;              // as written
  uint32_t count = 0;            // 1..kMostInstances
  std::vector<uint32_t> starts;  // memory slices where they lie; empty: anywhere
  Place place;
};

struct MigEntry {
  bool all_gpus = false;
  std::vector<GpuRef> gpus;           // unless all_gpus; not empty
  std::vector<DeviceFilter> filters;  // empty: any board
  bool mig_enabled = false;
  std::vector<WantedProfile> profiles;
  Place place;
};

struct MigLabel {
  std::vector<MigEntry> entries;  // in the order of the file; not empty
  Place place;
};

struct MigPartedConfig {
  std::map<std::string, MigLabel> labels;
};

// `config` is meant only when there is no error.
struct MigPartedFile {
  MigPartedConfig config;
  Problems problems;
};

inline constexpr int64_t kMostInstances = 64;  // of one profile on one GPU; no board has more

[[nodiscard]] MigPartedFile read_mig_parted(std::string_view text);

}  // namespace gpuslice::config
