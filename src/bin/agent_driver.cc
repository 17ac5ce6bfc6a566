#include "bin/agent_driver.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "base/check.h"

namespace gpuslice::bin {
namespace {

// The answers under way are three at most, and the loop's queue holds thousands.
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
    Result<ports::Inventory> inventory = read_inventory();
    // How near the GPUs are is some forty calls for each: nothing waits for it, it follows.
    std::optional<ports::Inventory> with_topology;
    if (inventory && topology_of_ != key_of(*inventory)) with_topology = *inventory;
    post(loop_, [this, inventory = std::move(inventory)]() mutable {
      asked_ = false;
      events_.on_inventory(std::move(inventory));
    });
    if (with_topology && read_topology(*with_topology)) {
      post(loop_, [this, inventory = std::move(*with_topology)]() mutable {
        events_.on_inventory(std::move(inventory));
      });
    }
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

bool WorkerDriver::run(std::function<void(nvml::Session&)> work) {
  return worker_.post([this, work = std::move(work)] { work(session_); });
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
  session_.close();
  if (topology_of_ == key_of(inventory)) inventory.topology = topology_;
  return inventory;
}

std::string WorkerDriver::key_of(const ports::Inventory& inventory) {
  std::string key = inventory.driver.version;
  for (const ports::Gpu& gpu : inventory.gpus)
    key += fmt::format(" {} {} {}", gpu.index.value, gpu.uuid, gpu.bus_id);
  return key;
}

bool WorkerDriver::read_topology(ports::Inventory& inventory) {
  std::vector<GpuIndex> indices;
  for (const ports::Gpu& gpu : inventory.gpus) indices.push_back(gpu.index);
  if (!session_.open()) return false;
  topology_ = session_.topology(indices);
  session_.close();
  topology_of_ = key_of(inventory);
  inventory.topology = topology_;
  return true;
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
