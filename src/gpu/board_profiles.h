#pragma once

// The MIG rows behind board.h, made from data/mig-profiles.yaml by tools/gen_board_profiles.py.

#include <span>
#include <string_view>

#include "gpu/board.h"

namespace gpuslice::gpu {

struct ProfileTable {
  std::string_view key;
  std::span<const Profile> profiles;
};
[[nodiscard]] std::span<const ProfileTable> profile_tables();

// A board that exists, but some of whose numbers nobody has published.
struct UnknownBoard {
  std::string_view key;
  std::string_view name;
  std::string_view missing;
};
[[nodiscard]] std::span<const UnknownBoard> unknown_boards();

}  // namespace gpuslice::gpu
