#pragma once

// The address of a Unix socket.

#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <optional>
#include <string_view>

namespace gpuslice {

// Nothing: sun_path has 108 bytes with the terminating zero, and the path is longer.
[[nodiscard]] inline std::optional<sockaddr_un> unix_address(std::string_view path) {
  sockaddr_un address{};
  if (path.size() >= sizeof address.sun_path) return std::nullopt;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

}  // namespace gpuslice
