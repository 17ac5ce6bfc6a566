// Process lists of all ABIs: strides, the protocol of sizes, who is seen on which device; and what
// is counted of processes.

#include <unistd.h>

#include "sim/clients.h"
#include "sim/life.h"
#include "simnvml/testing.h"

namespace gpuslice::simnvml {
namespace {

using sim::WorkKind;

constexpr uint64_t kGiB = uint64_t{1} << 30;

sim::Work work_of(WorkKind kind, uint64_t gib, uint8_t gpu = 0) {
  sim::Work work;
  work.gpu = gpu;
  work.kind = kind;
  work.memory_bytes = gib * kGiB;
  work.activity_permille = 250;
  return work;
}

sim::Work on_instance(uint64_t gib, uint8_t gi, uint8_t ci) {
  sim::Work work = work_of(WorkKind::kCompute, gib);
  work.gi = gi;
  work.ci = ci;
  return work;
}

struct ProcessesTest : LibraryTest {
  template <class Info>
  static bool untouched(const std::vector<Info>& rows, size_t from) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(rows.data());
    for (size_t i = from * sizeof(Info); i < rows.size() * sizeof(Info); ++i)
      if (bytes[i] != kFill) return false;
    return true;
  }

  // The rows of a list by its protocol: how many there are, then just so many.
  template <class Info>
  std::vector<Info> list(const char* name, Handle device, uint32_t expected) {
    const auto call = reinterpret_cast<int (*)(Handle, uint32_t*, Info*)>(symbol(name));
    uint32_t count = 0;
    const auto first = static_cast<Ret>(call(device, &count, nullptr));
    EXPECT_EQ(first, expected == 0 ? Ret::kSuccess : Ret::kInsufficientSize) << name;
    EXPECT_EQ(count, expected) << name;
    std::vector<Info> rows(expected + 3);
    std::memset(static_cast<void*>(rows.data()), kFill, rows.size() * sizeof(Info));
    for (uint32_t room = 0; room < expected; ++room) {
      count = room;
      EXPECT_EQ(static_cast<Ret>(call(device, &count, rows.data())), Ret::kInsufficientSize);
      EXPECT_EQ(count, expected) << name;
    }
    EXPECT_TRUE(untouched(rows, 0)) << name << ": too small, and nothing is written";
    count = expected;
    EXPECT_EQ(static_cast<Ret>(call(device, &count, rows.data())), Ret::kSuccess) << name;
    EXPECT_EQ(count, expected) << name;
    EXPECT_TRUE(untouched(rows, expected)) << name << ": no more than there are";
    count = expected + 3;
    EXPECT_EQ(static_cast<Ret>(call(device, &count, rows.data())), Ret::kSuccess) << name;
    EXPECT_EQ(count, expected) << name;
    EXPECT_EQ(static_cast<Ret>(call(device, nullptr, rows.data())), Ret::kInvalidArgument);
    rows.resize(expected);
    return rows;
  }

