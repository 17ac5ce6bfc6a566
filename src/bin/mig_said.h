#pragma once

// What the MIG verbs say: answers to the standard output, at once; all else to the error output.

#include <fmt/format.h>

#include <cstdio>
#include <string>

namespace gpuslice::bin {

inline void say(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}
inline void warn(const std::string& text) { fmt::print(stderr, "{}\n", text); }

}  // namespace gpuslice::bin
