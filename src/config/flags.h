#pragma once

// Every flag of NVIDIA's device plugin and GPU feature discovery v0.20, with its names in the
// configuration file, on the command line and in the environment: what people switch with. One row
// per flag.

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gpuslice::config {

enum class Flag : uint8_t {
  kMigStrategy,
  kFailOnInitError,
  kMpsRoot,
  kNvidiaDriverRoot,
  kNvidiaDevRoot,
  kGdrcopyEnabled,
  kGdsEnabled,
  kMofedEnabled,
  kUseNodeFeatureApi,
  kDeviceDiscoveryStrategy,
  kPassDeviceSpecs,
  kDeviceListStrategy,
  kDeviceIdStrategy,
  kCdiAnnotationPrefix,
  kNvidiaCtkPath,
  kContainerDriverRoot,
  kSharedDevicesAllocationPolicy,
  kXidCleanProbe,
  kGfdOneshot,
  kGfdNoTimestamp,
  kGfdSleepInterval,
  kGfdOutputFile,
  kGfdMachineTypeFile,
  kKubeletSocket,
  kConfigFile,
  kCdiFeatureFlags,
  kCdiDisableHooks,
  kImexChannelIds,
  kImexRequired,
};
inline constexpr size_t kFlags = static_cast<size_t>(Flag::kImexRequired) + 1;

enum class FlagType : uint8_t {
  kBool,  // true, false
  kText,
  kChoice,    // one of `choices`
  kChoices,   // one or several of them, as a list or joined by commas
  kList,      // texts
  kDuration,  // Go's: "60s", "1m30s"; "infinite"; a number is nanoseconds
  kXidTimes,  // "94=60s,95=5m", see parse_xid_times()
};

struct FlagRow {
  Flag flag;
  FlagType type;
  std::string_view section;  // in the file below flags: "", "plugin", "gfd"; "-": not in the file
  std::string_view key;      // "migStrategy"
  std::array<std::string_view, 2>
      options;  // command line, without "--"; the first is the usual one
  // The first that is set counts: where the peers differ, the device plugin's.
  std::array<std::string_view, 2> environment;
  std::string_view by_default;
  std::array<std::string_view, 4> choices;
};

[[nodiscard]] std::span<const FlagRow> flag_rows();
[[nodiscard]] const FlagRow& flag_row(Flag flag);
// By key in a section of the file; null if there is none. Case counts.
[[nodiscard]] const FlagRow* flag_by_key(std::string_view section, std::string_view key);

// `value` in the flag's own spelling (lists joined by commas), or what is wrong with it, as the
// rest of a sentence: "must be none, single or mixed, not \"some\"".
[[nodiscard]] std::expected<std::string, std::string> canonical(const FlagRow& row,
                                                                std::string_view value);

// Go's duration as nanoseconds; nothing if it is not one. "1h2m3.5s", "300ms", "-1s".
[[nodiscard]] std::optional<int64_t> parse_go_duration(std::string_view text);

// "94=60s,95=5m": XID → nanoseconds, between a second and a week; the last of one XID counts.
// Nothing if it is none of that.
[[nodiscard]] std::optional<std::map<uint64_t, int64_t>> parse_xid_times(std::string_view text);

}  // namespace gpuslice::config
