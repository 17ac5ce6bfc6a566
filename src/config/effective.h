#pragma once

// What counts in the end: flag > environment > file > default, for every flag, with where each
// value came from. Pure: the command line and the environment are given in.

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "config/device_plugin.h"

namespace gpuslice::config {

enum class Origin : uint8_t { kDefault, kFile, kEnvironment, kCommandLine };

struct Setting {
  std::string value;  // canonical; lists joined by commas
  Origin origin = Origin::kDefault;
  std::string from;  // "--mig-strategy", "MIG_STRATEGY", "config.yaml:3:5", "default"
};

// What was said outside the file. Values as given, not yet checked.
struct Said {
  std::map<Flag, std::string> options;  // from the command line
  std::map<std::string, std::string>
      environment;  // all of it, or what flag_rows() names; "" counts as not set
};

struct Effective {
  std::array<Setting, kFlags> settings;
  std::optional<TimeSlicing> time_slicing;
  Imex imex;

  [[nodiscard]] const Setting& setting(Flag flag) const {
    return settings[static_cast<size_t>(flag)];
  }
  [[nodiscard]] const std::string& text(Flag flag) const { return setting(flag).value; }
  [[nodiscard]] bool on(Flag flag) const { return setting(flag).value == "true"; }
  // Is `word` among the values of a list?
  [[nodiscard]] bool lists(Flag flag, std::string_view word) const;
};

// kInvalidConfig names the flag or variable that is wrong. `file_name` is used for origins.
[[nodiscard]] Result<Effective> merge(const Said& said, const DevicePluginConfig& file,
                                      std::string_view file_name);

// Does what was said outside the file hold by itself? Called once at start, before any file is
// read.
[[nodiscard]] Status check_said(const Said& said);

}  // namespace gpuslice::config
