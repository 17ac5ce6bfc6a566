#include "sim/world_file.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>
#include <utility>

#include "sim/abort_point.h"
#include "sim/clock.h"
#include "sim/validate.h"

namespace gpuslice::sim {
namespace {

constexpr std::array<char, 16> kMagic = {'g', 'p', 'u', 's', 'l', 'i', 'c',  'e',
                                         ' ', 'w', 'o', 'r', 'l', 'd', '\n', '\0'};

// The first page. What never changes stands first; the rest is only touched as atomics.
struct Header {
  std::array<char, 16> magic = kMagic;
  uint32_t format = kWorldFormat;
  uint32_t byte_order = 0x01020304;
  uint64_t state_bytes = sizeof(State);
  uint64_t file_bytes = kWorldFileBytes;
  uint64_t sequence = 0;  // its parity says which copy is the world
  std::array<uint64_t, 2> checksum{};
  uint64_t trees_key = 0;
};
static_assert(sizeof(Header) <= kWorldPage && std::has_unique_object_representations_v<Header>);

constexpr size_t kSequenceAt = offsetof(Header, sequence);
constexpr size_t kChecksumAt = offsetof(Header, checksum);
constexpr size_t kTreesKeyAt = offsetof(Header, trees_key);
constexpr size_t kWords = sizeof(State) / sizeof(uint64_t);
static_assert(sizeof(State) % sizeof(uint64_t) == 0);
// A copy is written in eight pieces, with an abort point before each.
constexpr size_t kPiece = (kWords / 8 + 3) / 4 * 4;
static_assert(std::atomic_ref<uint64_t>::is_always_lock_free);

// A reader that is overtaken this often meets a broken file, not writers: a copy takes
// microseconds, a write many times that.
constexpr int kMaxOvertaken = 10'000;

// Four independent lanes of multiply and rotate, so that the sum keeps up with the copy: word i of
// the State goes to lane i mod 4.
class Sum {
 public:
  explicit Sum(uint64_t sequence) : lanes_{sequence, ~sequence, kWorldFormat, sizeof(State)} {}
  // Adds words `begin` to `end`, each as `word` gives it by its index. `begin` is a multiple of 4.
  template <class Word>
  void add(size_t begin, size_t end, const Word& word) {
    auto [a, b, c, d] = lanes_;  // in registers
    size_t i = begin;
    for (; i + 4 <= end; i += 4) {
      a = mixed(a, word(i));
      b = mixed(b, word(i + 1));
      c = mixed(c, word(i + 2));
      d = mixed(d, word(i + 3));
    }
    lanes_ = {a, b, c, d};
    for (; i < end; ++i) lanes_[i & 3] = mixed(lanes_[i & 3], word(i));
  }
  [[nodiscard]] uint64_t value() const {
    uint64_t sum = 0x94d049bb133111ebULL;
    for (const uint64_t lane : lanes_) {
      sum = std::rotl(sum ^ lane, 31) * 0x9e3779b97f4a7c15ULL;
      sum ^= sum >> 32;
    }
    return sum;
  }

 private:
  static uint64_t mixed(uint64_t lane, uint64_t word) {
    return std::rotl(lane ^ (word * 0x9e3779b97f4a7c15ULL), 29) * 0xbf58476d1ce4e5b9ULL;
  }

  std::array<uint64_t, 4> lanes_;
};

uint64_t word_of(const State& state, size_t index) {
  uint64_t word = 0;
  std::memcpy(&word, reinterpret_cast<const char*>(&state) + index * sizeof(word), sizeof(word));
  return word;
}

size_t copy_at(size_t index) { return kWorldPage + index * kCopyBytes; }

std::unexpected<Error> bad(const std::string& path, std::string_view cause) {
  return fail(
      Code::kCorrupt,
      "simulated node: world file {}: refused: {}; remove the node's folder and make it anew "
      "with gpuslice-sim create",
      path, cause);
}

Status write_all(int fd, const void* data, size_t bytes, off_t at) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t wrote = pwrite(fd, from, bytes, at);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return fail(Code::kFailed, "{}", std::strerror(errno));
    from += wrote;
    at += wrote;
    bytes -= static_cast<size_t>(wrote);
  }
  return {};
}

}  // namespace

