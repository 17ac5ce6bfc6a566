#pragma once

// Names of MIG profiles as people write them: "1g.5gb", "1c.3g.20gb", "1g.10gb+me", "2g.48gb-me",
// "1g.24gb+me.all". Grammar (mig-parted's): [<c>c.]<g>g.<gb>gb then +a[,b…] or -a[,b…]; an
// attribute has letters, digits and dots, does not start with a digit, and stands once; plus and
// minus never together. NVML's own "MIG 1g.5gb" is taken as well.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gpuslice::gpu {

struct ProfileName {
  uint32_t c = 0;  // compute slices of the compute instance; equal to g where the name does not say
  uint32_t g = 0;  // compute slices of the GPU instance, 1..99
  uint32_t gb = 0;  // the rounded size that the name says; drivers disagree about it by one
  std::vector<std::string> plus;   // attributes after '+', sorted
  std::vector<std::string> minus;  // attributes after '-', sorted
  friend bool operator==(const ProfileName&, const ProfileName&) = default;

  // Canonical spelling: "1c.3g.20gb+me"; the c part only where it differs from g.
  [[nodiscard]] std::string text() const;
  // The name of the GPU instance alone ("3g.20gb+me").
  [[nodiscard]] std::string gi_text() const;
};

// kInvalidConfig with what is wrong and the form that is meant.
[[nodiscard]] Result<ProfileName> parse_profile_name(std::string_view text);

// Below this a gigabyte is no rounding: 1g.5gb is an A100's and 1g.6gb an A30's.
inline constexpr uint32_t kLeastDriftingGigabytes = 10;

// Both name the same GPU instance but for the gigabytes, which differ by at most one, as drivers
// disagree about them: "1g.23gb" and "1g.24gb".
[[nodiscard]] bool same_but_for_a_gigabyte(const ProfileName& a, const ProfileName& b);

}  // namespace gpuslice::gpu
