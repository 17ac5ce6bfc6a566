#pragma once

// The ports HostFiles, Locks, Clock and Pause on the real machine.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ports/host.h"

namespace gpuslice::host {

class NodeFiles final : public ports::HostFiles {
 public:
  // `root`: where the driver's files lie; a simulated node's boot id lies there as well.
  explicit NodeFiles(std::string root) : root_(std::move(root)) {}

  [[nodiscard]] Result<std::string> read(const std::string& path, size_t most) override;
  [[nodiscard]] Status write_atomic(const std::string& path, const std::string& text,
                                    bool durable) override;
  [[nodiscard]] Result<std::string> boot_id() override;
  [[nodiscard]] bool exists(const std::string& path) override;
  [[nodiscard]] Status remove(const std::string& path, bool durable) override;
  [[nodiscard]] Result<std::vector<std::string>> list(const std::string& folder) override;

 private:
  std::string root_;
};

// Open-file-description locks: they fall with their process, whatever its PID namespace.
class FileLocks final : public ports::Locks {
 public:
  [[nodiscard]] Result<std::unique_ptr<Held>> take(const std::string& path) override;
};

// Whether another process holds a lock among the files "*.lock" of `folder`. Waits for nobody.
[[nodiscard]] bool locked_by_others(const std::string& folder);

class SystemPause final : public ports::Pause {
 public:
  void wait(Duration duration) override;
};

class SystemClock final : public ports::Clock {
 public:
  [[nodiscard]] MonotonicTime now() const override;
  [[nodiscard]] WallTime wall() const override;
};

}  // namespace gpuslice::host
