#pragma once

// Questions to the driver that somebody stops waiting for: a GPU that hangs must not make the
// others stale.
//
// An Errand is a thread with an NVML session of its own and one question at a time. Who waits for
// the answer gives up when a single call of the driver lasts too long (a slow board makes many
// short calls); the thread then stays behind in that call until the driver returns, and is asked
// nothing more meanwhile.
//
// GpuReaders asks GPU after GPU on one thread, since that is the least that a node has to wake for.
// Once a call lasts for a moment another thread takes the GPUs that are left, and who does not
// return stays behind with the one GPU that it asked. So at most one thread for each GPU is ever
// left behind, and many that hang are told as soon as one.
//
// What a thread that hangs holds stays held: its session counts as a client of the driver, so that
// on Ampere nobody switches MIG meanwhile. And where the driver hangs inside one of its own locks
// (the kernel module has one for all GPUs), the calls about other GPUs hang behind it: then all of
// them are told to be silent, each with the call that does not return, and each is back by itself.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "host/worker.h"
#include "nvml/session.h"
#include "ports/nvml.h"

namespace gpuslice::bin {

// A thread with an NVML session of its own, and how long the call that it is in lasts.
struct NvmlThread {
  // `name`: as /proc shows it.
  NvmlThread(std::string root, const std::string& name) : session(std::move(root)), worker(name) {
    session.set_watch(&watch);
  }
  // Any thread. Whether a call has lasted for `limit`.
  [[nodiscard]] bool waits_for(Duration limit) const {
    return watch.name() != nullptr && watch.lasts() >= limit;
  }

  nvml::CallWatch watch;
  nvml::Session session;  // the thread's
  host::Worker worker;
};

// Owned and asked by one thread.
class Errand {
 public:
  using Work = std::function<void(nvml::Session&)>;  // opens it; it is closed afterwards

  // `thread`: its name, as /proc shows it.
  Errand(std::string root, const std::string& thread) : thread_(std::move(root), thread) {}
  Errand(const Errand&) = delete;
  Errand& operator=(const Errand&) = delete;
  ~Errand() = default;

  // False: the question before is still under way. What `work` writes to must outlive the thread,
  // or be held by `work`.
  [[nodiscard]] bool begin(Work work);
  // True: it is done. False: one call has lasted for `call`, or all of it for `all`.
  struct Patience {
    Duration call, all;
  };
  [[nodiscard]] bool wait(Patience patience);
  // Any thread. False when the driver hangs; see host::Worker::stop().
  [[nodiscard]] bool stop(Duration limit) { return thread_.worker.stop(limit); }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool under_way_ = false;
  NvmlThread thread_;
};

// Reads GPUs. Owned and asked by one thread.
class GpuReaders {
 public:
  // How long one call about a GPU may last, and all of them, before it is told to be silent.
  static constexpr Errand::Patience kPatience = {std::chrono::seconds(5), std::chrono::seconds(20)};
  // How long a call may last before somebody else goes on with the GPUs that are left.
  static constexpr Duration kMoment = std::chrono::milliseconds(250);
  // GPUs beyond are not asked.
  static constexpr uint32_t kMaxGpus = 64;

  explicit GpuReaders(std::string root) : root_(std::move(root)) {}

  // GPUs 0 to count-1. kTimeout for one that hangs: it is asked again once the driver has answered.
  [[nodiscard]] std::vector<Result<ports::Gpu>> read(uint32_t count, ports::Detail detail);
  [[nodiscard]] Result<ports::Gpu> read_one(uint32_t index, ports::Detail detail);
  // Any thread, when nothing is read any more. False: the driver hangs.
  [[nodiscard]] bool stop(Duration limit);

 private:
  struct Reader {
    Reader(const std::string& root, const std::string& name) : thread(root, name) {}
    [[nodiscard]] bool reads() const { return under_way && !given_up; }

    // Under the mutex. The GPU is the one that was taken last, until the session is closed.
    bool under_way = false;
    bool given_up = false;
    uint32_t gpu = 0;
    MonotonicTime since{};
    ports::Detail detail = ports::Detail::kInventory;
    NvmlThread thread;
  };

  // Answers for these GPUs, in their order.
  std::vector<Result<ports::Gpu>> read_these(const std::vector<uint32_t>& gpus,
                                             ports::Detail detail);
  // With the mutex held. False: the process ends.
  bool start_reader();
  [[nodiscard]] bool anyone_reads() const;
  void give_up(Reader& reader);
  // On a reader's thread.
  void run(Reader& reader);
  bool take(Reader& reader);
  void give(const Reader& reader, Result<ports::Gpu> answer);

  std::string root_;
  std::mutex mutex_;
  std::condition_variable changed_;  // a reader has ended
  ports::Detail detail_ = ports::Detail::kInventory;
  std::deque<uint32_t> left_;  // GPUs that nobody has taken
  std::map<uint32_t, Result<ports::Gpu>> answers_;
  std::vector<std::unique_ptr<Reader>> readers_;  // last: their threads use what is above
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
