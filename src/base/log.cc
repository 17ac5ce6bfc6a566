#include "base/log.h"

#include <unistd.h>

#include <algorithm>
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
  const std::lock_guard lock(mutex_);
  const WallTime now = now_();
  for (auto it = lines_.begin(); it != lines_.end();) {
    const auto line = it++;
    // A clock that was set back ends the window, too.
    if (now < line->second.since || now - line->second.since >= kSameWindow) forget(line, now);
  }
  const Line key{level, std::string(text.substr(0, kMaxLineBytes))};
  auto said = lines_.find(key);
  if (said == lines_.end()) {
    if (lines_.size() >= kMaxLinesKnown)
      forget(std::min_element(
                 lines_.begin(), lines_.end(),
                 [](const auto& a, const auto& b) { return a.second.since < b.second.since; }),
             now);
    said = lines_.emplace(key, Said{now, 0, 0}).first;
  }
  if (said->second.written >= kMaxSame) {
    ++said->second.left_out;
    ++left_out_;
    return;
  }
  ++said->second.written;
  put(level, key.second, now);
}

void Log::forget(std::map<Line, Said>::iterator line, WallTime now) {
  if (line->second.left_out > 0)
    put(line->first.first,
        fmt::format("said {} times more since {}: {}", line->second.left_out,
                    format_utc(line->second.since), line->first.second),
        now);
  lines_.erase(line);
}

void Log::put(Level level, std::string_view text, WallTime now) {
  const std::string_view name = kLevelNames[static_cast<size_t>(level)];
  const std::string when = format_utc(now);
  std::string line;
  if (form_ == Form::kText) {
    line = fmt::format("{} {} ", when, name);
    // What somebody else chose (a name, a path) makes no second line.
    for (const char c : text) line += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
    line += '\n';
  } else {
    line = fmt::format("{{\"time\":\"{}\",\"level\":\"{}\",\"message\":\"{}\"}}\n", when, name,
                       json_escape(text));
  }
  sink_(line);
}

uint64_t Log::left_out() const {
  const std::lock_guard lock(mutex_);
  return left_out_;
}

}  // namespace gpuslice
