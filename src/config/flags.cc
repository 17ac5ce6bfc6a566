#include "config/flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/text.h"

namespace gpuslice::config {
namespace {

using T = FlagType;

constexpr std::array<std::string_view, 4> kNone = {};
constexpr FlagRow kRows[] = {
    {Flag::kMigStrategy,
     T::kChoice,
     "",
     "migStrategy",
     {"mig-strategy"},
     {"MIG_STRATEGY", "GFD_MIG_STRATEGY"},
     "none",
     {"none", "single", "mixed"}},
    {Flag::kFailOnInitError,
     T::kBool,
     "",
     "failOnInitError",
     {"fail-on-init-error"},
     {"FAIL_ON_INIT_ERROR", "GFD_FAIL_ON_INIT_ERROR"},
     "true",
     kNone},
    {Flag::kMpsRoot, T::kText, "", "mpsRoot", {"mps-root"}, {"MPS_ROOT"}, "", kNone},
    {Flag::kNvidiaDriverRoot,
     T::kText,
     "",
     "nvidiaDriverRoot",
     {"driver-root", "nvidia-driver-root"},
     {"NVIDIA_DRIVER_ROOT"},
     "/",
     kNone},
    {Flag::kNvidiaDevRoot,
     T::kText,
     "",
     "nvidiaDevRoot",
     {"dev-root", "nvidia-dev-root"},
     {"NVIDIA_DEV_ROOT"},
     "",
     kNone},
    {Flag::kGdrcopyEnabled,
     T::kBool,
     "",
     "gdrcopyEnabled",
     {"gdrcopy-enabled"},
     {"GDRCOPY_ENABLED"},
     "false",
     kNone},
    {Flag::kGdsEnabled,
     T::kBool,
     "",
     "gdsEnabled",
     {"gds-enabled"},
     {"GDS_ENABLED"},
     "false",
     kNone},
    {Flag::kMofedEnabled,
     T::kBool,
     "",
     "mofedEnabled",
     {"mofed-enabled"},
     {"MOFED_ENABLED"},
     "false",
     kNone},
    {Flag::kUseNodeFeatureApi,
     T::kBool,
     "",
     "useNodeFeatureAPI",
     {"use-node-feature-api"},
     {"GFD_USE_NODE_FEATURE_API", "USE_NODE_FEATURE_API"},
     "true",
     kNone},
    {Flag::kDeviceDiscoveryStrategy,
     T::kChoice,
     "",
     "deviceDiscoveryStrategy",
     {"device-discovery-strategy"},
     {"DEVICE_DISCOVERY_STRATEGY"},
     "auto",
     {"auto", "nvml", "tegra", "vfio"}},
    {Flag::kPassDeviceSpecs,
     T::kBool,
     "plugin",
     "passDeviceSpecs",
     {"pass-device-specs"},
     {"PASS_DEVICE_SPECS"},
     "false",
     kNone},
    {Flag::kDeviceListStrategy,
     T::kChoices,
     "plugin",
     "deviceListStrategy",
     {"device-list-strategy"},
     {"DEVICE_LIST_STRATEGY"},
     "envvar",
     {"envvar", "volume-mounts", "cdi-annotations", "cdi-cri"}},
    {Flag::kDeviceIdStrategy,
     T::kChoice,
     "plugin",
     "deviceIDStrategy",
     {"device-id-strategy"},
     {"DEVICE_ID_STRATEGY"},
     "uuid",
     {"uuid", "index"}},
    {Flag::kCdiAnnotationPrefix,
     T::kText,
     "plugin",
     "cdiAnnotationPrefix",
     {"cdi-annotation-prefix"},
     {"CDI_ANNOTATION_PREFIX"},
     "cdi.k8s.io/",
     kNone},
    {Flag::kNvidiaCtkPath,
     T::kText,
     "plugin",
     "nvidiaCTKPath",
     {"nvidia-cdi-hook-path", "nvidia-ctk-path"},
     {"NVIDIA_CDI_HOOK_PATH", "NVIDIA_CTK_PATH"},
     "/usr/bin/nvidia-ctk",
     kNone},
    {Flag::kContainerDriverRoot,
     T::kText,
     "plugin",
     "containerDriverRoot",
     {"driver-root-ctr-path", "container-driver-root"},
     {"DRIVER_ROOT_CTR_PATH", "CONTAINER_DRIVER_ROOT"},
     "/driver-root",
     kNone},
    {Flag::kSharedDevicesAllocationPolicy,
     T::kChoice,
     "plugin",
     "sharedDevicesAllocationPolicy",
     {"shared-devices-allocation-policy"},
     {"SHARED_DEVICES_ALLOCATION_POLICY"},
     "distributed",
     {"distributed", "packed", "spread"}},
    {Flag::kXidCleanProbe,
     T::kXidTimes,
     "plugin",
     "xidCleanProbe",
     {"xid-clean-probe"},
     {"XID_CLEAN_PROBE"},
     "",
     kNone},
    {Flag::kGfdOneshot, T::kBool, "gfd", "oneshot", {"oneshot"}, {"GFD_ONESHOT"}, "false", kNone},
    {Flag::kGfdNoTimestamp,
     T::kBool,
     "gfd",
     "noTimestamp",
     {"no-timestamp"},
     {"GFD_NO_TIMESTAMP"},
     "false",
     kNone},
    {Flag::kGfdSleepInterval,
     T::kDuration,
     "gfd",
     "sleepInterval",
     {"sleep-interval"},
     {"GFD_SLEEP_INTERVAL"},
     "60s",
     kNone},
    {Flag::kGfdOutputFile,
     T::kText,
     "gfd",
     "outputFile",
     {"output-file", "output"},
     {"GFD_OUTPUT_FILE"},
     "/etc/kubernetes/node-feature-discovery/features.d/gfd",
     kNone},
    {Flag::kGfdMachineTypeFile,
     T::kText,
     "gfd",
     "machineTypeFile",
     {"machine-type-file"},
     {"GFD_MACHINE_TYPE_FILE"},
     "/sys/class/dmi/id/product_name",
     kNone},
    {Flag::kKubeletSocket,
     T::kText,
     "-",
     "",
     {"kubelet-socket"},
     {"KUBELET_SOCKET"},
     "/var/lib/kubelet/device-plugins/kubelet.sock",
     kNone},
    {Flag::kConfigFile,
     T::kText,
     "-",
     "",
     {"config-file"},
     {"CONFIG_FILE", "GFD_CONFIG_FILE"},
     "",
     kNone},
    {Flag::kCdiFeatureFlags,
     T::kList,
     "-",
     "",
     {"cdi-feature-flags"},
     {"CDI_FEATURE_FLAGS"},
     "",
     kNone},
    {Flag::kCdiDisableHooks,
     T::kList,
     "-",
     "",
     {"cdi-disable-hooks"},
     {"CDI_DISABLE_HOOKS"},
     "",
     kNone},
    {Flag::kImexChannelIds,
     T::kList,
     "-",
     "",
     {"imex-channel-ids"},
     {"IMEX_CHANNEL_IDS"},
     "",
     kNone},
    {Flag::kImexRequired, T::kBool, "-", "", {"imex-required"}, {"IMEX_REQUIRED"}, "false", kNone},
};
static_assert(std::size(kRows) == kFlags);

bool is_choice(const FlagRow& row, std::string_view value) {
  return !value.empty() &&
         std::find(row.choices.begin(), row.choices.end(), value) != row.choices.end();
}

std::string choices_text(const FlagRow& row) {
  std::vector<std::string_view> names;
  for (const std::string_view choice : row.choices)
    if (!choice.empty()) names.push_back(choice);
  std::string out;
  for (size_t i = 0; i < names.size(); ++i)
    out += std::string(i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + std::string(names[i]);
  return out;
}

std::string meant(const FlagRow& row, std::string_view value) {
  std::vector<std::string_view> names;
  for (const std::string_view choice : row.choices)
    if (!choice.empty()) names.push_back(choice);
  const auto near = nearest(value, names);
  return near ? fmt::format("; did you mean {}?", *near) : "";
}

std::expected<std::string, std::string> canonical_choices(const FlagRow& row,
                                                          std::string_view value) {
  std::vector<std::string> out;
  for (const std::string_view part : split(value, ',')) {
    const std::string_view word = trim(part);
    if (!is_choice(row, word))
      return std::unexpected(fmt::format("must be one or more of {}, not \"{}\"{}",
                                         choices_text(row), json_escape(word), meant(row, word)));
    if (std::find(out.begin(), out.end(), word) == out.end()) out.emplace_back(word);
  }
  return join(out, ",");
}

}  // namespace

std::span<const FlagRow> flag_rows() { return kRows; }

const FlagRow& flag_row(Flag flag) {
  const FlagRow& row = kRows[static_cast<size_t>(flag)];
  CHECK(row.flag == flag, "the table of flags is in the order of the enum");
  return row;
}

const FlagRow* flag_by_key(std::string_view section, std::string_view key) {
  for (const FlagRow& row : kRows)
    if (row.section == section && row.key == key) return &row;
  return nullptr;
}

std::expected<std::string, std::string> canonical(const FlagRow& row, std::string_view value) {
  switch (row.type) {
    case T::kBool: {
      // The forms that Go's strconv.ParseBool takes: people's manifests have them in environment
      // variables.
      for (const std::string_view yes : {"true", "True", "TRUE", "t", "T", "1"})
        if (value == yes) return "true";
      for (const std::string_view no : {"false", "False", "FALSE", "f", "F", "0"})
        if (value == no) return "false";
      return std::unexpected(fmt::format("must be true or false, not \"{}\"", json_escape(value)));
    }
    case T::kChoice:
      if (is_choice(row, value)) return std::string(value);
      return std::unexpected(fmt::format("must be {}, not \"{}\"{}", choices_text(row),
                                         json_escape(value), meant(row, value)));
    case T::kChoices:
      return canonical_choices(row, value);
    case T::kDuration:
      if (value == "infinite" || parse_go_duration(value)) return std::string(value);
      return std::unexpected(fmt::format(
          "must be a duration such as 60s or 1m30s, or infinite, not \"{}\"", json_escape(value)));
    case T::kXidTimes:
      if (parse_xid_times(value)) return std::string(value);
      return std::unexpected(fmt::format(
          "must be XIDs with a time between 1s and 168h, such as 94=60s,95=5m, not \"{}\"",
          json_escape(value)));
    case T::kText:
    case T::kList:
      break;
  }
  return std::string(value);
}

std::optional<int64_t> parse_go_duration(std::string_view text) {
  if (const auto nanoseconds = parse_u64(text); nanoseconds && *nanoseconds <= INT64_MAX)
    return static_cast<int64_t>(*nanoseconds);
  const bool negative = text.starts_with("-");
  if (negative) text.remove_prefix(1);
  if (text.empty()) return std::nullopt;
  double total = 0;
  while (!text.empty()) {
    const size_t unit = text.find_first_not_of("0123456789.");
    if (unit == 0 || unit == std::string_view::npos) return std::nullopt;
    size_t end = text.find_first_of("0123456789.", unit);
    if (end == std::string_view::npos) end = text.size();
    const auto part = parse_duration_ns(text.substr(0, end));
    if (!part) return std::nullopt;
    total += static_cast<double>(*part);
    text.remove_prefix(end);
  }
  if (total >= 9.2e18) return std::nullopt;
  return static_cast<int64_t>(negative ? -total : total);
}

std::optional<std::map<uint64_t, int64_t>> parse_xid_times(std::string_view text) {
  constexpr int64_t kSecond = 1'000'000'000;
  constexpr int64_t kLongest = 7 * 24 * 3600 * kSecond;
  std::map<uint64_t, int64_t> out;
  for (const std::string_view part : split(text, ',')) {
    const std::string_view one = trim(part);
    if (one.empty()) continue;
    const size_t equals = one.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    const auto xid = parse_u64(trim(one.substr(0, equals)));
    const auto time = parse_go_duration(trim(one.substr(equals + 1)));
    if (!xid || !time || *time < kSecond || *time > kLongest) return std::nullopt;
    out[*xid] = *time;
  }
  return out;
}

}  // namespace gpuslice::config
