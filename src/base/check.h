#pragma once

// CHECK(condition, "what must hold, with {}", values): always on, for our own bugs only, never for
// input. It prints file, line, condition and message to stderr and aborts.

#include <fmt/core.h>

#include <string_view>

namespace gpuslice {

[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               std::string_view message);

}  // namespace gpuslice

#define CHECK(condition, ...)                                                               \
  do {                                                                                      \
    if (!(condition)) [[unlikely]]                                                          \
      ::gpuslice::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
  } while (false)
