// Structs with a version word: every known word is taken and only that size is written; all other
// words are refused and nothing is written. Old names keep their old sizes.

#include <functional>

#include "simnvml/testing.h"

namespace gpuslice::simnvml {
namespace {

struct VersionsTest : LibraryTest {
  VersionsTest() {
    begin(node_of({kH100}));
    device = gpu();
    mig_on(device);
    made = make_instance(device, 9, 2);
  }

  // `call` with `word` in the first four bytes of a struct of `size` bytes.
  using Version = std::function<Ret(void*)>;
  static void accepts(const char* what, uint32_t word, const Version& call,
                      const std::set<uint32_t>& others = {},
                      Ret mismatch = Ret::kArgumentVersionMismatch, bool word_stays = true) {
    const uint32_t size = word & 0xffffff;
    struct Room {
      uint8_t bytes[2048];
    };
    Guarded<Room> room;
    std::memset(room.value.bytes + 4, 0, size - 4);
    std::memcpy(room.value.bytes, &word, 4);
    EXPECT_EQ(call(&room), Ret::kSuccess) << what << " " << std::hex << word;
    EXPECT_TRUE(room.untouched_from(size)) << what << " " << std::hex << word;
    const uint32_t after = word_stays ? word : 0;
    EXPECT_EQ(std::memcmp(room.value.bytes, &after, 4), 0) << what;
    refuses(what, word, call, others, mismatch);
  }
  static void refuses(const char* what, uint32_t good, const Version& call,
                      const std::set<uint32_t>& others,
                      Ret mismatch = Ret::kArgumentVersionMismatch) {
    const uint32_t size = good & 0xffffff;
    for (const uint32_t word :
         {0U, 1U, size, good + 1, good - 1, good + 0x01000000, 0xffffffffU, good ^ 0x80000000U}) {
      if (others.contains(word)) continue;
      struct Room {
        uint8_t bytes[2048];
      };
      Guarded<Room> room;
      std::memcpy(room.value.bytes, &word, 4);
      EXPECT_EQ(call(&room), mismatch) << what << " " << std::hex << word;
      EXPECT_EQ(std::memcmp(room.value.bytes, &word, 4), 0) << what;
      uint8_t filled[4];
      std::memset(filled, kFill, sizeof filled);
      EXPECT_EQ(std::memcmp(room.value.bytes + 4, filled, 4), 0) << what << ": nothing is written";
      EXPECT_TRUE(room.untouched_from(4)) << what << ": nothing is written";
    }
  }

