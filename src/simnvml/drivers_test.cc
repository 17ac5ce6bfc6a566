// What a node says of its driver and what differs between driver branches, on an H100; field
// values.

#include <bit>

#include "simnvml/testing.h"

namespace gpuslice::simnvml {
namespace {

struct Branch {
  const char* driver;
  uint32_t major;
  const char* nvml;
  int cuda;
};
constexpr Branch kBranches[] = {{"535.261.03", 535, "12.535.261.03", 12020},
                                {"550.163.01", 550, "12.550.163.01", 12040},
                                {"570.124.06", 570, "12.570.124.06", 12080},
                                {"580.65.06", 580, "13.580.65.06", 13000}};

template <class T>
T versioned(uint32_t word) {
  T value{};
  value.version = word;
  return value;
}

struct DriversTest : LibraryTest, testing::WithParamInterface<Branch> {
  DriversTest() { begin(node_of({kH100}, GetParam().driver)); }
  // What a call answers that came with branch `since`.
  [[nodiscard]] static Ret from(uint32_t since, Ret then = Ret::kSuccess) {
    return GetParam().major >= since ? then : Ret::kFunctionNotFound;
  }
};

TEST_P(DriversTest, SayTheirVersions) {
  char text[80] = {};
  ASSERT_EQ(CALL(nvmlSystemGetDriverVersion, text, sizeof text), Ret::kSuccess);
  EXPECT_STREQ(text, GetParam().driver);
  EXPECT_EQ(CALL(nvmlSystemGetDriverVersion, text, 5), Ret::kInsufficientSize);
  ASSERT_EQ(CALL(nvmlSystemGetNVMLVersion, text, sizeof text), Ret::kSuccess);
  EXPECT_STREQ(text, GetParam().nvml);
  ASSERT_EQ(CALL(nvmlDeviceGetGspFirmwareVersion, gpu(), text), Ret::kSuccess);
  EXPECT_STREQ(text, GetParam().driver);
  int cuda = 0;
  ASSERT_EQ(CALL(nvmlSystemGetCudaDriverVersion, &cuda), Ret::kSuccess);
  EXPECT_EQ(cuda, GetParam().cuda);
  ASSERT_EQ(CALL(nvmlSystemGetCudaDriverVersion_v2, &cuda), Ret::kSuccess);
  EXPECT_EQ(cuda, GetParam().cuda);
}

TEST_P(DriversTest, DoNotHaveWhatCameLater) {
  Handle h = gpu();
  auto pci = versioned<PciInfoExtV1>(0x01000040);
  EXPECT_EQ(CALL(nvmlDeviceGetPciInfoExt, h, &pci), from(550));
  auto fabric = versioned<FabricInfoV2>(0x02000024);
  EXPECT_EQ(CALL(nvmlDeviceGetGpuFabricInfoV, h, &fabric), from(550));
  auto processes = versioned<ProcessesUtilizationInfo>(0x01000018);
  EXPECT_EQ(CALL(nvmlDeviceGetProcessesUtilizationInfo, h, &processes),
            from(550, Ret::kInsufficientSize));
  uint32_t node = 0;
  EXPECT_EQ(CALL(nvmlDeviceGetNumaNodeId, h, &node), from(550, Ret::kNotSupported));
  auto branch = versioned<DriverBranchV1>(0x01000054);
  EXPECT_EQ(CALL(nvmlSystemGetDriverBranch, &branch, 80), from(560, Ret::kNotSupported));
  auto temperature = versioned<TemperatureV1>(0x0100000c);
  EXPECT_EQ(CALL(nvmlDeviceGetTemperatureV, h, &temperature), from(570));
  auto margin = versioned<MarginTemperatureV1>(0x01000008);
  EXPECT_EQ(CALL(nvmlDeviceGetMarginTemperature, h, &margin), from(570));
  auto uuid = versioned<UuidV1>(0x01000034);
  uuid.type = 1;
  std::memcpy(uuid.value.text, uuid_of(h).c_str(), sizeof uuid.value.text);
  Handle found = nullptr;
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByUUIDV, &uuid, &found), from(575));
  auto pdi = versioned<PdiV1>(0x01000010);
  EXPECT_EQ(CALL(nvmlDeviceGetPdi, h, &pdi), from(580));
  auto addressing = versioned<AddressingModeV1>(0x01000008);
  EXPECT_EQ(CALL(nvmlDeviceGetAddressingMode, h, &addressing), from(580));
  auto repair = versioned<RepairStatusV1>(0x0100000c);
  EXPECT_EQ(CALL(nvmlDeviceGetRepairStatus, h, &repair), from(580));
  auto profile = versioned<GiProfileInfoV2>(0x02000098);
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstanceProfileInfoByIdV, h, 9, &profile), from(580));
}

