#include "simnvml/session.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <mutex>
#include <vector>

#include "base/text.h"
#include "sim/clients.h"
#include "sim/clock.h"

namespace gpuslice::simnvml {
namespace {

using sim::kMaxCis;
using sim::kMaxGis;
using sim::kMaxGpus;

// One opened node. Never destroyed once opened (a thread may still be in a call), but reused by the
// next init.
struct Node {
  std::string root;
  uint64_t inode = 0;
  std::unique_ptr<sim::World> world;
  sim::Visibility visible{""};
};

struct Session {
  std::mutex mutex;  // init and shutdown only
  std::vector<std::unique_ptr<Node>> nodes;
  std::atomic<Node*> open{nullptr};
  std::atomic<int> count{0};
  std::atomic<int> pid{0};
};

Session& session();

// A child of fork must not find a mutex held by a thread that it does not have.
void before_fork() {
  session().mutex.lock();
  lock_event_sets();
}
void after_fork() {
  unlock_event_sets();
  session().mutex.unlock();
}

Session* make_session() {
  pthread_atfork(before_fork, after_fork, after_fork);
  return new Session;
}

// The library's only state. Leaked on purpose: threads may call during exit.
Session& session() {
  static Session* const kSession = make_session();
  return *kSession;
}

// A handle's bits: the mark, the generation, the object. The mark stands where a user address has
// zeros. Generations are given once in the life of a node and repeat here after 2^35.
constexpr uint64_t kMark = 0x4e56;
constexpr uint32_t kObjectBits = 13;
constexpr uint32_t kMarkBits = 16;
constexpr uint64_t kGenerations = uint64_t{1} << (64 - kMarkBits - kObjectBits);
constexpr uint32_t kMigSlots = kMaxGis * kMaxCis;
constexpr uint32_t kObjectsOfGpu = 1 + kMigSlots + kMaxGis + kMigSlots;
static_assert(kMaxGpus * kObjectsOfGpu <= 1U << kObjectBits);
static_assert(sizeof(Handle) == sizeof(uint64_t));

// The calls that the world counts, by name.
std::optional<sim::Call> counted_call(std::string_view name) {
  if (name.starts_with("nvmlDeviceCreateGpuInstance")) return sim::Call::kCreateGi;
  if (name == "nvmlGpuInstanceDestroy") return sim::Call::kDestroyGi;
  if (name.starts_with("nvmlGpuInstanceCreateComputeInstance")) return sim::Call::kCreateCi;
  if (name == "nvmlComputeInstanceDestroy") return sim::Call::kDestroyCi;
  if (name == "nvmlDeviceSetMigMode") return sim::Call::kSetMigMode;
  return std::nullopt;
}

uint64_t generation_of(const sim::State& state, const Object& o) {
  const sim::Gpu& gpu = state.gpus[o.gpu];
  switch (o.kind) {
    case Kind::kGpu:
      return 0;
    case Kind::kGi:
      return gpu.gis[o.gi].live != 0 ? gpu.gis[o.gi].generation : 0;
    case Kind::kMig:
    case Kind::kCi:
      return gpu.gis[o.gi].live != 0 && gpu.gis[o.gi].cis[o.ci].live != 0
                 ? gpu.gis[o.gi].cis[o.ci].generation
                 : 0;
  }
  return 0;
}

uint32_t slot_of(const Object& o) {
  const uint32_t base = o.gpu * kObjectsOfGpu;
  switch (o.kind) {
    case Kind::kGpu:
      return base;
    case Kind::kMig:
      return base + 1 + o.gi * kMaxCis + o.ci;
    case Kind::kGi:
      return base + 1 + kMigSlots + o.gi;
    case Kind::kCi:
      return base + 1 + kMigSlots + kMaxGis + o.gi * kMaxCis + o.ci;
  }
  return base;
}

Object object_of_slot(uint64_t slot) {
  Object o;
  o.gpu = static_cast<uint32_t>(slot / kObjectsOfGpu);
  auto rest = static_cast<uint32_t>(slot % kObjectsOfGpu);
  if (rest == 0) return o;
  rest -= 1;
  if (rest < kMigSlots) {
    o.kind = Kind::kMig;
  } else if (rest - kMigSlots < kMaxGis) {
    o.kind = Kind::kGi;
    o.gi = static_cast<uint8_t>(rest - kMigSlots);
    return o;
  } else {
    o.kind = Kind::kCi;
    rest -= kMigSlots + kMaxGis;
  }
  o.gi = static_cast<uint8_t>(rest / kMaxCis);
  o.ci = static_cast<uint8_t>(rest % kMaxCis);
  return o;
}

uint64_t inode_of(const std::string& path) {
  struct stat st{};
  return ::stat(path.c_str(), &st) == 0 ? st.st_ino : 0;
}

bool has_world(const std::string& root) {
  return ::access((root + "/world/state").c_str(), F_OK) == 0;
}

// The folder above usr/… that this library lies in; "" if it lies elsewhere.
std::string own_root() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_root), &info) == 0 || info.dli_fname == nullptr)
    return "";
  std::unique_ptr<char, decltype(&std::free)> real(::realpath(info.dli_fname, nullptr), &std::free);
  std::string path = real ? real.get() : info.dli_fname;
  for (size_t slash = path.rfind('/'); slash != std::string::npos && slash > 0;
       slash = path.rfind('/', slash - 1)) {
    const std::string folder = path.substr(0, slash);
    if (has_world(folder)) return folder;
  }
  return "";
}

