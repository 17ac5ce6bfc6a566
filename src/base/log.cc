#include "base/log.h"

#include <unistd.h>

#include <array>
#include <ctime>

#include "base/text.h"

namespace gpuslice {
namespace {
constexpr std::array<std::string_view, 4> kLevelNames = {"debug", "info", "warning", "error"};
}

std::string format_utc(WallTime time) {
  const int64_t nanos = time.time_since_epoch().count();
  const int64_t millis = nanos / 1'000'000 - (nanos % 1'000'000 < 0 ? 1 : 0);
  int64_t seconds = millis / 1000;
  int64_t rest = millis % 1000;
  if (rest < 0) {
    rest += 1000;
    seconds -= 1;
  }
  const std::time_t t = static_cast<std::time_t>(seconds);
  std::tm tm{};
  gmtime_r(&t, &tm);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", tm.tm_year + 1900, tm.tm_mon + 1,
                     tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, rest);
}

Log::Sink fd_sink(int fd) {
  return [fd](std::string_view line) {
    while (!line.empty()) {
      const ssize_t n = ::write(fd, line.data(), line.size());
      if (n <= 0) return;  // a log that cannot be written has nobody to tell
      line.remove_prefix(static_cast<size_t>(n));
    }
  };
}

void Log::once(Level level, std::string_view key, std::string text) {
  {
    const std::lock_guard lock(mutex_);
    auto it = said_.find(key);
    if (it != said_.end() && it->second == text) return;
    if (it == said_.end()) {
      if (said_.size() >= kMaxKeys) said_.erase(said_.begin());
      said_.emplace(key, text);
    } else {
      it->second = text;
    }
  }
  if (least_ <= level) write(level, text);
}

void Log::over(std::string_view key) {
  const std::lock_guard lock(mutex_);
  if (auto it = said_.find(key); it != said_.end()) said_.erase(it);
}

void Log::write(Level level, std::string_view text) {
  const std::string_view name = kLevelNames[static_cast<size_t>(level)];
  const std::lock_guard lock(mutex_);
  const std::string when = format_utc(now_());
  const std::string line =
      form_ == Form::kText
          ? fmt::format("{} {} {}\n", when, name, text)
          : fmt::format("{{\"time\":\"{}\",\"level\":\"{}\",\"message\":\"{}\"}}\n", when, name,
                        json_escape(text));
  sink_(line);
}

}  // namespace gpuslice
