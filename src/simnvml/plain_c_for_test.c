/* A program in C as its author would write it from NVML's documentation: declarations by hand, the
   library by dlopen. plain_c_walk() says what was wrong first; NULL: nothing. */

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef int nvmlReturn_t;
typedef struct nvmlDevice_st* nvmlDevice_t;
typedef struct nvmlGpuInstance_st* nvmlGpuInstance_t;
typedef struct nvmlComputeInstance_st* nvmlComputeInstance_t;
typedef struct nvmlEventSet_st* nvmlEventSet_t;

typedef struct {
  unsigned long long total, free, used;
} nvmlMemory_t;
typedef struct {
  unsigned int version;
  unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;
typedef struct {
  char busIdLegacy[16];
  unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
  char busId[32];
} nvmlPciInfo_t;
typedef struct {
  unsigned int pid;
  unsigned long long usedGpuMemory;
  unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;
typedef struct {
  nvmlDevice_t device;
  unsigned long long eventType, eventData;
  unsigned int gpuInstanceId, computeInstanceId;
} nvmlEventData_t;
typedef struct {
  unsigned int start, size;
} nvmlPlacement_t;
typedef struct {
  nvmlDevice_t device;
  unsigned int id, profileId;
  nvmlPlacement_t placement;
} nvmlGpuInstanceInfo_t;
typedef struct {
  nvmlDevice_t device;
  nvmlGpuInstance_t gpuInstance;
  unsigned int id, profileId;
  nvmlPlacement_t placement;
} nvmlComputeInstanceInfo_t;
typedef struct {
  unsigned int version, id, isP2pSupported, sliceCount, instanceCount, multiprocessorCount,
      copyEngineCount, decoderCount, encoderCount, jpegCount, ofaCount;
  unsigned long long memorySizeMB;
  char name[96];
} nvmlGpuInstanceProfileInfo_v2_t;

#define NVML_STRUCT_VERSION(type, number) (unsigned int)(sizeof(type) | ((number) << 24U))

static char said[256];

#define WANT(condition)                                                                  \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      snprintf(said, sizeof said, "plain C, line %d: not so: %s", __LINE__, #condition); \
      return said;                                                                       \
    }                                                                                    \
  } while (0)