std::string find_root() {
  if (const char* said = std::getenv("GPUSLICE_SIM_ROOT"); said != nullptr && *said != '\0')
    return said;
  if (std::string own = own_root(); !own.empty()) return own;
  return "/run/gpuslice-sim";
}

void complain(const Error& error) {
  static std::atomic<bool> said{false};
  if (!said.exchange(true))
    std::fprintf(stderr, "libnvidia-ml (simulated): %s\n", error.text().c_str());
}

Ret open_node(Session& s, Node*& out) {
  const std::string root = find_root();
  const uint64_t inode = inode_of(root + "/world/state");
  for (const auto& node : s.nodes) {
    if (node->root == root && node->inode == inode && inode != 0) {
      out = node.get();
      return Ret::kSuccess;
    }
  }
  auto world = sim::World::open(root);
  if (!world) {
    if (world.error().code != Code::kNotFound) complain(world.error());
    return world.error().code == Code::kNoPermission ? Ret::kNoPermission : Ret::kDriverNotLoaded;
  }
  auto node = std::make_unique<Node>();
  node->root = root;
  node->inode = inode;
  node->world = std::move(*world);
  node->visible = sim::Visibility(root);
  out = node.get();
  s.nodes.push_back(std::move(node));
  return Ret::kSuccess;
}

void wait_ns(int64_t ns) {
  timespec left{static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
  while (::nanosleep(&left, &left) != 0) {
  }
}

constexpr uint32_t kNoAttach = 2;  // NVML_INIT_FLAG_NO_ATTACH

}  // namespace

int to_int(Ret ret) { return static_cast<int>(ret); }

int64_t Call::now() const { return sim::now_ns(state()); }

sim::Caller Call::caller() const {
  return {.admin = ::geteuid() == 0 || visible.mig_config(),
          .client = world.attached().value_or(sim::kNoClient)};
}

namespace {

// What a fault does to a call: an answer, a wait, or no return before the faults are cleared.
Ret suffer(const sim::Strike& strike, sim::World& world) {
  constexpr int64_t kLook = 20'000'000;
  switch (strike.kind) {
    case sim::FaultKind::kFail:
      return strike.ret;
    case sim::FaultKind::kLatency:
      wait_ns(strike.latency_ns);
      return Ret::kSuccess;
    case sim::FaultKind::kHang:
      while (sim::hangs_last(*world.snapshot())) wait_ns(kLook);
      return Ret::kSuccess;
  }
  return Ret::kSuccess;
}

// Init and shutdown suffer without the session's mutex: a hanging init stands in nobody's way.
Ret suffer_node_fault(sim::World& world, const char* name) {
  const sim::CallSite site{name, sim::kAnyGpu, ::getpid()};
  if (!sim::might_strike(*world.snapshot(), site)) return Ret::kSuccess;
  const auto struck = world.write([&](sim::State& state) { return sim::strike(state, site); });
  return struck && *struck ? suffer(**struck, world) : Ret::kSuccess;
}

Ret node_of_init(Session& s, Node*& node) {
  const std::lock_guard lock(s.mutex);
  if (s.count.load() > 0 && s.pid.load() == ::getpid()) {
    node = s.open.load();
    return Ret::kSuccess;
  }
  return open_node(s, node);
}

}  // namespace

