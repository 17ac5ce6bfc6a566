#pragma once

// The port Mig over the driver's functions. Lives within one open session.

#include <optional>
#include <string>
#include <vector>

#include "nvml/calls.h"
#include "ports/mig.h"

namespace gpuslice::nvml {

class MigCalls {
 public:
  explicit MigCalls(Calls& calls) : calls_(calls) {}

  [[nodiscard]] Result<ports::MigMode> mode(const std::string& uuid);
  [[nodiscard]] Result<bool> mode_needs_reset(const std::string& uuid);
  [[nodiscard]] Result<ports::GiProfiles> gi_profiles(const std::string& uuid);
  [[nodiscard]] Result<uint32_t> gi_free(const std::string& uuid, ProfileId profile);
  [[nodiscard]] Result<std::vector<ports::CiProfile>> ci_profiles(const std::string& uuid, GiId gi);
  [[nodiscard]] Result<std::vector<ports::GpuInstance>> instances(const std::string& uuid);
  [[nodiscard]] Result<std::vector<ports::Process>> processes(const std::string& uuid);
  [[nodiscard]] Result<ports::Activation> set_mode(const std::string& uuid, bool on);
  [[nodiscard]] Result<GiId> create_gi(const std::string& uuid, ProfileId profile,
                                       std::optional<gpu::Placement> placement);
  [[nodiscard]] Status destroy_gi(const std::string& uuid, GiId gi);
  [[nodiscard]] Result<CiId> create_ci(const std::string& uuid, GiId gi, ProfileId profile,
                                       std::optional<gpu::Placement> placement);
  [[nodiscard]] Status destroy_ci(const std::string& uuid, GiId gi, CiId ci);

 private:
  struct OneGpu {
    api::Device handle = nullptr;
    std::string object;  // "GPU 3"
  };
  struct OneGi {
    OneGpu gpu;
    api::Instance handle = nullptr;
    std::string object;  // "GPU 3, GPU instance 7"
  };
  [[nodiscard]] Result<OneGpu> gpu(const std::string& uuid);
  [[nodiscard]] Result<OneGi> gi(const std::string& uuid, GiId id);
  // A field value as a number; nothing where the driver does not tell.
  [[nodiscard]] std::optional<unsigned> field(const OneGpu& gpu, unsigned id);
  // device << 16 | vendor; 0 where the driver does not say.
  [[nodiscard]] unsigned pci_device(const OneGpu& gpu);
  [[nodiscard]] Result<std::vector<ports::GiProfile>> listed_profiles(const OneGpu& gpu,
                                                                      bool& consistent);
  [[nodiscard]] Result<ports::GpuInstance> read_gi(const OneGpu& gpu, api::Instance handle);

  Calls& calls_;
};

}  // namespace gpuslice::nvml