  Handle device = nullptr;
  Made made;
};

#define ON_DEVICE(name) \
  [&](void* out) { return CALL(name, device, static_cast<decltype(arg_of(&name))>(out)); }
template <class T>
T* arg_of(int (*)(Handle, T*));

TEST_F(VersionsTest, OfWhatADeviceIs) {
  accepts("Memory", 0x02000028, ON_DEVICE(nvmlDeviceGetMemoryInfo_v2), {}, Ret::kFunctionNotFound);
  accepts("PciInfoExt", 0x01000040, ON_DEVICE(nvmlDeviceGetPciInfoExt));
  accepts("Temperature", 0x0100000c, ON_DEVICE(nvmlDeviceGetTemperatureV));
  accepts("MarginTemperature", 0x01000008, ON_DEVICE(nvmlDeviceGetMarginTemperature));
  accepts("Pdi", 0x01000010, ON_DEVICE(nvmlDeviceGetPdi));
  accepts("AddressingMode", 0x01000008, ON_DEVICE(nvmlDeviceGetAddressingMode));
  accepts("RepairStatus", 0x0100000c, ON_DEVICE(nvmlDeviceGetRepairStatus));
  accepts("GpuFabricInfo v2", 0x02000024, ON_DEVICE(nvmlDeviceGetGpuFabricInfoV), {0x03000028});
  accepts("GpuFabricInfo v3", 0x03000028, ON_DEVICE(nvmlDeviceGetGpuFabricInfoV), {0x02000024});
  accepts("ClockOffsets", 0x01000018, ON_DEVICE(nvmlDeviceGetClockOffsets));
  accepts("SramEccErrorStatus", 0x01000068, ON_DEVICE(nvmlDeviceGetSramEccErrorStatus));
  accepts("Capabilities", 0x01000008, ON_DEVICE(nvmlDeviceGetCapabilities));
  accepts("ProcessDetailList", 0x01000018, ON_DEVICE(nvmlDeviceGetRunningProcessDetailList));
}

TEST_F(VersionsTest, OfProcessesUtilizationInfo) {
  begin(node_of({kH100}));
  device = gpu();
  const auto call = ON_DEVICE(nvmlDeviceGetProcessesUtilizationInfo);
  ProcessesUtilizationInfo info{};
  info.version = 0x01000018;
  EXPECT_EQ(call(&info), Ret::kInsufficientSize) << "first the room is looked at";
  std::vector<ProcessUtilizationInfo> room(info.count);
  info.entries = room.data();
  EXPECT_EQ(call(&info), Ret::kNotFound) << "nobody works";
  refuses("ProcessesUtilizationInfo", 0x01000018, call, {});
}

TEST_F(VersionsTest, OfAUuid) {
  char text[41];
  std::memcpy(text, uuid_of(device).c_str(), sizeof text);
  Handle found = nullptr;
  UuidV1 uuid{};
  uuid.version = 0x01000034;
  uuid.type = 1;
  std::memcpy(uuid.value.text, text, sizeof text);
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByUUIDV, &uuid, &found), Ret::kSuccess);
  EXPECT_EQ(found, device);
  // The same as bytes.
  uuid.type = 2;
  std::memset(&uuid.value, 0, sizeof uuid.value);
  size_t at = 0;
  for (size_t i = 4; i < 40; ++i) {
    if (text[i] == '-') continue;
    const int digit = text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10;
    uuid.value.bytes[at / 2] =
        static_cast<uint8_t>(uuid.value.bytes[at / 2] | (at % 2 == 0 ? digit << 4 : digit));
    ++at;
  }
  found = nullptr;
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByUUIDV, &uuid, &found), Ret::kSuccess);
  EXPECT_EQ(found, device);
  uuid.type = 3;
  EXPECT_EQ(CALL(nvmlDeviceGetHandleByUUIDV, &uuid, &found), Ret::kInvalidArgument);
  for (const uint32_t word : {0U, 0x34U, 0x02000034U, 0x01000035U}) {
    uuid.version = word;
    EXPECT_EQ(CALL(nvmlDeviceGetHandleByUUIDV, &uuid, &found), Ret::kArgumentVersionMismatch);
  }
}

TEST_F(VersionsTest, OfGpuInstanceProfiles) {
  const auto by_enum = [&](void* out) {
    return CALL(nvmlDeviceGetGpuInstanceProfileInfoV, device, 2,
                static_cast<GiProfileInfoV2*>(out));
  };
  const auto by_id = [&](void* out) {
    return CALL(nvmlDeviceGetGpuInstanceProfileInfoByIdV, device, 9,
                static_cast<GiProfileInfoV2*>(out));
  };
  // As an H200 answers (docs/hardware.md): the word is gone after a success.
  constexpr Ret kWrong = Ret::kInvalidArgument;
  accepts("by enum, v2", 0x02000098, by_enum, {0x03000098}, kWrong, false);
  accepts("by enum, v3", 0x03000098, by_enum, {0x02000098}, kWrong, false);
  accepts("by id, v2", 0x02000098, by_id, {0x03000098}, kWrong, false);
  accepts("by id, v3", 0x03000098, by_id, {0x02000098}, kWrong, false);

  GiProfileInfoV2 v2{};
  v2.version = 0x02000098;
  ASSERT_EQ(by_enum(&v2), Ret::kSuccess);
  EXPECT_EQ(v2.id, 9U);
  EXPECT_EQ(v2.slices, 3U);
  EXPECT_EQ(v2.count, 2U);
  EXPECT_EQ(v2.sm, 60U);
  EXPECT_EQ(v2.ce, 3U);
  EXPECT_EQ(v2.dec, 3U);
  EXPECT_EQ(v2.jpeg, 3U);
  EXPECT_EQ(v2.ofa, 0U);
  EXPECT_EQ(v2.memory_mb, 40448U);
  EXPECT_STREQ(v2.name, "MIG 3g.40gb");
  GiProfileInfoV3 v3{};
  v3.version = 0x03000098;
  ASSERT_EQ(by_id(&v3), Ret::kSuccess);
  EXPECT_EQ(v3.id, 9U);
  EXPECT_EQ(v3.memory_mb, 40448U);
  EXPECT_STREQ(v3.name, "") << "the third has room for a name, and 580 leaves it empty";
  EXPECT_EQ(v3.capabilities, 0U);
  Guarded<GiProfileInfo> v1;
  ASSERT_EQ(CALL(nvmlDeviceGetGpuInstanceProfileInfo, device, 2, &v1.value), Ret::kSuccess);
  EXPECT_EQ(v1.value.id, 9U);
  EXPECT_EQ(v1.value.memory_mb, 40448U);
  EXPECT_TRUE(v1.untouched_from(48));
}

