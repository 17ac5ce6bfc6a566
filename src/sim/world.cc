#include "sim/world.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <mutex>

#include "sim/abort_point.h"
#include "sim/clock.h"
#include "sim/world_file.h"
#include "sim/write_lock.h"

namespace gpuslice::sim {
namespace {

// A State that nobody reads any more is used again: mapping and clearing a new one costs more than
// all the rest of a read. Without a lock, since a child may let go of a snapshot of its parent.
class SpareState {
 public:
  SpareState() = default;
  SpareState(const SpareState&) = delete;
  SpareState& operator=(const SpareState&) = delete;
  ~SpareState() { delete slot_.load(std::memory_order_acquire); }

  // Of any content.
  static std::shared_ptr<State> take(const std::shared_ptr<SpareState>& from) {
    State* state = from->slot_.exchange(nullptr, std::memory_order_acq_rel);
    if (state == nullptr) state = new State;
    return {state,
            [from](State* done) { delete from->slot_.exchange(done, std::memory_order_acq_rel); }};
  }

 private:
  std::atomic<State*> slot_{nullptr};
};

// What a process must not share with its parent. A child makes a new one at its first call: the old
// one's mutexes may be held by threads that do not exist here.
struct ProcessPart {
  uint32_t depth = 0;
  std::mutex write_mutex;
  std::mutex snapshot_mutex;
  std::shared_ptr<SpareState> spare = std::make_shared<SpareState>();
  std::shared_ptr<State> scratch;  // of the next write
  std::shared_ptr<const State> cached;
  uint64_t cached_sequence = 0;
  std::optional<uint16_t> slot;
  ProcessPart* parents = nullptr;  // kept, never touched
};

// Time passes in every write; that alone is no change. Remembers what has settled, to tell.
class Settled {
 public:
  explicit Settled(const State& state) : clock_(state.node.clock), life_(state.life) {}

  [[nodiscard]] bool changed(const WorldFile& file, const State& state) const {
    constexpr size_t clock = offsetof(State, node) + offsetof(Node, clock);
    constexpr size_t life = offsetof(State, life);
    return std::memcmp(&clock_, &state.node.clock, sizeof clock_) != 0 ||
           std::memcmp(&life_, &state.life, sizeof life_) != 0 || file.differs(state, 0, clock) ||
           file.differs(state, clock + sizeof(ClockState), life) ||
           file.differs(state, life + sizeof(LifeState), sizeof(State));
  }

 private:
  ClockState clock_;
  LifeState life_;
};

class FileWorld final : public World {
 public:
  FileWorld(std::string root, std::unique_ptr<WorldFile> file, ClientLocks& locks, WriteHooks hooks)
      : root_(std::move(root)), file_(std::move(file)), locks_(locks), hooks_(hooks) {
    auto* const part = new ProcessPart;
    part->depth = fork_depth();
    part_.store(part);
  }

  ~FileWorld() override {
    detach();
    ProcessPart* at = part_.load();
    // The parents' parts stay behind: their mutexes may be locked for ever in this process.
    if (at->parents == nullptr) delete at;
  }

  const std::string& root() const override { return root_; }

  uint64_t sequence() const override { return file_->sequence(); }

  bool wait(uint64_t seen, int64_t timeout_ns) const override {
    return file_->wait(seen, timeout_ns);
  }

  std::shared_ptr<const State> snapshot() const override {
    const uint64_t newest = file_->sequence();
    ProcessPart& part = this->part();
    const std::lock_guard hold(part.snapshot_mutex);
    if (part.cached == nullptr || part.cached_sequence != newest) refresh(part);
    return part.cached;
  }

  Result<uint16_t> attach(const NewClient& who) override {
    ProcessPart& part = this->part();
    std::optional<uint16_t> got;
    Status status = run_write_taking(who, part, got);
    if (!status) {
      if (got) locks_.give(*got);
      return std::unexpected(std::move(status).error());
    }
    if (!got)
      return fail(Code::kUnavailable,
                  "simulated node {}: cannot attach: all {} client slots are taken; end a process "
                  "that has NVML open",
                  root_, kMaxClients);
    return *got;
  }