uint64_t state_checksum(const State& state, uint64_t sequence) {
  Sum sum(sequence);
  sum.add(0, kWords, [&](size_t i) { return word_of(state, i); });
  return sum.value();
}

Status WorldFile::make(const std::string& path, const State& state) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0)
    return fail(errno == EACCES ? Code::kNoPermission : Code::kFailed,
                "simulated node: world file {}: cannot be made: {}; choose another folder", path,
                std::strerror(errno));
  Header header;
  header.sequence = 2;
  header.checksum[0] = state_checksum(state, header.sequence);
  Status done;
  if (fchmod(fd, 0666) != 0 || ftruncate(fd, static_cast<off_t>(kWorldFileBytes)) != 0)
    done = fail(Code::kFailed, "{}", std::strerror(errno));
  if (done) done = write_all(fd, &state, sizeof state, static_cast<off_t>(copy_at(0)));
  if (done) done = write_all(fd, &header, sizeof header, 0);
  close(fd);
  if (!done) {
    unlink(path.c_str());
    return fail(Code::kFailed,
                "simulated node: world file {}: cannot be written: {}; make room and try again",
                path, done.error().message);
  }
  return {};
}

Result<std::unique_ptr<WorldFile>> WorldFile::map(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR)
      return fail(Code::kNotFound,
                  "simulated node: no world file {}; make a node with gpuslice-sim create, or name "
                  "the right folder",
                  path);
    return fail(
        errno == EACCES || errno == EROFS || errno == EPERM ? Code::kNoPermission : Code::kFailed,
        "simulated node: world file {}: cannot be opened for writing: {}; give everybody "
        "write access to it",
        path, std::strerror(errno));
  }
  struct stat file{};
  if (fstat(fd, &file) != 0 || !S_ISREG(file.st_mode)) {
    close(fd);
    return bad(path, "it is not a regular file");
  }
  if (static_cast<uint64_t>(file.st_size) != kWorldFileBytes) {
    close(fd);
    return bad(path, fmt::format("it has {} bytes where this version's worlds have {}",
                                 file.st_size, kWorldFileBytes));
  }
  void* const base = mmap(nullptr, kWorldFileBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const int why = errno;
  close(fd);
  if (base == MAP_FAILED)
    return fail(Code::kFailed,
                "simulated node: world file {}: cannot be mapped: {}; free some memory", path,
                std::strerror(why));
  std::unique_ptr<WorldFile> world(
      new WorldFile(path, static_cast<std::byte*>(base), file.st_dev, file.st_ino));
  TRY(world->check_header());
  const auto state = std::make_unique<State>();
  if (Result<uint64_t> loaded = world->load(*state); !loaded)
    return std::unexpected(std::move(loaded).error());
  if (Status valid = validate(*state); !valid) return bad(path, valid.error().message);
  return world;
}

WorldFile::~WorldFile() { munmap(base_, kWorldFileBytes); }

std::atomic_ref<uint64_t> WorldFile::word(size_t offset) const {
  return std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(base_ + offset));
}

uint64_t* WorldFile::words_of_copy(size_t index) const {
  return reinterpret_cast<uint64_t*>(base_ + copy_at(index));
}

Status WorldFile::check_header() const {
  // These bytes are written before the file has its name and never after.
  Header header;
  std::memcpy(static_cast<void*>(&header), base_, kSequenceAt);
  if (header.magic != kMagic) return bad(path_, "it does not begin as a world file does");
  if (header.byte_order != 0x01020304)
    return bad(path_, "it was written by a machine of the other byte order");
  if (header.format != kWorldFormat)
    return bad(path_, fmt::format("it is of format {} where this version reads {}", header.format,
                                  kWorldFormat));
  if (header.state_bytes != sizeof(State) || header.file_bytes != kWorldFileBytes)
    return bad(path_, fmt::format("its world has {} bytes where this version's has {}",
                                  header.state_bytes, sizeof(State)));
  return {};
}

