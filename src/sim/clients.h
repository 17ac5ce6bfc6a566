#pragma once

// Who is alive. The file <root>/world/clients has one byte per client slot; a process that is
// attached holds a classic POSIX lock (fcntl F_SETLK) on its byte. Such a lock is not inherited by
// fork, falls with its process whatever its PID namespace, and F_GETLK names the holder's PID in
// the asker's own namespace (0 where it cannot be seen): just what a driver shows of processes.
//
// A process loses all its classic locks on a file when it closes *any* descriptor of it. Therefore
// a process has one descriptor per lock file, kept in a process-wide table and never closed; all
// worlds of the process on that node share it. The child of a fork holds none of its parent's
// slots, and learns that here.
//
// The pure functions below work on a State's client table; they are called inside World::write().
// Thread-safe where nothing else is said.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "sim/state.h"

namespace gpuslice::sim {

// The file's length in bytes, one per slot.
inline constexpr uint64_t kClientFileBytes = kMaxClients;

// What this process is called among clients: (pid, start) names a process for good, `image` which
// of its execs: locks do not outlive an exec, so what the image before held is dead.
struct ProcessId {
  int32_t pid = 0;
  uint64_t start_ticks = 0;  // field 22 of /proc/self/stat; 0 where there is no /proc
  uint64_t image = 0;        // of the random bytes that the kernel gives to each exec
  friend bool operator==(const ProcessId&, const ProcessId&) = default;
};
[[nodiscard]] ProcessId this_process();
// The last part of argv[0].
[[nodiscard]] std::string process_name();

// How often this process is the child of a fork. A number remembered from before a fork differs.
[[nodiscard]] uint32_t fork_depth();

class ClientLocks {
 public:
  // The process's lock table of the file at `path`; opened at the first call, shared after that.
  // kNotFound, kNoPermission, kCorrupt (wrong size) as sentences.
  [[nodiscard]] static Result<ClientLocks*> of(const std::string& path);

  // Takes the byte of `slot`; false when somebody else (or this process) holds it.
  [[nodiscard]] bool take(uint16_t slot);
  // Gives the byte of `slot` back.
  void give(uint16_t slot);
  // True when this very process (not its parent) holds `slot`.
  [[nodiscard]] bool mine(uint16_t slot) const;

  // Who holds `slot`: nothing when nobody does; else the PID as this process may see it, 0 if not.
  [[nodiscard]] std::optional<int32_t> holder(uint16_t slot) const;

 private:
  struct Impl;
  explicit ClientLocks(Impl* impl) : impl_(impl) {}
  Impl* impl_;  // lives as long as the process
};

// --- pure, on a State ---

[[nodiscard]] ProcessId process_of(const Client& client);

// A free slot, or kNoClient when all kMaxClients are used.
[[nodiscard]] uint16_t free_client_slot(const State& state);

struct NewClient {
  ProcessId process;
  std::string_view name;
  uint32_t attached_gpus = 0xffffffff;  // bits beyond the node's GPUs are dropped
  bool simulated = false;
};
// Marks the client of `slot` as attached to these GPUs too (after a reboot of the node it was not).
void attach_gpus(State& state, uint16_t slot, uint32_t gpus);
// Fills `slot`, which must be free.
void add_client(State& state, uint16_t slot, const NewClient& client);

// Frees `slot` with its subscriptions and its work.
void remove_client(State& state, uint16_t slot);

// An open handle of `client` on an instance (ci == kNone: the GI). Idempotent; false when
// kMaxSubscriptions are taken.
[[nodiscard]] bool subscribe(State& state, uint16_t client, uint8_t gpu, uint8_t gi, uint8_t ci);
[[nodiscard]] bool subscribed(const State& state, uint16_t client, uint8_t gpu, uint8_t gi,
                              uint8_t ci);
void unsubscribe_all(State& state, uint16_t client);

// Takes away every piece of work on an instance (gi == kNone: the GPU, whatever the instance).
void remove_works_on(State& state, uint8_t gpu, uint8_t gi, uint8_t ci);

}  // namespace gpuslice::sim
