#include "sim/clients.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "sim/abort_point.h"
#include "sim/clock.h"

namespace gpuslice::sim {
namespace {

// Counted in the child, before fork() returns there. MADV_WIPEONFORK would also see a raw clone(),
// but who clones without fork() execs.
std::atomic<uint32_t> forks_behind_us{0};

void count_fork() { forks_behind_us.fetch_add(1, std::memory_order_relaxed); }

// Field 22 of /proc/self/stat. The name in field 2 may hold blanks and parentheses, so fields are
// counted from the last ')'.
uint64_t read_start_ticks() {
  const int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  std::array<char, 1024> text{};
  const ssize_t got = read(fd, text.data(), text.size() - 1);
  close(fd);
  if (got <= 0) return 0;
  const char* at = std::strrchr(text.data(), ')');
  if (at == nullptr) return 0;
  ++at;  // the blank before field 3
  for (int field = 3; field < 22; ++field) {
    at = std::strchr(at + 1, ' ');
    if (at == nullptr) return 0;
  }
  return std::strtoull(at + 1, nullptr, 10);
}

struct flock byte_lock(uint16_t slot, short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = slot;
  lock.l_len = 1;
  return lock;
}

}  // namespace

uint32_t fork_depth() {
  static const int registered = pthread_atfork(nullptr, nullptr, count_fork);
  (void)registered;
  return forks_behind_us.load(std::memory_order_relaxed);
}

ProcessId this_process() {
  // Remembered as one word each, so that a thread that races with another reads the same numbers.
  static std::atomic<uint64_t> known_start{0};
  static std::atomic<uint64_t> known_for{0};  // depth + 1
  const uint64_t now = uint64_t{fork_depth()} + 1;
  if (known_for.load(std::memory_order_acquire) != now) {
    known_start.store(read_start_ticks(), std::memory_order_relaxed);
    known_for.store(now, std::memory_order_release);
  }
  uint64_t image = 0;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): that is how the kernel hands the address over.
  if (const auto* random = reinterpret_cast<const void*>(getauxval(AT_RANDOM)))
    std::memcpy(&image, random, sizeof image);
  return {getpid(), known_start.load(std::memory_order_relaxed), image};
}

std::string process_name() { return program_invocation_short_name; }

struct ClientLocks::Impl {
  dev_t device = 0;
  ino_t inode = 0;
  int fd = -1;
  // Which slots this process holds, and at which fork depth it took them: a child finds another
  // depth and so holds none.
  std::array<std::atomic<uint32_t>, kMaxClients> held_at{};  // depth + 1; 0: not held
  ClientLocks face{nullptr};
  Impl* next = nullptr;
};

namespace {

// A list that only grows, by compare-and-swap: a child forked in the middle finds it whole.
template <class Impl>
std::atomic<Impl*>& lock_files() {
  static std::atomic<Impl*> head{nullptr};
  return head;
}

template <class Impl>
Impl* find(Impl* from, const struct stat& file) {
  for (Impl* at = from; at != nullptr; at = at->next)
    if (at->device == file.st_dev && at->inode == file.st_ino) return at;
  return nullptr;
}

}  // namespace

Result<ClientLocks*> ClientLocks::of(const std::string& path) {
  std::atomic<Impl*>& head = lock_files<Impl>();
  struct stat file{};
  // stat first: a second descriptor must not be opened and closed, that would drop our locks.
  if (stat(path.c_str(), &file) == 0)
    if (Impl* known = find(head.load(std::memory_order_acquire), file)) return &known->face;

  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    const Code code = errno == ENOENT                     ? Code::kNotFound
                      : errno == EACCES || errno == EROFS ? Code::kNoPermission
                                                          : Code::kFailed;
    return fail(
        code,
        "simulated node: client file {}: cannot be opened for writing: {}; make the node anew "
        "or give everybody write access to its world folder",
        path, std::strerror(errno));
  }
  // From here on the descriptor stays open whatever happens, see the header.
  if (fstat(fd, &file) != 0 || !S_ISREG(file.st_mode) ||
      static_cast<uint64_t>(file.st_size) != kClientFileBytes)
    return fail(
        Code::kCorrupt,
        "simulated node: client file {}: has {} bytes where {} are right; remove the node's "
        "folder and make it anew",
        path, file.st_size, kClientFileBytes);
  Impl* const made = new Impl;
  made->device = file.st_dev;
  made->inode = file.st_ino;
  made->fd = fd;
  made->face.impl_ = made;
  Impl* first = head.load(std::memory_order_acquire);
  do {
    if (Impl* known = find(first, file)) {
      delete made;  // another thread was first; our descriptor is left open
      return &known->face;
    }
    made->next = first;
  } while (!head.compare_exchange_weak(first, made, std::memory_order_acq_rel));
  return &made->face;
}

