#include "bin/gpu_readers.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "host/event_loop.h"

namespace gpuslice::bin {
namespace {

// How often the call that is under way is looked at.
constexpr Duration kLook = std::chrono::milliseconds(250);

}  // namespace

Errand::Errand(std::string root, const std::string& thread)
    : session_(std::move(root)), worker_(thread) {
  session_.set_watch(&watch_);
}

Errand::~Errand() = default;

bool Errand::begin(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (under_way_) return false;
    under_way_ = true;
  }
  const bool posted = worker_.post([this, work = std::move(work)]() mutable {
    work(session_);
    session_.close();
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
    if (watch_.name() != nullptr && watch_.lasts() >= patience.call) return false;
    if (host::EventLoop::now() >= end) return false;
    changed_.wait_for(lock, kLook, [this] { return !under_way_; });
  }
  return true;
}

// The same sentence as long as it hangs: who is told it again needs not tell it again.
std::string Errand::what_hangs() const {
  const char* const name = watch_.name();
  return fmt::format("{} does not return", name == nullptr ? "the driver" : name);
}

GpuReaders::Answer GpuReaders::begin(uint32_t index, ports::Detail detail) {
  while (errands_.size() <= index)
    errands_.push_back(std::make_unique<Errand>(root_, fmt::format("nvml-gpu{}", errands_.size())));
  // Whoever was given up writes to an answer that nobody reads.
  auto answer = std::make_shared<std::optional<Result<ports::Gpu>>>();
  const bool begun = errands_[index]->begin([answer, index, detail](nvml::Session& session) {
    const Status opened = session.open();
    answer->emplace(opened ? session.gpu(GpuIndex{index}, detail)
                           : std::unexpected(opened.error()));
  });
  return begun ? answer : nullptr;
}

Result<ports::Gpu> GpuReaders::wait(uint32_t index, const Answer& answer) {
  Errand& errand = *errands_[index];
  if (answer && errand.wait(kPatience)) return std::move(**answer);
  return fail(Code::kTimeout, "GPU {}: {}", index, errand.what_hangs());
}

std::vector<Result<ports::Gpu>> GpuReaders::read(uint32_t count, ports::Detail detail) {
  std::vector<Answer> answers;
  for (uint32_t i = 0; i < std::min(count, kMaxGpus); ++i) answers.push_back(begin(i, detail));
  std::vector<Result<ports::Gpu>> out;
  for (uint32_t i = 0; i < answers.size(); ++i) out.push_back(wait(i, answers[i]));
  return out;
}

Result<ports::Gpu> GpuReaders::read_one(uint32_t index, ports::Detail detail) {
  if (index >= kMaxGpus) return fail(Code::kNotFound, "GPU {}: beyond {}", index, kMaxGpus);
  return wait(index, begin(index, detail));
}

bool GpuReaders::stop(Duration limit) {
  const MonotonicTime end = host::EventLoop::now() + limit;
  bool all = true;
  for (const auto& errand : errands_)
    all = errand->stop(std::max(end - host::EventLoop::now(), Duration::zero())) && all;
  return all;
}

}  // namespace gpuslice::bin
