#include "host/node_host.h"

#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "host/event_loop.h"
#include "host/files.h"

namespace gpuslice::host {
namespace {

constexpr const char* kBootId = "/proc/sys/kernel/random/boot_id";
constexpr size_t kMaxBootId = 128;

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

MonotonicTime SystemClock::now() const { return EventLoop::now(); }

WallTime SystemClock::wall() const {
  timespec time{};
  clock_gettime(CLOCK_REALTIME, &time);
  return WallTime(Duration(static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec));
}

}  // namespace gpuslice::host
