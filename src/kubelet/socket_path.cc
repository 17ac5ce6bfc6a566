#include "kubelet/socket_path.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "base/unix_address.h"
#include "kubelet/plugin_server.h"

namespace gpuslice::kubelet {
namespace {

std::string command_of(pid_t pid) {
  const int fd = ::open(fmt::format("/proc/{}/comm", pid).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  std::array<char, 64> name{};
  const ssize_t length = ::read(fd, name.data(), name.size());
  ::close(fd);
  return length > 0 ? std::string(trim({name.data(), static_cast<size_t>(length)})) : "";
}

}  // namespace

Result<std::string> plugin_socket_path(std::string_view plugin_dir, std::string_view resource) {
  const std::string_view name = resource.substr(resource.find('/') + 1);
  std::string path = fmt::format("{}/nvidia-{}.sock", plugin_dir, name);
  if (path.size() > kMaxSocketPathBytes) {
    return fail(Code::kInvalidConfig,
                "{}: cannot be served: the path of its socket, {}, has {} characters and Linux "
                "allows {}; shorten the resource's name or the folder (--kubelet-dir)",
                resource, path, path.size(), kMaxSocketPathBytes);
  }
  return path;
}

std::string grpc_target(std::string_view path) {
  static constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/";
  std::string out = "unix:";
  for (const char c : path) {
    if (kPlain.find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

std::optional<pid_t> pid_that_serves(const std::string& path) {
  const std::optional<sockaddr_un> address = unix_address(path);
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!address || !fd.valid()) return std::nullopt;
  // A full backlog (EAGAIN) is somebody too.
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0 &&
      errno != EAGAIN)
    return std::nullopt;
  ucred peer{};
  socklen_t length = sizeof peer;
  const bool known = ::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0;
  return known ? std::max(peer.pid, 0) : 0;
}

std::optional<std::string> who_serves(const std::string& path) {
  const std::optional<pid_t> pid = pid_that_serves(path);
  if (!pid) return std::nullopt;
  const std::string command = *pid > 0 ? command_of(*pid) : "";
  const std::string name = command.empty() ? "another program" : command;
  return *pid > 0 ? fmt::format("{} (PID {})", name, *pid) : name;
}

std::expected<Listener, int> listen_at(const std::string& path, const std::string& beside,
                                       int backlog) {
  const std::optional<sockaddr_un> address = unix_address(beside);
  if (!address) return std::unexpected(ENAMETOOLONG);
  Listener listener;
  listener.fd = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener.fd.valid()) return std::unexpected(errno);
  ::unlink(beside.c_str());
  struct stat info{};
  if (::bind(listener.fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) !=
          0 ||
      ::listen(listener.fd.get(), backlog) != 0 || ::stat(beside.c_str(), &info) != 0 ||
      ::rename(beside.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(beside.c_str());
    return std::unexpected(error);
  }
  listener.device = info.st_dev;
  listener.inode = info.st_ino;
  return listener;
}

}  // namespace gpuslice::kubelet
