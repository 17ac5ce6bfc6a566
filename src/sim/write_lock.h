#pragma once

// The lock that one writer of a world holds: an open-file-description lock on the first byte of the
// world file. The file is opened for this one write, so that every writer, thread or process, has a
// description of its own, and the kernel lets go when the process dies, whatever its PID namespace.

#include <cstddef>
#include <string>

#include "base/result.h"

namespace gpuslice::sim {

class WriteLock {
 public:
  WriteLock() = default;
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;
  ~WriteLock();

  // Waits for the lock of the file at `path`, which must exist. kNotFound, kNoPermission, kFailed;
  // kUnavailable when this process holds too many already.
  [[nodiscard]] Status take(const std::string& path);

  // The descriptor while the lock is held.
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_ = -1;
  size_t at_ = 0;  // where the descriptor is written down for the fork handler
};

}  // namespace gpuslice::sim
