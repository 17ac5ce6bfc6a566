// A driver library as the adapter's test wants it: three GPUs, one with MIG, one that fell off the
// bus, and many functions missing, as in an old driver.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
  unsigned pid;
  unsigned long long used;
  unsigned gi, ci;
} process_t;

static int open_count;
static int gpus[3];   // a handle is the address of its entry
static int mig[2];    // MIG devices 0 and 2 of GPU 1; index 1 is a hole
static int instance;  // GPU instance of MIG device 0; the other one may not be asked for

#define EXPORT __attribute__((visibility("default")))

static int lost(void* device) { return device == &gpus[2]; }

EXPORT int nvmlInit_v2(void) {
  if (getenv("FAKE_NVML_NO_DRIVER") != NULL) return 9;
  while (getenv("FAKE_NVML_HANGS") != NULL) pause();
  const char* while_there_is = getenv("FAKE_NVML_HANGS_WHILE");
  while (while_there_is != NULL && access(while_there_is, F_OK) == 0) usleep(1000);
  ++open_count;
  return 0;
}
EXPORT int nvmlShutdown(void) { return --open_count < 0 ? 1 : 0; }
EXPORT const char* nvmlErrorString(int code) {
  return code == 15 ? "GPU is lost" : code == 9 ? "Driver Not Loaded" : "Unknown Error";
}
EXPORT int nvmlSystemGetDriverVersion(char* out, unsigned size) {
  return snprintf(out, size, "580.65.06") > 0 ? 0 : 999;
}
EXPORT int nvmlSystemGetCudaDriverVersion_v2(int* version) {
  *version = 13000;
  return 0;
}
EXPORT int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 3;
  return 0;
}
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  if (index > 2) return 2;
  *device = &gpus[index];
  return 0;
}
EXPORT int nvmlDeviceGetUUID(void* device, char* out, unsigned size) {
  if (lost(device)) return 15;
  if (device == &mig[0]) return snprintf(out, size, "MIG-aaaa") > 0 ? 0 : 999;
  if (device == &mig[1]) return snprintf(out, size, "MIG-bbbb") > 0 ? 0 : 999;
  return snprintf(out, size, "GPU-000%d", (int)((int*)device - gpus)) > 0 ? 0 : 999;
}
EXPORT int nvmlDeviceGetName(void* device, char* out, unsigned size) {
  if (device == &mig[0]) return snprintf(out, size, "NVIDIA A30 MIG 1g.6gb") > 0 ? 0 : 999;
  if (device == &mig[1]) return snprintf(out, size, "NVIDIA A30 MIG 1c.2g.12gb") > 0 ? 0 : 999;
  return snprintf(out, size, "NVIDIA A30") > 0 ? 0 : 999;
}
EXPORT int nvmlDeviceGetMinorNumber(void* device, unsigned* minor) {
  *minor = device == &gpus[0] ? 4 : 7;
  return 0;
}
EXPORT int nvmlDeviceGetPciInfo_v3(void* device, void* out) {
  char* pci = out;
  memset(pci, 0, 68);
  strcpy(pci + 36, device == &gpus[0] ? "00000000:3B:00.0" : "00000000:AF:00.0");
  return 0;
}
EXPORT int nvmlDeviceGetMemoryInfo(void* device, unsigned long long* out) {
  out[0] = device == &mig[0] ? 6000 : 24000;
  out[1] = out[0] - 100;
  out[2] = 100;
  return 0;
}
EXPORT int nvmlDeviceGetMigMode(void* device, unsigned* current, unsigned* pending) {
  if (device != &gpus[1]) return 3;
  *current = 1;
  *pending = 0;
  return 0;
}
EXPORT int nvmlDeviceGetMaxMigDeviceCount(void* device, unsigned* count) {
  (void)device;
  *count = 4;
  return 0;
}
EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(void* device, unsigned index, void** out) {
  (void)device;
  if (index != 0 && index != 2) return 6;
  *out = &mig[index / 2];
  return 0;
}
EXPORT int nvmlDeviceGetGpuInstanceId(void* device, unsigned* id) {
  *id = device == &mig[0] ? 3 : 1;
  return 0;
}
EXPORT int nvmlDeviceGetComputeInstanceId(void* device, unsigned* id) {
  (void)device;
  *id = 0;
  return 0;
}
EXPORT int nvmlDeviceGetGpuInstanceById(void* device, unsigned id, void** out) {
  (void)device;
  if (id != 3) return 4;
  *out = &instance;
  return 0;
}
EXPORT int nvmlGpuInstanceGetInfo(void* gi, void* out) {
  (void)gi;
  unsigned* words = out;
  words[2] = 3;
  words[3] = 14;
  words[4] = 2;
  words[5] = 1;
  return 0;
}
EXPORT int nvmlDeviceGetAttributes_v2(void* device, void* out) {
  if (device != &mig[0]) return 3;
  unsigned* words = out;
  for (unsigned i = 0; i < 8; ++i) words[i] = 10 + i;
  ((unsigned long long*)out)[4] = 5952;
  return 0;
}
EXPORT int nvmlDeviceGetCudaComputeCapability(void* device, int* major, int* minor) {
  (void)device;
  *major = 8;
  *minor = 0;
  return 0;
}
EXPORT int nvmlDeviceGetGpuFabricInfo(void* device, void* out) {
  if (device == &gpus[1]) return 3;
  unsigned char* bytes = out;
  for (unsigned i = 0; i < 16; ++i) bytes[i] = (unsigned char)(16 * i + i);
  ((unsigned*)out)[4] = 0;
  ((unsigned*)out)[5] = 7;
  bytes[24] = 3;
  return 0;
}
// GPU 0: link 0 to GPU 1, link 1 is down, links 2 and 3 to switches. GPU 1: one link, to GPU 0.
EXPORT int nvmlDeviceGetNvLinkState(void* device, unsigned link, unsigned* out) {
  if (link >= (device == &gpus[0] ? 4u : 1u)) return 2;
  *out = link != 1;
  return 0;
}
EXPORT int nvmlDeviceGetNvLinkRemotePciInfo_v2(void* device, unsigned link, void* out) {
  char* pci = out;
  memset(pci, 0, 68);
  strcpy(pci + 36, link >= 2            ? "00000000:C0:00.0"
                   : device == &gpus[0] ? "00000000:AF:00.0"
                                        : "00000000:3B:00.0");
  return 0;
}
EXPORT int nvmlDeviceGetNvLinkRemoteDeviceType(void* device, unsigned link, unsigned* out) {
  (void)device;
  if (link == 3) return 3;  // an older driver does not tell
  *out = link == 2 ? 2 : 0;
  return 0;
}
EXPORT int nvmlDeviceGetTopologyCommonAncestor(void* a, void* b, unsigned* out) {
  if (a != &gpus[0] || b != &gpus[1]) return 999;
  *out = 30;
  return 0;
}
EXPORT int nvmlDeviceGetPowerUsage(void* device, unsigned* out) {
  if (device != &gpus[0]) return 3;
  *out = 165000;
  return 0;
}
// 100 processes: more than a first guess holds.
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(void* device, unsigned* count, process_t* out) {
  if (device != &gpus[0]) {
    *count = 0;
    return 0;
  }
  if (*count < 100) {
    *count = 100;
    return 7;
  }
  *count = 100;
  for (unsigned i = 0; i < 100; ++i) {
    out[i].pid = i;
    out[i].used = i == 0 ? 0xFFFFFFFFFFFFFFFFull : i;
    out[i].gi = i == 1 ? 3 : 0xFFFFFFFFu;
    out[i].ci = i == 1 ? 0 : 0xFFFFFFFFu;
  }
  return 0;
}
EXPORT int nvmlSystemGetProcessName(unsigned pid, char* out, unsigned size) {
  if (pid == 2) return 6;
  return snprintf(out, size, "/bin/p%u", pid) > 0 ? 0 : 999;
}
EXPORT int fake_nvml_open_count(void) { return open_count; }

