#include "host/worker.h"

#include <pthread.h>

#include <chrono>
#include <utility>

#include "host/event_loop.h"

namespace gpuslice::host {

Worker::Worker(const std::string& name) : thread_([this] { run(); }) {
  pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
}

Worker::~Worker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    queue_.clear();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool Worker::post(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    if (queue_.size() >= kMaxWaiting) {
      ++refused_;
      return false;
    }
    queue_.push_back(std::move(work));
  }
  changed_.notify_all();
  return true;
}

bool Worker::stop(Duration limit) {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  queue_.clear();
  changed_.notify_all();
  return changed_.wait_for(lock, limit, [this] { return ended_; });
}

Duration Worker::busy_for() const {
  const std::lock_guard lock(mutex_);
  return busy_since_ == MonotonicTime{} ? Duration::zero() : EventLoop::now() - busy_since_;
}

size_t Worker::waiting() const {
  const std::lock_guard lock(mutex_);
  return queue_.size();
}

uint64_t Worker::refused() const {
  const std::lock_guard lock(mutex_);
  return refused_;
}

void Worker::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) break;
    Work work = std::move(queue_.front());
    queue_.pop_front();
    busy_since_ = EventLoop::now();
    lock.unlock();
    work();
    work = nullptr;  // what it holds goes on this thread, not under the lock
    lock.lock();
    busy_since_ = {};
  }
  ended_ = true;
  changed_.notify_all();
}

}  // namespace gpuslice::host
