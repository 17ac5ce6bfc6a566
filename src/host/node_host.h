#pragma once

// The ports HostFiles and Clock on the real machine.

#include <string>
#include <utility>

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

 private:
  std::string root_;
};

class SystemClock final : public ports::Clock {
 public:
  [[nodiscard]] MonotonicTime now() const override;
  [[nodiscard]] WallTime wall() const override;
};

}  // namespace gpuslice::host