  std::vector<ProcessDetail> details(Handle device, uint32_t mode, uint32_t expected) {
    std::vector<ProcessDetail> rows(expected);
    ProcessDetailList all{0x01000018, mode, 0, nullptr};
    EXPECT_EQ(CALL(nvmlDeviceGetRunningProcessDetailList, device, &all),
              expected == 0 ? Ret::kSuccess : Ret::kInsufficientSize);
    EXPECT_EQ(all.count, expected);
    all.entries = rows.data();
    if (expected > 1) {
      all.count = expected - 1;
      EXPECT_EQ(CALL(nvmlDeviceGetRunningProcessDetailList, device, &all), Ret::kInsufficientSize);
      EXPECT_EQ(all.count, expected);
    }
    EXPECT_EQ(CALL(nvmlDeviceGetRunningProcessDetailList, device, &all), Ret::kSuccess);
    EXPECT_EQ(all.mode, mode);
    return rows;
  }
};

constexpr const char* kKinds[] = {"Compute", "Graphics", "MPSCompute"};

TEST_F(ProcessesTest, EveryAbiOfEveryKind) {
  begin(node_of({kA100, kT4}));
  // Three of each kind, PIDs mixed up.
  for (const uint32_t kind : {0U, 1U, 2U})
    for (const int32_t i : {2, 1, 3})
      add_process(static_cast<int32_t>(1000 * (kind + 1)) + i,
                  work_of(static_cast<WorkKind>(kind), kind + 1));
  for (uint32_t kind = 0; kind < 3; ++kind) {
    const std::string name = std::string("nvmlDeviceGet") + kKinds[kind] + "RunningProcesses";
    const auto v1 = list<ProcessInfoV1>(name.c_str(), gpu(), 3);
    const auto v2 = list<ProcessInfoV2>((name + "_v2").c_str(), gpu(), 3);
    const auto v3 = list<ProcessInfoV2>((name + "_v3").c_str(), gpu(), 3);
    const auto detail = details(gpu(), kind, 3);
    for (uint32_t i = 0; i < 3; ++i) {
      const uint32_t pid = 1000 * (kind + 1) + i + 1;
      const uint64_t memory = (kind + 1) * kGiB;
      EXPECT_EQ(v1[i].pid, pid);
      EXPECT_EQ(v1[i].memory, memory);
      for (const auto* rows : {&v2, &v3}) {
        EXPECT_EQ((*rows)[i].pid, pid);
        EXPECT_EQ((*rows)[i].memory, memory);
        EXPECT_EQ((*rows)[i].gi, 0xffffffffU);
        EXPECT_EQ((*rows)[i].ci, 0xffffffffU);
      }
      EXPECT_EQ(detail[i].pid, pid);
      EXPECT_EQ(detail[i].memory, memory);
      EXPECT_EQ(detail[i].gi, 0xffffffffU);
      EXPECT_EQ(detail[i].protected_memory, 0U);
    }
    (void)list<ProcessInfoV1>(name.c_str(), gpu(1), 0);
    (void)list<ProcessInfoV2>((name + "_v2").c_str(), gpu(1), 0);
    (void)list<ProcessInfoV2>((name + "_v3").c_str(), gpu(1), 0);
    EXPECT_TRUE(details(gpu(1), kind, 0).empty());
  }
  ProcessDetailList none{0x01000018, 3, 0, nullptr};
  EXPECT_EQ(CALL(nvmlDeviceGetRunningProcessDetailList, gpu(), &none), Ret::kInvalidArgument);
}

TEST_F(ProcessesTest, OneRowForAllTheWorkOfAProcess) {
  begin(node_of({kA100}));
  const uint16_t client = add_process(77, work_of(WorkKind::kCompute, 1));
  sim::Work more = work_of(WorkKind::kCompute, 2);
  more.client = client;
  ASSERT_TRUE(world->write([&](sim::State& state) { return sim::add_work(state, more); }));
  const auto rows = list<ProcessInfoV2>("nvmlDeviceGetComputeRunningProcesses_v3", gpu(), 1);
  EXPECT_EQ(rows[0].memory, 3 * kGiB);
}

// As a container sees its neighbours' processes: they are there, without a number.
TEST_F(ProcessesTest, OfAnotherPidNamespaceHaveNumber0AndARowEach) {
  begin(node_of({kA100}));
  ASSERT_TRUE(world->write([&](sim::State& state) {
    for (uint16_t slot = 0; slot < sim::kMaxClients; ++slot) {
      if (state.clients[slot].used == 0) continue;
      sim::Work work = work_of(WorkKind::kCompute, 3);  // ours, and we are out of sight in there
      work.client = slot;
      (void)sim::add_work(state, work);
    }
  }));
  add_process(0, work_of(WorkKind::kCompute, 1));
  add_process(0, work_of(WorkKind::kCompute, 2));
  const int ended = sim::run_walled_in([&] {
    uint32_t count = 8;
    ProcessInfoV2 rows[8] = {};
    if (CALL(nvmlDeviceGetComputeRunningProcesses_v3, gpu(), &count, &rows[0]) != Ret::kSuccess)
      return 1;
    if (count != 3) return 2;
    uint64_t memory = 0;
    for (uint32_t i = 0; i < count; ++i) {
      if (rows[i].pid != 0) return 3;
      memory += rows[i].memory;
    }
    if (memory != 6 * kGiB) return 4;
    ProcessUtilizationSample busy[72] = {};
    count = 72;
    if (CALL(nvmlDeviceGetProcessUtilization, gpu(), &busy[0], &count, 0) != Ret::kSuccess)
      return 5;
    if (count != 3) return 6;
    for (uint32_t i = 0; i < count; ++i)
      if (busy[i].pid != 0 || busy[i].sm != 25) return 7;
    char name[64] = {};
    return CALL(nvmlSystemGetProcessName, 0, &name[0], sizeof name) == Ret::kNotFound ? 0 : 8;
  });
  EXPECT_EQ(ended, 0);
  EXPECT_EQ(list<ProcessInfoV2>("nvmlDeviceGetComputeRunningProcesses_v3", gpu(), 3)[2].pid,
            static_cast<uint32_t>(::getpid()));
}

TEST_F(ProcessesTest, TheDeadAreNotListed) {
  begin(node_of({kA100}));
  const uint16_t client = add_process(77, work_of(WorkKind::kCompute, 1));
  add_process(78, work_of(WorkKind::kCompute, 1));
  (void)list<ProcessInfoV2>("nvmlDeviceGetComputeRunningProcesses_v3", gpu(), 2);
  ASSERT_TRUE(sim::kill_client(*world, client));
  const auto rows = list<ProcessInfoV2>("nvmlDeviceGetComputeRunningProcesses_v3", gpu(), 1);
  EXPECT_EQ(rows[0].pid, 78U);
}

TEST_F(ProcessesTest, AnInstanceShowsItsOwnAndItsParentAll) {
  begin(node_of({kA100}));
  mig_on(gpu());
  const Made big = make_instance(gpu(), 9, 2);
  const Made small = make_instance(gpu(), 19, 0);
  GiInfo big_info{}, small_info{};
  ASSERT_EQ(CALL(nvmlGpuInstanceGetInfo, big.gi, &big_info), Ret::kSuccess);
  ASSERT_EQ(CALL(nvmlGpuInstanceGetInfo, small.gi, &small_info), Ret::kSuccess);
  add_process(10, on_instance(2, static_cast<uint8_t>(big_info.id), 0));
  add_process(11, on_instance(1, static_cast<uint8_t>(small_info.id), 0));
  const char* name = "nvmlDeviceGetComputeRunningProcesses_v3";
  const auto of_big = list<ProcessInfoV2>(name, big.device, 1);
  EXPECT_EQ(of_big[0].pid, 10U);
  EXPECT_EQ(of_big[0].gi, big_info.id);
  EXPECT_EQ(of_big[0].ci, 0U);
  const auto of_small = list<ProcessInfoV2>(name, small.device, 1);
  EXPECT_EQ(of_small[0].pid, 11U);
  EXPECT_EQ(of_small[0].gi, small_info.id);
  EXPECT_EQ(list<ProcessInfoV2>(name, gpu(), 2)[0].gi, big_info.id);
  EXPECT_EQ(details(big.device, 0, 1)[0].gi, big_info.id);
  EXPECT_EQ(CALL(nvmlComputeInstanceDestroy, big.ci), Ret::kInUse);

  MemoryV1 memory{};
  ASSERT_EQ(CALL(nvmlDeviceGetMemoryInfo, big.device, &memory), Ret::kSuccess);
  EXPECT_GE(memory.used, 2 * kGiB);
  EXPECT_LT(memory.used, 3 * kGiB);
}

TEST_F(ProcessesTest, UtilizationOfProcesses) {
  begin(node_of({kA100}));
  uint32_t count = 0;
  // As an H200 answers (docs/hardware.md): less room than for what the driver keeps is too little,
  // before it looks whether there is anything.
  EXPECT_EQ(CALL(nvmlDeviceGetProcessUtilization, gpu(), nullptr, &count, 0),
            Ret::kInsufficientSize);
  ASSERT_EQ(count, 72U);
  std::vector<ProcessUtilizationSample> samples(count);
  --count;
  EXPECT_EQ(CALL(nvmlDeviceGetProcessUtilization, gpu(), samples.data(), &count, 0),
            Ret::kInsufficientSize);
  ASSERT_EQ(count, 72U);
  EXPECT_EQ(CALL(nvmlDeviceGetProcessUtilization, gpu(), samples.data(), &count, 0),
            Ret::kNotFound);
  for (const int32_t pid : {1, 2, 3}) add_process(pid, work_of(WorkKind::kCompute, 1));
  std::memset(static_cast<void*>(samples.data()), kFill, 4 * sizeof samples[0]);
  EXPECT_EQ(CALL(nvmlDeviceGetProcessUtilization, gpu(), samples.data(), &count, 0), Ret::kSuccess);
  ASSERT_EQ(count, 3U);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(samples[i].pid, i + 1);
    EXPECT_EQ(samples[i].sm, 25U);
  }
  EXPECT_EQ(samples[3].pid, 0xa5a5a5a5U);
  EXPECT_EQ(CALL(nvmlDeviceGetProcessUtilization, gpu(), samples.data(), &count, UINT64_MAX),
            Ret::kNotFound)
      << "nothing is newer";