bool ClientLocks::take(uint16_t slot) {
  if (mine(slot)) return false;
  abort_point("clients: lock a slot");
  struct flock lock = byte_lock(slot, F_WRLCK);
  if (fcntl(impl_->fd, F_SETLK, &lock) != 0) return false;
  impl_->held_at[slot].store(fork_depth() + 1, std::memory_order_release);
  return true;
}

void ClientLocks::give(uint16_t slot) {
  if (!mine(slot)) return;
  impl_->held_at[slot].store(0, std::memory_order_release);
  abort_point("clients: unlock a slot");
  struct flock lock = byte_lock(slot, F_UNLCK);
  fcntl(impl_->fd, F_SETLK, &lock);
}

bool ClientLocks::mine(uint16_t slot) const {
  return impl_->held_at[slot].load(std::memory_order_acquire) == fork_depth() + 1;
}

std::optional<int32_t> ClientLocks::holder(uint16_t slot) const {
  if (mine(slot)) return getpid();
  struct flock lock = byte_lock(slot, F_WRLCK);
  if (fcntl(impl_->fd, F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return std::nullopt;
  return lock.l_pid > 0 ? lock.l_pid : 0;
}

// --- pure ---

ProcessId process_of(const Client& client) {
  return {client.pid, client.start_ticks, client.image};
}

uint16_t free_client_slot(const State& state) {
  for (uint16_t slot = 0; slot < kMaxClients; ++slot)
    if (!state.clients[slot].used) return slot;
  return kNoClient;
}

void attach_gpus(State& state, uint16_t slot, uint32_t gpus) {
  const uint32_t count = state.node.gpu_count;
  state.clients[slot].attached_gpus |=
      gpus & (count >= 32 ? 0xffffffffU : (uint32_t{1} << count) - 1);
}

void add_client(State& state, uint16_t slot, const NewClient& who) {
  Client& client = state.clients[slot];
  client = {};
  client.used = 1;
  client.simulated = who.simulated ? 1 : 0;
  client.alive = 1;
  client.pid = who.process.pid;
  client.start_ticks = who.process.start_ticks;
  client.image = who.process.image;
  attach_gpus(state, slot, who.attached_gpus);
  client.generation = state.node.next_generation++;
  client.attached_ns = now_ns(state);
  const size_t length = std::min(who.name.size(), kClientName - 1);
  std::memcpy(client.name, who.name.data(), length);
}

void remove_client(State& state, uint16_t slot) {
  unsubscribe_all(state, slot);
  for (Work& work : state.works)
    if (work.used && work.client == slot) work = {};
  state.clients[slot] = {};
}

bool subscribed(const State& state, uint16_t client, uint8_t gpu, uint8_t gi, uint8_t ci) {
  for (const Subscription& one : state.subscriptions)
    if (one.used && one.client == client && one.gpu == gpu && one.gi == gi && one.ci == ci)
      return true;
  return false;
}

bool subscribe(State& state, uint16_t client, uint8_t gpu, uint8_t gi, uint8_t ci) {
  if (subscribed(state, client, gpu, gi, ci)) return true;
  for (Subscription& one : state.subscriptions) {
    if (one.used) continue;
    one.used = 1;
    one.gpu = gpu;
    one.gi = gi;
    one.ci = ci;
    one.client = client;
    return true;
  }
  return false;
}

void unsubscribe_all(State& state, uint16_t client) {
  for (Subscription& one : state.subscriptions)
    if (one.used && one.client == client) one = {};
}

void remove_works_on(State& state, uint8_t gpu, uint8_t gi, uint8_t ci) {
  for (Work& work : state.works) {
    if (!work.used || work.gpu != gpu) continue;
    if (gi != kNone && (work.gi != gi || (ci != kNone && work.ci != ci))) continue;
    work = {};
  }
}

}  // namespace gpuslice::sim
