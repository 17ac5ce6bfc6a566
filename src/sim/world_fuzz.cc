// Opens arbitrary world files: each is refused with a sentence or is a world that every reader and
// writer can work on. A file is hundreds of kilobytes, so an input is a list of edits of a whole
// one:
//
//   byte 0       bit 0: take the rest as the file itself; bit 1: make the checksum right
//   afterwards,
//                so that the fuzzer gets past it; bit 2: cut the file; bits 3, 4: name a folder, or
//                nothing, instead of the file
//   then, again and again: offset (3 bytes, little endian), length (1 byte), that many bytes

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/check.h"
#include "sim/clock.h"
#include "sim/events.h"
#include "sim/faults.h"
#include "sim/life.h"
#include "sim/mig.h"
#include "sim/trees.h"
#include "sim/validate.h"
#include "sim/world.h"
#include "sim/world_file.h"

namespace gpuslice::sim {
namespace {

constexpr size_t kSequenceAt = 40;  // world_file.cc, Header
constexpr size_t kChecksumAt = 48;

std::vector<uint8_t> whole_file() {
  NodeOptions options;
  options.virtual_clock = true;
  options.gpus = {{"A100-SXM4-40GB", Sweep::kPlain},
                  {"H100-80GB-SXM", Sweep::kMirrored},
                  {"RTX-PRO-6000-Blackwell-96GB", Sweep::kPlain},
                  {"T4", Sweep::kPlain}};
  Result<State> state = make_state(options, 1);
  CHECK(state, "the node of the fuzz target: {}", state.error().text());
  const Caller root{.admin = true};
  for (uint32_t gpu = 0; gpu < 3; ++gpu) {
    Ret activation = Ret::kSuccess;
    uint8_t gi = 0, ci = 0;
    (void)set_mig_mode(*state, gpu, true, root, activation);
    (void)create_gi(*state, gpu, ProfileId{gpu == 2 ? 5U : 9U}, std::nullopt, root, gi);
    (void)create_ci(*state, gpu, gi, 0, std::nullopt, root, ci);
  }
  std::string path = "/tmp/gpuslice-world-fuzz-XXXXXX";
  CHECK(mkdtemp(path.data()) != nullptr, "no folder in /tmp");
  const std::string file = path + "/state";
  CHECK(WorldFile::make(file, *state), "the world file of the fuzz target");
  std::vector<uint8_t> bytes(kWorldFileBytes);
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  CHECK(pread(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()), "short");
  close(fd);
  unlink(file.c_str());
  rmdir(path.c_str());
  return bytes;
}

void make_checksum_right(std::vector<uint8_t>& file) {
  if (file.size() != kWorldFileBytes) return;
  uint64_t sequence = 0;
  std::memcpy(&sequence, file.data() + kSequenceAt, sizeof sequence);
  const size_t active = sequence & 1;
  static State state;
  std::memcpy(static_cast<void*>(&state), file.data() + kWorldPage + active * kCopyBytes,
              sizeof state);
  const uint64_t sum = state_checksum(state, sequence);
  std::memcpy(file.data() + kChecksumAt + active * sizeof sum, &sum, sizeof sum);
}

std::vector<uint8_t> file_of(const uint8_t* data, size_t size) {
  static const std::vector<uint8_t> whole = whole_file();
  const uint8_t how = data[0];
  if ((how & 1) != 0) return {data + 1, data + size};
  std::vector<uint8_t> file = whole;
  size_t at = 1;
  while (at + 4 <= size) {
    const size_t offset = data[at] | size_t{data[at + 1]} << 8 | size_t{data[at + 2]} << 16;
    const size_t length = std::min<size_t>(data[at + 3], size - at - 4);
    at += 4;
    for (size_t i = 0; i < length; ++i) file[(offset + i) % file.size()] = data[at + i];
    at += length;
  }
  if ((how & 2) != 0) make_checksum_right(file);
  if ((how & 4) != 0) file.resize(file.size() - size);
  return file;
}

// What any client might do with a world that was accepted.
void use(const State& accepted) {
  static State state;
  state = accepted;
  const Caller root{.admin = true};
  settle_clock(state);
  const int64_t now = state.node.clock.last_ns;
  uint64_t masks[kMaxGpus] = {};
  std::fill(std::begin(masks), std::end(masks), ~uint64_t{0});
  (void)next_event(state, 1, masks);
  (void)strike(state, {.call = "nvmlDeviceGetName", .gpu = 1, .pid = 7});
  (void)tree_of(state);
  for (uint32_t gpu = 0; gpu < state.node.gpu_count; ++gpu) {
    (void)vitals(state, gpu, now);
    (void)gpu_memory(state, gpu);
  }
  settle(state, now);
  for (uint32_t gpu = 0; gpu < state.node.gpu_count; ++gpu) {
    uint32_t count = 0;
    std::array<Placement, 16> places{};
    for (const gpu::Profile& profile : board_of(state, gpu).profiles) {
      (void)gi_capacity(state, gpu, profile.id, count);
      (void)gi_placements(state, gpu, profile.id, places, count);
    }
    for (uint8_t gi = 0; gi < kMaxGis; ++gi) {
      (void)ci_capacity(state, gpu, gi, 0, count);
      uint8_t ci = 0;
      (void)create_ci(state, gpu, gi, 0, std::nullopt, root, ci);
    }
    const MigDevices devices = mig_devices(state, gpu);
    for (const MigDevice& one : devices) {
      CHECK(mig_uuid(state, gpu, one.gi, one.ci).size() == 40, "a UUID");
      (void)destroy_ci(state, gpu, one.gi, one.ci, root);
    }
    (void)reset_gpu(state, gpu, root);
  }
  CHECK(validate(state), "an accepted world stays one: {}", validate(state).error().text());
}

void run(const uint8_t* data, size_t size) {
  if (size == 0) return;
  const std::vector<uint8_t> file = file_of(data, size);
  const int fd = memfd_create("world", MFD_CLOEXEC);
  CHECK(fd >= 0 && write(fd, file.data(), file.size()) == static_cast<ssize_t>(file.size()),
        "a file in memory");
  {
    const std::string path = (data[0] & 8) != 0    ? "/proc/self/fd"
                             : (data[0] & 16) != 0 ? "/proc/self/fd/none"
                                                   : "/proc/self/fd/" + std::to_string(fd);
    Result<std::unique_ptr<WorldFile>> world = WorldFile::map(path);
    if (!world) {
      const std::string text = world.error().text();
      CHECK(text.starts_with("simulated node: ") && text.find("world file " + path) != text.npos,
            "a sentence that names the file: {}", text);
    } else {
      static State state;
      const Result<uint64_t> sequence = (*world)->load(state);
      CHECK(sequence, "what was accepted is whole");
      use(state);
      CHECK(!(*world)->wait(*sequence, 0), "nobody else writes");
      ++state.gpus[0].calls.reset.ok;
      (*world)->publish(state, *sequence + 1);
      (*world)->set_trees_key((*world)->trees_key() + 1);
      CHECK((*world)->load(state) == *sequence + 1, "what was published is there");
    }
  }
  close(fd);
}

}  // namespace
}  // namespace gpuslice::sim

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gpuslice::sim::run(data, size);
  return 0;
}
