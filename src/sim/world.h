#pragma once

// One world, many processes, no daemon.
//
// <root>/world/state is one file that everybody maps: a header and two copies of a State. The
// parity of the header's sequence says which copy is the world. A writer takes an
// open-file-description lock (the kernel lets go of it when the process dies), copies the world to
// private memory, changes it, stores it word by word over the *other* copy with its checksum, and
// publishes it by storing the next sequence (release). A writer killed anywhere before that store
// leaves the last whole world; after it, the new one. What it did not finish in the trees under
// <root>, the next one who attaches or writes does: the header remembers which trees were made
// last.
//
// A reader keeps an immutable private State and copies anew only when the shared sequence has
// moved.
//
// Thread-safe, and safe across fork: a child reads on, writes through a lock of its own, and is not
// attached until it attaches. Nothing here throws; a file that is not whole is refused with
// kCorrupt and a sentence that names the file, the cause and the next step.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/result.h"
#include "sim/clients.h"
#include "sim/state.h"

namespace gpuslice::sim {

struct GpuOptions {
  std::string board;  // as gpu::find_board() takes it: "A100-SXM4-40GB"
  Sweep sweep = Sweep::kPlain;
};

struct NodeOptions {
  std::vector<GpuOptions> gpus;  // 1..kMaxGpus
  std::string driver = "580.65.06";
  uint64_t seed = 1;
  bool virtual_clock = false;
  bool strict_clients = false;     // open instance handles of others block destroying
  bool passthrough = false;        // a VM: a mode change waits for a reboot
  bool max_mig_while_off = false;  // quirk of GetMaxMigDeviceCount
  bool keep_mig_mode = false;      // quirk: Hopper and newer keep their mode as Ampere does
};

// A fresh node of these options, running since `start_ns`. kImpossible / kUsage with a sentence.
[[nodiscard]] Result<State> make_state(const NodeOptions& options, int64_t start_ns);

// What else happens in a write, besides the change. Plain functions: they are called by whichever
// process writes. Any may be null.
struct WriteHooks {
  // Brings what runs by itself (energy, samples, work) up to node time `now`, before and after the
  // change.
  void (*settle)(State& state, int64_t now) = nullptr;
  // A number that changes exactly when the trees under <root> would.
  uint64_t (*tree_key)(const State& state) = nullptr;
  // Makes the trees so. Called under the lock, after publishing; every store announces itself with
  // abort_point(). An error (a walled-in writer) is no failure of the write: the next one mends.
  Status (*sync_trees)(const std::string& root, const State& state) = nullptr;
};
// Time and what runs by itself, up to now: the first and the last thing in a write.
void settle(const WriteHooks& hooks, State& state);
// Those of a real node: life.h, trees.h.
[[nodiscard]] WriteHooks node_hooks();

// A live client as this process may see it.
struct LiveClient {
  uint16_t slot = 0;
  int32_t pid = 0;  // in this process's PID namespace; 0: not visible
};

class World {
 public:
  // Makes <root>/world and the trees. kFailed when there is a world already.
  [[nodiscard]] static Result<std::unique_ptr<World>> create(const std::string& root,
                                                             const NodeOptions& options,
                                                             WriteHooks hooks = node_hooks());
  // kNotFound, kNoPermission, kCorrupt.
  [[nodiscard]] static Result<std::unique_ptr<World>> open(const std::string& root,
                                                           WriteHooks hooks = node_hooks());
  // A world of this process alone: no files, virtual clock from kVirtualEpochNs, clients by word.
  [[nodiscard]] static Result<std::unique_ptr<World>> in_memory(const NodeOptions& options,
                                                                WriteHooks hooks = node_hooks());

  virtual ~World() = default;
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // Empty for a world in memory.
  [[nodiscard]] virtual const std::string& root() const = 0;

  // The newest world. Never null. Around 50 ns when nothing changed. If the file went bad under us,
  // the last whole one; write() then tells.
  [[nodiscard]] virtual std::shared_ptr<const State> snapshot() const = 0;

  // Moves with every publication.
  [[nodiscard]] virtual uint64_t sequence() const = 0;

  // Sleeps until sequence() differs from `seen` or `timeout_ns` of real time have passed; no lock
  // is held and nothing is polled but once a second, for writers that were killed before they could
  // say. True when it differs.
  [[nodiscard]] virtual bool wait(uint64_t seen, int64_t timeout_ns) const = 0;

  // Runs `change` on a private copy of the newest world, in which dead clients are swept and time
  // has settled, and publishes the result, whatever `change` returned, if any byte differs.
  // `change` must not call this World. Returns what `change` returned, or why there was no write.
  template <class F>
  auto write(F&& change) {
    using Value = std::invoke_result_t<F, State&>;
    if constexpr (std::is_void_v<Value>) {
      return run_write([&](State& state) { change(state); });
    } else {
      std::optional<Value> value;
      Status status = run_write([&](State& state) { value.emplace(change(state)); });
      using Answer = Result<Value>;
      if (!status) return Answer(std::unexpected(std::move(status).error()));
      return Answer(*std::move(value));
    }
  }

  // Makes this process a client: takes a slot and holds its lock until detach() or death. The same
  // slot again if it is attached already; after a reboot of the node it is then attached to its
  // GPUs again. kUnavailable when all slots are taken.
  [[nodiscard]] virtual Result<uint16_t> attach(const NewClient& who) = 0;
  // This process as a client of its own name and pid, attached to these GPUs (a bit each): those
  // whose nodes it opens.
  [[nodiscard]] Result<uint16_t> attach(uint32_t gpus = 0xffffffff);
  virtual void detach() = 0;
  // The slot this very process holds (not its parent's), or nothing.
  [[nodiscard]] virtual std::optional<uint16_t> attached() const = 0;

  // Is the client in `slot` alive, and under which PID may this process see it? Nothing: dead or
  // free.
  [[nodiscard]] virtual std::optional<int32_t> holder(uint16_t slot) const = 0;
  // All that are alive, ascending by slot.
  [[nodiscard]] std::vector<LiveClient> live_clients(const State& state) const;

 protected:
  World() = default;
  // Lock, copy, sweep, settle, `change`, settle, store, publish, trees.
  [[nodiscard]] virtual Status run_write(const std::function<void(State&)>& change) = 0;
};

// For worlds in memory: a process that exists by word. It dies with kill_client().
[[nodiscard]] Result<uint16_t> add_simulated_client(World& world, int32_t pid,
                                                    std::string_view name);
Status kill_client(World& world, uint16_t slot);

}  // namespace gpuslice::sim
