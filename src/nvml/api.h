#pragma once

// The part of NVML's C ABI that the adapter calls: structs by their public layouts (each size
// asserted), and the functions by name.

#include <cstddef>
#include <cstdint>

namespace gpuslice::nvml::api {

struct Opaque;
using Device = Opaque*;
using Instance = Opaque*;
using Return = int;

inline constexpr Return kSuccess = 0;
inline constexpr Return kInvalidArgument = 2;
inline constexpr Return kNotSupported = 3;
inline constexpr Return kNoPermission = 4;
inline constexpr Return kNotFound = 6;
inline constexpr Return kInsufficientSize = 7;
inline constexpr Return kFunctionNotFound = 13;
inline constexpr Return kGpuIsLost = 15;
inline constexpr Return kInUse = 19;

inline constexpr unsigned kNoInstance = 0xFFFFFFFFu;  // a process that is not on MIG
inline constexpr unsigned long long kUnknownMemory = 0xFFFFFFFFFFFFFFFFull;  // "not available"

struct PciInfo {
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};
static_assert(sizeof(PciInfo) == 68);

struct Memory {
  unsigned long long total, free, used;  // used includes reserved
};
static_assert(sizeof(Memory) == 24);

struct MemoryV2 {
  unsigned version;
  unsigned long long total, reserved, free, used;
};
static_assert(sizeof(MemoryV2) == 40);
inline constexpr unsigned kMemoryV2 = 0x02000028;

struct Bar1Memory {
  unsigned long long total, free, used;
};
static_assert(sizeof(Bar1Memory) == 24);

struct Utilization {
  unsigned gpu, memory;  // percent
};
static_assert(sizeof(Utilization) == 8);

struct ProcessInfo {  // of the _v2 and _v3 lists
  unsigned pid;
  unsigned long long used_memory;
  unsigned gpu_instance, compute_instance;
};
static_assert(sizeof(ProcessInfo) == 24);

struct Attributes {
  unsigned sm, ce, dec, enc, jpeg, ofa, gi_slices, ci_slices;
  unsigned long long memory_mb;
};
static_assert(sizeof(Attributes) == 40);

struct FabricInfo {
  unsigned char cluster[16];
  Return status;
  unsigned clique;
  unsigned char state;
};
static_assert(sizeof(FabricInfo) == 28);
inline constexpr unsigned kFabricCompleted = 3;

struct Placement {
  unsigned start, size;
};

struct GpuInstanceInfo {
  Device device;
  unsigned id, profile_id;
  Placement placement;
};
static_assert(sizeof(GpuInstanceInfo) == 24);

struct ComputeInstanceInfo {
  Device device;
  Instance gpu_instance;
  unsigned id, profile_id;
  Placement placement;
};
static_assert(sizeof(ComputeInstanceInfo) == 32);

struct GiProfileInfo {
  unsigned id, p2p, slices, count, sm, ce, dec, enc, jpeg, ofa;
  unsigned long long memory_mb;
};
static_assert(sizeof(GiProfileInfo) == 48);

struct GiProfileInfoV2 {
  unsigned version, id, p2p, slices, count, sm, ce, dec, enc, jpeg, ofa;
  unsigned long long memory_mb;
  char name[96];  // "MIG 1g.5gb"
};
static_assert(sizeof(GiProfileInfoV2) == 152 && offsetof(GiProfileInfoV2, name) == 56);
inline constexpr unsigned kGiProfileInfoV2 = 0x02000098;

struct CiProfileInfo {
  unsigned id, slices, count, sm, ce, dec, enc, jpeg, ofa;
};
static_assert(sizeof(CiProfileInfo) == 36);

struct FieldValue {
  unsigned field, scope;
  long long timestamp_us, latency_us;
  unsigned type;
  Return code;
  union {
    double number;
    unsigned word;
    unsigned long long wide;
  } value;
};
static_assert(sizeof(FieldValue) == 40 && offsetof(FieldValue, value) == 32);

// NVML's enums of GPU and compute instance profiles are counted from 0 upward; one that this
// driver does not know answers INVALID_ARGUMENT and ends the list.
inline constexpr unsigned kMostGiEnums = 64;
inline constexpr unsigned kMostCiEnums = 32;
inline constexpr unsigned kMostPlacements = 64;
inline constexpr unsigned kEngineShared = 0;

inline constexpr unsigned kFieldRetiredPending = 31;  // pages, before Ampere
inline constexpr unsigned kFieldEnergy = 83;          // a 64-bit word of millijoules
inline constexpr unsigned kFieldRemapPending = 144;   // rows, since Ampere
inline constexpr unsigned kFieldRemapFailed = 145;
inline constexpr unsigned kFieldResetRequired = 226;
inline constexpr unsigned kFieldRecoveryAction = 230;  // since 570; NVML's enum
inline constexpr unsigned kRecoverByReset = 1;
inline constexpr unsigned kFieldResetlessMig = 184;
inline constexpr unsigned kFieldModeIndependentMigQuery = 199;

inline constexpr size_t kNameBytes = 96;
inline constexpr size_t kUuidBytes = 96;
inline constexpr size_t kVersionBytes = 80;
inline constexpr size_t kSerialBytes = 30;
inline constexpr size_t kVbiosBytes = 32;

}  // namespace gpuslice::nvml::api
