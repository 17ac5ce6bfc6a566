#include "host/local_client.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/unix_address.h"
#include "host/event_loop.h"
#include "host/files.h"
#include "host/local_server.h"

namespace gpuslice::host {
namespace {

// False: not before `until`.
bool ready(int fd, short events, MonotonicTime until) {
  while (true) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - EventLoop::now()).count();
    pollfd one{fd, events, 0};
    const int count = ::poll(&one, 1, static_cast<int>(std::clamp<int64_t>(left, 0, 1'000'000)));
    if (count > 0) return true;
    if (count == 0) return false;
    if (errno != EINTR) return true;  // the call that follows says what it is
  }
}

}  // namespace

Result<std::optional<LocalClient>> LocalClient::connect(const std::string& path) {
  const std::optional<sockaddr_un> address = unix_address(path);
  if (!address) return std::nullopt;  // nobody can listen there
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return fail(Code::kFailed, "{}: {}", path, std::strerror(errno));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) == 0)
    return LocalClient(path, std::move(fd));
  if (errno == ENOENT || errno == ENOTDIR || errno == ECONNREFUSED) return std::nullopt;
  if (errno == EAGAIN)
    return fail(Code::kTimeout, "{}: the agent does not answer: too many wait there already", path);
  if (code_of_errno(errno) == Code::kNoPermission)
    return fail(Code::kNoPermission,
                "{}: the agent may be asked by its own user only: {}; run this as that user (root)",
                path, std::strerror(errno));
  return fail(Code::kFailed, "{}: {}", path, std::strerror(errno));
}

Result<std::string> LocalClient::ask(const std::string& line, Duration patience) {
  const MonotonicTime until = EventLoop::now() + patience;
  const auto late = [&] {
    return fail(Code::kTimeout, "{}: the agent has not answered for {} s", path_,
                std::chrono::ceil<std::chrono::seconds>(patience).count());
  };
  const auto gone = [&] {
    return fail(Code::kUnavailable, "{}: the agent closed the connection without an answer", path_);
  };
  const std::string request = line + "\n";
  for (size_t sent = 0; sent < request.size();) {
    const ssize_t put =
        ::send(fd_.get(), request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
    if (put > 0) {
      sent += static_cast<size_t>(put);
    } else if (put < 0 && errno == EAGAIN) {
      if (!ready(fd_.get(), POLLOUT, until)) return late();
    } else if (put < 0 && errno != EINTR) {
      return gone();
    }
  }
  std::string answer;
  std::array<char, 64 * 1024> buffer;
  while (true) {
    const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (got > 0) {
      answer.append(buffer.data(), static_cast<size_t>(got));
      if (answer.ends_with('\n')) {
        answer.pop_back();
        return answer;
      }
      if (answer.size() > kMaxLocalAnswerBytes)
        return fail(Code::kCorrupt, "{}: an answer of more than {} bytes", path_,
                    kMaxLocalAnswerBytes);
      continue;
    }
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) return gone();
    if (errno == EAGAIN && !ready(fd_.get(), POLLIN, until)) return late();
  }
}

}  // namespace gpuslice::host
