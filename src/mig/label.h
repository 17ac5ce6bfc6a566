#pragma once

// From a label of a configuration to what is wanted of each GPU of this node.

#include <map>
#include <string>
#include <vector>

#include "config/mig_parted.h"
#include "mig/wish.h"
#include "ports/nvml.h"

namespace gpuslice::mig {

struct NodeWish {
  std::map<uint32_t, Wish> gpus;  // by index; a GPU that no entry names is left as it is
  std::vector<std::string> warnings;
};

// The label to take: `asked`, or the only one. kInvalidConfig names those that there are, and the
// nearest.
[[nodiscard]] Result<std::string> choose_label(const config::MigPartedConfig& config,
                                               const std::string& asked, const std::string& file);

// kInvalidConfig: the label names no GPU that is there; kImpossible: it wants MIG on a board that
// has none. Two entries on one GPU: the last counts, with a warning.
[[nodiscard]] Result<NodeWish> wish_of_label(const config::MigLabel& label, const std::string& name,
                                             const std::vector<ports::Gpu>& gpus,
                                             const std::string& file);

}  // namespace gpuslice::mig
