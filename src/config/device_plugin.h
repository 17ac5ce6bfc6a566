#pragma once

// NVIDIA's device-plugin configuration, version v1, as typed values.
//
// read_device_plugin() is strict: unknown, misplaced and duplicate keys, wrong types and impossible
// values are errors with their place. With Compat::kNvidia a file is taken as NVIDIA's plugin v0.20
// would take it: what that ignores is a warning, what it exits on stays an error. `devices` and
// `rename` do what they say in strict mode; in kNvidia they are ignored, as there, with a warning.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/flags.h"
#include "config/problems.h"

namespace gpuslice::config {

enum class Compat : uint8_t { kStrict, kNvidia };

// Which devices an entry shares.
struct DeviceRef {
  enum class Kind : uint8_t { kIndex, kMigIndex, kGpuUuid, kMigUuid };
  Kind kind = Kind::kIndex;
  std::string text;  // as written: "0", "0:1", "GPU-…", "MIG-…", "MIG-GPU-…/7/0"
  uint32_t gpu = 0;  // of kIndex and kMigIndex
  uint32_t mig = 0;  // of kMigIndex
  Place place;
};
struct DeviceSelection {
  enum class Kind : uint8_t { kAll, kCount, kList };
  Kind kind = Kind::kAll;
  uint32_t count = 0;  // of kCount: the first so many
  std::vector<DeviceRef> list;
};

// One entry of sharing.timeSlicing.resources.
struct SharedResource {
  std::string name;    // with domain: "nvidia.com/gpu"
  std::string rename;  // with domain; empty: keeps its name
  uint32_t replicas = 0;
  DeviceSelection devices;
  Place place;
  [[nodiscard]] const std::string& offered_name() const { return rename.empty() ? name : rename; }
};

struct TimeSlicing {
  bool rename_by_default = false;
  bool fail_requests_greater_than_one = false;
  std::vector<SharedResource>
      resources;  // rename is filled from rename_by_default ("<name>.shared")
};

struct Imex {
  std::vector<uint32_t> channel_ids;  // empty, or {0}
  bool required = false;
};

struct DevicePluginConfig {
  std::map<Flag, std::string> flags;  // those that the file sets, canonical
  std::map<Flag, Place> flag_places;
  std::optional<TimeSlicing> time_slicing;
  Imex imex;
};

// What was read, and everything that is wrong with it. `config` is meant only when there is no
// error.
struct DevicePluginFile {
  DevicePluginConfig config;
  Problems problems;
};

[[nodiscard]] DevicePluginFile read_device_plugin(std::string_view text, Compat compat);

// A resource name as Kubernetes takes it, or what is wrong with it: at most 63 bytes, after the
// domain a DNS subdomain.
inline constexpr size_t kMaxResourceName = 63;

}  // namespace gpuslice::config