// Of the names that data/nvml-symbols.txt says are missing in Debian's 535 and 550, those that are
// modelled are missing here; the others answer NOT_SUPPORTED in all branches.
TEST_P(DriversTest, AgreeWithTheListOfSymbols) {
  const std::set<std::string> modelled = {
#define EXPORT(name, ...) #name,
#include "simnvml/exports.inc"
#undef EXPORT
  };
  struct {
    uint32_t words[64];
  } room{};
  for (const SymbolRow& row : symbol_rows()) {
    if (!modelled.contains(row.name) || !row.name.starts_with("nvmlDevice")) continue;
    if (row.in_550 || row.name == "nvmlDeviceGetHandleByUUIDV") continue;
    const Ret ret = call_by_words(symbol(row.name.c_str()), std::bit_cast<uintptr_t>(gpu()),
                                  std::bit_cast<uintptr_t>(&room));
    if (GetParam().major <= 550) {
      EXPECT_EQ(ret, Ret::kFunctionNotFound) << row.name;
    } else if (GetParam().major >= 580) {
      EXPECT_NE(ret, Ret::kFunctionNotFound) << row.name;
    }
  }
}

TEST_P(DriversTest, ProfilesWithMigOff) {
  const Ret expected = GetParam().major >= 550 ? Ret::kSuccess : Ret::kNotSupported;
  GiProfileInfo info{};
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstanceProfileInfo, gpu(), 0, &info), expected);
  auto v2 = versioned<GiProfileInfoV2>(0x02000098);
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstanceProfileInfoV, gpu(), 0, &v2), expected);
  uint32_t count = 0;
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstancePossiblePlacements_v2, gpu(), 19, nullptr, &count),
            expected);
  FieldValue field{};
  field.field_id = 199;
  ASSERT_EQ(CALL(nvmlDeviceGetFieldValues, gpu(), 1, &field), Ret::kSuccess);
  EXPECT_EQ(field.value.ui, GetParam().major >= 550 ? 1U : 0U);
  // 580 answers of the instances too, as of a GPU that has none (docs/hardware.md).
  const bool measured = GetParam().major >= 580;
  Handle made[8] = {};
  count = 99;
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstances, gpu(), 19, made, &count),
            measured ? Ret::kSuccess : Ret::kNotSupported);
  EXPECT_EQ(count, measured ? 0U : 99U);
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstanceRemainingCapacity, gpu(), 19, &count),
            measured ? Ret::kSuccess : Ret::kNotSupported);
  EXPECT_EQ(count, measured ? 7U : 99U);
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstanceById, gpu(), 1, made),
            measured ? Ret::kNotFound : Ret::kNotSupported);
  for (const auto get : {CALL(nvmlDeviceGetGpuInstances, gpu(), 99, made, &count),
                         CALL(nvmlDeviceGetGpuInstanceRemainingCapacity, gpu(), 99, &count)})
    EXPECT_EQ(get, measured ? Ret::kInvalidArgument : Ret::kNotSupported);
  mig_on(gpu());
  EXPECT_EQ(CALL(nvmlDeviceGetGpuInstanceProfileInfo, gpu(), 0, &info), Ret::kSuccess);
  EXPECT_EQ(info.id, 19U);
}

INSTANTIATE_TEST_SUITE_P(Branches, DriversTest, testing::ValuesIn(kBranches),
                         [](const auto& one) { return "R" + std::to_string(one.param.major); });

struct FieldsTest : LibraryTest {
  FieldValue field(Handle h, uint32_t id, uint32_t scope = 0) {
    Guarded<FieldValue> value;
    value.value.field_id = id;
    value.value.scope_id = scope;
    EXPECT_EQ(CALL(nvmlDeviceGetFieldValues, h, 1, &value.value), Ret::kSuccess) << id;
    EXPECT_TRUE(value.untouched_from(sizeof(FieldValue))) << id;
    EXPECT_EQ(value.value.field_id, id);
    return value.value;
  }
  static Ret ret(const FieldValue& value) { return static_cast<Ret>(value.ret); }
};

