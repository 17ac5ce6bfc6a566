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
#include <vector>

#include "nvml/calls.h"
#include "ports/mig.h"
#include "ports/nvml.h"

namespace gpuslice::nvml {

class MigCalls;

class Session final : public ports::Nvml, public ports::Mig {
 public:
  // `root`: where the driver's files lie, "/" for the machine's own.
  explicit Session(std::string root);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() override;
  // See CallWatch. Outlives the session; set before it is opened.
  void set_watch(CallWatch* watch) { watch_ = watch; }

  [[nodiscard]] Status open() override;
  void close() override;
  [[nodiscard]] Result<ports::DriverInfo> driver() override;
  [[nodiscard]] Result<uint32_t> gpu_count() override;
  [[nodiscard]] Result<ports::Gpu> gpu(GpuIndex index, ports::Detail detail) override;

  // How near these GPUs are to each other; some forty calls for each.
  [[nodiscard]] ports::Topology topology(const std::vector<GpuIndex>& gpus);

  [[nodiscard]] Result<ports::MigMode> mig_mode(const std::string& gpu) override;
  [[nodiscard]] Result<bool> mode_needs_reset(const std::string& gpu) override;
  [[nodiscard]] Result<ports::GiProfiles> gi_profiles(const std::string& gpu) override;
  [[nodiscard]] Result<uint32_t> gi_free(const std::string& gpu, ProfileId profile) override;
  [[nodiscard]] Result<std::vector<ports::CiProfile>> ci_profiles(const std::string& gpu,
                                                                  GiId gi) override;
  [[nodiscard]] Result<std::vector<ports::GpuInstance>> instances(const std::string& gpu) override;
  [[nodiscard]] Result<std::vector<ports::Process>> processes(const std::string& gpu) override;
  [[nodiscard]] Result<ports::Activation> set_mig_mode(const std::string& gpu, bool on) override;
  [[nodiscard]] Result<GiId> create_gi(const std::string& gpu, ProfileId profile,
                                       std::optional<gpu::Placement> placement) override;
  [[nodiscard]] Status destroy_gi(const std::string& gpu, GiId gi) override;
  [[nodiscard]] Result<CiId> create_ci(const std::string& gpu, GiId gi, ProfileId profile,
                                       std::optional<gpu::Placement> placement) override;
  [[nodiscard]] Status destroy_ci(const std::string& gpu, GiId gi, CiId ci) override;

 private:
  class Impl;
  [[nodiscard]] Status opened() const;

  std::string root_;
  CallWatch* watch_ = nullptr;
  std::unique_ptr<Impl> impl_;  // while open
};

}  // namespace gpuslice::nvml
