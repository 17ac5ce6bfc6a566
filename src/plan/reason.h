#pragma once

// Why a wish cannot be fulfilled, in one sentence: the first rule that it breaks, or, if it breaks
// none by itself, what the exhaustive search found in the way.

#include <span>

#include "plan/planner.h"

namespace gpuslice::plan {

// `room`: what could be made if busy instances made room for it (make_room_plan()); null: nothing.
[[nodiscard]] Impossible explain_impossible(const Offer& offer, std::span<const Gi> there,
                                            std::span<const WantedGi> wanted, const Plan* room);

}  // namespace gpuslice::plan
