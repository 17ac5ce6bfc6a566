#include "bin/gpu_readers.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <numeric>
#include <utility>

#include "host/event_loop.h"

namespace gpuslice::bin {

bool Errand::begin(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (under_way_) return false;
    under_way_ = true;
  }
  const bool posted = thread_.worker.post([this, work = std::move(work)]() mutable {
    work(thread_.session);
    thread_.session.close();
    work = nullptr;
    const std::lock_guard lock(mutex_);
    under_way_ = false;
    changed_.notify_all();
  });
  if (!posted) {  // the process ends
    const std::lock_guard lock(mutex_);
    under_way_ = false;
  }
  return posted;
}

bool Errand::wait(Patience patience) {
  const MonotonicTime end = host::EventLoop::now() + patience.all;
  std::unique_lock lock(mutex_);
  while (under_way_) {
    if (thread_.waits_for(patience.call)) return false;
    if (host::EventLoop::now() >= end) return false;
    changed_.wait_for(lock, GpuReaders::kMoment, [this] { return !under_way_; });
  }
  return true;
}

bool GpuReaders::start_reader() {
  auto reader = std::find_if(readers_.begin(), readers_.end(),
                             [](const auto& one) { return !one->under_way; });
  if (reader == readers_.end()) {
    readers_.push_back(
        std::make_unique<Reader>(root_, fmt::format("nvml-gpus{}", readers_.size())));
    reader = std::prev(readers_.end());
  }
  Reader& begun = **reader;
  begun.given_up = false;
  begun.under_way = begun.thread.worker.post([this, &begun] { run(begun); });
  return begun.under_way;
}

bool GpuReaders::take(Reader& reader) {
  const std::lock_guard lock(mutex_);
  if (reader.given_up || left_.empty()) return false;
  reader.gpu = left_.front();
  reader.since = host::EventLoop::now();
  reader.detail = detail_;
  left_.pop_front();
  return true;
}

void GpuReaders::give(const Reader& reader, Result<ports::Gpu> answer) {
  const std::lock_guard lock(mutex_);
  if (!reader.given_up) answers_.insert_or_assign(reader.gpu, std::move(answer));
}

void GpuReaders::run(Reader& reader) {
  // Taken first: a driver that does not even open is told of the GPU that was to be asked.
  if (take(reader)) {
    const Status opened = reader.thread.session.open();
    do {
      give(reader, opened ? reader.thread.session.gpu(GpuIndex{reader.gpu}, reader.detail)
                          : std::unexpected(opened.error()));
    } while (take(reader));
    reader.thread.session.close();
  }
  const std::lock_guard lock(mutex_);
  reader.under_way = false;
  changed_.notify_all();
}

void GpuReaders::give_up(Reader& reader) {
  reader.given_up = true;
  // The same sentence as long as it hangs: who is told it again needs not tell it again.
  const char* const call = reader.thread.watch.name();
  answers_.insert_or_assign(reader.gpu, fail(Code::kTimeout, "GPU {}: {} does not return",
                                             reader.gpu, call == nullptr ? "the driver" : call));
}

bool GpuReaders::anyone_reads() const {
  return std::any_of(readers_.begin(), readers_.end(),
                     [](const auto& reader) { return reader->reads(); });
}

std::vector<Result<ports::Gpu>> GpuReaders::read_these(const std::vector<uint32_t>& gpus,
                                                       ports::Detail detail) {
  std::unique_lock lock(mutex_);
  detail_ = detail;
  answers_.clear();
  left_.assign(gpus.begin(), gpus.end());
  for (const auto& reader : readers_) {
    if (!reader->under_way || std::erase(left_, reader->gpu) == 0) continue;
    give_up(*reader);
  }
  bool begun = left_.empty() || start_reader();
  while (begun && anyone_reads()) {
    if (changed_.wait_for(lock, kMoment, [this] { return !anyone_reads(); })) break;
    bool all_wait = true;
    for (const auto& reader : readers_) {
      if (!reader->reads()) continue;
      if (reader->thread.waits_for(kPatience.call) ||
          host::EventLoop::now() - reader->since >= kPatience.all)
        give_up(*reader);
      else
        all_wait = all_wait && reader->thread.waits_for(kMoment);
    }
    if (all_wait && !left_.empty()) begun = start_reader();
  }
  std::vector<Result<ports::Gpu>> out;
  for (const uint32_t gpu : gpus) {
    const auto answer = answers_.find(gpu);
    out.push_back(answer != answers_.end()
                      ? std::move(answer->second)
                      : fail(Code::kUnavailable, "GPU {}: not asked, since the process ends", gpu));
  }
  return out;
}

std::vector<Result<ports::Gpu>> GpuReaders::read(uint32_t count, ports::Detail detail) {
  std::vector<uint32_t> gpus(std::min(count, kMaxGpus));
  std::iota(gpus.begin(), gpus.end(), 0U);
  return read_these(gpus, detail);
}

Result<ports::Gpu> GpuReaders::read_one(uint32_t index, ports::Detail detail) {
  if (index >= kMaxGpus) return fail(Code::kNotFound, "GPU {}: beyond {}", index, kMaxGpus);
  return std::move(read_these({index}, detail).front());
}

bool GpuReaders::stop(Duration limit) {
  const MonotonicTime end = host::EventLoop::now() + limit;
  bool all = true;
  for (const auto& reader : readers_)
    all =
        reader->thread.worker.stop(std::max(end - host::EventLoop::now(), Duration::zero())) && all;
  return all;
}

}  // namespace gpuslice::bin
