// What a real node's writes do besides the change.

#include "sim/world.h"

namespace gpuslice::sim {

WriteHooks node_hooks() { return {}; }

}  // namespace gpuslice::sim
