#pragma once

// The whole simulated node as one value: trivially copyable, of fixed size, without pointers. It is
// what lies in the shared file (twice, see world.h), what a reader holds as an immutable snapshot,
// and what every function of mig.h, life.h, faults.h and events.h takes. It has no behaviour.
//
// A value-initialised State is an empty node. Fields are written only under World::write().
// Times are node time in nanoseconds (clock.h); memory is bytes unless a name says otherwise.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "sim/event_ring.h"
#include "sim/fault_table.h"
#include "sim/life_state.h"
#include "sim/limits.h"

namespace gpuslice::sim {

// Which slots of a board were fused off, as far as it shows: in the placements that are reported
// and in which of them the driver takes first (default_placement.h).
enum class Sweep : uint8_t {
  kPlain = 0,     // slot 7 is dead: GI id and start agree (1 + start/4, 3 + start/2, 7 + start)
  kMirrored = 1,  // slot 3 is dead: starts are reported shifted by half the board
  kSwept = 2,     // as plain, but slot 2 is taken first: an H100 PCIe whose first 1g was GI 9
};

struct Ci {
  uint8_t live = 0;
  uint8_t profile = 0;  // NVML's enum of compute instance profiles, not the id
  uint8_t start = 0;    // compute slices inside the GI
  uint8_t size = 0;
  uint8_t compute_mode = 0;  // NVML's enum; settable on the MIG handle
  uint8_t pad_[3] = {};
  uint64_t generation = 0;  // of Node::next_generation, never given twice
};

struct Gi {
  uint8_t live = 0;
  uint8_t profile = 0;  // index into gpu::Board::profiles
  uint8_t start = 0;    // memory units of the board, as NVML reports it
  uint8_t size = 0;
  uint8_t pad_[4] = {};
  uint64_t generation = 0;
  int64_t created_ns = 0;
  Ci cis[kMaxCis];  // the index is the CI id
};

struct CallCount {
  uint64_t ok = 0;
  uint64_t failed = 0;
};

// What all processes asked of a GPU since the node was made; faults that struck are counted too.
struct CallCounts {
  CallCount create_gi, destroy_gi, create_ci, destroy_ci, set_mig_mode, reset;
};

struct Gpu {
  uint16_t board = 0;  // index into gpu::boards()
  uint8_t minor = 0;   // N of /dev/nvidiaN
  uint8_t lost = 0;    // fallen off the bus: every call answers GPU_IS_LOST
  uint8_t reset_required = 0;
  uint8_t mig_current = 0;
  uint8_t mig_pending = 0;
  Sweep sweep = Sweep::kPlain;

  uint8_t persistence_mode = 0;  // 0, 1
  uint8_t compute_mode = 0;      // NVML's enum, of the whole GPU
  uint8_t ecc_current = 1;
  uint8_t ecc_pending = 1;
  uint8_t pad_[4] = {};

  uint16_t chip_id = 0;
  uint8_t pad4_[2] = {};
  uint32_t pci_domain = 0;
  uint8_t pci_bus = 0;
  uint8_t pci_device = 0;
  uint8_t numa_node = 0;
  uint8_t pad2_ = 0;
  uint32_t power_limit_mw = 0;  // 0: the board's default
  uint64_t pdi = 0;             // the number that the UUID is derived from
  char uuid[48] = {};           // "GPU-…", NUL-terminated

  // Application and locked clocks in MHz, 0: not set.
  uint32_t app_graphics_mhz = 0;
  uint32_t app_memory_mhz = 0;
  uint32_t locked_graphics_min_mhz = 0;
  uint32_t locked_graphics_max_mhz = 0;
  uint32_t locked_memory_min_mhz = 0;
  uint32_t locked_memory_max_mhz = 0;

