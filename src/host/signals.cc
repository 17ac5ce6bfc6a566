#include "host/signals.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <cerrno>
#include <cstring>

namespace gpuslice::host {
namespace {

sigset_t watched_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  return set;
}

}  // namespace

void Signals::block() {
  const sigset_t set = watched_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  struct sigaction ignore{};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, nullptr);
}

Result<std::unique_ptr<Signals>> Signals::watch(EventLoop& loop, Got got) {
  const sigset_t set = watched_signals();
  UniqueFd fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) {
    return fail(Code::kUnavailable, "signals: signalfd failed: {}", std::strerror(errno));
  }
  std::unique_ptr<Signals> signals(new Signals(std::move(fd), std::move(got)));
  TRY_ASSIGN(signals->token_, loop.watch(signals->fd_.get(), EPOLLIN,
                                         [raw = signals.get()](uint32_t) { raw->read_all(); }));
  return signals;
}

void Signals::read_all() {
  signalfd_siginfo info{};
  while (::read(fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    got_(static_cast<int>(info.ssi_signo));
  }
}

}  // namespace gpuslice::host