TEST_F(VersionsTest, OfComputeInstanceProfiles) {
  const auto call = [&](void* out) {
    return CALL(nvmlGpuInstanceGetComputeInstanceProfileInfoV, made.gi, 1, 0,
                static_cast<CiProfileInfoV2*>(out));
  };
  accepts("v2", 0x02000088, call, {0x0300008c});
  accepts("v3", 0x0300008c, call, {0x02000088});
  CiProfileInfoV3 v3{};
  v3.version = 0x0300008c;
  ASSERT_EQ(call(&v3), Ret::kSuccess);
  EXPECT_EQ(v3.id, 1U);
  EXPECT_EQ(v3.slices, 2U);
  EXPECT_EQ(v3.count, 1U);
  EXPECT_EQ(v3.ce, 3U) << "shared: those of the GPU instance";
  EXPECT_STREQ(v3.name, "MIG 2c.3g.40gb");
  Guarded<CiProfileInfo> v1;
  ASSERT_EQ(CALL(nvmlGpuInstanceGetComputeInstanceProfileInfo, made.gi, 1, 0, &v1.value),
            Ret::kSuccess);
  EXPECT_EQ(v1.value.slices, 2U);
  EXPECT_TRUE(v1.untouched_from(36));
}

TEST_F(VersionsTest, OfWhatIsNotModelled) {
  const std::pair<const char*, std::vector<uint32_t>> rows[] = {
      {"nvmlDeviceGetPlatformInfo", {0x0100002c, 0x0200002c}},
      {"nvmlDeviceSetClockOffsets", {0x01000018}},
      {"nvmlDeviceSetPowerManagementLimit_v2", {0x0200000c}},
      {"nvmlDeviceGetNvLinkInfo", {0x01000008, 0x0200064c}},
      {"nvmlGpuInstanceGetVgpuSchedulerState", {0x01000018}},
      {"nvmlGpuInstanceSetVgpuSchedulerState", {0x01000018}},
  };
  for (const auto& [name, words] : rows) {
    const auto call = reinterpret_cast<int (*)(Handle, uint32_t*)>(symbol(name));
    Handle handle = std::string(name).starts_with("nvmlGpuInstance") ? made.gi : device;
    for (uint32_t word : words) {
      EXPECT_EQ(static_cast<Ret>(call(handle, &word)), Ret::kNotSupported) << name;
      word ^= 0x04000000;
      EXPECT_EQ(static_cast<Ret>(call(handle, &word)), Ret::kArgumentVersionMismatch) << name;
    }
  }
  const std::pair<const char*, uint32_t> of_node[] = {{"nvmlSystemEventSetCreate", 0x01000010},
                                                      {"nvmlSystemEventSetFree", 0x01000010},
                                                      {"nvmlSystemRegisterEvents", 0x01000018},
                                                      {"nvmlSystemEventSetWait", 0x01000020}};
  for (const auto& [name, good] : of_node) {
    const auto call = reinterpret_cast<int (*)(uint32_t*)>(symbol(name));
    uint32_t word = good;
    EXPECT_EQ(static_cast<Ret>(call(&word)), Ret::kNotSupported) << name;
    word = good + 4;
    EXPECT_EQ(static_cast<Ret>(call(&word)), Ret::kArgumentVersionMismatch) << name;
  }
}

