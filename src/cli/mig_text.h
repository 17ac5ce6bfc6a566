#pragma once

// What the MIG verbs print: plans drawn as boards, results, and what there is. Pure.

#include <string>
#include <vector>

#include "cli/format.h"
#include "mig/change.h"

namespace gpuslice::cli {

// One GPU of a label, read and decided.
struct GpuDecision {
  mig::GpuState state;
  bool needs_reset = false;  // a change of the mode resets this GPU
  mig::Wish wish;
  mig::Decision decision;
  [[nodiscard]] bool changes() const { return !decision.plan || !decision.plan->nothing_to_do(); }
};

// `gpuslice plan`.
[[nodiscard]] std::string plan_text(const std::string& label, const std::vector<GpuDecision>& gpus);
[[nodiscard]] std::string plan_json(const std::string& label, const std::vector<GpuDecision>& gpus,
                                    const std::vector<std::string>& warnings, Format format);
// `gpuslice diff`: only what differs.
[[nodiscard]] std::string diff_text(const std::vector<GpuDecision>& gpus);

// `gpuslice apply`, `restore`.
[[nodiscard]] std::string report_text(const std::vector<mig::Report>& reports);
[[nodiscard]] std::string report_json(const std::vector<mig::Report>& reports, Format format);

// `gpuslice list …`.
struct CiListing {
  uint32_t gpu = 0;
  GiId gi;
  std::vector<ports::CiProfile> profiles;
};
[[nodiscard]] std::string list_profiles(const std::vector<mig::GpuState>& gpus, Format format);
[[nodiscard]] std::string list_placements(const std::vector<mig::GpuState>& gpus, Format format);
[[nodiscard]] std::string list_layouts(const std::vector<mig::GpuState>& gpus, bool all,
                                       Format format);
[[nodiscard]] std::string list_instances(const std::vector<mig::GpuState>& gpus, Format format);

}  // namespace gpuslice::cli
