#pragma once

// The other end of a LocalServer: a program that asks the agent of this machine. Blocks, within
// bounds.

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/time.h"
#include "base/unique_fd.h"

namespace gpuslice::host {

// A longer answer is not taken.
inline constexpr size_t kMaxLocalAnswerBytes = 64 * 1024 * 1024;

class LocalClient {
 public:
  // Nothing: nobody listens there (no such file, or one that was left behind). kNoPermission: not
  // for this user. kTimeout: so many wait there already. kFailed.
  [[nodiscard]] static Result<std::optional<LocalClient>> connect(const std::string& path);

  // Sends `line` and waits for the answer, without its line's end. kTimeout: not within `patience`;
  // kUnavailable: it closed the connection instead; kCorrupt: too long.
  [[nodiscard]] Result<std::string> ask(const std::string& line, Duration patience);

 private:
  LocalClient(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  UniqueFd fd_;
};

}  // namespace gpuslice::host
