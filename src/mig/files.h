#pragma once

// Configurations that are written rather than read: what is there (export) and what could be there
// (generate-config).

#include <string>
#include <vector>

#include "mig/wish.h"

namespace gpuslice::mig {

enum class FileForm { kYaml, kJson };

struct Exported {
  std::string text;
  std::vector<std::string> warnings;  // what this format cannot say
};
// GPUs with equal layouts share an entry. `placements`: where each lies is written too.
[[nodiscard]] Exported export_config(const std::vector<GpuState>& gpus, const std::string& label,
                                     FileForm form, bool placements,
                                     const std::vector<uint32_t>& pci_ids);

// all-disabled, all-enabled, all-<profile> with as many as fit, all-balanced. `pci_ids`: of each
// GPU's board; filters are written where boards differ.
[[nodiscard]] std::string generate_config(const std::vector<GpuState>& gpus,
                                          const std::vector<uint32_t>& pci_ids, FileForm form);

}  // namespace gpuslice::mig