  void detach() override {
    ProcessPart& part = this->part();
    std::optional<uint16_t> slot;
    {
      const std::lock_guard hold(part.snapshot_mutex);
      slot = part.slot;
      part.slot.reset();
    }
    if (!slot) return;
    // When the file cannot be written any more the slot is swept as a dead one.
    [[maybe_unused]] const Status removed =
        run_write([&](State& state) { remove_client(state, *slot); });
    locks_.give(*slot);
  }

  std::optional<uint16_t> attached() const override {
    ProcessPart& part = this->part();
    const std::lock_guard hold(part.snapshot_mutex);
    return part.slot;
  }

  std::optional<int32_t> holder(uint16_t slot) const override {
    return holder_in(*snapshot(), slot);
  }

 protected:
  Status run_write(const std::function<void(State&)>& change) override {
    ProcessPart& part = this->part();
    const std::lock_guard one_thread(part.write_mutex);
    WriteLock lock;
    TRY(lock.take(file_->path()));
    if (!file_->is_mapped_from(lock.fd()))
      return fail(
          Code::kNotFound,
          "simulated node: world file {}: was removed since it was opened; open it again, or "
          "make the node anew",
          file_->path());

    if (part.scratch == nullptr) part.scratch = SpareState::take(part.spare);
    const std::shared_ptr<State> world = part.scratch;
    State& state = *world;
    TRY_ASSIGN(const uint64_t sequence, file_->load(state));
    settle(hooks_, state);  // what the dead did until now they did
    const Settled settled(state);
    sweep(state);
    change(state);
    if (settled.changed(*file_, state)) {
      settle(hooks_, state);
      file_->publish(state, sequence + 1);
      keep(part, std::move(part.scratch), sequence + 1);
    }
    mend_trees(state);
    return {};
  }

 private:
  ProcessPart& part() const {
    ProcessPart* at = part_.load(std::memory_order_acquire);
    const uint32_t depth = fork_depth();
    if (at->depth == depth) return *at;
    auto* const mine = new ProcessPart;
    mine->depth = depth;
    mine->parents = at;
    if (part_.compare_exchange_strong(at, mine, std::memory_order_acq_rel)) return *mine;
    delete mine;  // another thread of the child was first
    return *at;
  }

  // What was written need not be read again.
  static void keep(ProcessPart& part, std::shared_ptr<const State> world, uint64_t sequence) {
    const std::lock_guard hold(part.snapshot_mutex);
    if (sequence <= part.cached_sequence) return;  // read by another thread since, or a newer one
    part.cached = std::move(world);
    part.cached_sequence = sequence;
  }

  // Called with part.snapshot_mutex held.
  void refresh(ProcessPart& part) const {
    std::shared_ptr<State> fresh = SpareState::take(part.spare);
    const Result<uint64_t> sequence = file_->load(*fresh);
    if (sequence) {
      part.cached = std::move(fresh);
      part.cached_sequence = *sequence;
    } else if (part.cached == nullptr) {
      // open() has seen it whole; a node without GPUs is what is left of it.
      part.cached = std::make_shared<State>();
    }
  }

  Status run_write_taking(const NewClient& who, ProcessPart& part, std::optional<uint16_t>& got) {
    return run_write([&](State& state) {
      {
        const std::lock_guard hold(part.snapshot_mutex);
        got = part.slot;
      }
      if (got) {
        attach_gpus(state, *got, who.attached_gpus);
        return;
      }
      for (uint16_t slot = 0; slot < kMaxClients && !got; ++slot) {
        // A byte can be locked while its slot is free: its owner is between publishing and
        // unlocking.
        if (state.clients[slot].used || !locks_.take(slot)) continue;
        got = slot;
      }
      if (!got) return;
      add_client(state, *got, who);
      const std::lock_guard hold(part.snapshot_mutex);
      part.slot = got;
    });
  }

  std::optional<int32_t> holder_in(const State& state, uint16_t slot) const {
    if (slot >= kMaxClients) return std::nullopt;
    const Client& client = state.clients[slot];
    if (!client.used) return std::nullopt;
    if (client.simulated) return client.alive ? std::optional(client.pid) : std::nullopt;
    if (const std::optional<int32_t> pid = locks_.holder(slot)) return pid;
    // F_GETLK does not tell a process of its own locks: a second copy of this library in the same
    // process holds a slot that looks free.
    const ProcessId self = this_process();
    if (process_of(client) == self) return self.pid;
    return std::nullopt;
  }