  uint32_t resets = 0;  // since the node was made
  uint32_t pad3_ = 0;
  uint64_t generation = 0;  // anew with every reset, reboot and driver reload: stale handles differ
  CallCounts calls;
  Gi gis[kMaxGis];  // the index is the GI id
};

// A process that has NVML open. Its slot's byte in the lock file is held by that process
// (clients.h); when the lock is free the process is gone, and the next writer clears the slot and
// what hangs on it.
struct Client {
  uint8_t used = 0;
  uint8_t simulated = 0;  // in-memory worlds: alive by word, not by lock
  uint8_t alive = 0;      // meant for simulated ones
  uint8_t pad_[1] = {};
  int32_t pid = 0;             // in the process's own PID namespace
  uint32_t attached_gpus = 0;  // bit per GPU index: NVML is open on it
  uint32_t event_gpus = 0;     // bit per GPU index: an event set watches it
  uint64_t start_ticks = 0;    // field 22 of /proc/<pid>/stat: with pid, names a process
  uint64_t image = 0;          // which exec of that process
  uint64_t generation = 0;     // of this use of the slot
  int64_t attached_ns = 0;
  char name[kClientName] = {};  // argv[0]'s last part, NUL-terminated
};

// A process holds an instance: an open handle of a monitoring tool. Counts only on strict nodes.
struct Subscription {
  uint8_t used = 0;
  uint8_t gpu = 0;
  uint8_t gi = 0;
  uint8_t ci = kNone;  // kNone: the GI itself
  uint16_t client = 0;
  uint16_t pad_ = 0;
};

enum class WorkKind : uint8_t { kCompute = 0, kGraphics = 1, kMps = 2 };

// A process computes on a GPU or on an instance: memory that it holds, and how busy it wants to be.
struct Work {
  uint8_t used = 0;
  uint8_t gpu = 0;
  uint8_t gi = kNone;  // kNone: the whole GPU
  uint8_t ci = kNone;
  uint16_t client = 0;
  WorkKind kind = WorkKind::kCompute;
  uint8_t pad_ = 0;
  uint32_t activity_permille = 0;
  uint32_t pad2_ = 0;
  uint64_t memory_bytes = 0;
  int64_t since_ns = 0;
};

struct ClockState {
  uint8_t is_virtual = 0;
  uint8_t pad_[7] = {};
  int64_t offset_ns = 0;   // real: added to CLOCK_BOOTTIME
  int64_t virtual_ns = 0;  // virtual: the time
  int64_t last_ns = 0;     // node time of the newest write; time never goes below it
};

struct Node {
  uint32_t gpu_count = 0;
  uint32_t boot_count = 0;   // reboots so far
  uint8_t boot_id[16] = {};  // as /proc/sys/kernel/random/boot_id, by seed and boot_count
  uint64_t seed = 0;
  uint64_t next_generation = 1;  // never goes back, across reboots too
  int64_t booted_ns = 0;
  int64_t created_ns = 0;
  uint8_t driver_loaded = 0;
  uint8_t strict_clients = 0;  // open instance handles of others block destroying, as on hardware
  uint8_t passthrough = 0;     // a VM: a mode change waits for a reboot, no resets
  uint8_t max_mig_while_off = 0;  // quirk: GetMaxMigDeviceCount answers the ceiling with MIG off
  uint32_t driver_reloads = 0;
  uint8_t keep_mig_mode = 0;  // quirk: every board keeps its mode over resets and reboots
  uint8_t pad_[7] = {};
  char driver[kDriverName] = {};  // "580.65.06"
  ClockState clock;
};

struct State {
  Node node;
  Gpu gpus[kMaxGpus];
  Client clients[kMaxClients];
  Subscription subscriptions[kMaxSubscriptions];
  Work works[kMaxWorks];
  LifeState life;
  FaultTable faults;
  EventRing events;
};

static_assert(std::is_trivially_copyable_v<State>);
static_assert(std::has_unique_object_representations_v<Gpu> &&
                  std::has_unique_object_representations_v<Client> &&
                  std::has_unique_object_representations_v<Work> &&
                  std::has_unique_object_representations_v<Node>,
              "no hidden padding: the bytes are compared and summed");
static_assert(sizeof(State) <= kMaxStateBytes, "a write copies and sums all of it");
static_assert(alignof(State) <= 8);

}  // namespace gpuslice::sim