namespace {

// The driver's nodes that initialisation opens: in a container those of its own GPUs.
uint32_t visible_gpus(const Node& node) {
  const auto state = node.world->snapshot();
  uint32_t gpus = 0;
  for (uint32_t i = 0; i < state->node.gpu_count; ++i)
    if (node.visible.gpu(state->gpus[i].minor)) gpus |= uint32_t{1} << i;
  return gpus;
}

}  // namespace

Ret init(const char* name, uint32_t flags) {
  Session& s = session();
  Node* node = nullptr;
  if (const Ret ret = node_of_init(s, node); ret != Ret::kSuccess) return ret;
  if (const Ret ret = suffer_node_fault(*node->world, name); ret != Ret::kSuccess) return ret;
  const std::lock_guard lock(s.mutex);
  const int pid = ::getpid();
  if (s.count.load() > 0 && s.pid.load() == pid) {
    s.count.fetch_add(1);
    return Ret::kSuccess;
  }
  if (node->world->snapshot()->node.driver_loaded == 0 || !node->visible.control())
    return Ret::kDriverNotLoaded;
  if ((flags & kNoAttach) == 0 && !node->world->attach(visible_gpus(*node))) return Ret::kUnknown;
  s.open.store(node, std::memory_order_release);
  s.pid.store(pid);
  s.count.store(1);
  return Ret::kSuccess;
}

Ret shutdown() {
  Session& s = session();
  if (s.count.load() <= 0) return Ret::kUninitialized;
  if (const Ret ret = suffer_node_fault(*s.open.load()->world, "nvmlShutdown");
      ret != Ret::kSuccess)
    return ret;
  const std::lock_guard lock(s.mutex);
  if (s.count.load() <= 0) return Ret::kUninitialized;
  if (s.count.fetch_sub(1) > 1) return Ret::kSuccess;
  drop_event_sets();
  if (s.pid.load() == ::getpid()) s.open.load()->world->detach();
  return Ret::kSuccess;
}

uint32_t driver_major(const sim::State& state) {
  const std::string_view text(state.node.driver, strnlen(state.node.driver, sim::kDriverName));
  return static_cast<uint32_t>(parse_u64(text.substr(0, text.find('.'))).value_or(580));
}

Guard::Guard(const char* name, uint32_t gpu) {
  Session& s = session();
  if (s.count.load(std::memory_order_acquire) <= 0) return;
  Node* node = s.open.load(std::memory_order_acquire);
  world = node->world.get();
  visible = &node->visible;
  snapshot = world->snapshot();
  ret = snapshot->node.driver_loaded != 0 ? Ret::kSuccess : Ret::kUnknown;
  if (ret == Ret::kSuccess && name != nullptr) strike_if_due(name, gpu, *this);
}

void strike_if_due(const char* name, uint32_t gpu, Guard& guard) {
  if (guard.snapshot->faults.count == 0) return;
  const sim::CallSite site{name, gpu, ::getpid()};
  if (!sim::might_strike(*guard.snapshot, site)) return;
  const auto struck = guard.world->write([&](sim::State& st) {
    const std::optional<sim::Strike> one = sim::strike(st, site);
    // What a fault answers was asked for all the same: `show` counts it.
    const std::optional<sim::Call> call = counted_call(site.call);
    if (one && one->kind == sim::FaultKind::kFail && call && gpu < st.node.gpu_count)
      sim::count_call(st, gpu, *call, one->ret == Ret::kSuccess);
    return one;
  });
  guard.snapshot = guard.world->snapshot();
  if (!struck || !*struck) return;
  guard.ret = suffer(**struck, *guard.world);
  guard.snapshot = guard.world->snapshot();
}

