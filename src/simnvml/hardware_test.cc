// What an H200 answered under driver 580.159.04 (docs/hardware.md), asked of a simulated one.

#include <algorithm>

#include "simnvml/testing.h"

namespace gpuslice::simnvml {
namespace {

struct HardwareTest : LibraryTest {
  HardwareTest() {
    begin(node_of({"H200-141GB"}, "580.159.04"));
    h = gpu();
  }
  static uint32_t value(int (*call)(Handle, uint32_t*), Handle handle) {
    uint32_t out = 0xa5a5a5a5;
    EXPECT_EQ(static_cast<Ret>(call(handle, &out)), Ret::kSuccess);
    return out;
  }
  Handle h = nullptr;
};
#define VALUE(name) value(reinterpret_cast<decltype(&name)>(symbol(#name)), h)

TEST_F(HardwareTest, NamesThatAreNone) {
  Handle found = nullptr;
  for (const char* text : {"nonsense", "", "GPU-", "GPU-nonsense"})
    EXPECT_EQ(CALL(nvmlDeviceGetHandleByUUID, text, &found), Ret::kNotFound) << text;
  for (const char* text : {"nonsense", "", ":", "0:0:0:0", "00000000:07:00.00", "07", "x7:00.0",
                           "000000000:07:00.0", "07:00."})
    EXPECT_EQ(CALL(nvmlDeviceGetHandleByPciBusId_v2, text, &found), Ret::kInvalidArgument) << text;
  for (const char* text : {"00000000:FE:00.0", "fe:00.0", "fe:00", "0000:07:00.1"})
    EXPECT_EQ(CALL(nvmlDeviceGetHandleByPciBusId_v2, text, &found), Ret::kNotFound) << text;
  for (const char* text : {"00000000:07:00.0", "0000:07:00.0", "07:00.0"})
    EXPECT_EQ(CALL(nvmlDeviceGetHandleByPciBusId_v2, text, &found), Ret::kSuccess) << text;
}

TEST_F(HardwareTest, Board) {
  char text[96] = {};
  ASSERT_EQ(CALL(nvmlDeviceGetVbiosVersion, h, &text[0], 96), Ret::kSuccess);
  EXPECT_STREQ(text, "96.00.A5.00.1A");
  ASSERT_EQ(CALL(nvmlDeviceGetBoardPartNumber, h, &text[0], 96), Ret::kSuccess);
  EXPECT_STREQ(text, "692-2G520-0282-000");
  ASSERT_EQ(CALL(nvmlDeviceGetInforomImageVersion, h, &text[0], 96), Ret::kSuccess);
  EXPECT_STREQ(text, "G520.0282.02.02");
  ASSERT_EQ(CALL(nvmlDeviceGetInforomVersion, h, 0, &text[0], 96), Ret::kSuccess);
  EXPECT_STREQ(text, "2.1");
  ASSERT_EQ(CALL(nvmlDeviceGetInforomVersion, h, 1, &text[0], 96), Ret::kSuccess);
  EXPECT_STREQ(text, "7.16");
  DriverBranchV1 branch{0x01000054, {}};
  ASSERT_EQ(CALL(nvmlSystemGetDriverBranch, &branch, 80), Ret::kSuccess);
  EXPECT_STREQ(branch.branch, "r582_49");
  MemoryV2 memory{};
  memory.version = 0x02000028;
  ASSERT_EQ(CALL(nvmlDeviceGetMemoryInfo_v2, h, &memory), Ret::kSuccess);
  EXPECT_EQ(memory.total, 150754820096U);
  EXPECT_EQ(memory.reserved >> 20, 644939776U >> 20) << "to the MiB";
  Bar1Memory bar1{};
  ASSERT_EQ(CALL(nvmlDeviceGetBAR1MemoryInfo, h, &bar1), Ret::kSuccess);
  EXPECT_EQ(bar1.total, 274877906944U);
  RowRemapHistogram rows{};
  ASSERT_EQ(CALL(nvmlDeviceGetRowRemapperHistogram, h, &rows), Ret::kSuccess);
  EXPECT_EQ(rows.max, 3072U);
  EXPECT_EQ(VALUE(nvmlDeviceGetMemoryBusWidth), 6016U);
  EXPECT_EQ(VALUE(nvmlDeviceGetBusType), 2U);
  EXPECT_EQ(VALUE(nvmlDeviceGetIrqNum), 40U);
  EXPECT_EQ(VALUE(nvmlDeviceGetPowerSource), 0U);
  EXPECT_EQ(VALUE(nvmlDeviceGetAdaptiveClockInfoStatus), 1U);
  EXPECT_EQ(VALUE(nvmlDeviceGetAccountingBufferSize), 4000U);
  const uint32_t limits[] = {95, 89, 95, 87};
  for (uint32_t i = 0; i < 4; ++i) {
    uint32_t celsius = 0;
    ASSERT_EQ(CALL(nvmlDeviceGetTemperatureThreshold, h, i, &celsius), Ret::kSuccess);
    EXPECT_EQ(celsius, limits[i]) << i;
  }
  uint32_t pids = 9;
  EXPECT_EQ(CALL(nvmlDeviceGetAccountingPids, h, &pids, nullptr), Ret::kSuccess);
  EXPECT_EQ(pids, 0U);
}

TEST_F(HardwareTest, Clocks) {
  const uint32_t idle[] = {345, 345, 3201, 765}, most[] = {1980, 1980, 3201, 1545};
  for (uint32_t type = 0; type < 4; ++type) {
    uint32_t mhz = 0, low = 0, high = 0;
    ASSERT_EQ(CALL(nvmlDeviceGetClockInfo, h, type, &mhz), Ret::kSuccess);
    EXPECT_EQ(mhz, idle[type]) << type;
    ASSERT_EQ(CALL(nvmlDeviceGetMaxClockInfo, h, type, &mhz), Ret::kSuccess);
    EXPECT_EQ(mhz, most[type]) << type;
    ASSERT_EQ(CALL(nvmlDeviceGetMinMaxClockOfPState, h, type, 0, &low, &high), Ret::kSuccess);
    EXPECT_EQ(low, idle[type]) << type;
    EXPECT_EQ(high, most[type]) << type;
    const Ret boost = type < 2 ? Ret::kSuccess : Ret::kNotSupported;
    EXPECT_EQ(CALL(nvmlDeviceGetMaxCustomerBoostClock, h, type, &mhz), boost) << type;
    EXPECT_EQ(CALL(nvmlDeviceGetClock, h, type, 3, &mhz), boost) << type;
    ClockOffsetsV1 offsets{0x01000018, type, 0, 1, 1, 1};
    EXPECT_EQ(CALL(nvmlDeviceGetClockOffsets, h, &offsets),
              type % 2 == 0 ? Ret::kSuccess : Ret::kInvalidArgument)
        << type;
    EXPECT_EQ(offsets.offset_mhz, type % 2 == 0 ? 0 : 1) << type;
  }
  uint32_t mhz = 0, other = 0;
  for (const uint32_t type : {4U, 99U}) {
    EXPECT_EQ(CALL(nvmlDeviceGetClockInfo, h, type, &mhz), Ret::kNotSupported);
    EXPECT_EQ(CALL(nvmlDeviceGetMaxClockInfo, h, type, &mhz), Ret::kInvalidArgument);
    EXPECT_EQ(CALL(nvmlDeviceGetMaxCustomerBoostClock, h, type, &mhz), Ret::kInvalidArgument);
    EXPECT_EQ(CALL(nvmlDeviceGetMinMaxClockOfPState, h, type, 0, &mhz, &other),
              Ret::kInvalidArgument);
  }
  for (const auto which : {1U, 2U}) {
    ASSERT_EQ(CALL(nvmlDeviceGetClock, h, 0, which, &mhz), Ret::kSuccess);
    EXPECT_EQ(mhz, 1980U);
  }
  uint32_t count = 8, memory[8] = {};
  ASSERT_EQ(CALL(nvmlDeviceGetSupportedMemoryClocks, h, &count, &memory[0]), Ret::kSuccess);
  ASSERT_EQ(count, 2U);
  EXPECT_EQ(memory[0], 3201U);
  EXPECT_EQ(memory[1], 2201U);
  for (uint32_t i = 0; i < 2; ++i) {
    count = 0;
    EXPECT_EQ(CALL(nvmlDeviceGetSupportedGraphicsClocks, h, memory[i], &count, nullptr),
              Ret::kInsufficientSize);
    EXPECT_EQ(count, 110U);
  }
  EXPECT_EQ(CALL(nvmlDeviceGetSupportedGraphicsClocks, h, 0, &count, nullptr), Ret::kNotFound);
  uint32_t states[17];
  std::fill(std::begin(states), std::end(states), 7U);
  ASSERT_EQ(CALL(nvmlDeviceGetSupportedPerformanceStates, h, &states[0], 64), Ret::kSuccess);
  EXPECT_EQ(states[0], 2U);
  EXPECT_EQ(states[1], 0U);
  for (uint32_t i = 2; i < 16; ++i) EXPECT_EQ(states[i], 32U) << i;
  EXPECT_EQ(states[16], 7U) << "beyond the room";
  EXPECT_EQ(CALL(nvmlDeviceGetSupportedPerformanceStates, h, &states[0], 4),
            Ret::kInsufficientSize);
  EXPECT_EQ(VALUE(nvmlDeviceGetPerformanceState), 0U) << "idle, and in P0";
}

TEST_F(HardwareTest, CountersOfWhatDoesNotHappen) {
  for (uint32_t policy = 0; policy < 14; ++policy) {
    ViolationTime time{1, 1};
    const bool one = policy <= 5 || policy == 10 || policy == 11;
    EXPECT_EQ(CALL(nvmlDeviceGetViolationStatus, h, policy, &time),
              one ? Ret::kSuccess : Ret::kInvalidArgument)
        << policy;
    EXPECT_EQ(time.violation_ns, one ? 0U : 1U) << policy;
  }
  for (uint32_t location = 0; location < 9; ++location) {
    unsigned long long errors = 1;
    EXPECT_EQ(CALL(nvmlDeviceGetMemoryErrorCounter, h, 0, 0, location, &errors),
              location == 2 || location == 7 ? Ret::kSuccess
              : location < 8                 ? Ret::kNotSupported
                                             : Ret::kInvalidArgument)
        << location;
  }
  uint32_t count = 0;
  EXPECT_EQ(CALL(nvmlDeviceGetRetiredPages, h, 1, &count, nullptr), Ret::kNotSupported);
  EXPECT_EQ(CALL(nvmlDeviceGetRetiredPages, h, 2, &count, nullptr), Ret::kInvalidArgument);
  EXPECT_EQ(CALL(nvmlDeviceGetRetiredPages_v2, h, 2, &count, nullptr, nullptr),
            Ret::kInvalidArgument);
}

TEST_F(HardwareTest, OfWhatIsNotThere) {
  uint32_t a = 0, b = 0;
  for (const uint32_t fan : {0U, 1U}) {
    EXPECT_EQ(CALL(nvmlDeviceGetFanSpeed_v2, h, fan, &a), Ret::kInvalidArgument);
    EXPECT_EQ(CALL(nvmlDeviceGetTargetFanSpeed, h, fan, &a), Ret::kInvalidArgument);
  }
  EXPECT_EQ(CALL(nvmlDeviceGetFanSpeed, h, &a), Ret::kNotSupported);
  EXPECT_EQ(CALL(nvmlDeviceGetMinMaxFanSpeed, h, &a, &b), Ret::kInvalidArgument);
  FanSpeedInfoV1 rpm{0x0100000c, 0, 0};
  EXPECT_EQ(CALL(nvmlDeviceGetFanSpeedRPM, h, &rpm), Ret::kInvalidArgument);
  EXPECT_EQ(CALL(nvmlDeviceGetTopologyCommonAncestor, h, h, &a), Ret::kNotSupported);
  for (uint32_t index = 0; index <= 5; ++index) {
    ASSERT_EQ(CALL(nvmlDeviceGetP2PStatus, h, h, index, &a), Ret::kSuccess);
    EXPECT_EQ(a, index == 5 ? 0U : 5U) << index;
  }
  EXPECT_EQ(CALL(nvmlDeviceGetAPIRestriction, h, 0, &a), Ret::kNotSupported);
  EXPECT_EQ(CALL(nvmlDeviceGetAPIRestriction, h, 1, &a), Ret::kSuccess);
  EXPECT_EQ(a, 0U);
  EXPECT_EQ(CALL(nvmlDeviceGetEncoderCapacity, h, 1, &a), Ret::kSuccess);
  EXPECT_EQ(a, 100U);
  EXPECT_EQ(CALL(nvmlDeviceGetEncoderCapacity, h, 2, &a), Ret::kNotSupported);
}

TEST_F(HardwareTest, Fields) {
  struct Row {
    uint32_t id, type;
    int64_t value;
  };
  const Row rows[] = {{1, 3, 1},    {74, 3, 0},   {81, 3, 0},  {95, 1, 0},  {142, 3, 0},
                      {145, 3, 0},  {174, 1, 0},  {183, 1, 0}, {228, 1, 0}, {192, 1, 700'000},
                      {193, 5, -8}, {194, 5, -2}, {195, 5, 0}, {196, 5, 0}, {269, 3, 0}};
  for (const Row& row : rows) {
    FieldValue field{};
    field.field_id = row.id;
    ASSERT_EQ(CALL(nvmlDeviceGetFieldValues, h, 1, &field), Ret::kSuccess);
    EXPECT_EQ(static_cast<Ret>(field.ret), Ret::kSuccess) << row.id;
    EXPECT_EQ(field.value_type, row.type) << row.id;
    EXPECT_EQ(row.type == 5 ? field.value.si : static_cast<int64_t>(field.value.ull), row.value)
        << row.id;
  }
  FieldValue c2c{};
  c2c.field_id = 170;
  ASSERT_EQ(CALL(nvmlDeviceGetFieldValues, h, 1, &c2c), Ret::kSuccess);
  EXPECT_EQ(static_cast<Ret>(c2c.ret), Ret::kNotSupported);
}

// What other boards answer to these was not seen: they refuse as before.
TEST_F(HardwareTest, NothingIsMadeUpForOtherBoards) {
  begin(node_of({kA100}, "570.124.06"));
  h = gpu();
  uint32_t a = 0, b = 0, states[16];
  int offset = 0;
  ClockOffsetsV1 offsets{0x01000018, 0, 0, 1, 1, 1};
  EXPECT_EQ(CALL(nvmlDeviceGetClockOffsets, h, &offsets), Ret::kNotSupported);
  EXPECT_EQ(CALL(nvmlDeviceGetMemClkVfOffset, h, &offset), Ret::kNotSupported);
  EXPECT_EQ(CALL(nvmlDeviceGetMinMaxClockOfPState, h, 0, 0, &a, &b), Ret::kNotSupported);
  EXPECT_EQ(CALL(nvmlDeviceGetSupportedPerformanceStates, h, &states[0], 64), Ret::kNotSupported);
  EXPECT_EQ(CALL(nvmlDeviceGetAPIRestriction, h, 1, &a), Ret::kNotSupported);
  DriverBranchV1 branch{0x01000054, {}};
  EXPECT_EQ(CALL(nvmlSystemGetDriverBranch, &branch, 80), Ret::kNotSupported);
  CapabilitiesV1 capabilities{0x01000008, 0};
  EXPECT_EQ(CALL(nvmlDeviceGetCapabilities, h, &capabilities), Ret::kNotSupported);
}

}  // namespace
}  // namespace gpuslice::simnvml
