#include "sim/write_lock.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "sim/abort_point.h"

namespace gpuslice::sim {
namespace {

// Descriptors that carry a writer's lock. A child of fork() shares the open file description, and
// so the lock, of a parent that was writing at that moment; it must close its copy before it does
// anything else, or the lock would outlive a killed parent. Closing is allowed in a fork handler.
constexpr size_t kMaxLockDescriptors = 256;
std::array<std::atomic<int>, kMaxLockDescriptors> lock_descriptors{};  // fd + 1; 0: free

// No fork between opening such a descriptor and writing it down here.
std::mutex descriptor_mutex;

void before_fork() { descriptor_mutex.lock(); }
void after_fork_in_parent() { descriptor_mutex.unlock(); }
void after_fork_in_child() {
  for (std::atomic<int>& one : lock_descriptors)
    if (const int fd = one.exchange(0, std::memory_order_relaxed) - 1; fd >= 0) close(fd);
  descriptor_mutex.unlock();
}

// Finds a free place to write `fd` down.
bool remember(int fd, size_t& at) {
  for (size_t i = 0; i < lock_descriptors.size(); ++i) {
    int none = 0;
    if (!lock_descriptors[i].compare_exchange_strong(none, fd + 1)) continue;
    at = i;
    return true;
  }
  return false;
}

}  // namespace

WriteLock::~WriteLock() {
  if (fd_ < 0) return;
  abort_point("lock: release");
  // Said, not left to close(): a child forked by other means than fork() may share the
  // description.
  struct flock lock{};
  lock.l_type = F_UNLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  fcntl(fd_, F_OFD_SETLK, &lock);
  int mine = fd_ + 1;
  // Not ours any more when a fork handler has closed it already.
  if (lock_descriptors[at_].compare_exchange_strong(mine, 0)) close(fd_);
}

Status WriteLock::take(const std::string& path) {
  static const int registered =
      pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  (void)registered;
  std::unique_lock no_fork(descriptor_mutex);
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0)
    return fail(errno == ENOENT || errno == ENOTDIR                   ? Code::kNotFound
                : errno == EACCES || errno == EPERM || errno == EROFS ? Code::kNoPermission
                                                                      : Code::kFailed,
                "simulated node: world file {}: cannot be opened for writing: {}; see that the "
                "node still stands there and that everybody may write to it",
                path, std::strerror(errno));
  if (!remember(fd, at_)) {
    close(fd);
    return fail(Code::kUnavailable,
                "simulated node: world file {}: this process already writes {} worlds at once; "
                "try again",
                path, kMaxLockDescriptors);
  }
  no_fork.unlock();
  fd_ = fd;
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  while (fcntl(fd, F_OFD_SETLKW, &lock) != 0) {
    if (errno == EINTR) continue;
    return fail(Code::kFailed, "simulated node: world file {}: cannot be locked: {}; try again",
                path, std::strerror(errno));
  }
  abort_point("lock: taken");
  return {};
}

}  // namespace gpuslice::sim
