#pragma once

// The tables of `smi mig -lgip | -lgipp | -lgi | -lcip | -lcipp | -lci`, as text, by driver branch
// 580's widths.

#include <cstdint>
#include <string>
#include <vector>

#include "ports/mig.h"

namespace gpuslice::cli {

struct GiProfileRow {
  uint32_t gpu = 0;
  ports::GiProfile profile;
  uint32_t free = 0;
};
struct GiRow {
  uint32_t gpu = 0;
  std::string profile;
  ports::GpuInstance gi;
};
struct CiProfileRow {
  uint32_t gpu = 0;
  uint32_t gi = 0;
  ports::CiProfile profile;
  bool fills = false;  // the whole GPU instance: its id has a star
};
struct CiRow {
  uint32_t gpu = 0;
  uint32_t gi = 0;
  std::string profile;
  ports::ComputeInstance ci;
};

[[nodiscard]] std::string gi_profile_table(const std::vector<GiProfileRow>& rows);
[[nodiscard]] std::string gi_table(const std::vector<GiRow>& rows);
[[nodiscard]] std::string ci_profile_table(const std::vector<CiProfileRow>& rows);
[[nodiscard]] std::string ci_table(const std::vector<CiRow>& rows);
// One line each: "GPU  0 Profile ID 19 Placements: {0,1,2,3,4,5,6}:1".
[[nodiscard]] std::string gi_placement_lines(const std::vector<GiProfileRow>& rows);
[[nodiscard]] std::string ci_placement_lines(const std::vector<CiProfileRow>& rows);

}  // namespace gpuslice::cli
