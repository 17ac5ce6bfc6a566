#pragma once

// NVML's C ABI, as far as the simulated library writes it: layouts written from public facts
// (NVIDIA's BSD-licensed Python binding and public listings), each size and the offsets that matter
// asserted. The same on x86-64 and aarch64.

#include <cstddef>
#include <cstdint>

namespace gpuslice::simnvml {

using Handle = void*;

struct PciInfoV3 {
  char bus_id_legacy[16];
  uint32_t domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};
static_assert(sizeof(PciInfoV3) == 68 && offsetof(PciInfoV3, domain) == 16 &&
              offsetof(PciInfoV3, bus_id) == 36);

struct PciInfoV2 {
  char bus_id[16];
  uint32_t domain, bus, device, pci_device_id, pci_subsystem_id;
  uint32_t reserved[4];
};
static_assert(sizeof(PciInfoV2) == 52);

struct PciInfoExtV1 {
  uint32_t version, domain, bus, device, pci_device_id, pci_subsystem_id, base_class, sub_class;
  char bus_id[32];
};
static_assert(sizeof(PciInfoExtV1) == 64);

struct MemoryV1 {
  uint64_t total, free, used;
};
static_assert(sizeof(MemoryV1) == 24);
struct MemoryV2 {
  uint32_t version;
  uint64_t total, reserved, free, used;
};
static_assert(sizeof(MemoryV2) == 40 && offsetof(MemoryV2, total) == 8);
struct Bar1Memory {
  uint64_t total, free, used;
};
static_assert(sizeof(Bar1Memory) == 24);

struct Utilization {
  uint32_t gpu, memory;
};
static_assert(sizeof(Utilization) == 8);

struct ProcessInfoV1 {
  uint32_t pid;
  uint64_t memory;
};
static_assert(sizeof(ProcessInfoV1) == 16);
struct ProcessInfoV2 {  // _v3 is the same
  uint32_t pid;
  uint64_t memory;
  uint32_t gi, ci;
};
static_assert(sizeof(ProcessInfoV2) == 24 && offsetof(ProcessInfoV2, gi) == 16);
struct ProcessDetail {
  uint32_t pid;
  uint64_t memory;
  uint32_t gi, ci;
  uint64_t protected_memory;
};
static_assert(sizeof(ProcessDetail) == 32);
struct ProcessDetailList {
  uint32_t version, mode, count;
  ProcessDetail* entries;
};
static_assert(sizeof(ProcessDetailList) == 24);

struct DeviceAttributes {
  uint32_t sm, ce, dec, enc, jpeg, ofa, gi_slices, ci_slices;
  uint64_t memory_mb;
};
static_assert(sizeof(DeviceAttributes) == 40);

struct PlacementAbi {
  uint32_t start, size;
};
struct GiProfileInfo {
  uint32_t id, p2p, slices, count, sm, ce, dec, enc, jpeg, ofa;
  uint64_t memory_mb;
};
static_assert(sizeof(GiProfileInfo) == 48 && offsetof(GiProfileInfo, memory_mb) == 40);
struct GiProfileInfoV2 {
  uint32_t version, id, p2p, slices, count, sm, ce, dec, enc, jpeg, ofa;
  uint64_t memory_mb;
  char name[96];
};
static_assert(sizeof(GiProfileInfoV2) == 152 && offsetof(GiProfileInfoV2, memory_mb) == 48 &&
              offsetof(GiProfileInfoV2, name) == 56);
struct GiProfileInfoV3 {
  uint32_t version, id, slices, count, sm, ce, dec, enc, jpeg, ofa;
  uint64_t memory_mb;
  char name[96];
  uint32_t capabilities;
};
static_assert(sizeof(GiProfileInfoV3) == 152 && offsetof(GiProfileInfoV3, memory_mb) == 40 &&
              offsetof(GiProfileInfoV3, name) == 48 &&
              offsetof(GiProfileInfoV3, capabilities) == 144);
struct CiProfileInfo {
  uint32_t id, slices, count, sm, ce, dec, enc, jpeg, ofa;
};
static_assert(sizeof(CiProfileInfo) == 36);
struct CiProfileInfoV2 {
  uint32_t version, id, slices, count, sm, ce, dec, enc, jpeg, ofa;
  char name[96];
};
static_assert(sizeof(CiProfileInfoV2) == 136 && offsetof(CiProfileInfoV2, name) == 40);
struct CiProfileInfoV3 {
  uint32_t version, id, slices, count, sm, ce, dec, enc, jpeg, ofa;
  char name[96];
  uint32_t capabilities;
};
static_assert(sizeof(CiProfileInfoV3) == 140 && offsetof(CiProfileInfoV3, capabilities) == 136);
struct GiInfo {
  Handle device;
  uint32_t id, profile_id;
  PlacementAbi placement;
};
static_assert(sizeof(GiInfo) == 24);
struct CiInfo {
  Handle device, gpu_instance;
  uint32_t id, profile_id;
  PlacementAbi placement;
};
static_assert(sizeof(CiInfo) == 32);
struct CiInfoV1 {
  Handle device, gpu_instance;
  uint32_t id, profile_id;
};
static_assert(sizeof(CiInfoV1) == 24);

union Value {
  double d;
  uint32_t ui;
  uint64_t ull;
  int64_t sll;
  int32_t si;
  uint16_t us;
};
struct FieldValue {
  uint32_t field_id, scope_id;
  int64_t timestamp_us, latency_us;
  uint32_t value_type, ret;
  Value value;
};
static_assert(sizeof(FieldValue) == 40 && offsetof(FieldValue, value) == 32);
struct EventData {
  Handle device;
  uint64_t type, data;
  uint32_t gi, ci;
};
static_assert(sizeof(EventData) == 32);
struct ProcessUtilizationSample {
  uint32_t pid;
  uint64_t timestamp;
  uint32_t sm, mem, enc, dec;
};
static_assert(sizeof(ProcessUtilizationSample) == 32);
struct ProcessUtilizationInfo {
  uint64_t timestamp;
  uint32_t pid, sm, mem, enc, dec, jpeg, ofa;
};
static_assert(sizeof(ProcessUtilizationInfo) == 40);
struct ProcessesUtilizationInfo {
  uint32_t version, count;
  uint64_t last_seen;
  ProcessUtilizationInfo* entries;
};
static_assert(sizeof(ProcessesUtilizationInfo) == 24);
struct Sample {
  uint64_t timestamp;
  Value value;
};
static_assert(sizeof(Sample) == 16);
struct TemperatureV1 {
  uint32_t version, sensor;
  int32_t temperature;
};
static_assert(sizeof(TemperatureV1) == 12);
struct UuidV1 {
  uint32_t version, type;
  union {
    char text[41];
    uint8_t bytes[16];
  } value;
};
static_assert(sizeof(UuidV1) == 52);
struct FabricInfo {
  uint8_t cluster[16];
  uint32_t status, clique;
  uint8_t state;
};
static_assert(sizeof(FabricInfo) == 28);
struct FabricInfoV2 {
  uint32_t version;
  uint8_t cluster[16];
  uint32_t status, clique;
  uint8_t state;
  uint32_t health_mask;
};
static_assert(sizeof(FabricInfoV2) == 36);
struct FabricInfoV3 {
  uint32_t version;
  uint8_t cluster[16];
  uint32_t status, clique;
  uint8_t state;
  uint32_t health_mask;
  uint8_t health_summary;
};
static_assert(sizeof(FabricInfoV3) == 40);
struct PdiV1 {
  uint32_t version;
  uint64_t value;
};
static_assert(sizeof(PdiV1) == 16);
struct AddressingModeV1 {
  uint32_t version, value;
};
static_assert(sizeof(AddressingModeV1) == 8);
struct RepairStatusV1 {
  uint32_t version, channel_repair_pending, tpc_repair_pending;
};
static_assert(sizeof(RepairStatusV1) == 12);
struct MarginTemperatureV1 {
  uint32_t version;
  int32_t margin;
};
static_assert(sizeof(MarginTemperatureV1) == 8);
struct FanSpeedInfoV1 {
  uint32_t version, fan, speed;
};
static_assert(sizeof(FanSpeedInfoV1) == 12);
struct C2cModeInfoV1 {
  uint32_t is_c2c;
};
struct HwbcEntry {
  uint32_t id;
  char firmware[32];
};
struct ConfComputeMemSize {
  uint64_t protected_kib, unprotected_kib;
};
struct ConfComputeSystemState {
  uint32_t environment, cc_feature, dev_tools_mode;
};
struct ClockOffsetsV1 {
  uint32_t version, type, pstate;
  int32_t offset_mhz, min_mhz, max_mhz;
};
static_assert(sizeof(ClockOffsetsV1) == 24);
struct ViolationTime {
  uint64_t reference_us, violation_ns;
};
static_assert(sizeof(ViolationTime) == 16);
struct SramEccStatusV1 {
  uint32_t version;
  uint64_t counts[11];
  uint32_t threshold_exceeded;
};
static_assert(sizeof(SramEccStatusV1) == 104 && offsetof(SramEccStatusV1, counts) == 8 &&
              offsetof(SramEccStatusV1, threshold_exceeded) == 96);
struct CapabilitiesV1 {
  uint32_t version, mask;
};
static_assert(sizeof(CapabilitiesV1) == 8);
struct DriverBranchV1 {
  uint32_t version;
  char branch[80];
};
static_assert(sizeof(DriverBranchV1) == 84);
struct NvLinkInfoV1 {
  uint32_t version, is_nvle_enabled;
};
struct RowRemapHistogram {
  uint32_t max, high, partial, low, none;
};

constexpr uint32_t version_word(size_t size, uint32_t version) {
  return static_cast<uint32_t>(size) | version << 24;
}

}  // namespace gpuslice::simnvml
