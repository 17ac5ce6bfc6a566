#include "sim/validate.h"

#include <algorithm>
#include <iterator>

#include "gpu/board.h"
#include "sim/mig_rules.h"

namespace gpuslice::sim {
namespace {

template <size_t N>
bool terminated(const char (&text)[N]) {
  return std::find(std::begin(text), std::end(text), '\0') != std::end(text);
}

Status check_instances(uint32_t index, const Gpu& gpu, const gpu::Board& board) {
  const Geometry geometry = geometry_of(board, gpu.sweep);
  uint32_t used = 0;
  for (uint8_t id = 0; id < kMaxGis; ++id) {
    const Gi& gi = gpu.gis[id];
    if (!gi.live) continue;
    if (gi.profile >= board.profiles.size())
      return fail(Code::kCorrupt, "GPU {}: GI {} has profile number {} of {}", index, id,
                  gi.profile, board.profiles.size());
    const gpu::Profile& profile = board.profiles[gi.profile];
    const std::span<const Placement> offered = profile.placements;
    const Placement at{gi.start, gi.size};
    if (std::find(offered.begin(), offered.end(), at) == offered.end() ||
        gi_id_of(geometry, at) != id)
      return fail(Code::kCorrupt, "GPU {}: GI {} stands at {}:{}, where this id cannot", index, id,
                  gi.start, gi.size);
    const uint32_t covers = leaves_of(geometry, id);
    if ((used & covers) != 0)
      return fail(Code::kCorrupt, "GPU {}: GI {} overlaps another", index, id);
    used |= covers;
    for (uint8_t ci = 0; ci < kMaxCis; ++ci) {
      const Ci& one = gi.cis[ci];
      if (one.live && (one.size == 0 || one.start + one.size > profile.slices))
        return fail(Code::kCorrupt, "GPU {}: CI {} of GI {} stands at {}:{} of {} slices", index,
                    ci, id, one.start, one.size, profile.slices);
    }
  }
  return {};
}

Status check_gpu(uint32_t index, const Gpu& gpu) {
  const auto boards = gpu::boards();
  if (gpu.board >= boards.size())
    return fail(Code::kCorrupt, "GPU {}: board number {} of {}", index, gpu.board, boards.size());
  if (!terminated(gpu.uuid)) return fail(Code::kCorrupt, "GPU {}: a UUID without end", index);
  if (gpu.minor >= kMaxGpus)
    return fail(Code::kCorrupt, "GPU {}: minor number {}", index, gpu.minor);
  if (gpu.sweep > Sweep::kSwept)
    return fail(Code::kCorrupt, "GPU {}: an unknown kind of floor-sweeping", index);
  return check_instances(index, gpu, boards[gpu.board]);
}

// Times and sums that the code adds to and subtracts from each other must not overflow.
constexpr int64_t kMostNs = int64_t{1} << 62;
bool sane_time(int64_t ns) { return ns >= 0 && ns < kMostNs; }

// What is remembered ended when the GPU was settled last, or before: the newest comes first.
Status check_past(uint32_t index, const Stretch (&past)[kMaxStretches], int64_t settled_ns) {
  int64_t later = settled_ns;
  for (const Stretch& stretch : past) {
    if (stretch.until_ns < 0 || stretch.until_ns > later || stretch.permille > 1000)
      return fail(Code::kCorrupt, "GPU {}: an impossible past", index);
    later = stretch.until_ns;
  }
  return {};
}

Status check_life(uint32_t index, const Gpu& gpu, const GpuLife& life, int64_t last_ns) {
  if (!sane_time(life.settled_ns) || life.settled_ns > last_ns ||
      life.energy_mj > (uint64_t{1} << 62))
    return fail(Code::kCorrupt, "GPU {}: energy or temperature of an impossible time", index);
  if (gpu.locked_graphics_min_mhz > gpu.locked_graphics_max_mhz ||
      gpu.locked_memory_min_mhz > gpu.locked_memory_max_mhz)
    return fail(Code::kCorrupt, "GPU {}: locked clocks from high to low", index);
  return {};
}

Status check_tables(const State& state) {
  const ClockState& clock = state.node.clock;
  if (!sane_time(clock.last_ns) || !sane_time(clock.virtual_ns) || clock.offset_ns <= -kMostNs ||
      clock.offset_ns >= kMostNs)
    return fail(Code::kCorrupt, "a clock that shows an impossible time");
  if (state.events.next == 0) return fail(Code::kCorrupt, "events without a first number");
  if (state.faults.count > kMaxFaults)
    return fail(Code::kCorrupt, "{} faults where there is room for {}", state.faults.count,
                kMaxFaults);
  for (const Fault& fault : state.faults.rows)
    if (!terminated(fault.call) || fault.kind > FaultKind::kHang)
      return fail(Code::kCorrupt, "a fault without a kind or a name's end");
  return {};
}

Status check_holders(const State& state) {
  const uint32_t gpus = state.node.gpu_count;
  for (const Client& client : state.clients)
    if (!terminated(client.name)) return fail(Code::kCorrupt, "a client's name without end");
  for (const Subscription& one : state.subscriptions)
    if (one.used && (one.gpu >= gpus || one.gi >= kMaxGis || one.client >= kMaxClients ||
                     (one.ci >= kMaxCis && one.ci != kNone)))
      return fail(Code::kCorrupt, "a handle on GPU {} GI {} CI {} by client {}", one.gpu, one.gi,
                  one.ci, one.client);
  for (const Work& work : state.works)
    if (work.used && (work.gpu >= gpus || (work.gi >= kMaxGis && work.gi != kNone) ||
                      (work.ci >= kMaxCis && work.ci != kNone) || work.client >= kMaxClients ||
                      work.kind > WorkKind::kMps))
      return fail(Code::kCorrupt, "work on GPU {} GI {} CI {} by client {}", work.gpu, work.gi,
                  work.ci, work.client);
  return {};
}

}  // namespace

Status validate(const State& state) {
  const Node& node = state.node;
  if (node.gpu_count > kMaxGpus)
    return fail(Code::kCorrupt, "it has {} GPUs where a node has at most {}", node.gpu_count,
                kMaxGpus);
  if (!terminated(node.driver)) return fail(Code::kCorrupt, "a driver version without end");
  for (uint32_t index = 0; index < node.gpu_count; ++index) {
    TRY(check_gpu(index, state.gpus[index]));
    const GpuLife& life = state.life.gpus[index];
    TRY(check_life(index, state.gpus[index], life, state.node.clock.last_ns));
    TRY(check_past(index, state.life.past[index], life.settled_ns));
  }
  TRY(check_tables(state));
  return check_holders(state);
}

}  // namespace gpuslice::sim