  std::vector<ProcessUtilizationInfo> infos(72);
  ProcessesUtilizationInfo all{0x01000018, 0, 0, nullptr};
  EXPECT_EQ(CALL(nvmlDeviceGetProcessesUtilizationInfo, gpu(), &all), Ret::kInsufficientSize);
  ASSERT_EQ(all.count, 72U);
  all.entries = infos.data();
  EXPECT_EQ(CALL(nvmlDeviceGetProcessesUtilizationInfo, gpu(), &all), Ret::kSuccess);
  ASSERT_EQ(all.count, 3U);
  EXPECT_EQ(infos[2].pid, 3U);
  EXPECT_EQ(infos[2].sm, 25U);
  Utilization whole{};
  ASSERT_EQ(CALL(nvmlDeviceGetUtilizationRates, gpu(), &whole), Ret::kSuccess);
  EXPECT_EQ(whole.gpu, 75U);
}

TEST_F(ProcessesTest, SamplesAreNewerThanTheLastSeen) {
  begin(node_of({kA100}));
  // As long as the driver keeps samples.
  ASSERT_TRUE(world->write([](sim::State& state) {
    state.node.booted_ns = 0;
    state.node.clock.offset_ns += 60'000'000'000;
  }));
  uint32_t type = 99, count = 0;
  ASSERT_EQ(CALL(nvmlDeviceGetSamples, gpu(), 0, 0, &type, &count, nullptr), Ret::kSuccess);
  EXPECT_EQ(type, 1U);
  ASSERT_GE(count, 10U);
  std::vector<Sample> samples(count + 1);
  samples[count].timestamp = 1;
  uint32_t got = count;
  ASSERT_EQ(CALL(nvmlDeviceGetSamples, gpu(), 0, 0, &type, &got, samples.data()), Ret::kSuccess);
  ASSERT_EQ(got, count);
  EXPECT_EQ(samples[count].timestamp, 1U);
  for (uint32_t i = 1; i < got; ++i) EXPECT_GT(samples[i].timestamp, samples[i - 1].timestamp);
  EXPECT_GT(samples[0].value.ui, 10'000U) << "milliwatts";
  got = 3;
  ASSERT_EQ(CALL(nvmlDeviceGetSamples, gpu(), 0, 0, &type, &got, samples.data()), Ret::kSuccess);
  EXPECT_EQ(got, 3U) << "no more than the caller has room for";
  EXPECT_EQ(CALL(nvmlDeviceGetSamples, gpu(), 0, UINT64_MAX / 2, &type, &got, samples.data()),
            Ret::kNotFound);
  // The kinds as an H200 answers them: no clocks are sampled, 7 is not of a GPU, 8 and 9 are JPEG
  // and OFA.
  constexpr uint32_t kKept[] = {120, 72, 72, 72, 72, 100, 100, 0, 72, 72, 0};
  for (uint32_t kind = 0; kind <= 10; ++kind) {
    const Ret none = kKept[kind] == 0 ? Ret::kInvalidArgument : Ret::kSuccess;
    EXPECT_EQ(CALL(nvmlDeviceGetSamples, gpu(), kind, 0, &type, &got, nullptr), none) << kind;
    if (none == Ret::kSuccess) {
      EXPECT_EQ(got, kKept[kind]) << kind;
    }
    got = 1;
    EXPECT_EQ(CALL(nvmlDeviceGetSamples, gpu(), kind, 0, &type, &got, samples.data()),
              kind == 5 || kind == 6 ? Ret::kNotFound : none)
        << kind;
  }
}

// NVML's header: not under MIG.
TEST_F(ProcessesTest, UnderMigThereIsNoUtilization) {
  begin(node_of({kA100}));
  mig_on(gpu());
  const Made made = make_instance(gpu(), 9, 2);
  for (Handle one : {gpu(), made.device}) {
    uint32_t a = 0, b = 0;
    Utilization rates{};
    Sample sample{};
    EXPECT_EQ(CALL(nvmlDeviceGetUtilizationRates, one, &rates), Ret::kNotSupported);
    EXPECT_EQ(CALL(nvmlDeviceGetEncoderUtilization, one, &a, &b), Ret::kNotSupported);
    EXPECT_EQ(CALL(nvmlDeviceGetDecoderUtilization, one, &a, &b), Ret::kNotSupported);
    EXPECT_EQ(CALL(nvmlDeviceGetJpgUtilization, one, &a, &b), Ret::kNotSupported);
    EXPECT_EQ(CALL(nvmlDeviceGetOfaUtilization, one, &a, &b), Ret::kNotSupported);
    EXPECT_EQ(CALL(nvmlDeviceGetSamples, one, 1, 0, &a, &b, &sample), Ret::kNotSupported);
    EXPECT_EQ(CALL(nvmlDeviceGetProcessUtilization, one, nullptr, &a, 0), Ret::kNotSupported);
    EXPECT_EQ(CALL(nvmlDeviceGetNumGpuCores, one, &a), Ret::kNotSupported);
    EXPECT_EQ(CALL(nvmlDeviceGetRemappedRows, one, &a, &a, &a, &b), Ret::kNotSupported);
    ProcessesUtilizationInfo info{0x01000018, 0, 0, nullptr};
    EXPECT_EQ(CALL(nvmlDeviceGetProcessesUtilizationInfo, one, &info), Ret::kNotSupported);
  }
  EXPECT_EQ(CALL(nvmlDeviceSetComputeMode, gpu(), 3), Ret::kNotSupported);
  EXPECT_EQ(CALL(nvmlDeviceSetComputeMode, made.device, 3), Ret::kSuccess);
  uint32_t mode = 0;
  EXPECT_EQ(CALL(nvmlDeviceGetComputeMode, made.device, &mode), Ret::kSuccess);
  EXPECT_EQ(mode, 3U);
}

// nvitop looks at these two to tell the layout of a process row.
TEST_F(ProcessesTest, WhatTellsTheLayoutIsThere) {
  begin(node_of({kA100}));
  ConfComputeMemSize size{};
  EXPECT_EQ(CALL(nvmlDeviceGetConfComputeMemSizeInfo, gpu(), &size), Ret::kSuccess);
  EXPECT_EQ(size.unprotected_kib, (40960ULL - 424) * 1024) << "all but what is reserved";
  EXPECT_NE(symbol("nvmlDeviceGetRunningProcessDetailList"), nullptr);
  uint32_t accounting = 9;
  EXPECT_EQ(CALL(nvmlDeviceGetAccountingMode, gpu(), &accounting), Ret::kSuccess);
  EXPECT_EQ(accounting, 0U);
}

}  // namespace
}  // namespace gpuslice::simnvml
