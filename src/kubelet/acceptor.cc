#include "kubelet/acceptor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace gpuslice::kubelet {
namespace {

// What is heard of: a door's listener (connection 0), a connection, or the end (door 0).
uint64_t name_of(uint32_t door, uint32_t connection) {
  return static_cast<uint64_t>(door) << 32 | connection;
}

// Has gRPC closed its descriptor of this connection? Its number may be another file's by now.
bool closed(int fd, uint64_t device, uint64_t inode) {
  struct stat info{};
  return ::fstat(fd, &info) != 0 || info.st_dev != device || info.st_ino != inode;
}

}  // namespace

std::optional<size_t> who_goes(std::span<const Guest> guests, int pid, int kubelet) {
  const auto is_kubelet = [kubelet](int one) { return one != 0 && one == kubelet; };
  std::map<int, size_t> each;
  size_t most = 0;
  for (const Guest& guest : guests)
    if (!is_kubelet(guest.pid)) most = std::max(most, ++each[guest.pid]);
  if (most == 0 || (pid != 0 && each[pid] >= most)) return std::nullopt;
  std::optional<size_t> streams;
  for (size_t i = 0; i < guests.size(); ++i) {
    const Guest& guest = guests[i];
    if (is_kubelet(guest.pid) || each[guest.pid] < most) continue;
    if (!guest.streams) return i;
    if (!streams && guest.pid != 0 && (most > 1 || is_kubelet(pid))) streams = i;
  }
  return streams;
}

Acceptor::Acceptor()
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)), stop_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!epoll_.valid() || !stop_.valid() || !watch(stop_.get(), 0, 0, EPOLLIN)) {
    epoll_.reset(-1);  // open() says so
    return;
  }
  thread_ = std::thread([this] { run(); });
}

Acceptor::~Acceptor() {
  if (!thread_.joinable()) return;
  ::eventfd_write(stop_.get(), 1);
  thread_.join();
}

bool Acceptor::watch(int fd, uint32_t door, uint32_t connection, uint32_t events) const {
  epoll_event event{};
  event.events = events;
  event.data.u64 = name_of(door, connection);
  return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

Result<uint32_t> Acceptor::open(UniqueFd listener, Take take) {
  const std::lock_guard lock(mutex_);
  const uint32_t number = ++last_door_;
  if (!epoll_.valid() || !watch(listener.get(), number, 0, EPOLLIN))
    return fail(Code::kFailed, "connections cannot be waited for: {}", std::strerror(errno));
  Door& door = doors_[number];
  door.listener = std::move(listener);
  door.take = std::move(take);
  return number;
}

void Acceptor::close(uint32_t door) {
  const std::lock_guard lock(mutex_);
  const auto it = doors_.find(door);
  if (it == doors_.end()) return;
  // gRPC holds the same sockets: closing ours would not end the watch.
  for (const Connection& connection : it->second.open)
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, connection.ours.get(), nullptr);
  doors_.erase(it);
}

void Acceptor::run() {
  std::array<epoll_event, 64> events;
  while (true) {
    const int got = ::epoll_wait(epoll_.get(), events.data(), events.size(), -1);
    for (int i = 0; i < got; ++i) {
      const uint64_t name = events[static_cast<size_t>(i)].data.u64;
      const auto door = static_cast<uint32_t>(name >> 32);
      const auto connection = static_cast<uint32_t>(name);
      if (door == 0) return;
      bool starved = false;
      {
        const std::lock_guard lock(mutex_);
        const auto it = doors_.find(door);
        if (it == doors_.end()) continue;
        if (connection == 0) {
          starved = !accept_one(it->second, door);
        } else if (const auto gone =
                       std::ranges::find(it->second.open, connection, &Connection::number);
                   gone != it->second.open.end()) {
          end(it->second, static_cast<size_t>(gone - it->second.open.begin()));
        }
      }
      if (starved) pause();
    }
  }
}

bool Acceptor::accept_one(Door& door, uint32_t number) {
  std::erase_if(door.ending,
                [](const Connection& one) { return closed(one.given, one.device, one.inode); });
  // However fast they come and go, and however long gRPC takes to close them.
  if (door.ending.size() >= kMaxConnections) return false;
  // Both descriptors or none: who cannot have two waits in the backlog.
  Connection one;
  one.ours = UniqueFd(::fcntl(door.listener.get(), F_DUPFD_CLOEXEC, 0));
  if (!one.ours.valid()) return false;
  UniqueFd fd(::accept4(door.listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd.valid()) return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0) one.pid = peer.pid;
  if (!make_room(door, one.pid)) {
    ++door.refused;
    return true;
  }
  struct stat info{};
  if (++door.last_number == 0) door.last_number = 1;
  one.number = door.last_number;
  if (::dup3(fd.get(), one.ours.get(), O_CLOEXEC) < 0 || ::fstat(fd.get(), &info) != 0 ||
      !watch(one.ours.get(), number, one.number, EPOLLRDHUP)) {
    ++door.refused;
    return false;
  }
  one.device = info.st_dev;
  one.inode = info.st_ino;
  one.given = fd.get();
  door.open.push_back(std::move(one));
  door.take(std::move(fd));
  return true;
}

bool Acceptor::make_room(Door& door, int pid) {
  if (door.open.size() < kMaxConnections) return true;
  std::vector<Guest> guests;
  guests.reserve(door.open.size());
  for (const Connection& one : door.open) guests.push_back({one.pid, one.streams > 0});
  const std::optional<size_t> place = who_goes(guests, pid, kubelet());
  if (!place) return false;
  ++door.refused;
  end(door, *place);
  return true;
}

void Acceptor::end(Door& door, size_t place) {
  Connection gone = std::move(door.open[place]);
  door.open.erase(door.open.begin() + static_cast<std::ptrdiff_t>(place));
  // gRPC's descriptor keeps the socket, and with it the watch, until gRPC has seen the end.
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, gone.ours.get(), nullptr);
  ::shutdown(gone.ours.get(), SHUT_RDWR);
  gone.ours.reset(-1);
  door.ending.push_back(std::move(gone));
}

void Acceptor::pause() const {
  pollfd stop{stop_.get(), POLLIN, 0};
  const timespec time{0, kAcceptPause.count()};
  ::ppoll(&stop, 1, &time, nullptr);
}

Acceptor::Client Acceptor::stream_begun(uint32_t door, std::string_view peer) {
  const std::lock_guard lock(mutex_);
  const auto it = doors_.find(door);
  if (it == doors_.end()) return {};
  for (Connection& one : it->second.open) {
    if (peer != fmt::format("fd:{}", one.given)) continue;
    ++one.streams;
    return {one.number, one.pid};
  }
  return {};
}

void Acceptor::stream_ended(uint32_t door, const Client& client) {
  const std::lock_guard lock(mutex_);
  const auto it = doors_.find(door);
  if (it == doors_.end()) return;
  const auto one = std::ranges::find(it->second.open, client.connection, &Connection::number);
  if (one != it->second.open.end()) --one->streams;
}

Acceptor::Counts Acceptor::counts(uint32_t door) const {
  const std::lock_guard lock(mutex_);
  const auto it = doors_.find(door);
  if (it == doors_.end()) return {};
  return {it->second.open.size(), it->second.refused};
}

}  // namespace gpuslice::kubelet
