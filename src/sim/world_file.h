#pragma once

// The shared file of a world: how it is laid out, read, checked and published. No locks here: World
// holds the writer's lock when it publishes.
//
//   0     Header, one page
//   4096  copy 0 of the State, rounded up to whole pages
//   …     copy 1
//
// All words of the file are read and written as 64-bit atomics, so that a reader that is overtaken
// by a writer sees words of two worlds at worst, never half a word, and finds out by the sequence.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/result.h"
#include "sim/state.h"

namespace gpuslice::sim {

// The world file's format; with sizeof(State) it must match exactly.
inline constexpr uint32_t kWorldFormat = 1;
inline constexpr size_t kWorldPage = 4096;
inline constexpr size_t kCopyBytes = (sizeof(State) + kWorldPage - 1) / kWorldPage * kWorldPage;
inline constexpr size_t kWorldFileBytes = kWorldPage + 2 * kCopyBytes;

class WorldFile {
 public:
  // Writes a whole world file that holds `state` as sequence 2; the path must not exist. Readable
  // and writable by everybody.
  [[nodiscard]] static Status make(const std::string& path, const State& state);

  // Maps the file and checks header, sizes and the active copy.
  [[nodiscard]] static Result<std::unique_ptr<WorldFile>> map(const std::string& path);

  ~WorldFile();
  WorldFile(const WorldFile&) = delete;
  WorldFile& operator=(const WorldFile&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }

  // Whether descriptor `fd` is open on the very file that is mapped here: a node that was removed
  // and made anew has another, under the same name.
  [[nodiscard]] bool is_mapped_from(int fd) const;

  [[nodiscard]] uint64_t sequence() const;

  // Sleeps until the sequence differs from `seen` or the time is over; true when it differs.
  [[nodiscard]] bool wait(uint64_t seen, int64_t timeout_ns) const;

  // Copies the newest whole world to `out` and says its sequence. kCorrupt when the file is not
  // whole although nobody is writing.
  [[nodiscard]] Result<uint64_t> load(State& out) const;

  // Whether `state` differs from the newest world in the bytes from `from` to `to`. Only under the
  // writer's lock.
  [[nodiscard]] bool differs(const State& state, size_t from, size_t to) const;

  // Stores `state` over the idle copy and publishes it as `sequence`, which must be the current one
  // plus one. Only under the writer's lock.
  void publish(const State& state, uint64_t sequence);

  // The key of the trees that stand under the root; 0: none, or half-made.
  [[nodiscard]] uint64_t trees_key() const;
  void set_trees_key(uint64_t key);

 private:
  WorldFile(std::string path, std::byte* base, uint64_t device, uint64_t inode)
      : path_(std::move(path)), base_(base), device_(device), inode_(inode) {}

  [[nodiscard]] std::atomic_ref<uint64_t> word(size_t offset) const;
  // To be touched as atomics only.
  [[nodiscard]] uint64_t* words_of_copy(size_t index) const;
  [[nodiscard]] uint32_t* sequence_half() const;
  [[nodiscard]] Status check_header() const;
  // Copies copy `index` and returns the checksum of what it read.
  [[nodiscard]] uint64_t copy_out(size_t index, uint64_t sequence, State& out) const;

  std::string path_;
  std::byte* base_;
  uint64_t device_;
  uint64_t inode_;
};

// The checksum of a State published as `sequence`.
[[nodiscard]] uint64_t state_checksum(const State& state, uint64_t sequence);

}  // namespace gpuslice::sim
