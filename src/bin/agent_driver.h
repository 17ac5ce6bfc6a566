#pragma once

// The port Driver: questions go to the NVML worker, answers come back to T0.
//
// Two kinds of question share the worker's one NVML session: the inventory, which the agent asks
// for, and a look at what is busy, which the page and /metrics ask for. A GPU that hangs is told to
// be silent after a while (gpu_readers.h), and the others are read on; a driver that hangs as a
// whole holds the worker and nobody else. Changes of MIG have a thread and a session of their own,
// and take turns with the looks (driver_turns.h); the GPU of one that hangs is told to be silent.

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/time.h"
#include "bin/driver_turns.h"
#include "bin/gpu_readers.h"
#include "host/event_loop.h"
#include "host/worker.h"
#include "nvml/session.h"
#include "ports/driver.h"

namespace gpuslice::bin {

// What the GPUs were doing at a moment.
struct Samples {
  MonotonicTime taken{};
  std::vector<ports::Gpu> gpus;  // those that answered, with all details
};

class WorkerDriver final : public ports::Driver {
 public:
  using Sampled = std::function<void(std::shared_ptr<const Samples>)>;  // called on T0

  // `events` and `loop` outlive the worker's last answer.
  WorkerDriver(std::string root, host::EventLoop& loop, ports::DriverEvents& events);
  ~WorkerDriver() override;

  // T0.
  void ask_inventory() override;
  // T0. From now on the inventories have a topology, and a new one with it comes soon: the last may
  // be from before a change by now. It is some forty calls for each GPU: not before there is time.
  void begin_topology();
  // T0. Reads every GPU with all details; at most one look is under way, a second one is the same.
  void ask_samples(Sampled sampled);

  // T0. Runs `work` on the thread of changes, one after another, while nothing is looked at. The
  // session may be open or closed before and after. `gpu`: the UUID of the one GPU that is changed,
  // "" for none or several. False: the process is ending.
  [[nodiscard]] bool run(std::string gpu, std::function<void(nvml::Session&)> work);

  // T0. Ends the worker; false when the driver hangs and the process can only be left by _exit.
  [[nodiscard]] bool stop(Duration limit);
  // Any thread. How long the driver has not answered.
  [[nodiscard]] Duration busy_for() const {
    return std::max(worker_.busy_for(), changer_.busy_for());
  }
  // Any thread. The queues of both.
  [[nodiscard]] size_t waiting() const { return worker_.waiting() + changer_.waiting(); }
  [[nodiscard]] uint64_t refused() const { return worker_.refused() + changer_.refused(); }

 private:
  // On the worker.
  void look();
  Result<ports::Inventory> read_inventory();
  // Which GPUs they are: the topology is read again when they are others.
  static std::string key_of(const ports::Inventory& inventory);
  // False: the driver went away meanwhile, or hangs.
  bool read_topology(ports::Inventory& inventory);
  std::shared_ptr<const Samples> read_samples();

  host::EventLoop& loop_;
  ports::DriverEvents& events_;
  bool asked_ = false;
  bool sampling_ = false;
  std::atomic<bool> with_topology_{false};
  std::string root_;
  nvml::CallWatch change_watch_;
  DriverTurns turns_{change_watch_};
  nvml::Session change_session_;  // the changer's
  nvml::Session session_;         // the worker's, as what follows
  GpuReaders readers_;
  Errand topologist_;
  ports::Topology topology_;
  std::string topology_of_;  // key_of() of the GPUs that it was read of
  host::Worker worker_{"nvml"};
  host::Worker changer_{"nvml-mig"};
};

}  // namespace gpuslice::bin
