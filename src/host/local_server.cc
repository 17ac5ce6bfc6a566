#include "host/local_server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "base/unix_address.h"
#include "host/files.h"

namespace gpuslice::host {
namespace {

constexpr int kBacklog = 16;
// Out of file descriptors: the next try.
constexpr Duration kAcceptPause = std::chrono::milliseconds(100);

bool somebody_answers(const std::string& path) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const std::optional<sockaddr_un> address = unix_address(path);
  return fd.valid() && address &&
         (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) == 0 ||
          errno == EAGAIN);  // a full backlog is somebody too
}

}  // namespace

LocalServer::LocalServer(EventLoop& loop, std::string path, Events events, Duration patience)
    : loop_(loop), path_(std::move(path)), events_(std::move(events)), patience_(patience) {}

LocalServer::~LocalServer() {
  struct stat info{};
  if (listener_.valid() && ::stat(path_.c_str(), &info) == 0 && info.st_dev == device_ &&
      info.st_ino == inode_)
    ::unlink(path_.c_str());
}

Result<std::unique_ptr<LocalServer>> LocalServer::listen(EventLoop& loop, const std::string& path,
                                                         Events events, Duration patience) {
  std::unique_ptr<LocalServer> server(new LocalServer(loop, path, std::move(events), patience));
  TRY(server->open());
  return server;
}

Status LocalServer::open() {
  // Bound beside and moved into place: nobody can connect before its mode is right, and a stale one
  // is replaced at once.
  const std::string beside = path_ + ".new";
  const std::optional<sockaddr_un> address = unix_address(beside);
  if (!address)
    return fail(Code::kInvalidConfig,
                "{}: a socket's path may have {} characters, this has {}; choose a shorter folder "
                "with --run-dir",
                path_, kMaxLocalPathBytes - 4, path_.size());
  if (somebody_answers(path_))
    return fail(Code::kInUse,
                "{}: another agent answers there; end it, or choose another --run-dir", path_);
  TRY(make_folders(path_.substr(0, path_.rfind('/'))));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  ::unlink(beside.c_str());
  struct stat info{};
  if (!fd.valid() ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0 ||
      ::chmod(beside.c_str(), 0600) != 0 || ::listen(fd.get(), kBacklog) != 0 ||
      ::stat(beside.c_str(), &info) != 0 || ::rename(beside.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(beside.c_str());
    return fail(code_of_errno(error) == Code::kNoPermission ? Code::kNoPermission : Code::kFailed,
                "{}: the socket cannot be made: {}; give write access to its folder, or choose "
                "another --run-dir",
                path_, std::strerror(error));
  }
  device_ = info.st_dev;
  inode_ = info.st_ino;
  listener_ = std::move(fd);
  TRY_ASSIGN(accepting_, loop_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept_all(); }));
  return {};
}

void LocalServer::accept_all() {
  while (true) {
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) {
      if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
      // Level-triggered: without a pause it would be tried again and again.
      accepting_.reset();
      accept_again_ = loop_.after(kAcceptPause, [this] {
        auto again = loop_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept_all(); });
        if (again) accepting_ = std::move(*again);
      });
      return;
    }
    if (connections_.size() >= kMaxLocalConnections) {
      ++counts_.refused;
      continue;
    }
    const Id id = next_id_++;
    Connection& connection = connections_[id];
    ucred peer{};
    socklen_t length = sizeof peer;
    if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0)
      connection.pid = peer.pid;
    connection.fd = std::move(fd);
    connection.deadline = loop_.after(patience_, [this, id] { cut(id); });
    (void)watch(id, connection);
  }
}

bool LocalServer::watch(Id id, Connection& connection) {
  connection.ready.reset();
  const bool writes = connection.sent < connection.out.size();
  auto ready = loop_.watch(connection.fd.get(), writes ? EPOLLIN | EPOLLOUT : EPOLLIN,
                           [this, id, writes](uint32_t events) {
                             // Who has gone or says more is heard of also while it does not read.
                             if (writes && (events & EPOLLOUT) != 0) return write(id);
                             read(id);
                           });
  if (!ready) {
    close(id);
    return false;
  }
  connection.ready = std::move(*ready);
  return true;
}

void LocalServer::read(Id id) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  Connection& connection = it->second;
  std::array<char, 16 * 1024> buffer;
  const ssize_t got = ::recv(connection.fd.get(), buffer.data(), buffer.size(), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return close(id);
  if (connection.asked) return cut(id);
  connection.in.append(buffer.data(), static_cast<size_t>(got));
  const size_t end = connection.in.find('\n');
  if (end == std::string::npos) {
    if (connection.in.size() > kMaxLocalRequestBytes) cut(id);
    return;
  }
  if (end > kMaxLocalRequestBytes || end + 1 != connection.in.size()) return cut(id);
  const std::string line = std::exchange(connection.in, {}).substr(0, end);
  connection.asked = true;
  connection.deadline.reset();
  ++counts_.requests;
  events_.asked({id, connection.pid}, line);
}

void LocalServer::answer(Id id, std::string text, Then then) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  Connection& connection = it->second;
  connection.out = std::move(text);
  connection.out += '\n';
  connection.sent = 0;
  connection.then = then;
  connection.deadline = loop_.after(patience_, [this, id] { cut(id); });
  write(id);
}

void LocalServer::write(Id id) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  Connection& connection = it->second;
  while (connection.sent < connection.out.size()) {
    const ssize_t put =
        ::send(connection.fd.get(), connection.out.data() + connection.sent,
               connection.out.size() - connection.sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EAGAIN) {
      (void)watch(id, connection);
      return;
    }
    if (put <= 0) return close(id);
    connection.sent += static_cast<size_t>(put);
  }
  if (connection.then == Then::kClose) {
    connection.asked = false;  // its end is ours: nobody is told
    return close(id);
  }
  connection.out = {};
  connection.sent = 0;
  connection.deadline.reset();
  (void)watch(id, connection);
}

void LocalServer::cut(Id id) {
  ++counts_.cut;
  close(id);
}

void LocalServer::close(Id id) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  const bool tell = it->second.asked;
  connections_.erase(it);
  if (tell && events_.gone) events_.gone(id);
}

LocalCounts LocalServer::counts() const {
  LocalCounts counts = counts_;
  counts.connections = connections_.size();
  return counts;
}

}  // namespace gpuslice::host
