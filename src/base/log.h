#pragma once

// The log: lines of "time level text key=value…" (or one JSON object a line) to a file descriptor.
//
// A Log is an object handed down from bin/; there is no global one. Thread-safe. The clock is a
// function given by the owner, so that simulated time shows in simulated logs.
//
// Nothing fills a disk: a condition that is met again and again is said once (once()), and of equal
// lines kMaxSame are written within kSameWindow; those left out are counted, and told with the next
// line that is written after it. A line is one line, of kMaxLineBytes at most, whatever is in it.

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
  static constexpr uint64_t kMaxSame = 5;
  static constexpr Duration kSameWindow = std::chrono::minutes(1);
  static constexpr size_t kMaxLinesKnown = 128;  // different ones within the window
  static constexpr size_t kMaxLineBytes = 8 * 1024;

  // Lines that were not written because they were said already.
  [[nodiscard]] uint64_t left_out() const;

 private:
  struct Said {
    WallTime since{};
    uint64_t written = 0;
    uint64_t left_out = 0;
  };
  using Line = std::pair<Level, std::string>;
  void write(Level level, std::string_view text);
  // Under the mutex.
  void put(Level level, std::string_view text, WallTime now);
  void forget(std::map<Line, Said>::iterator line, WallTime now);

  mutable std::mutex mutex_;
  std::map<Line, Said> lines_;
  uint64_t left_out_ = 0;
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
