#include "host/path_watch.h"

#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <optional>

#include "base/text.h"

namespace gpuslice::host {
namespace {

constexpr uint32_t kNameEvents = IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE;
constexpr uint32_t kSelfEvents = IN_DELETE_SELF | IN_MOVE_SELF;
constexpr uint32_t kContentEvents = IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB;
// A path that changes faster than it can be walked is walked this often, then again after kSettle.
constexpr int kMaxRearms = 8;

std::optional<std::string> read_link(const std::string& path) {
  std::array<char, 4096> target;
  const ssize_t length = ::readlink(path.c_str(), target.data(), target.size());
  if (length < 0) return std::nullopt;
  return std::string(target.data(), static_cast<size_t>(length));
}

void prepend_parts(std::deque<std::string>& parts, std::string_view path) {
  const std::vector<std::string_view> split_path = split(path, '/');
  for (auto part = split_path.rbegin(); part != split_path.rend(); ++part) {
    if (!part->empty() && *part != ".") parts.emplace_front(*part);
  }
}

}  // namespace

Result<std::unique_ptr<PathWatch>> PathWatch::watch(EventLoop& loop, std::string path, bool settle,
                                                    Changed changed) {
  UniqueFd fd(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!fd.valid()) {
    return fail(
        Code::kUnavailable,
        "{}: cannot be watched for changes: inotify: {}; raise fs.inotify.max_user_instances", path,
        std::strerror(errno));
  }
  std::unique_ptr<PathWatch> watch(
      new PathWatch(loop, std::move(fd), std::move(path), settle, std::move(changed)));
  TRY(watch->rearm());
  TRY_ASSIGN(watch->readable_, loop.watch(watch->fd_.get(), EPOLLIN,
                                          [raw = watch.get()](uint32_t) { raw->read_events(); }));
  return watch;
}

PathWatch::PathWatch(EventLoop& loop, UniqueFd fd, std::string path, bool settle, Changed changed)
    : loop_(loop),
      fd_(std::move(fd)),
      path_(std::move(path)),
      settle_(settle),
      changed_(std::move(changed)) {}

// Walks the path as the kernel would. A real folder is watched for going away, the folder of a link
// or of a missing name for that name, and the file at the end for what is written to it and for its
// name.
PathWatch::Wanted PathWatch::resolve() const {
  Wanted wanted;
  const auto want = [&wanted](const std::string& path, uint32_t mask, std::string_view name) {
    auto& [all, watched] = wanted[path.empty() ? "/" : path];
    all |= mask;
    if (name.empty()) {
      watched.itself = true;
    } else {
      watched.names.emplace(name);
    }
  };
  std::deque<std::string> parts;
  prepend_parts(parts, path_);
  std::string here;  // "" is the root
  int links = 0;
  while (!parts.empty()) {
    const std::string name = parts.front();
    parts.pop_front();
    if (name == "..") {
      here.resize(here.find_last_of('/') == std::string::npos ? 0 : here.find_last_of('/'));
      continue;
    }
    const std::string next = fmt::format("{}/{}", here, name);
    struct stat info{};
    if (::lstat(next.c_str(), &info) != 0) {
      want(here, kNameEvents, name);
      return wanted;
    }
    if (S_ISLNK(info.st_mode)) {
      want(here, kNameEvents, name);
      const std::optional<std::string> target = read_link(next);
      if (!target || ++links > kMaxLinks) return wanted;
      if (target->starts_with('/')) here.clear();
      prepend_parts(parts, *target);
      continue;
    }
    if (parts.empty() || !S_ISDIR(info.st_mode)) {
      want(here, kNameEvents, name);
      want(next, kSelfEvents | (S_ISREG(info.st_mode) ? kContentEvents : 0u), "");
      return wanted;
    }
    want(next, kSelfEvents, "");
    here = next;
  }
  return wanted;
}

Status PathWatch::rearm() {
  Wanted wanted = resolve();
  for (int round = 0; round < kMaxRearms; ++round) {
    std::map<int, Watched> watched;
    bool vanished = false;
    for (const auto& [path, what] : wanted) {
      const int descriptor = inotify_add_watch(
          fd_.get(), path.c_str(), what.first | IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_MASK_ADD);
      if (descriptor >= 0) {
        // Two paths may lead to one folder, which has one descriptor.
        Watched& entry = watched[descriptor];
        entry.names.insert(what.second.names.begin(), what.second.names.end());
        entry.itself = entry.itself || what.second.itself;
      } else if (errno == ENOSPC || errno == ENOMEM) {
        return fail(Code::kUnavailable,
                    "{}: cannot be watched for changes: inotify on {}: {}; raise "
                    "fs.inotify.max_user_watches",
                    path_, path, std::strerror(errno));
      } else if (errno == ENOENT || errno == ENOTDIR) {
        vanished = true;
      }  // else it may not be read: the folder above tells when that changes
    }
    for (const auto& [descriptor, old] : watched_) {
      if (!watched.contains(descriptor)) inotify_rm_watch(fd_.get(), descriptor);
    }
    watched_ = std::move(watched);
    // What changed between the walk and the watches would be missed: walk until two walks agree. A
    // folder that was not there for its watch may be there again for the second walk, another one.
    Wanted again = resolve();
    const bool same = std::equal(wanted.begin(), wanted.end(), again.begin(), again.end(),
                                 [](const auto& a, const auto& b) {
                                   return a.first == b.first && a.second.first == b.second.first &&
                                          a.second.second.names == b.second.second.names;
                                 });
    if (same && !vanished) return {};
    wanted = std::move(again);
  }
  unsteady_ = loop_.after(kSettle, [this] {
    unsteady_.reset();
    settled();
  });
  return {};
}

void PathWatch::read_events() {
  alignas(inotify_event) std::array<char, 16 * 1024> buffer;
  bool matters = false;
  ssize_t length = 0;
  while ((length = ::read(fd_.get(), buffer.data(), buffer.size())) > 0) {
    for (ssize_t at = 0; at < length;) {
      inotify_event event;
      std::memcpy(&event, buffer.data() + at, sizeof event);
      const char* name = buffer.data() + at + sizeof event;
      at += static_cast<ssize_t>(sizeof event + event.len);
      if ((event.mask & IN_Q_OVERFLOW) != 0) matters = true;
      const auto watched = watched_.find(event.wd);
      if (watched == watched_.end()) continue;
      if (event.len > 0) {
        matters = matters || watched->second.names.contains(std::string_view(name));
      } else if ((event.mask & IN_IGNORED) == 0 || watched->second.itself) {
        matters = true;
      }
    }
  }
  if (!matters) return;
  if (!settle_) {
    settled();
    return;
  }
  const MonotonicTime now = EventLoop::now();
  if (!timer_.active()) first_event_ = now;
  timer_ = loop_.at(std::min(now + kSettle, first_event_ + kSettleMost), [this] {
    timer_.reset();
    settled();
  });
}

void PathWatch::settled() {
  // A failure leaves the old watches: some changes may be missed, and the owner's next look mends
  // it.
  [[maybe_unused]] const Status armed = rearm();
  changed_();
}

}  // namespace gpuslice::host