bool WorldFile::is_mapped_from(int fd) const {
  struct stat file{};
  return fstat(fd, &file) == 0 && file.st_dev == device_ && file.st_ino == inode_ &&
         file.st_nlink > 0;
}

uint64_t WorldFile::sequence() const { return word(kSequenceAt).load(std::memory_order_acquire); }

uint64_t WorldFile::copy_out(size_t index, uint64_t sequence, State& out) const {
  char* const to = reinterpret_cast<char*>(&out);
  uint64_t* const from = words_of_copy(index);
  Sum sum(sequence);
  sum.add(0, kWords, [&](size_t i) {
    // Acquire pairs with the release in publish(): a word of a newer writer makes that writer's
    // sequence visible to the check that follows in load().
    const uint64_t one = std::atomic_ref(from[i]).load(std::memory_order_acquire);
    std::memcpy(to + i * sizeof(one), &one, sizeof(one));
    return one;
  });
  return sum.value();
}

Result<uint64_t> WorldFile::load(State& out) const {
  for (int round = 0; round < kMaxOvertaken; ++round) {
    const uint64_t before = sequence();
    const size_t active = before & 1;
    const uint64_t wanted =
        word(kChecksumAt + active * sizeof(uint64_t)).load(std::memory_order_acquire);
    const uint64_t got = copy_out(active, before, out);
    if (sequence() != before) continue;  // overtaken: what was read may be of two worlds
    if (got != wanted) return bad(path_, "its checksum is wrong: something else has written to it");
    return before;
  }
  return bad(path_, "its sequence number never stands still");
}

bool WorldFile::differs(const State& state, size_t from, size_t to) const {
  const std::byte* const active = base_ + copy_at(sequence() & 1);
  return std::memcmp(active + from, reinterpret_cast<const std::byte*>(&state) + from, to - from) !=
         0;
}

void WorldFile::publish(const State& state, uint64_t sequence) {
  const size_t idle = sequence & 1;
  uint64_t* const to = words_of_copy(idle);
  Sum sum(sequence);
  for (size_t begin = 0; begin < kWords; begin += kPiece) {
    abort_point("state: copy");
    sum.add(begin, std::min(begin + kPiece, kWords), [&](size_t i) {
      const uint64_t one = word_of(state, i);
      std::atomic_ref(to[i]).store(one, std::memory_order_release);
      return one;
    });
  }
  abort_point("state: checksum");
  word(kChecksumAt + idle * sizeof(uint64_t)).store(sum.value(), std::memory_order_release);
  abort_point("state: sequence");
  word(kSequenceAt).store(sequence, std::memory_order_release);
  abort_point("state: wake");
  syscall(SYS_futex, sequence_half(), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

uint32_t* WorldFile::sequence_half() const {
  // A futex has 32 bits: the half of the sequence that moves.
  constexpr size_t half = std::endian::native == std::endian::little ? 0 : sizeof(uint32_t);
  return reinterpret_cast<uint32_t*>(base_ + kSequenceAt + half);
}

bool WorldFile::wait(uint64_t seen, int64_t timeout_ns) const {
  // A writer that dies between its store and its call leaves us asleep: look again now and then.
  constexpr int64_t kLookAgainNs = 1'000'000'000;
  const int64_t end = boottime_ns() + timeout_ns;
  while (sequence() == seen) {
    const int64_t left = std::min(end - boottime_ns(), kLookAgainNs);
    if (left <= 0) return false;
    const timespec nap{.tv_sec = left / 1'000'000'000, .tv_nsec = left % 1'000'000'000};
    syscall(SYS_futex, sequence_half(), FUTEX_WAIT, static_cast<uint32_t>(seen), &nap, nullptr, 0);
  }
  return true;
}

uint64_t WorldFile::trees_key() const { return word(kTreesKeyAt).load(std::memory_order_acquire); }

void WorldFile::set_trees_key(uint64_t key) {
  abort_point("state: trees key");
  word(kTreesKeyAt).store(key, std::memory_order_release);
}

}  // namespace gpuslice::sim
