#include "bin/agent_driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "nvml/kernel_gpus.h"

namespace gpuslice::bin {
namespace {

// Half a second for each link of a GPU has been seen.
constexpr Errand::Patience kTopologyPatience = {std::chrono::seconds(5), std::chrono::minutes(3)};

// The answers under way are three at most, and the loop's queue holds thousands.
void post(host::EventLoop& loop, std::function<void()> work) {
  CHECK(loop.post(std::move(work)), "the event loop has no room for an answer of the driver");
}

}  // namespace

WorkerDriver::WorkerDriver(std::string root, host::EventLoop& loop, ports::DriverEvents& events)
    : loop_(loop),
      events_(events),
      root_(root),
      change_session_(root),
      session_(root),
      readers_(root),
      topologist_(std::move(root), "nvml-topology") {
  change_session_.set_watch(&change_watch_);
}

WorkerDriver::~WorkerDriver() = default;

bool WorkerDriver::stop(Duration limit) {
  const MonotonicTime end = host::EventLoop::now() + limit;
  const auto left = [&] { return std::max(end - host::EventLoop::now(), Duration::zero()); };
  return worker_.stop(limit) && changer_.stop(left()) && readers_.stop(left()) &&
         topologist_.stop(left());
}

void WorkerDriver::ask_inventory() {
  if (asked_) return;
  asked_ = worker_.post([this] { look(); });
}

void WorkerDriver::begin_topology() {
  if (with_topology_.exchange(true)) return;
  ask_inventory();
}

void WorkerDriver::look() {
  const std::optional<DriverTurns::Hanging> hanging = turns_.begin_look();
  Result<ports::Inventory> inventory = read_inventory();
  // What it shows may be half-way, or its session dead: as if it did not answer.
  if (hanging && inventory) {
    const auto under_change =
        std::find_if(inventory->gpus.begin(), inventory->gpus.end(),
                     [&](const ports::Gpu& gpu) { return gpu.uuid == hanging->gpu; });
    if (under_change != inventory->gpus.end()) {
      inventory->silent.push_back(
          {under_change->index,
           Error{Code::kTimeout,
                 fmt::format("GPU {}: a change of its MIG layout hangs: {} does not return",
                             under_change->index.value, hanging->call),
                 {}},
           {}});
      inventory->gpus.erase(under_change);
      std::sort(inventory->silent.begin(), inventory->silent.end(),
                [](const auto& a, const auto& b) { return a.index < b.index; });
    }
  }
  // How near the GPUs are is some forty calls for each: nothing waits for it, it follows.
  std::optional<ports::Inventory> with_topology;
  const bool topology_too = with_topology_;
  if (inventory && topology_too && topology_of_ != key_of(*inventory)) with_topology = *inventory;
  post(loop_, [this, topology_too, inventory = std::move(inventory)]() mutable {
    asked_ = false;
    events_.on_inventory(std::move(inventory));
    if (with_topology_ && !topology_too) ask_inventory();  // it was asked for meanwhile
  });
  session_.close();
  if (with_topology && read_topology(*with_topology)) {
    post(loop_, [this, inventory = std::move(*with_topology)]() mutable {
      events_.on_inventory(std::move(inventory));
    });
  }
  turns_.end_look();
}

void WorkerDriver::ask_samples(Sampled sampled) {
  if (sampling_) return;
  sampling_ = worker_.post([this, sampled = std::move(sampled)] {
    (void)turns_.begin_look();
    post(loop_, [this, sampled, samples = read_samples()] {
      sampling_ = false;
      sampled(samples);
    });
    turns_.end_look();
  });
}

bool WorkerDriver::run(std::string gpu, std::function<void(nvml::Session&)> work) {
  return changer_.post([this, gpu = std::move(gpu), work = std::move(work)] {
    turns_.begin_change(gpu);
    work(change_session_);
    turns_.end_change();
  });
}

Result<ports::Inventory> WorkerDriver::read_inventory() {
  // Opened anew each time: a driver that was upgraded and a GPU that came are seen, and between two
  // looks nobody who wants to reset a GPU finds us holding it.
  const MonotonicTime begun = host::EventLoop::now();
  session_.close();
  TRY(session_.open());
  ports::Inventory inventory;
  inventory.begun = begun;
  TRY_ASSIGN(inventory.driver, session_.driver());
  TRY_ASSIGN(const uint32_t count, session_.gpu_count());
  std::vector<Result<ports::Gpu>> gpus = readers_.read(count, ports::Detail::kInventory);
  for (uint32_t i = 0; i < gpus.size(); ++i) {
    if (gpus[i])
      inventory.gpus.push_back(std::move(*gpus[i]));
    else
      inventory.silent.push_back({GpuIndex{i}, std::move(gpus[i]).error(), {}});
  }
  if (!inventory.silent.empty()) nvml::name_silent(nvml::kernel_gpus(root_), inventory);
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
  // Whoever is given up writes to what nobody reads.
  auto read = std::make_shared<std::optional<ports::Topology>>();
  const bool begun = topologist_.begin([read, indices](nvml::Session& session) {
    if (session.open()) *read = session.topology(indices);
  });
  if (!begun || !topologist_.wait(kTopologyPatience) || !*read) return false;
  topology_ = std::move(**read);
  topology_of_ = key_of(inventory);
  inventory.topology = topology_;
  return true;
}

std::shared_ptr<const Samples> WorkerDriver::read_samples() {
  auto samples = std::make_shared<Samples>();
  if (session_.open()) {
    if (const Result<uint32_t> count = session_.gpu_count())
      for (Result<ports::Gpu>& gpu : readers_.read(*count, ports::Detail::kAll))
        if (gpu) samples->gpus.push_back(std::move(*gpu));
    session_.close();
  }
  samples->taken = host::EventLoop::now();
  return samples;
}

}  // namespace gpuslice::bin
