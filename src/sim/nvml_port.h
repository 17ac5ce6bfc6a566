#pragma once

// The ports Nvml, Mig and GpuReset straight over a World: for tests that run the agent and the
// executor in one process, in virtual time, with a fault or the end of the process at any call.

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "ports/mig.h"
#include "ports/nvml.h"
#include "sim/world.h"

namespace gpuslice::sim {

class WorldNvml final : public ports::Nvml, public ports::Mig, public ports::GpuReset {
 public:
  // Called around each call of a port, with its name ("create_gi") and the GPU's UUID (empty where
  // it concerns none). What `before` returns is the answer instead of the call; `after` may change
  // the answer of a call that took effect. Either may throw: then the caller has died there.
  struct Hooks {
    std::function<std::optional<Error>(std::string_view call, const std::string& gpu)> before;
    std::function<std::optional<Error>(std::string_view call, const std::string& gpu)> after;
  };

  explicit WorldNvml(World& world, bool admin = true) : world_(world), admin_(admin) {}
  void set_hooks(Hooks hooks) { hooks_ = std::move(hooks); }
  // Calls of the ports so far, those that a hook answered included.
  [[nodiscard]] uint64_t calls() const { return calls_; }
  // For hooks: the GPU instance that the present call is about.
  [[nodiscard]] std::optional<GiId> instance_of_call() const { return instance_; }
  [[nodiscard]] std::optional<CiId> compute_instance_of_call() const { return compute_instance_; }

  [[nodiscard]] Status open() override;
  void close() override;
  [[nodiscard]] Result<ports::DriverInfo> driver() override;
  [[nodiscard]] Result<uint32_t> gpu_count() override;
  [[nodiscard]] Result<ports::Gpu> gpu(GpuIndex index, ports::Detail detail) override;

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
  [[nodiscard]] Status reset(const std::string& bus_id) override;

 private:
  // `work` between the hooks; it answers by a Ret.
  template <class F>
  [[nodiscard]] Status run(std::string_view call, const std::string& gpu, F&& work);
  // The GPU of `uuid` in `state`, which answers.
  template <class F>
  [[nodiscard]] Status on_gpu(std::string_view call, const std::string& uuid, F&& work);

  World& world_;
  bool admin_;
  Hooks hooks_;
  uint64_t calls_ = 0;
  std::optional<GiId> instance_;
  std::optional<CiId> compute_instance_;
};

}  // namespace gpuslice::sim
