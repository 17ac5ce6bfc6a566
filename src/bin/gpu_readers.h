#pragma once

// Questions to the driver that somebody stops waiting for: a GPU that hangs must not make the
// others stale.
//
// An Errand is a thread with an NVML session of its own and one question at a time. Who waits for
// the answer gives up when a single call of the driver lasts too long (a slow board makes many
// short calls); the thread then stays behind in that call until the driver returns, and is asked
// nothing more meanwhile. So at most one thread for each GPU is ever left behind.
//
// What a thread that hangs holds stays held: its session counts as a client of the driver, so that
// on Ampere nobody switches MIG meanwhile. And where the driver hangs inside one of its own locks
// (the kernel module has one for all GPUs), the calls about other GPUs hang behind it: then all of
// them are told to be silent, each with the call that does not return, and each is back by itself.

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "host/worker.h"
#include "nvml/session.h"
#include "ports/nvml.h"

namespace gpuslice::bin {

// Owned and asked by one thread.
class Errand {
 public:
  using Work = std::function<void(nvml::Session&)>;  // opens it; it is closed afterwards

  // `thread`: its name, as /proc shows it.
  Errand(std::string root, const std::string& thread);
  Errand(const Errand&) = delete;
  Errand& operator=(const Errand&) = delete;
  ~Errand();

  // False: the question before is still under way. What `work` writes to must outlive the thread,
  // or be held by `work`.
  [[nodiscard]] bool begin(Work work);
  // True: it is done. False: one call has lasted for `call`, or all of it for `all`.
  struct Patience {
    Duration call, all;
  };
  [[nodiscard]] bool wait(Patience patience);
  // "nvmlDeviceGetMemoryInfo does not return".
  [[nodiscard]] std::string what_hangs() const;
  // Any thread. False when the driver hangs; see host::Worker::stop().
  [[nodiscard]] bool stop(Duration limit) { return worker_.stop(limit); }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool under_way_ = false;
  nvml::CallWatch watch_;
  nvml::Session session_;
  host::Worker worker_;
};

// Reads GPUs side by side. Owned and asked by one thread.
class GpuReaders {
 public:
  // How long one call about a GPU may last, and all of them, before it is told to be silent.
  static constexpr Errand::Patience kPatience = {std::chrono::seconds(5), std::chrono::seconds(20)};
  // GPUs beyond are not asked.
  static constexpr uint32_t kMaxGpus = 64;

  explicit GpuReaders(std::string root) : root_(std::move(root)) {}

  // GPUs 0 to count-1. kTimeout for one that hangs: it is asked again once the driver has answered.
  [[nodiscard]] std::vector<Result<ports::Gpu>> read(uint32_t count, ports::Detail detail);
  [[nodiscard]] Result<ports::Gpu> read_one(uint32_t index, ports::Detail detail);
  // Any thread, when nothing is read any more. False: the driver hangs.
  [[nodiscard]] bool stop(Duration limit);

 private:
  // A question that was begun, or null where the one before is under way; then its answer.
  using Answer = std::shared_ptr<std::optional<Result<ports::Gpu>>>;
  [[nodiscard]] Answer begin(uint32_t index, ports::Detail detail);
  [[nodiscard]] Result<ports::Gpu> wait(uint32_t index, const Answer& answer);

  std::string root_;
  std::vector<std::unique_ptr<Errand>> errands_;  // by GPU
};

// A session for verbs, which read one GPU after another and end: GPUs by GpuReaders' rules.
class PatientNvml final : public ports::Nvml {
 public:
  explicit PatientNvml(const std::string& root) : session_(root), readers_(root) {}
  [[nodiscard]] Status open() override { return session_.open(); }
  void close() override { session_.close(); }
  [[nodiscard]] Result<ports::DriverInfo> driver() override { return session_.driver(); }
  [[nodiscard]] Result<uint32_t> gpu_count() override { return session_.gpu_count(); }
  [[nodiscard]] Result<ports::Gpu> gpu(GpuIndex index, ports::Detail detail) override {
    return readers_.read_one(index.value, detail);
  }
  // False: a GPU hangs, and the process can only be left by _exit.
  [[nodiscard]] bool stop() { return readers_.stop(std::chrono::milliseconds(500)); }

 private:
  nvml::Session session_;
  GpuReaders readers_;
};

}  // namespace gpuslice::bin
