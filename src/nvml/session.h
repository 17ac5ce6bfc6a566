#pragma once

// The port Nvml over the driver's own library: a session that is opened, asked and closed again
// within milliseconds.
//
// A function that the library lacks answers as if the driver did not support it. What one GPU does
// not support is left empty; a GPU that fell off the bus is an error of that GPU alone. Every error
// names the object, the call and NVML's words and code. Not thread-safe; all calls block as long as
// the driver does.

#include <memory>
#include <string>

#include "ports/nvml.h"

namespace gpuslice::nvml {

// What NVML's return code means to us.
[[nodiscard]] Code code_of_return(int nvml_return);

class Session final : public ports::Nvml {
 public:
  // `root`: where the driver's files lie, "/" for the machine's own.
  explicit Session(std::string root);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() override;

  [[nodiscard]] Status open() override;
  void close() override;
  [[nodiscard]] Result<ports::DriverInfo> driver() override;
  [[nodiscard]] Result<uint32_t> gpu_count() override;
  [[nodiscard]] Result<ports::Gpu> gpu(GpuIndex index, ports::Detail detail) override;

 private:
  class Impl;
  std::string root_;
  std::unique_ptr<Impl> impl_;  // while open
};

}  // namespace gpuslice::nvml