TEST_F(FieldsTest, EveryEntryHasACodeOfItsOwn) {
  begin(node_of({kA100, kT4}));
  FieldValue values[6]{};
  const uint32_t ids[] = {186, 0, 302, 304, 83, 184};
  for (size_t i = 0; i < 6; ++i) values[i].field_id = ids[i];
  ASSERT_EQ(CALL(nvmlDeviceGetFieldValues, gpu(), 6, values), Ret::kSuccess);
  const Ret expected[] = {Ret::kSuccess,         Ret::kInvalidArgument, Ret::kNotSupported,
                          Ret::kInvalidArgument, Ret::kSuccess,         Ret::kSuccess};
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(ret(values[i]), expected[i]) << ids[i];
    EXPECT_GT(values[i].timestamp_us, 0);
  }
  EXPECT_EQ(values[0].value_type, 1U);
  EXPECT_GT(values[0].value.ui, 10'000U);
  EXPECT_EQ(values[4].value_type, 3U);
  EXPECT_EQ(values[5].value.ui, 0U) << "an A100 changes its mode by a reset";
  EXPECT_EQ(ret(field(gpu(1), 184)), Ret::kNotSupported) << "a T4 has no MIG";
  EXPECT_EQ(CALL(nvmlDeviceGetFieldValues, gpu(), 0, values), Ret::kInvalidArgument);
  EXPECT_EQ(CALL(nvmlDeviceGetFieldValues, gpu(), -1, values), Ret::kInvalidArgument);
  EXPECT_EQ(CALL(nvmlDeviceClearFieldValues, gpu(), 2, values), Ret::kSuccess);
  EXPECT_EQ(ret(values[1]), Ret::kNotSupported);
}

TEST_F(FieldsTest, AgreeWithTheCallsOfTheSameMeaning) {
  begin(node_of({kH100}));
  Handle h = gpu();
  uint32_t low = 0, high = 0, limit = 0, links = 0;
  ASSERT_EQ(CALL(nvmlDeviceGetPowerManagementLimitConstraints, h, &low, &high), Ret::kSuccess);
  ASSERT_EQ(CALL(nvmlDeviceGetPowerManagementDefaultLimit, h, &limit), Ret::kSuccess);
  EXPECT_EQ(field(h, 187).value.ui, low);
  EXPECT_EQ(field(h, 188).value.ui, high);
  EXPECT_EQ(field(h, 189).value.ui, limit);
  EXPECT_EQ(field(h, 190).value.ui, limit);
  EXPECT_EQ(field(h, 184).value.ui, 1U) << "an H100 changes its mode without a reset";
  links = field(h, 91).value.ui;
  EXPECT_EQ(links, 18U);
  EXPECT_EQ(ret(field(h, 165, links - 1)), Ret::kSuccess);
  EXPECT_EQ(ret(field(h, 165, links)), Ret::kInvalidArgument);
  EXPECT_EQ(ret(field(h, 164, links)), Ret::kInvalidArgument);
  EXPECT_GT(field(h, 164, 0).value.ui, 0U);
  EXPECT_EQ(ret(field(h, 160)), Ret::kSuccess);
  ASSERT_TRUE(world->write([](sim::State& state) {
    sim::GpuLife& life = state.life.gpus[0];
    life.ecc_volatile = {11, 12};
    life.ecc_aggregate = {13, 14};
    life.remapped_corrected = 15;
    life.remapped_uncorrected = 16;
    life.remap_pending = life.remap_failed = 1;
    life.pcie_replays = 17;
    state.gpus[0].reset_required = 1;
  }));
  const std::pair<uint32_t, uint64_t> expected[] = {
      {1, 1},    {2, 1},    {3, 11},  {4, 12},  {5, 13},  {6, 14},  {94, 17},
      {142, 15}, {143, 16}, {144, 1}, {145, 1}, {226, 1}, {227, 0}, {230, 1}};
  for (const auto& [id, value] : expected) {
    const FieldValue got = field(h, id);
    EXPECT_EQ(ret(got), Ret::kSuccess) << id;
    EXPECT_EQ(got.value_type == 3 ? got.value.ull : got.value.ui, value) << id;
  }
  unsigned long long errors = 0;
  ASSERT_EQ(CALL(nvmlDeviceGetTotalEccErrors, h, 1, 0, &errors), Ret::kSuccess);
  EXPECT_EQ(errors, 12U);
  ASSERT_EQ(CALL(nvmlDeviceGetMemoryErrorCounter, h, 0, 1, 2, &errors), Ret::kSuccess);
  EXPECT_EQ(errors, 13U);
}

TEST_F(FieldsTest, NoIdCrashesAndEachSaysSomething) {
  begin(node_of({"RTX-PRO-6000-Blackwell-96GB", kT4}));
  for (const uint32_t index : {0U, 1U}) {
    Handle h = gpu(index);
    for (uint32_t id = 0; id < 320; ++id) {
      const FieldValue value = field(h, id);
      const Ret got = ret(value);
      EXPECT_TRUE(got == Ret::kSuccess || got == Ret::kNotSupported ||
                  (got == Ret::kInvalidArgument && (id == 0 || id > 303)))
          << id << " answers " << sim::ret_name(got);
    }
  }
}

}  // namespace
}  // namespace gpuslice::simnvml
