// The counters of energy: how long the driver has kept each GPU initialised, where it tells.

#include <chrono>

#include "hardware.h"

namespace gpuslice::dst {
namespace {

constexpr uint64_t kMostUpBefore = 20'000;  // seconds

}  // namespace

void Hardware::begin_counters(Random& random) {
  tells_energy_ = random.chance(3, 4);
  keeps_initialised_ = random.chance(7, 8);
  const auto state = world_->snapshot();
  for (uint32_t i = 0; i < state->node.gpu_count; ++i)
    counters_.push_back({state->gpus[i].generation,
                         timeline_.now() - std::chrono::seconds(random.below(kMostUpBefore))});
}

// A GPU that was reset, or came with a boot, counts from now on.
void Hardware::settle_counters() {
  const auto state = world_->snapshot();
  for (uint32_t i = 0; i < counters_.size(); ++i)
    if (counters_[i].generation != state->gpus[i].generation)
      counters_[i] = {state->gpus[i].generation, timeline_.now()};
}

void Hardware::tell_energy(ports::Gpu& gpu) {
  settle_counters();
  gpu.persistence_mode = keeps_initialised_;
  if (!tells_energy_) return;
  const auto state = world_->snapshot();
  Counter& counter = counters_[gpu.index.value];
  // The driver initialises it for whoever opens it: for this look, where nobody else has it open.
  bool used = false;
  for (const sim::Work& work : state->works)
    used = used || (work.used != 0 && work.gpu == gpu.index.value);
  if (!keeps_initialised_ && !used) counter.since = timeline_.now();
  const auto up =
      std::chrono::duration_cast<std::chrono::milliseconds>(timeline_.now() - counter.since);
  gpu.energy_mj = 1 + sim::board_of(*state, gpu.index.value).power.idle *
                          static_cast<uint64_t>(up.count()) / 1000;
}

}  // namespace gpuslice::dst
