#include "bin/agent_driver.h"

#include <fmt/format.h>

#include <utility>

#include "base/check.h"

namespace gpuslice::bin {
namespace {

// The answers under way are two at most, and the loop's queue holds thousands.
void post(host::EventLoop& loop, std::function<void()> work) {
  CHECK(loop.post(std::move(work)), "the event loop has no room for an answer of the driver");
}

}  // namespace

WorkerDriver::WorkerDriver(std::string root, host::EventLoop& loop, ports::DriverEvents& events)
    : loop_(loop), events_(events), session_(std::move(root)) {}

WorkerDriver::~WorkerDriver() = default;

void WorkerDriver::ask_inventory() {
  if (asked_) return;
  asked_ = worker_.post([this] {
    post(loop_, [this, inventory = read_inventory()]() mutable {
      asked_ = false;
      events_.on_inventory(std::move(inventory));
    });
  });
}

void WorkerDriver::ask_samples(Sampled sampled) {
  if (sampling_) return;
  sampling_ = worker_.post([this, sampled = std::move(sampled)] {
    post(loop_, [this, sampled, samples = read_samples()] {
      sampling_ = false;
      sampled(samples);
    });
  });
}

Result<ports::Inventory> WorkerDriver::read_inventory() {
  // Opened anew each time: a driver that was upgraded and a GPU that came are seen, and between two
  // looks nobody who wants to reset a GPU finds us holding it.
  session_.close();
  TRY(session_.open());
  ports::Inventory inventory;
  TRY_ASSIGN(inventory.driver, session_.driver());
  TRY_ASSIGN(const uint32_t count, session_.gpu_count());
  for (uint32_t i = 0; i < count; ++i) {
    Result<ports::Gpu> gpu = session_.gpu(GpuIndex{i}, ports::Detail::kInventory);
    if (gpu) {
      inventory.gpus.push_back(std::move(*gpu));
    } else {
      inventory.silent.push_back({GpuIndex{i}, std::move(gpu).error()});
    }
  }
  inventory.topology = topology_of(inventory);
  session_.close();
  return inventory;
}

ports::Topology WorkerDriver::topology_of(const ports::Inventory& inventory) {
  std::string key = inventory.driver.version;
  std::vector<GpuIndex> indices;
  for (const ports::Gpu& gpu : inventory.gpus) {
    key += fmt::format(" {} {} {}", gpu.index.value, gpu.uuid, gpu.bus_id);
    indices.push_back(gpu.index);
  }
  if (key != topology_key_) topology_ = session_.topology(indices);
  topology_key_ = std::move(key);
  return topology_;
}

std::shared_ptr<const Samples> WorkerDriver::read_samples() {
  auto samples = std::make_shared<Samples>();
  if (session_.open()) {
    if (const Result<uint32_t> count = session_.gpu_count()) {
      for (uint32_t i = 0; i < *count; ++i) {
        Result<ports::Gpu> gpu = session_.gpu(GpuIndex{i}, ports::Detail::kAll);
        if (gpu) samples->gpus.push_back(std::move(*gpu));
      }
    }
    session_.close();
  }
  samples->taken = host::EventLoop::now();
  return samples;
}

}  // namespace gpuslice::bin
