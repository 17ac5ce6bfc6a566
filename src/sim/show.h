#pragma once

// The world as JSON: the oracle that tests compare everything else with (`gpuslice-sim show -o
// json`). The same State and the same liveness give the same bytes; processes that are dead do not
// show.
//
//   driver, seed, bootId, boots, driverReloads   of the node; time: nanoseconds since 1970, node
//   time gpus[]: index, uuid, name, minor, visible (to the asker), lost, resetRequired, resets,
//   generation
//     migMode: {current, pending}
//     gpuInstances[]: id, profile, profileId, placement {start, size}, generation
//       computeInstances[]: id, profile, placement, generation, uuid, clients
//     clients[] (here: who works on the whole GPU): pid, startTime, memoryMiB, activity 0..1
//     attached[]: who has NVML open on it: pid, startTime, name, events, handles [{gi, ci}]
//     calls: {createGi, destroyGi, createCi, destroyCi, setMigMode, reset}: {ok, failed}
//
// A pid is the asker's number for the process, 0 where it cannot be seen from here; startTime is
// field 22 of /proc/<pid>/stat. A generation is never given twice in the life of a node, across
// reboots too; calls counts since the node was made.

#include <cstdint>
#include <functional>
#include <string>

#include "sim/world.h"

namespace gpuslice::sim {

// Whether the asker sees GPU `index` through its device nodes. Empty: all are visible.
using Visible = std::function<bool(const State& state, uint32_t index)>;

// The newest world, without the dead; ends with a newline.
[[nodiscard]] std::string show_json(const World& world, const Visible& visible = {});

}  // namespace gpuslice::sim