  void sweep(State& state) const {
    for (uint16_t slot = 0; slot < kMaxClients; ++slot) {
      if (!state.clients[slot].used || holder_in(state, slot)) continue;
      remove_client(state, slot);
    }
  }

  void mend_trees(const State& state) {
    if (hooks_.tree_key == nullptr || hooks_.sync_trees == nullptr) return;
    const uint64_t key = hooks_.tree_key(state) | 1;  // 0 says: half-made
    if (file_->trees_key() == key) return;
    file_->set_trees_key(0);
    if (hooks_.sync_trees(root_, state)) file_->set_trees_key(key);
  }

  std::string root_;
  std::unique_ptr<WorldFile> file_;
  ClientLocks& locks_;
  WriteHooks hooks_;
  mutable std::atomic<ProcessPart*> part_{nullptr};
};

std::string state_path(const std::string& root) { return root + "/world/state"; }
std::string client_path(const std::string& root) { return root + "/world/clients"; }

Status make_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error) return {};
  return fail(error == std::errc::permission_denied || error == std::errc::read_only_file_system
                  ? Code::kNoPermission
                  : Code::kFailed,
              "simulated node: folder {}: cannot be made: {}; choose another folder", path,
              error.message());
}

Status make_client_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  const bool made =
      fd >= 0 && fchmod(fd, 0666) == 0 && ftruncate(fd, static_cast<off_t>(kClientFileBytes)) == 0;
  const int why = errno;
  if (fd >= 0) close(fd);
  if (made) return {};
  return fail(Code::kFailed,
              "simulated node: client file {}: cannot be made: {}; choose another folder", path,
              std::strerror(why));
}

}  // namespace

Result<std::unique_ptr<World>> World::create(const std::string& root, const NodeOptions& options,
                                             WriteHooks hooks) {
  TRY_ASSIGN(const State state,
             make_state(options, options.virtual_clock ? kVirtualEpochNs : realtime_ns()));
  TRY(make_folder(root + "/world"));
  const std::string path = state_path(root);
  if (access(path.c_str(), F_OK) == 0)
    return fail(Code::kFailed,
                "simulated node {}: cannot be made: there is a node already; remove the folder or "
                "choose another",
                root);
  TRY(make_client_file(client_path(root)));
  // Under another name until it is whole, so that nobody opens half a world; link() refuses when
  // two make a node in one folder at once.
  const std::string fresh = path + ".new." + std::to_string(getpid());
  unlink(fresh.c_str());
  TRY(WorldFile::make(fresh, state));
  const bool linked = link(fresh.c_str(), path.c_str()) == 0;
  const int why = errno;
  unlink(fresh.c_str());
  if (!linked)
    return fail(Code::kFailed, "simulated node {}: cannot be made: {}: {}; choose another folder",
                root, path, std::strerror(why));
  TRY_ASSIGN(std::unique_ptr<World> world, open(root, hooks));
  TRY(world->write([](State&) {}));  // the trees
  return world;
}

Result<std::unique_ptr<World>> World::open(const std::string& root, WriteHooks hooks) {
  TRY_ASSIGN(std::unique_ptr<WorldFile> file, WorldFile::map(state_path(root)));
  TRY_ASSIGN(ClientLocks* const locks, ClientLocks::of(client_path(root)));
  return std::unique_ptr<World>(std::make_unique<FileWorld>(root, std::move(file), *locks, hooks));
}

void settle(const WriteHooks& hooks, State& state) {
  settle_clock(state);
  // Not a moment later: nothing in a world is newer than its clock.
  if (hooks.settle != nullptr) hooks.settle(state, state.node.clock.last_ns);
}

Result<uint16_t> World::attach(uint32_t gpus) {
  NewClient who;
  who.attached_gpus = gpus;
  who.process = this_process();
  const std::string name = process_name();
  who.name = name;
  return attach(who);
}

std::vector<LiveClient> World::live_clients(const State& state) const {
  std::vector<LiveClient> live;
  for (uint16_t slot = 0; slot < kMaxClients; ++slot) {
    if (!state.clients[slot].used) continue;
    if (const std::optional<int32_t> pid = holder(slot)) live.push_back({slot, *pid});
  }
  return live;
}

}  // namespace gpuslice::sim
