// What a real node's writes do besides the change.

#include "sim/life.h"
#include "sim/trees.h"
#include "sim/world.h"

namespace gpuslice::sim {

WriteHooks node_hooks() {
  return {.settle = settle, .tree_key = tree_key, .sync_trees = sync_trees};
}

}  // namespace gpuslice::sim