/* POSIX's way around ISO C, which knows no cast from an object to a function. */
#define LOAD(result, name, ...)                              \
  result (*name)(__VA_ARGS__) = NULL;                        \
  *(void**)(&name) = dlsym(library, #name);                  \
  WANT(name != NULL)

static const char* walk_device(void* library, nvmlDevice_t device) {
  LOAD(nvmlReturn_t, nvmlDeviceGetName, nvmlDevice_t, char*, unsigned int);
  LOAD(nvmlReturn_t, nvmlDeviceGetMemoryInfo, nvmlDevice_t, nvmlMemory_t*);
  LOAD(nvmlReturn_t, nvmlDeviceGetMemoryInfo_v2, nvmlDevice_t, nvmlMemory_v2_t*);
  LOAD(nvmlReturn_t, nvmlDeviceGetPciInfo_v3, nvmlDevice_t, nvmlPciInfo_t*);
  LOAD(nvmlReturn_t, nvmlDeviceGetComputeRunningProcesses_v3, nvmlDevice_t, unsigned int*,
       nvmlProcessInfo_t*);
  char name[96];
  WANT(nvmlDeviceGetName(device, name, sizeof name) == 0);
  WANT(strcmp(name, "NVIDIA A100-SXM4-40GB") == 0);
  nvmlMemory_t memory;
  WANT(nvmlDeviceGetMemoryInfo(device, &memory) == 0);
  WANT(memory.total == 40960ULL << 20 && memory.free + memory.used == memory.total);
  nvmlMemory_v2_t memory_v2 = {.version = NVML_STRUCT_VERSION(nvmlMemory_v2_t, 2)};
  WANT(nvmlDeviceGetMemoryInfo_v2(device, &memory_v2) == 0);
  WANT(memory_v2.used + memory_v2.reserved == memory.used);
  nvmlPciInfo_t pci;
  WANT(nvmlDeviceGetPciInfo_v3(device, &pci) == 0);
  WANT(strcmp(pci.busId, "00000000:07:00.0") == 0 && pci.pciDeviceId == 0x20b010deU);
  unsigned int count = 0;
  WANT(nvmlDeviceGetComputeRunningProcesses_v3(device, &count, NULL) == 0 && count == 0);
  return NULL;
}

static const char* walk_mig(void* library, nvmlDevice_t device) {
  LOAD(nvmlReturn_t, nvmlDeviceSetMigMode, nvmlDevice_t, unsigned int, nvmlReturn_t*);
  LOAD(nvmlReturn_t, nvmlDeviceGetGpuInstanceProfileInfoV, nvmlDevice_t, unsigned int,
       nvmlGpuInstanceProfileInfo_v2_t*);
  LOAD(nvmlReturn_t, nvmlDeviceCreateGpuInstanceWithPlacement, nvmlDevice_t, unsigned int,
       const nvmlPlacement_t*, nvmlGpuInstance_t*);
  LOAD(nvmlReturn_t, nvmlGpuInstanceGetInfo, nvmlGpuInstance_t, nvmlGpuInstanceInfo_t*);
  LOAD(nvmlReturn_t, nvmlGpuInstanceCreateComputeInstance, nvmlGpuInstance_t, unsigned int,
       nvmlComputeInstance_t*);
  LOAD(nvmlReturn_t, nvmlComputeInstanceGetInfo_v2, nvmlComputeInstance_t,
       nvmlComputeInstanceInfo_t*);
  LOAD(nvmlReturn_t, nvmlDeviceGetUUID, nvmlDevice_t, char*, unsigned int);
  LOAD(nvmlReturn_t, nvmlComputeInstanceDestroy, nvmlComputeInstance_t);
  LOAD(nvmlReturn_t, nvmlGpuInstanceDestroy, nvmlGpuInstance_t);
  nvmlReturn_t activation = -1;
  WANT(nvmlDeviceSetMigMode(device, 1, &activation) == 0 && activation == 0);
  nvmlGpuInstanceProfileInfo_v2_t profile = {
      .version = NVML_STRUCT_VERSION(nvmlGpuInstanceProfileInfo_v2_t, 2)};
  WANT(nvmlDeviceGetGpuInstanceProfileInfoV(device, 2, &profile) == 0);
  WANT(profile.id == 9 && strcmp(profile.name, "MIG 3g.20gb") == 0);
  const nvmlPlacement_t placement = {0, 4};
  nvmlGpuInstance_t gi = NULL;
  WANT(nvmlDeviceCreateGpuInstanceWithPlacement(device, profile.id, &placement, &gi) == 0);
  nvmlGpuInstanceInfo_t gi_info;
  WANT(nvmlGpuInstanceGetInfo(gi, &gi_info) == 0);
  WANT(gi_info.device == device && gi_info.placement.start == 0 && gi_info.placement.size == 4);
  nvmlComputeInstance_t ci = NULL;
  WANT(nvmlGpuInstanceCreateComputeInstance(gi, 2, &ci) == 0);
  nvmlComputeInstanceInfo_t ci_info;
  WANT(nvmlComputeInstanceGetInfo_v2(ci, &ci_info) == 0 && ci_info.gpuInstance == gi);
  char uuid[96];
  WANT(nvmlDeviceGetUUID(ci_info.device, uuid, sizeof uuid) == 0);
  WANT(strncmp(uuid, "MIG-", 4) == 0 && strlen(uuid) == 40);
  WANT(nvmlGpuInstanceDestroy(gi) == 19);
  WANT(nvmlComputeInstanceDestroy(ci) == 0 && nvmlGpuInstanceDestroy(gi) == 0);
  WANT(nvmlDeviceGetUUID(ci_info.device, uuid, sizeof uuid) == 2);
  return NULL;
}

static const char* walk_events(void* library, nvmlDevice_t device) {
  LOAD(nvmlReturn_t, nvmlEventSetCreate, nvmlEventSet_t*);
  LOAD(nvmlReturn_t, nvmlDeviceRegisterEvents, nvmlDevice_t, unsigned long long, nvmlEventSet_t);
  LOAD(nvmlReturn_t, nvmlEventSetWait_v2, nvmlEventSet_t, nvmlEventData_t*, unsigned int);
  LOAD(nvmlReturn_t, nvmlEventSetFree, nvmlEventSet_t);
  nvmlEventSet_t set = NULL;
  nvmlEventData_t data;
  WANT(nvmlEventSetCreate(&set) == 0);
  WANT(nvmlDeviceRegisterEvents(device, 0x8, set) == 0);
  WANT(nvmlEventSetWait_v2(set, &data, 1) == 10);
  WANT(nvmlEventSetFree(set) == 0);
  return NULL;
}

const char* plain_c_walk(const char* path);
const char* plain_c_walk(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  WANT(library != NULL);
  LOAD(nvmlReturn_t, nvmlInit_v2, void);
  LOAD(nvmlReturn_t, nvmlShutdown, void);
  LOAD(const char*, nvmlErrorString, nvmlReturn_t);
  LOAD(nvmlReturn_t, nvmlDeviceGetCount_v2, unsigned int*);
  LOAD(nvmlReturn_t, nvmlDeviceGetHandleByIndex_v2, unsigned int, nvmlDevice_t*);
  unsigned int count = 0;
  nvmlDevice_t device = NULL;
  WANT(nvmlDeviceGetCount_v2(&count) == 1);
  WANT(strcmp(nvmlErrorString(1), "Uninitialized") == 0);
  WANT(nvmlInit_v2() == 0);
  WANT(nvmlDeviceGetCount_v2(&count) == 0 && count == 1);
  WANT(nvmlDeviceGetHandleByIndex_v2(0, &device) == 0);
  const char* wrong = walk_device(library, device);
  if (wrong == NULL) wrong = walk_events(library, device);
  if (wrong == NULL) wrong = walk_mig(library, device);
  if (wrong != NULL) return wrong;
  WANT(nvmlShutdown() == 0);
  WANT(dlclose(library) == 0);
  return NULL;
}
