#pragma once

// Why a wish cannot be fulfilled, in one sentence: the first rule that it breaks, or, if it breaks
// none by itself, what the exhaustive search found in the way.

#include <span>

#include "plan/planner.h"

namespace gpuslice::plan {

[[nodiscard]] Impossible explain_impossible(const Offer& offer, std::span<const Gi> there,
                                            std::span<const WantedGi> wanted);

}  // namespace gpuslice::plan