// Events: one set at a time; a test says what comes and which registrations are refused.
typedef struct {
  void* device;
  unsigned long long type, data;
  unsigned gi, ci;
} event_t;
static int sets_made, sets_open;
static int registered[3];  // in the set that is open
static int refuse = -1;    // the GPU whose registration fails, which leaves the set undefined
static int waits_fail, coming;
static event_t next_event;
EXPORT int nvmlEventSetCreate(void** set) {
  memset(registered, 0, sizeof registered);
  ++sets_open;
  *set = &sets_made;
  ++sets_made;
  return 0;
}
EXPORT int nvmlEventSetFree(void* set) {
  (void)set;
  --sets_open;
  return 0;
}
EXPORT int nvmlDeviceGetSupportedEventTypes(void* device, unsigned long long* types) {
  *types = device == &gpus[1] ? 0x8 : 0x1f;
  return 0;
}
EXPORT int nvmlDeviceRegisterEvents(void* device, unsigned long long types, void* set) {
  (void)set;
  const int index = (int)((int*)device - gpus);
  if (index == refuse) return 999;
  registered[index] = (int)types;
  return 0;
}
EXPORT int nvmlEventSetWait_v2(void* set, event_t* out, unsigned ms) {
  (void)set;
  if (waits_fail) return 15;
  if (!coming) {
    usleep(ms * 1000);
    return 10;
  }
  coming = 0;
  *out = next_event;
  return 0;
}
EXPORT void fake_nvml_event(int gpu, unsigned long long type, unsigned long long data, unsigned gi,
                            unsigned ci) {
  next_event = (event_t){&gpus[gpu], type, data, gi, ci};
  coming = 1;
}
EXPORT void fake_nvml_refuse(int gpu) { refuse = gpu; }
EXPORT void fake_nvml_fail_waits(int fails) { waits_fail = fails; }
EXPORT int fake_nvml_registered(int gpu) { return registered[gpu]; }
EXPORT int fake_nvml_sets_open(void) { return sets_open; }
