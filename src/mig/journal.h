#pragma once

// What is being done to a GPU, on disk before the first call that destroys: whoever starts after a
// crash finishes it or goes back. One file for each GPU, lines of text:
//
//   gpuslice-mig-journal 1
//   gpu GPU-…
//   boot <boot id>
//   before on                     the MIG mode, then its GPU instances:
//   before gi 9 4:4 ci 2 0:3      profile, placement, compute instances with theirs
//   after off
//   sum 0123456789abcdef          of everything above

#include <string>
#include <string_view>

#include "base/result.h"
#include "mig/gpu_state.h"

namespace gpuslice::mig {

struct Journal {
  std::string gpu;   // UUID
  std::string boot;  // this life of the machine; instances do not outlive it
  Layout before, after;
  // The layout is not known yet: the driver says only with MIG on what there is. After a crash it
  // goes back.
  bool provisional = false;
  friend bool operator==(const Journal&, const Journal&) = default;
};

inline constexpr size_t kMaxJournalBytes = 64 * 1024;

[[nodiscard]] std::string format_journal(const Journal& journal);
// The lines with the line that sums them up; each ends in a newline.
[[nodiscard]] std::string sealed(std::string lines);
// kCorrupt with what is wrong.
[[nodiscard]] Result<Journal> parse_journal(std::string_view text);

// <folder>/<uuid>.journal
[[nodiscard]] std::string journal_path(const std::string& folder, const std::string& gpu);

}  // namespace gpuslice::mig
