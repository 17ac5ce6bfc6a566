#pragma once

// The log: lines of "time level text key=value…" (or one JSON object a line) to a file descriptor.
//
// A Log is an object handed down from bin/; there is no global one. Thread-safe. The clock is a
// function given by the owner, so that simulated time shows in simulated logs. A line that repeats
// the previous one of the same key is counted and not written until it changes ("… (said 12 times
// more)").

#include <fmt/core.h>

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "base/time.h"

namespace gpuslice {

enum class Level { kDebug, kInfo, kWarning, kError };

class Log {
 public:
  enum class Form { kText, kJson };
  using Sink = std::function<void(std::string_view line)>;  // line ends with '\n'; called under the
                                                            // Log's lock
  using Now = std::function<WallTime()>;

  Log(Sink sink, Now now, Level least = Level::kInfo, Form form = Form::kText)
      : sink_(std::move(sink)), now_(std::move(now)), least_(least), form_(form) {}
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  template <class... Args>
  void debug(fmt::format_string<Args...> text, Args&&... args) {
    if (least_ <= Level::kDebug)
      write(Level::kDebug, fmt::format(text, std::forward<Args>(args)...));
  }
  template <class... Args>
  void info(fmt::format_string<Args...> text, Args&&... args) {
    if (least_ <= Level::kInfo) write(Level::kInfo, fmt::format(text, std::forward<Args>(args)...));
  }
  template <class... Args>
  void warning(fmt::format_string<Args...> text, Args&&... args) {
    if (least_ <= Level::kWarning)
      write(Level::kWarning, fmt::format(text, std::forward<Args>(args)...));
  }
  template <class... Args>
  void error(fmt::format_string<Args...> text, Args&&... args) {
    write(Level::kError, fmt::format(text, std::forward<Args>(args)...));
  }

  // Writes `text` unless the last line said under `key` was the same: for conditions that are met
  // again and again (no driver yet). At most kMaxKeys keys are remembered; beyond that the oldest
  // key by name is forgotten.
  void once(Level level, std::string_view key, std::string text);
  // The condition of `key` is over: the next once() with the same text is written again.
  void over(std::string_view key);

  static constexpr size_t kMaxKeys = 256;

 private:
  void write(Level level, std::string_view text);

  std::mutex mutex_;
  Sink sink_;
  Now now_;
  Level least_;
  Form form_;
  std::map<std::string, std::string, std::less<>> said_;
};

// A sink that writes to file descriptor `fd` with one write(2) a line; it does not own it.
[[nodiscard]] Log::Sink fd_sink(int fd);

// "2026-11-24T10:16:37.123Z" of a wall time.
[[nodiscard]] std::string format_utc(WallTime time);

}  // namespace gpuslice