TEST_F(VersionsTest, OldNamesKeepTheirOldSizes) {
  Guarded<PciInfoV2> v1;
  ASSERT_EQ(CALL(nvmlDeviceGetPciInfo, device, &v1.value), Ret::kSuccess);
  EXPECT_TRUE(v1.untouched_from(36)) << "v1 ends before the reserved words";
  EXPECT_STREQ(v1.value.bus_id, "0000:07:00.0");
  Guarded<PciInfoV2> v2;
  ASSERT_EQ(CALL(nvmlDeviceGetPciInfo_v2, device, &v2.value), Ret::kSuccess);
  EXPECT_TRUE(v2.untouched_from(52));
  for (const uint32_t word : v2.value.reserved) EXPECT_EQ(word, 0U);
  Guarded<PciInfoV3> v3;
  ASSERT_EQ(CALL(nvmlDeviceGetPciInfo_v3, device, &v3.value), Ret::kSuccess);
  EXPECT_TRUE(v3.untouched_from(68));
  EXPECT_STREQ(v3.value.bus_id, "00000000:07:00.0");
  EXPECT_STREQ(v3.value.bus_id_legacy, "0000:07:00.0");
  EXPECT_EQ(v3.value.pci_device_id, 0x233010deU);

  Guarded<PciInfoV2> remote_v1;
  ASSERT_EQ(CALL(nvmlDeviceGetNvLinkRemotePciInfo, device, 0, &remote_v1.value), Ret::kSuccess);
  EXPECT_TRUE(remote_v1.untouched_from(36));
  Guarded<PciInfoV3> remote_v2;
  ASSERT_EQ(CALL(nvmlDeviceGetNvLinkRemotePciInfo_v2, device, 0, &remote_v2.value), Ret::kSuccess);
  EXPECT_TRUE(remote_v2.untouched_from(68));
  EXPECT_EQ(remote_v1.value.bus, remote_v2.value.bus);

  Guarded<FabricInfo> fabric;
  ASSERT_EQ(CALL(nvmlDeviceGetGpuFabricInfo, device, &fabric.value), Ret::kSuccess);
  EXPECT_TRUE(fabric.untouched_from(28));
  Guarded<CiInfoV1> info_v1;
  ASSERT_EQ(CALL(nvmlComputeInstanceGetInfo, made.ci, &info_v1.value), Ret::kSuccess);
  EXPECT_TRUE(info_v1.untouched_from(24)) << "the first knew no placement";
  Guarded<CiInfo> info_v2;
  ASSERT_EQ(CALL(nvmlComputeInstanceGetInfo_v2, made.ci, &info_v2.value), Ret::kSuccess);
  EXPECT_TRUE(info_v2.untouched_from(32));
  EXPECT_EQ(info_v2.value.device, info_v1.value.device);
}

TEST_F(VersionsTest, MemoryOfBothVersionsAgrees) {
  for (Handle one : {device, made.device}) {
    MemoryV2 v2{};
    v2.version = 0x02000028;
    ASSERT_EQ(CALL(nvmlDeviceGetMemoryInfo_v2, one, &v2), Ret::kSuccess);
    EXPECT_EQ(v2.total, v2.reserved + v2.free + v2.used);
    Guarded<MemoryV1> v1;
    ASSERT_EQ(CALL(nvmlDeviceGetMemoryInfo, one, &v1.value), Ret::kSuccess);
    EXPECT_TRUE(v1.untouched_from(24));
    EXPECT_EQ(v1.value.used, v2.used + v2.reserved) << "v1 counts the reserved as used";
    EXPECT_EQ(v1.value.total, v2.total);
    Guarded<Bar1Memory> bar1;
    ASSERT_EQ(CALL(nvmlDeviceGetBAR1MemoryInfo, one, &bar1.value), Ret::kSuccess);
    EXPECT_TRUE(bar1.untouched_from(24));
    EXPECT_EQ(bar1.value.total, bar1.value.free + bar1.value.used);
  }
}

// Text that does not fit, by one byte: nothing is written.
TEST_F(VersionsTest, TextsThatDoNotFitAreNotWritten) {
  using Text = int (*)(Handle, char*, uint32_t);
  for (const char* name : {"nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlDeviceGetSerial",
                           "nvmlDeviceGetVbiosVersion", "nvmlDeviceGetBoardPartNumber",
                           "nvmlDeviceGetInforomImageVersion"}) {
    const auto call = reinterpret_cast<Text>(symbol(name));
    char whole[96] = {};
    ASSERT_EQ(call(device, &whole[0], 96), 0) << name;
    const auto length = static_cast<uint32_t>(std::strlen(whole));
    struct Room {
      char text[96];
    };
    Guarded<Room> room;
    EXPECT_EQ(static_cast<Ret>(call(device, room.value.text, length)), Ret::kInsufficientSize);
    EXPECT_TRUE(room.untouched_from(0)) << name;
    EXPECT_EQ(call(device, room.value.text, length + 1), 0) << name;
    EXPECT_STREQ(room.value.text, whole);
    EXPECT_TRUE(room.untouched_from(length + 1)) << name;
    EXPECT_EQ(static_cast<Ret>(call(device, room.value.text, 0)), Ret::kInsufficientSize);
  }
}

}  // namespace
}  // namespace gpuslice::simnvml
