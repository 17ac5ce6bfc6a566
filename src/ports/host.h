#pragma once

// The machine as the agent needs it: files and the clock. Files are small and local (configuration,
// ledger, last good configuration); calls may take a disk's time and nothing else. Called on T0.

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace gpuslice::ports {

class HostFiles {
 public:
  virtual ~HostFiles() = default;
  // kNotFound, kNoPermission, kInvalidConfig when longer than `most` bytes.
  [[nodiscard]] virtual Result<std::string> read(const std::string& path, size_t most) = 0;
  // Old or new, never between, also after a power cut when `durable` (fsync of file and folder).
  // Folders above are made.
  [[nodiscard]] virtual Status write_atomic(const std::string& path, const std::string& text,
                                            bool durable) = 0;
  // Names this life of the machine (/proc/sys/kernel/random/boot_id below the driver root).
  [[nodiscard]] virtual Result<std::string> boot_id() = 0;
  [[nodiscard]] virtual bool exists(const std::string& path) = 0;
  // Gone for good, also after a power cut when `durable`; that it is not there is no failure.
  [[nodiscard]] virtual Status remove(const std::string& path, bool durable) = 0;
  // The names in a folder, sorted; empty where there is no such folder.
  [[nodiscard]] virtual Result<std::vector<std::string>> list(const std::string& folder) = 0;
};

// One writer at a time, across processes. A lock falls with its process.
class Locks {
 public:
  class Held {
   public:
    virtual ~Held() = default;
  };
  virtual ~Locks() = default;
  // Does not wait. kInUse: "busy, by PID 4242, since 2026-11-24T10:00:00Z".
  [[nodiscard]] virtual Result<std::unique_ptr<Held>> take(const std::string& path) = 0;
};

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual MonotonicTime now() const = 0;
  [[nodiscard]] virtual WallTime wall() const = 0;
};

// Lets time pass. Not on T0.
class Pause {
 public:
  virtual ~Pause() = default;
  virtual void wait(Duration duration) = 0;
};

}  // namespace gpuslice::ports
