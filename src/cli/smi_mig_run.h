#pragma once

// One run of `smi mig`, `smi -mig` or `smi --gpu-reset`: for smi_mig*.cc only.

#include <memory>
#include <string>
#include <vector>

#include "cli/smi_mig.h"
#include "cli/smi_mig_list.h"
#include "ports/nvml_answer.h"

namespace gpuslice::cli {

// NVML's code and words: the driver's own, else what it would have said.
[[nodiscard]] ports::NvmlAnswer smi_answer_of(const Error& error);

constexpr int kNotFoundExit = 6;

class SmiMigRun {
 public:
  // `node` outlives it.
  SmiMigRun(const SmiMigRequest& request, const NodeView& node, const SmiMigPorts& ports);

  // Each gives the exit code.
  int lists();
  int create_gis();
  int create_cis();
  int destroy(bool gis);
  int mode();
  int reset();

 private:
  using Gpu = ports::Gpu;

  void out(const std::string& text) const { ports_.out(text + "\n"); }
  void hint(const std::string& text) const { ports_.hint(text); }
  [[nodiscard]] std::vector<const Gpu*> with_mig() const;
  [[nodiscard]] bool wants_gi(GiId gi) const;
  [[nodiscard]] bool wants_ci(CiId ci) const;
  [[nodiscard]] Result<std::unique_ptr<ports::Locks::Held>> lock(const Gpu& gpu) const;
  static std::string name(const Gpu& gpu);
  // "Failed to <what>: <words>", "No <what> found: Not Found", "No MIG-enabled devices found.";
  // each gives its exit code.
  int failed(std::string_view what, const Error& error) const;
  int none(std::string_view what) const;
  // Nothing to list is no failure (0); nothing to change is one.
  int no_mig(int code = kNotFoundExit) const;
  void tell_root(const Error& error) const;
  // Who uses a GPU, or one of its instances, as a hint.
  void tell_holders(const Gpu& gpu, std::optional<GiId> gi) const;

  Result<std::vector<GiProfileRow>> gi_profiles_of(const Gpu& gpu, bool free) const;
  Result<std::vector<GiProfileRow>> gi_profiles(bool free) const;
  Result<std::vector<GiRow>> gis() const;
  Result<std::vector<CiProfileRow>> ci_profiles() const;
  int create_gis_on(const Gpu& gpu);
  int no_gi(const Gpu& gpu, const std::string& profile, const Error& error) const;
  int create_ci(const Gpu& gpu, GiId gi, const std::optional<SmiMigRequest::Profile>& wanted) const;
  int no_ci(const Gpu& gpu, GiId gi, const std::string& profile, const Error& error) const;
  int destroy_gi(const Gpu& gpu, const ports::GpuInstance& gi) const;
  int destroy_ci(const Gpu& gpu, GiId gi, CiId ci) const;
  bool mode_of(const Gpu& gpu, int& code);
  Status reset_gpu(const Gpu& gpu) const;
  void pending(const Gpu& gpu, ports::Activation why) const;

  const SmiMigRequest& request_;
  const SmiMigPorts& ports_;
  std::vector<const Gpu*> chosen_;
};

}  // namespace gpuslice::cli
