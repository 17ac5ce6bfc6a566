// A fresh node: which GPUs stand where, and what they are called.

#include <fmt/core.h>

#include <array>
#include <cstring>

#include "base/random.h"
#include "gpu/board.h"
#include "gpu/uuid.h"
#include "sim/clock.h"
#include "sim/mig_rules.h"
#include "sim/world.h"

namespace gpuslice::sim {
namespace {

// PCI buses of an 8-GPU server, ascending as NVML's indices are; further GPUs go behind them.
constexpr std::array<uint8_t, 8> kBuses = {0x07, 0x0f, 0x47, 0x4e, 0x87, 0x90, 0xb7, 0xbd};

// GPUs beyond eight stand on further buses of further domains, eight to a domain.
void place_on_pci(Gpu& gpu, uint32_t index, uint32_t count) {
  gpu.pci_domain = index / kBuses.size();
  gpu.pci_bus = kBuses[index % kBuses.size()];
  gpu.pci_device = 0;
  gpu.numa_node = index < (count + 1) / 2 ? 0 : 1;
}

Status check(const NodeOptions& options) {
  if (options.gpus.empty() || options.gpus.size() > kMaxGpus)
    return fail(Code::kUsage, "simulated node: {} GPUs asked for: a node has 1 to {}",
                options.gpus.size(), kMaxGpus);
  if (options.driver.empty() || options.driver.size() >= kDriverName)
    return fail(Code::kUsage, "simulated node: driver version \"{}\": 1 to {} characters are taken",
                options.driver, kDriverName - 1);
  return {};
}

// Idle, before the node is made.
constexpr uint64_t kSecondsBefore = 3600;

}  // namespace

Result<State> make_state(const NodeOptions& options, int64_t start_ns) {
  TRY(check(options));
  State state{};
  Node& node = state.node;
  node.gpu_count = static_cast<uint32_t>(options.gpus.size());
  node.seed = options.seed;
  node.driver_loaded = 1;
  node.strict_clients = options.strict_clients ? 1 : 0;
  node.passthrough = options.passthrough ? 1 : 0;
  node.max_mig_while_off = options.max_mig_while_off ? 1 : 0;
  node.keep_mig_mode = options.keep_mig_mode ? 1 : 0;
  std::memcpy(node.driver, options.driver.data(), options.driver.size());
  start_clock(state, options.virtual_clock, start_ns);
  node.created_ns = node.booted_ns = start_ns;
  make_boot_id(state);

  Random random(options.seed);
  for (uint32_t index = 0; index < node.gpu_count; ++index) {
    const GpuOptions& wanted = options.gpus[index];
    TRY_ASSIGN(const gpu::Board* const board, gpu::find_board(wanted.board));
    if (wanted.sweep != Sweep::kPlain && board->memory_units != 8)
      return fail(
          Code::kImpossible,
          "simulated node: GPU {} ({}): cannot be mirrored or floor-swept: that is known of "
          "boards with eight memory slices only",
          index, wanted.board);
    Gpu& gpu = state.gpus[index];
    gpu.board = static_cast<uint16_t>(board - gpu::boards().data());
    gpu.minor = static_cast<uint8_t>(index);
    gpu.sweep = wanted.sweep;
    gpu.chip_id = static_cast<uint16_t>(board->chip_id);
    gpu.pdi = random.next();
    place_on_pci(gpu, index, node.gpu_count);
    const std::string uuid = "GPU-" + gpu::uuid_text(gpu::gpu_uuid(gpu.chip_id, gpu.pdi));
    std::memcpy(gpu.uuid, uuid.data(), std::min(uuid.size(), sizeof(gpu.uuid) - 1));
    gpu.generation = node.next_generation++;
    // As nodes come: kept initialised by nvidia-persistenced, the driver loaded a while ago.
    gpu.persistence_mode = 1;
    state.life.gpus[index].energy_mj = uint64_t{board->power.idle} * kSecondsBefore;
  }
  return state;
}

}  // namespace gpuslice::sim
