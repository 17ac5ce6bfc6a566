#pragma once

// mig-parted's hooks file (-k), version v1: commands around an apply. Read strictly; what
// mig-parted passes over (a hook point that does not exist) is an error with its place.

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/problems.h"

namespace gpuslice::config {

struct Hook {
  std::string command;  // not empty
  std::vector<std::string> args;
  std::map<std::string, std::string> envs;
  std::string workdir;  // empty: the caller's
  Place place;
};

// Each list runs from top to bottom; the first that fails ends it.
struct Hooks {
  std::vector<Hook> apply_start, pre_apply_mode, pre_apply_config, apply_exit;
};

// `hooks` is meant only when there is no error.
struct HooksFile {
  Hooks hooks;
  Problems problems;
};

[[nodiscard]] HooksFile read_hooks(std::string_view text);

}  // namespace gpuslice::config
