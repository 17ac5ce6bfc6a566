#pragma once

// A client that knows no protocol, for fuzz targets of our doors: it says bytes and listens. Only
// for tests.

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "base/unique_fd.h"

namespace gpuslice {

// How an input is said: of its first byte the low four bits are the pieces that it comes in, one
// for 0; the next is set where the client ends its side at once, and the next where it does not
// hang up.
struct Stranger {
  size_t pieces = 1;
  bool ends = false;
  bool stays = false;
  std::string_view bytes;

  explicit Stranger(std::string_view input) {
    if (input.empty()) return;
    const auto how = static_cast<unsigned char>(input.front());
    pieces = std::max<size_t>(how & 15U, 1);
    ends = (how & 16U) != 0;
    stays = (how & 32U) != 0;
    bytes = input.substr(1);
  }

  // What came back until the other side ended or was silent for `quiet_ms`.
  [[nodiscard]] std::string talk(const UniqueFd& connection, int quiet_ms) const {
    const size_t piece = bytes.size() / pieces + 1;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      const std::string_view part = bytes.substr(at, piece);
      if (::send(connection.get(), part.data(), part.size(), MSG_NOSIGNAL) < 0) break;
    }
    if (ends) ::shutdown(connection.get(), SHUT_WR);
    std::string heard;
    char buffer[16 * 1024];
    pollfd look{connection.get(), POLLIN, 0};
    while (::poll(&look, 1, quiet_ms) > 0) {
      const ssize_t got = ::recv(connection.get(), buffer, sizeof buffer, 0);
      if (got <= 0) break;
      heard.append(buffer, static_cast<size_t>(got));
    }
    return heard;
  }
};

}  // namespace gpuslice
