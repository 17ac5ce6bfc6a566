// A world of one process: no files, a virtual clock, clients by word.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "sim/clock.h"
#include "sim/world.h"

namespace gpuslice::sim {
namespace {

// A State is large: copies that nobody reads any more are written over by the next ones.
class Copies : public std::enable_shared_from_this<Copies> {
 public:
  [[nodiscard]] std::shared_ptr<State> copy_of(const State& state) {
    std::unique_ptr<State> copy;
    {
      const std::lock_guard hold(mutex_);
      if (!free_.empty()) {
        copy = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (copy != nullptr)
      *copy = state;
    else
      copy = std::make_unique<State>(state);
    return {copy.release(), [copies = shared_from_this()](State* done) {
              copies->take_back(std::unique_ptr<State>(done));
            }};
  }

 private:
  void take_back(std::unique_ptr<State> done) {
    constexpr size_t kMostFree = 2;
    const std::lock_guard hold(mutex_);
    if (free_.size() < kMostFree) free_.push_back(std::move(done));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<State>> free_;
};

class MemoryWorld final : public World {
 public:
  MemoryWorld(const State& state, WriteHooks hooks)
      : hooks_(hooks), state_(std::make_shared<const State>(state)) {}

  const std::string& root() const override { return root_; }

  std::shared_ptr<const State> snapshot() const override {
    const std::lock_guard hold(mutex_);
    return state_;
  }

  uint64_t sequence() const override { return sequence_.load(std::memory_order_acquire); }

  bool wait(uint64_t seen, int64_t timeout_ns) const override {
    std::unique_lock hold(mutex_);
    return changed_.wait_for(hold, std::chrono::nanoseconds(timeout_ns),
                             [&] { return sequence() != seen; });
  }

  Result<uint16_t> attach(const NewClient& who) override {
    std::optional<uint16_t> got = attached();
    if (got) {
      TRY(run_write([&](State& state) { attach_gpus(state, *got, who.attached_gpus); }));
      return *got;
    }
    TRY(run_write([&](State& state) {
      const uint16_t slot = free_client_slot(state);
      if (slot == kNoClient) return;
      NewClient simulated = who;
      simulated.simulated = true;
      add_client(state, slot, simulated);
      got = slot;
    }));
    if (!got)
      return fail(Code::kUnavailable,
                  "simulated node: cannot attach: all {} client slots are taken", kMaxClients);
    const std::lock_guard hold(mutex_);
    slot_ = got;
    return *got;
  }

  void detach() override {
    const std::optional<uint16_t> slot = attached();
    if (!slot) return;
    [[maybe_unused]] const Status removed =
        run_write([&](State& state) { remove_client(state, *slot); });
    const std::lock_guard hold(mutex_);
    slot_.reset();
  }

  std::optional<uint16_t> attached() const override {
    const std::lock_guard hold(mutex_);
    return slot_;
  }

  std::optional<int32_t> holder(uint16_t slot) const override {
    const std::shared_ptr<const State> state = snapshot();
    if (slot >= kMaxClients) return std::nullopt;
    const Client& client = state->clients[slot];
    return client.used && client.alive ? std::optional(client.pid) : std::nullopt;
  }

 protected:
  Status run_write(const std::function<void(State&)>& change) override {
    const std::lock_guard one(write_mutex_);
    std::shared_ptr<State> state = copies_->copy_of(*snapshot());
    settle(hooks_, *state);
    for (uint16_t slot = 0; slot < kMaxClients; ++slot)
      if (state->clients[slot].used && !state->clients[slot].alive) remove_client(*state, slot);
    change(*state);
    settle(hooks_, *state);
    const std::lock_guard hold(mutex_);
    if (std::memcmp(state_.get(), state.get(), sizeof(State)) == 0) return {};
    state_ = std::move(state);
    sequence_.fetch_add(1, std::memory_order_release);
    changed_.notify_all();
    return {};
  }

 private:
  const std::string root_;
  const std::shared_ptr<Copies> copies_ = std::make_shared<Copies>();
  WriteHooks hooks_;
  std::mutex write_mutex_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::shared_ptr<const State> state_;
  std::optional<uint16_t> slot_;
  std::atomic<uint64_t> sequence_{2};
};

}  // namespace

Result<std::unique_ptr<World>> World::in_memory(const NodeOptions& options, WriteHooks hooks) {
  TRY_ASSIGN(State state, make_state(options, kVirtualEpochNs));
  start_clock(state, true, kVirtualEpochNs);
  return std::unique_ptr<World>(std::make_unique<MemoryWorld>(state, hooks));
}

Result<uint16_t> add_simulated_client(World& world, int32_t pid, std::string_view name) {
  TRY_ASSIGN(const uint16_t slot, world.write([&](State& state) {
    const uint16_t free = free_client_slot(state);
    if (free != kNoClient)
      add_client(state, free, {.process = {pid, 1}, .name = name, .simulated = true});
    return free;
  }));
  if (slot == kNoClient)
    return fail(Code::kUnavailable, "simulated node: no room for another client; {} are attached",
                kMaxClients);
  return slot;
}

Status kill_client(World& world, uint16_t slot) {
  return world.write([&](State& state) {
    if (slot < kMaxClients && state.clients[slot].simulated) state.clients[slot].alive = 0;
  });
}

}  // namespace gpuslice::sim
