// Every export with null, stale, random, wrong-version and short arguments, over a node that
// changes meanwhile. Each argument points to a block of just the size that the call was promised,
// so that the address sanitizer sees a byte too many; each answer must be one of NVML's codes, and
// the world must stay one.
//
//   byte 0   bits 0, 1: the driver branch; bit 2: strict clients
//   then records of 32 bytes: two choose a call (or, from kCalls on, a change of the world), and
//   each of its arguments takes the bytes it wants of the rest; what is missing is 0

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "base/check.h"
#include "sim/clients.h"
#include "sim/events.h"
#include "sim/faults.h"
#include "sim/life.h"
#include "sim/mig.h"
#include "sim/ret.h"
#include "sim/trees.h"
#include "sim/validate.h"
#include "sim/world.h"
#include "simnvml/exports.h"

namespace gpuslice::simnvml {

#define UNMODELLED(name) NVML_API int name();
#define UNMODELLED_DEVICE(name) NVML_API int name(Handle);
#include "simnvml/unmodelled.inc"
#undef UNMODELLED
#undef UNMODELLED_DEVICE

namespace {

// --- what is called

enum class Kind : uint8_t {
  kNone,
  kHandle,
  kWord,       // 32 bits
  kLong,       // 64 bits
  kTextIn,     // NUL-terminated
  kTextOut,    // followed by its length, or of 80 bytes
  kCount,      // uint32_t*
  kHandles,    // Handle*
  kStruct,     // any other pointer
  kVersioned,  // its first word is a version
  kBits,       // unsigned long*: preceded by a number of words
  kDetails,    // a struct that names an array
  kProcesses,  // likewise
};
struct Arg {
  Kind kind = Kind::kNone;
  uint32_t size = 0;  // of what is pointed to
};

template <class T>
consteval Arg arg_of() {
  if constexpr (std::is_same_v<T, Handle>) {
    return {Kind::kHandle, 0};
  } else if constexpr (!std::is_pointer_v<T>) {
    return {sizeof(T) == 8 ? Kind::kLong : Kind::kWord, 0};
  } else {
    using Pointee = std::remove_pointer_t<T>;
    constexpr auto size = static_cast<uint32_t>(sizeof(Pointee));
    if constexpr (std::is_same_v<T, const char*>) return {Kind::kTextIn, 0};
    if constexpr (std::is_same_v<T, char*>) return {Kind::kTextOut, 0};
    if constexpr (std::is_same_v<T, uint32_t*>) return {Kind::kCount, size};
    if constexpr (std::is_same_v<T, unsigned long*>) return {Kind::kBits, size};
    if constexpr (std::is_same_v<T, Handle*>) return {Kind::kHandles, size};
    if constexpr (std::is_same_v<T, ProcessDetailList*>) return {Kind::kDetails, size};
    if constexpr (std::is_same_v<T, ProcessesUtilizationInfo*>) return {Kind::kProcesses, size};
    if constexpr (requires(Pointee one) { one.version; }) return {Kind::kVersioned, size};
    return {Kind::kStruct, size};
  }
}

constexpr size_t kArgs = 8;
using Args = std::array<Arg, kArgs>;
template <class... A>
consteval Args args_of(int (*)(A...)) {
  return Args{arg_of<A>()...};
}

struct Export {
  std::string_view name;
  void (*function)();
  Args args;
};
const Export kExports[] = {
#define EXPORT(name, ...) {#name, reinterpret_cast<void (*)()>(&(name)), args_of(&(name))},
#define UNMODELLED EXPORT
#define UNMODELLED_DEVICE EXPORT
#include "simnvml/exports.inc"
#include "simnvml/unmodelled.inc"
#undef EXPORT
#undef UNMODELLED
#undef UNMODELLED_DEVICE
};
constexpr size_t kCalls = std::size(kExports);
static_assert(kCalls == 436, "all but nvmlErrorString");

// Arguments are integers and pointers: words, on the two ABIs that we run on.
__attribute__((no_sanitize("function"))) int call(const Export& e, const uintptr_t (&w)[kArgs]) {
  using Words = int (*)(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t,
                        uintptr_t);
  return reinterpret_cast<Words>(e.function)(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]);
}

// --- the node

constexpr const char* kDrivers[] = {"580.65.06", "570.124.06", "550.163.01", "535.261.03"};

std::unique_ptr<sim::State> first_state() {
  sim::NodeOptions options;
  options.virtual_clock = true;
  options.gpus = {{"A100-SXM4-40GB", sim::Sweep::kPlain},
                  {"H100-80GB-SXM", sim::Sweep::kMirrored},
                  {"RTX-PRO-6000-Blackwell-96GB", sim::Sweep::kPlain},
                  {"T4", sim::Sweep::kPlain},
                  {"H100-80GB-SXM", sim::Sweep::kPlain}};
  Result<sim::State> made = sim::make_state(options, 1);
  CHECK(made, "the node of the fuzz target: {}", made.error().text());
  auto state = std::make_unique<sim::State>(*made);
  const sim::Caller root{.admin = true};
  sim::Ret activation{};
  uint8_t gi = 0, ci = 0;
  (void)sim::set_mig_mode(*state, 0, true, root, activation);
  (void)sim::create_gi(*state, 0, ProfileId{9}, std::nullopt, root, gi);
  (void)sim::create_ci(*state, 0, gi, 1, std::nullopt, root, ci);
  sim::add_client(*state, 7, {.process = {4242, 1}, .name = "work", .simulated = true});
  for (const uint8_t gpu : {uint8_t{0}, uint8_t{1}, uint8_t{1}}) {
    sim::Work work;
    work.client = 7;
    work.gpu = gpu;
    work.gi = gpu == 0 ? gi : sim::kNone;
    work.ci = gpu == 0 ? ci : sim::kNone;
    work.memory_bytes = 1 << 30;
    work.activity_permille = 400;
    (void)sim::add_work(*state, work);
  }
  return state;
}

struct Node {
  std::string root;
  std::unique_ptr<sim::World> world;
  std::unique_ptr<sim::State> first = first_state();
};

Node& node() {
  static Node* const kNode = [] {
    auto* made = new Node;
    made->root = std::filesystem::temp_directory_path() / "gpuslice-exports-fuzz-XXXXXX";
    CHECK(mkdtemp(made->root.data()) != nullptr, "no folder for the node");
    const std::string library = made->root + "/library";  // nobody loads it
    std::ofstream(library).flush();
    CHECK(sim::lay_driver_files(made->root, kDrivers[0], library, ""), "the driver's files");
    sim::NodeOptions options;
    options.virtual_clock = true;
    options.gpus = {{"T4", sim::Sweep::kPlain}};
    auto world = sim::World::create(made->root, options);
    CHECK(world, "the world of the fuzz target: {}", world.error().text());
    made->world = std::move(*world);
    setenv("GPUSLICE_SIM_ROOT", made->root.c_str(), 1);
    std::atexit([] {
      std::error_code ignored;
      std::filesystem::remove_all(node().root, ignored);
    });
    return made;
  }();
  return *kNode;
}

// --- one input

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  [[nodiscard]] bool empty() const { return at_ >= size_; }
  Input record() {
    const size_t size = std::min<size_t>(32, size_ - at_);
    at_ += size;
    return {data_ + at_ - size, size};
  }
  uint8_t byte() { return empty() ? uint8_t{0} : data_[at_++]; }
  uint64_t bytes(int n) {
    uint64_t value = 0;
    for (int i = 0; i < n; ++i) value |= uint64_t{byte()} << (8 * i);
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

class Run {
 public:
  explicit Run(Input input) : input_(input), in_(input) {}

  void all() {
    begin();
    for (int i = 0; i < 128 && !input_.empty(); ++i) {
      in_ = input_.record();
      const auto which = static_cast<size_t>(in_.bytes(2)) % (kCalls + kChanges);
      if (which < kCalls) {
        one_call(kExports[which]);
      } else {
        one_change(which - kCalls);
      }
    }
    end();
  }

 private:
  static constexpr size_t kChanges = 40;  // more than there are: they come often

  void begin() {
    const uint8_t how = input_.byte();
    CHECK(node().world->write([&](sim::State& state) {
      state = *node().first;
      std::memset(state.node.driver, 0, sizeof state.node.driver);
      std::strcpy(state.node.driver, kDrivers[how & 3]);
      state.node.strict_clients = (how & 4) != 0 ? 1 : 0;
    }),
          "the world can be written");
    if ((how & 8) != 0) return;  // nothing is initialised
    const int began = nvmlInit_v2();
    CHECK(began == 0, "init answers {}", began);
    // So that the first byte of an argument finds something.
    for (uint32_t i = 0; i < 5; ++i) {
      Handle gpu = nullptr;
      CHECK(nvmlDeviceGetHandleByIndex_v2(i, &gpu) == 0, "GPU {}", i);
      pool_.push_back(gpu);
    }
    keep_others(pool_[0]);
  }

  void keep_others(Handle gpu) {
    Handle gi = nullptr, ci = nullptr;
    CiInfo info{};
    CHECK(nvmlDeviceGetGpuInstanceById(gpu, 2, &gi) == 0, "the GPU instance");
    CHECK(nvmlGpuInstanceGetComputeInstanceById(gi, 0, &ci) == 0, "the compute instance");
    CHECK(nvmlComputeInstanceGetInfo_v2(ci, &info) == 0, "the MIG device");
    Handle events = nullptr;
    CHECK(nvmlEventSetCreate(&events) == 0, "an event set");
    pool_.insert(pool_.end(), {gi, ci, info.device, events});
  }

  void end() {
    CHECK(node().world->write([](sim::State& state) {
      sim::clear_faults(state);
      state.node.driver_loaded = 1;
    }),
          "the world can be written");
    while (nvmlShutdown() == 0) {
    }
    for (const std::string& path : hidden_)
      std::filesystem::rename(node().root + "/hidden", node().root + path);
    const auto state = node().world->snapshot();
    CHECK(sim::validate(*state), "the world stays one: {}", sim::validate(*state).error().text());
  }

  // A block on the heap of just so many bytes; its first words are small numbers from the input.
  uint8_t* block(size_t size) {
    blocks_.push_back(std::make_unique<uint8_t[]>(size));
    uint8_t* bytes = blocks_.back().get();
    const uint8_t fill = in_.byte();
    std::memset(bytes, fill < 128 ? 0 : fill, size);
    for (size_t at = 0; at + 4 <= size && at < 16 && fill < 128; at += 4) bytes[at] = in_.byte();
    return bytes;
  }

  uintptr_t handle() {
    const uint8_t how = in_.byte();
    if (how == 0xff) return 0;
    if (how == 0xfe) return in_.bytes(8);
    if (pool_.empty()) return 0;
    const auto bits = reinterpret_cast<uintptr_t>(pool_[how % pool_.size()]);
    return how >= 0xf0 ? bits ^ (uintptr_t{1} << (in_.byte() % 64)) : bits;
  }

  uint32_t word() {
    const uint8_t how = in_.byte();
    return how < 0xf0 ? how : how == 0xf0 ? 0xffffffffU : static_cast<uint32_t>(in_.bytes(4));
  }

  uintptr_t text_in() {
    const uint8_t how = in_.byte();
    std::string text;
    const auto state = node().world->snapshot();
    switch (how % 8) {
      case 0:
        return 0;
      case 1:
        text = state->gpus[how / 8 % 5].uuid;
        break;
      case 2:
        text = sim::mig_uuid(*state, 0, 2, 0);
        break;
      case 3:
        text = std::string("MIG-") + state->gpus[0].uuid + (how < 128 ? "/2/0" : "/2/99");
        break;
      case 4:
        text = how < 128 ? "0000:07:00.0" : "0F:00.0";
        break;
      case 5: {
        char serial[32] = {};
        if (!pool_.empty()) (void)nvmlDeviceGetSerial(pool_[1], &serial[0], sizeof serial);
        text = serial;
        break;
      }
      default:
        for (int i = how / 8; i > 0; --i) text += static_cast<char>(in_.byte());
    }
    auto* bytes = block(text.size() + 1);
    std::memcpy(bytes, text.c_str(), text.size() + 1);
    return reinterpret_cast<uintptr_t>(bytes);
  }

  // A struct whose size is what its version word says: at least the word, at most 2 KiB.
  uint8_t* versioned(uint32_t size) {
    const uint8_t how = in_.byte();
    const uint32_t right = size | (uint32_t{how} % 4) << 24;
    constexpr uint32_t kOthers[] = {0x02000024, 0x03000028, 0x02000098, 0x03000098,
                                    0x02000088, 0x0300008c, 0x01000034, 0};
    const uint32_t word = how < 128   ? right
                          : how < 250 ? kOthers[how % std::size(kOthers)]
                                      : static_cast<uint32_t>(in_.bytes(4));
    auto* bytes = block(std::clamp(word & 0xffffffU, 4U, 2048U));
    std::memcpy(bytes, &word, sizeof word);
    return bytes;
  }

  // A list inside a struct: how many there are, where they stand, how large one is.
  uintptr_t listing(uint32_t size, size_t count_at, size_t entries_at, size_t entry) {
    auto* bytes = versioned(size);
    uint32_t word = 0;
    std::memcpy(&word, bytes, sizeof word);
    if ((word & 0xffffff) < size) return reinterpret_cast<uintptr_t>(bytes);
    const uint32_t count = in_.byte() % 5;
    void* entries = in_.byte() % 4 == 0 ? nullptr : block(count * entry);
    std::memcpy(bytes + count_at, &count, sizeof count);
    std::memcpy(bytes + entries_at, &entries, sizeof entries);
    return reinterpret_cast<uintptr_t>(bytes);
  }

  uintptr_t argument(const Export& e, size_t i) {
    const Arg& arg = e.args[i];
    const Kind next = i + 1 < kArgs ? e.args[i + 1].kind : Kind::kNone;
    const Kind before = i > 0 ? e.args[i - 1].kind : Kind::kNone;
    switch (arg.kind) {
      case Kind::kNone:
        return 0;
      case Kind::kHandle:
        return handle();
      case Kind::kLong:
        return in_.bytes(in_.byte() % 9);
      case Kind::kWord:
        if (before == Kind::kTextOut || e.name.ends_with("PerformanceStates")) return room_;
        if (next == Kind::kBits || e.name.ends_with("FieldValues")) return room_ = in_.byte() % 9;
        if (e.name.find("EventSetWait") != std::string_view::npos) return in_.byte() & 1;
        return word();
      case Kind::kTextIn:
        return text_in();
      default:
        return pointer(e, arg, before, next);
    }
  }

  uintptr_t pointer(const Export& e, const Arg& arg, Kind before, Kind next) {
    const uint8_t how = in_.byte();
    if (how == 0xff) return 0;
    switch (arg.kind) {
      case Kind::kTextOut:
        room_ = next == Kind::kWord ? how % 128 : 80;
        return reinterpret_cast<uintptr_t>(block(room_));
      case Kind::kCount:
        return count(e, how, before);
      case Kind::kVersioned:
        return reinterpret_cast<uintptr_t>(versioned(arg.size));
      case Kind::kDetails:
        return listing(arg.size, offsetof(ProcessDetailList, count),
                       offsetof(ProcessDetailList, entries), sizeof(ProcessDetail));
      case Kind::kProcesses:
        return listing(arg.size, offsetof(ProcessesUtilizationInfo, count),
                       offsetof(ProcessesUtilizationInfo, entries), sizeof(ProcessUtilizationInfo));
      default:
        return array(e, arg, before, next);
    }
  }

  // A number, mostly of the elements of the array behind or before it.
  uintptr_t count(const Export& e, uint8_t how, Kind before) {
    if (e.name.ends_with("PerformanceStates")) {  // followed by its size in bytes
      room_ = how % 80;
      return reinterpret_cast<uintptr_t>(block(room_));
    }
    const bool clocks =
        e.name.ends_with("SupportedMemoryClocks") || e.name.ends_with("SupportedGraphicsClocks");
    if (clocks && before == Kind::kCount)
      return reinterpret_cast<uintptr_t>(block(room_ * sizeof(uint32_t)));
    auto* bytes = block(sizeof(uint32_t));
    if (before != Kind::kHandles && before != Kind::kStruct) room_ = clocks ? how : how % 9;
    std::memcpy(bytes, &room_, sizeof room_);
    return reinterpret_cast<uintptr_t>(bytes);
  }

  uintptr_t array(const Export& e, const Arg& arg, Kind before, Kind next) {
    const bool counted = before == Kind::kCount || e.name.ends_with("FieldValues") ||
                         e.name.ends_with("RetiredPages_v2") ||
                         (arg.kind == Kind::kBits && before == Kind::kWord);
    if (next == Kind::kCount) room_ = 7;  // what a client holds ready: instanceCount
    const size_t elements = counted || next == Kind::kCount ? room_ : 1;
    auto* bytes = block(elements * arg.size);
    for (size_t i = 0; i < elements && e.name.ends_with("FieldValues"); ++i) {
      const uint32_t id = in_.byte() + 64U * (in_.byte() % 2);
      std::memcpy(bytes + i * arg.size, &id, sizeof id);
    }
    if (arg.kind == Kind::kHandles) {
      std::memset(bytes, 0, elements * arg.size);
      handles_.emplace_back(bytes, elements);
    }
    return reinterpret_cast<uintptr_t>(bytes);
  }

  void one_call(const Export& e) {
    blocks_.clear();
    handles_.clear();
    room_ = 1;
    uintptr_t words[kArgs];
    for (size_t i = 0; i < kArgs; ++i) words[i] = argument(e, i);
    const int code = call(e, words);
    CHECK((code >= 0 && code <= 30) || code == 999, "{} answers {}", e.name, code);
    if (code != 0) return;
    for (const auto& [bytes, count] : handles_) {
      for (size_t i = 0; i < count && pool_.size() < 64; ++i) {
        Handle one = nullptr;
        std::memcpy(&one, bytes + i * sizeof one, sizeof one);
        if (one != nullptr) pool_.push_back(one);
      }
    }
  }

  void hide(const std::string& path) {
    std::error_code error;
    if (!hidden_.empty()) return;
    std::filesystem::rename(node().root + path, node().root + "/hidden", error);
    if (!error) hidden_.push_back(path);
  }

  void one_change(size_t which) {
    const uint8_t what = in_.byte();
    const auto gpu = static_cast<uint8_t>(what % 5);
    switch (which % 9) {
      case 0:
        return hide("/dev/nvidia" + std::to_string(gpu));
      case 1:
        return hide(what % 2 == 0 ? "/dev/nvidia-caps/nvidia-cap2"
                                  : "/dev/nvidia-caps/nvidia-cap21");
      case 2:
        (void)nvmlErrorString(static_cast<int>(in_.bytes(4)));
        return;
      default:
        CHECK(node().world->write([&](sim::State& state) { change(state, which % 9, gpu); }),
              "the world can be written");
    }
  }

  void change(sim::State& state, size_t which, uint8_t gpu) {
    const uint8_t more = in_.byte();
    const sim::Caller root{.admin = true};
    switch (which) {
      case 3:
        state.gpus[gpu].lost ^= 1;
        break;
      case 4: {
        const uint8_t bit = more % 9;
        sim::push_event(state, {.type = uint64_t{1} << bit, .data = more, .gpu = gpu});
        break;
      }
      case 5: {
        sim::Fault fault;
        fault.kind = more % 4 == 0 ? sim::FaultKind::kLatency : sim::FaultKind::kFail;
        fault.latency_ns = 1000;
        fault.ret = more % 31;
        fault.times = 1 + more / 64;
        const std::string_view name = kExports[in_.bytes(2) % kCalls].name;
        (void)sim::add_fault(state, fault, more >= 200 ? "*" : name);
        break;
      }
      case 6:
        state.node.driver_loaded = more % 8 != 0;
        break;
      case 7: {
        uint8_t gi = 0, ci = 0;
        sim::Ret activation{};
        (void)sim::set_mig_mode(state, gpu, true, root, activation);
        (void)sim::create_gi(state, gpu, ProfileId{more}, std::nullopt, root, gi);
        (void)sim::create_ci(state, gpu, gi, 0, std::nullopt, root, ci);
        break;
      }
      default:
        if (more % 2 == 0) sim::remove_works_of(state, 7);
        (void)sim::reset_gpu(state, gpu, root);
        break;
    }
  }

  Input input_;
  Input in_;                  // the record at hand
  std::vector<Handle> pool_;  // what calls gave; some stale by now
  std::vector<std::unique_ptr<uint8_t[]>> blocks_;
  std::vector<std::pair<uint8_t*, size_t>> handles_;
  std::vector<std::string> hidden_;
  uint32_t room_ = 1;  // elements of the array at hand
};

}  // namespace
}  // namespace gpuslice::simnvml

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  gpuslice::simnvml::Run(gpuslice::simnvml::Input(data, size)).all();
  return 0;
}
