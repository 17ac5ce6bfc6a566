#include "host/node_host.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <thread>

#include "base/log.h"
#include "base/text.h"
#include "base/unique_fd.h"
#include "host/event_loop.h"
#include "host/files.h"

namespace gpuslice::host {
namespace {

constexpr const char* kBootId = "/proc/sys/kernel/random/boot_id";
constexpr size_t kMaxBootId = 128;
constexpr size_t kMaxLockText = 256;

}  // namespace

Result<std::string> NodeFiles::read(const std::string& path, size_t most) {
  return read_file(path, most);
}

Status NodeFiles::write_atomic(const std::string& path, const std::string& text, bool durable) {
  return write_file_atomically(path, text, durable);
}

Result<std::string> NodeFiles::boot_id() {
  Result<std::string> text = read_file(root_ + kBootId, kMaxBootId);
  // A driver root on a real machine is only the driver's files: the machine's own boot counts.
  if (!text) text = read_file(kBootId, kMaxBootId);
  if (!text) return text;
  return std::string(trim(*text));
}

bool NodeFiles::exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

Status NodeFiles::remove(const std::string& path, bool durable) {
  TRY(remove_file(path));
  return durable ? sync_folder_of(path) : Status();
}

Result<std::vector<std::string>> NodeFiles::list(const std::string& folder) {
  return list_folder(folder);
}

namespace {

class HeldFile final : public ports::Locks::Held {
 public:
  explicit HeldFile(UniqueFd fd) : fd_(std::move(fd)) {}

 private:
  UniqueFd fd_;
};

}  // namespace

Result<std::unique_ptr<ports::Locks::Held>> FileLocks::take(const std::string& path) {
  TRY(make_folders(path.substr(0, path.rfind('/'))));
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!fd.valid())
    return fail(code_of_errno(errno), "{}: cannot be opened for locking: {}", path,
                std::strerror(errno));
  struct flock whole{};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (::fcntl(fd.get(), F_OFD_SETLK, &whole) != 0) {
    if (errno != EAGAIN && errno != EACCES)
      return fail(Code::kFailed, "{}: cannot be locked: {}", path, std::strerror(errno));
    const auto holder = read_file(path, kMaxLockText);
    return fail(Code::kInUse, "busy, by {}; try again when it has ended",
                holder && !trim(*holder).empty() ? std::string(trim(*holder))
                                                 : std::string("another process"));
  }
  const std::string text =
      fmt::format("PID {}, since {}\n", ::getpid(), format_utc(SystemClock().wall()));
  // For whoever finds it locked; the lock holds without it.
  if (::ftruncate(fd.get(), 0) == 0) {
    const ssize_t written = ::pwrite(fd.get(), text.data(), text.size(), 0);
    static_cast<void>(written);
  }
  return std::make_unique<HeldFile>(std::move(fd));
}

bool locked_by_others(const std::string& folder) {
  std::error_code none;
  for (std::filesystem::directory_iterator it(folder, none), end; !none && it != end;
       it.increment(none)) {
    if (it->path().extension() != ".lock") continue;
    const UniqueFd fd(::open(it->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    struct flock whole{};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    if (!fd.valid() || ::fcntl(fd.get(), F_OFD_GETLK, &whole) != 0) continue;
    if (whole.l_type == F_UNLCK) continue;
    // Such a lock has no process that the kernel would name: its holder wrote down who it is.
    const auto holder = read_file(it->path().string(), kMaxLockText);
    if (!holder || !holder->starts_with(fmt::format("PID {},", ::getpid()))) return true;
  }
  return false;
}

void SystemPause::wait(Duration duration) { std::this_thread::sleep_for(duration); }

MonotonicTime SystemClock::now() const { return EventLoop::now(); }

WallTime SystemClock::wall() const {
  timespec time{};
  clock_gettime(CLOCK_REALTIME, &time);
  return WallTime(Duration(static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec));
}

}  // namespace gpuslice::host