void hold(const Call& call, const Object& object) {
  if (call.state().node.strict_clients == 0) return;
  const std::optional<uint16_t> slot = call.world.attached();
  const auto gpu = static_cast<uint8_t>(object.gpu);
  const uint8_t ci = object.kind == Kind::kCi ? object.ci : sim::kNone;
  if (!slot || sim::subscribed(call.state(), *slot, gpu, object.gi, ci)) return;
  const uint64_t generation = generation_of(call.state(), object);
  // A full table or a world that cannot be written leaves the handle uncounted, as a driver without
  // strictness would.
  [[maybe_unused]] const auto held = call.world.write([&](sim::State& state) {
    return generation_of(state, object) == generation &&
           sim::subscribe(state, *slot, gpu, object.gi, ci);
  });
}

Handle hand_out(const Call& call, const Object& object) {
  hold(call, object);
  return handle_of(call.state(), object);
}

Handle handle_of(const sim::State& state, const Object& object) {
  const uint64_t generation = generation_of(state, object) % kGenerations;
  return std::bit_cast<Handle>(kMark << (64 - kMarkBits) | generation << kObjectBits |
                               slot_of(object));
}

std::optional<Object> object_of(const sim::State& state, Handle handle) {
  const auto bits = std::bit_cast<uint64_t>(handle);
  if (bits >> (64 - kMarkBits) != kMark) return std::nullopt;
  const Object object = object_of_slot(bits & ((1U << kObjectBits) - 1));
  if (object.gpu >= state.node.gpu_count) return std::nullopt;
  const uint64_t generation = generation_of(state, object);
  if (object.kind != Kind::kGpu && generation == 0) return std::nullopt;
  if (generation % kGenerations != (bits >> kObjectBits) % kGenerations) return std::nullopt;
  return object;
}

Ret admit(const char* name, Guard& guard, Handle handle, Object& object) {
  const std::optional<Object> found = object_of(*guard.snapshot, handle);
  if (!found) return Ret::kInvalidArgument;
  object = *found;
  strike_if_due(name, object.gpu, guard);
  if (guard.ret != Ret::kSuccess) return guard.ret;
  if (guard.snapshot->gpus[object.gpu].lost != 0) return Ret::kGpuIsLost;
  return Ret::kSuccess;
}

uint32_t visible_gpus(const Call& call, uint32_t (&out)[sim::kMaxGpus]) {
  uint32_t n = 0;
  for (uint32_t gpu = 0; gpu < call.state().node.gpu_count; ++gpu)
    if (call.visible.gpu(call.state().gpus[gpu].minor)) out[n++] = gpu;
  return n;
}

bool visible_mig(const Call& call, uint32_t gpu, uint8_t gi, uint8_t ci) {
  const uint32_t minor = call.state().gpus[gpu].minor;
  return call.visible.gi(minor, gi) && call.visible.ci(minor, gi, ci);
}

Ret put_placements(std::span<const sim::Placement> all, PlacementAbi* out, uint32_t* count) {
  const auto n = static_cast<uint32_t>(all.size());
  const bool fits = out == nullptr || *count >= n;
  if (out != nullptr && fits)
    std::transform(all.begin(), all.end(), out,
                   [](const sim::Placement& one) { return PlacementAbi{one.start, one.size}; });
  *count = n;
  return fits ? Ret::kSuccess : Ret::kInsufficientSize;
}

void put_name(char (&out)[96], std::string_view name) {
  std::memset(out, 0, sizeof out);
  std::memcpy(out, name.data(), std::min(name.size(), sizeof out - 1));
}

Ret put_text(char* out, uint32_t length, std::string_view text) {
  if (out == nullptr) return Ret::kInvalidArgument;
  if (length < text.size() + 1) return Ret::kInsufficientSize;
  std::memcpy(out, text.data(), text.size());
  out[text.size()] = '\0';
  return Ret::kSuccess;
}

}  // namespace gpuslice::simnvml
