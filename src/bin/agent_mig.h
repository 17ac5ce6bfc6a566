#pragma once

// The agent's MigRunner: changes of MIG on the driver's thread of changes, in turns with the looks
// (driver_turns.h), so that an inventory and a change do not meet, and answers come in the order of
// the looks.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/mig_runner.h"
#include "bin/agent_driver.h"
#include "bin/agent_events.h"
#include "bin/holders.h"
#include "bin/places.h"
#include "host/node_host.h"
#include "mig/change.h"
#include "nvml/reset.h"
#include "ports/mig_status.h"

namespace gpuslice::bin {

// What comes back, on T0.
struct MigAnswers {
  std::function<void(std::vector<mig::Report>)> recovered;
  std::function<void(std::vector<agent::MigChecked>)> checked;
  std::function<void(agent::MigPrepared)> prepared;
  std::function<void(mig::Report)> done;
};

class WorkerMig final : public agent::MigRunner {
 public:
  // `ledger`: what the agent gave out; called on the worker. `events` is paused while a GPU's mode
  // is switched. `driver`, `events` and `loop` outlive it.
  WorkerMig(const std::string& root, const Places& places, std::string kubelet_dir,
            WorkerDriver& driver, AgentEvents& events, host::EventLoop& loop, LedgerSource ledger,
            MigAnswers answers);
  ~WorkerMig() override;

  void recover(std::vector<std::string> gpus) override;
  void check(std::vector<agent::MigTask> tasks) override;
  void prepare(agent::MigTask task) override;
  void execute() override;
  void abandon() override;

 private:
  using Answer = std::function<void()>;
  // Runs `work` on the driver's thread of changes with the driver open, and what it returns on T0.
  // `gpu`: see WorkerDriver::run().
  void run(const std::string& gpu, std::function<Answer(nvml::Session&)> work);

  // On the worker.
  [[nodiscard]] mig::Ports ports(nvml::Session& session);
  [[nodiscard]] Answer finish_change(bool execute);

  WorkerDriver& driver_;
  AgentEvents& events_;
  host::EventLoop& loop_;
  const MigAnswers answers_;
  mig::Options options_;
  nvml::NodeReset reset_;
  host::NodeFiles files_;
  host::FileLocks locks_;
  host::SystemClock clock_;
  host::SystemPause pause_;
  std::string under_change_;             // T0's: the UUID of the GPU that prepare() was for
  std::unique_ptr<mig::Change> change_;  // the changer's
};

// What NVIDIA's MIG manager says in node labels, as a file (docs/formats.md): for nodes without an
// API server, and for scripts.
class MigStatusFile final : public ports::MigStatusBoard {
 public:
  MigStatusFile(std::string path, ports::HostFiles& files)
      : path_(std::move(path)), files_(files) {}
  void show(const ports::MigStatus& status) override { unwritten_ = status; }
  // Writes what was shown since the last time: nothing that the kubelet waits for waits for a disk.
  void write();

 private:
  std::optional<ports::MigStatus> unwritten_;
  std::string path_;
  ports::HostFiles& files_;
};

// Shows it in several places.
class MigStatusBoards final : public ports::MigStatusBoard {
 public:
  void add(ports::MigStatusBoard& board) { boards_.push_back(&board); }
  void show(const ports::MigStatus& status) override {
    for (ports::MigStatusBoard* board : boards_) board->show(status);
  }

 private:
  std::vector<ports::MigStatusBoard*> boards_;
};

}  // namespace gpuslice::bin
