// Memory, and who uses a device: process lists of all ABIs, per-process utilisation, samples.

#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include "sim/clients.h"
#include "sim/life.h"
#include "simnvml/session.h"

namespace gpuslice::simnvml {
namespace {

sim::MemoryUse memory_of(const Call& c) {
  return c.is_mig() ? sim::gi_memory(c.state(), c.object.gpu, c.object.gi)
                    : sim::gpu_memory(c.state(), c.object.gpu);
}

struct Running {
  uint32_t pid = 0;
  uint64_t memory = 0;
  uint32_t gi = sim::kNoInstance;
  uint32_t ci = sim::kNoInstance;
  uint16_t process = 0;  // see process_slot()
};

// One slot for all the clients of a process: two copies of the library in it are two clients. PIDs
// will not do, those of another namespace are all 0 here.
uint16_t process_slot(const sim::State& state, uint16_t slot) {
  const sim::Client& client = state.clients[slot];
  if (client.simulated != 0) return slot;
  for (uint16_t first = 0; first < slot; ++first)
    if (state.clients[first].used != 0 && state.clients[first].simulated == 0 &&
        sim::process_of(state.clients[first]) == sim::process_of(client))
      return first;
  return slot;
}

// Live processes on a device that the caller may see, one row for each process and instance, by
// PID. A process that the caller's PID namespace does not show has PID 0.
std::vector<Running> running(const Call& c, sim::WorkKind kind) {
  std::vector<Running> out;
  for (const sim::Work& work : c.state().works) {
    if (work.used == 0 || work.gpu != c.object.gpu || work.kind != kind) continue;
    if (c.is_mig() && (work.gi != c.object.gi || work.ci != c.object.ci)) continue;
    if (work.gi != sim::kNone && !visible_mig(c, work.gpu, work.gi, work.ci)) continue;
    const auto pid = c.world.holder(work.client);
    if (!pid) continue;
    Running row;
    row.pid = static_cast<uint32_t>(*pid);
    row.memory = work.memory_bytes;
    row.process = process_slot(c.state(), work.client);
    if (work.gi != sim::kNone) {
      row.gi = work.gi;
      row.ci = work.ci;
    }
    const auto same = std::find_if(out.begin(), out.end(), [&](const Running& r) {
      return r.process == row.process && r.gi == row.gi && r.ci == row.ci;
    });
    if (same != out.end())
      same->memory += row.memory;
    else
      out.push_back(row);
  }
  std::sort(out.begin(), out.end(), [](const Running& a, const Running& b) {
    return std::tie(a.pid, a.process, a.gi, a.ci) < std::tie(b.pid, b.process, b.gi, b.ci);
  });
  return out;
}

template <class Info, class Fill>
int list(const char* name, Handle h, sim::WorkKind kind, uint32_t* count, Info* out, Fill&& fill) {
  return device_call(name, h, kGpuOrMig, [&](Call& c) {
    if (count == nullptr) return Ret::kInvalidArgument;
    const std::vector<Running> rows = running(c, kind);
    const uint32_t room = *count;
    *count = static_cast<uint32_t>(rows.size());
    if (rows.empty()) return Ret::kSuccess;
    if (out == nullptr || room < rows.size()) return Ret::kInsufficientSize;
    for (size_t i = 0; i < rows.size(); ++i) fill(rows[i], out[i]);
    return Ret::kSuccess;
  });
}

void fill_v1(const Running& row, ProcessInfoV1& out) { out = {row.pid, row.memory}; }
void fill_v2(const Running& row, ProcessInfoV2& out) {
  out = {row.pid, row.memory, row.gi, row.ci};
}

using sim::WorkKind;

}  // namespace

NVML_API int nvmlDeviceGetMemoryInfo(Handle h, MemoryV1* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    const sim::MemoryUse use = memory_of(c);
    *out = {use.total, use.free(), use.used + use.reserved};  // v1 counts the reserved as used
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetMemoryInfo_v2(Handle h, MemoryV2* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (out->version != version_word(sizeof *out, 2))
      return as_measured(c) ? Ret::kFunctionNotFound : Ret::kArgumentVersionMismatch;
    const sim::MemoryUse use = memory_of(c);
    out->total = use.total;
    out->reserved = use.reserved;
    out->free = use.free();
    out->used = use.used;
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetBAR1MemoryInfo(Handle h, Bar1Memory* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    uint64_t total = uint64_t{c.board().bar1_mib} << 20;
    if (c.is_mig())
      total = total * c.gpu().gis[c.object.gi].size / std::max<uint8_t>(1, c.board().memory_units);
    const uint64_t used = std::min<uint64_t>(total, 1 << 20);
    *out = {total, total - used, used};
    return Ret::kSuccess;
  });
}

NVML_API int nvmlDeviceGetComputeRunningProcesses(Handle h, uint32_t* n, ProcessInfoV1* out) {
  return list(__func__, h, WorkKind::kCompute, n, out, fill_v1);
}
NVML_API int nvmlDeviceGetComputeRunningProcesses_v2(Handle h, uint32_t* n, ProcessInfoV2* out) {
  return list(__func__, h, WorkKind::kCompute, n, out, fill_v2);
}
NVML_API int nvmlDeviceGetComputeRunningProcesses_v3(Handle h, uint32_t* n, ProcessInfoV2* out) {
  return list(__func__, h, WorkKind::kCompute, n, out, fill_v2);
}
NVML_API int nvmlDeviceGetGraphicsRunningProcesses(Handle h, uint32_t* n, ProcessInfoV1* out) {
  return list(__func__, h, WorkKind::kGraphics, n, out, fill_v1);
}
NVML_API int nvmlDeviceGetGraphicsRunningProcesses_v2(Handle h, uint32_t* n, ProcessInfoV2* out) {
  return list(__func__, h, WorkKind::kGraphics, n, out, fill_v2);
}
NVML_API int nvmlDeviceGetGraphicsRunningProcesses_v3(Handle h, uint32_t* n, ProcessInfoV2* out) {
  return list(__func__, h, WorkKind::kGraphics, n, out, fill_v2);
}
NVML_API int nvmlDeviceGetMPSComputeRunningProcesses(Handle h, uint32_t* n, ProcessInfoV1* out) {
  return list(__func__, h, WorkKind::kMps, n, out, fill_v1);
}
NVML_API int nvmlDeviceGetMPSComputeRunningProcesses_v2(Handle h, uint32_t* n, ProcessInfoV2* out) {
  return list(__func__, h, WorkKind::kMps, n, out, fill_v2);
}
NVML_API int nvmlDeviceGetMPSComputeRunningProcesses_v3(Handle h, uint32_t* n, ProcessInfoV2* out) {
  return list(__func__, h, WorkKind::kMps, n, out, fill_v2);
}

NVML_API int nvmlDeviceGetRunningProcessDetailList(Handle h, ProcessDetailList* out) {
  return device_call(__func__, h, kGpuOrMig, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (out->version != version_word(sizeof *out, 1)) return Ret::kArgumentVersionMismatch;
    if (out->mode > 2) return Ret::kInvalidArgument;
    constexpr WorkKind kKinds[] = {WorkKind::kCompute, WorkKind::kGraphics, WorkKind::kMps};
    const std::vector<Running> rows = running(c, kKinds[out->mode]);
    const uint32_t room = out->count;
    out->count = static_cast<uint32_t>(rows.size());
    if (rows.empty()) return Ret::kSuccess;
    if (out->entries == nullptr || room < rows.size()) return Ret::kInsufficientSize;
    for (size_t i = 0; i < rows.size(); ++i)
      out->entries[i] = {rows[i].pid, rows[i].memory, rows[i].gi, rows[i].ci, 0};
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetConfComputeMemSizeInfo(Handle h, ConfComputeMemSize* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    *out = {0, uint64_t{c.board().memory_total_mib - c.board().memory_reserved_mib} * 1024};
    return Ret::kSuccess;
  });
}

// --- utilisation of processes, samples
// ------------------------------------------------------------------------------

namespace {

struct Busy {
  uint32_t pid = 0;
  uint32_t sm = 0;  // percent
  uint32_t mem = 0;
};

std::vector<Busy> busy_processes(const Call& c) {
  std::vector<Busy> out;
  const std::vector<sim::Grant> grants =
      sim::grants(c.state(), c.object.gpu, sim::kNone, sim::kNone);
  for (const Running& row : running(c, WorkKind::kCompute)) {
    Busy busy{row.pid, 0, 0};
    for (const sim::Grant& grant : grants)
      if (process_slot(c.state(), c.state().works[grant.work].client) == row.process)
        busy.sm += (grant.permille + 5) / 10;
    busy.mem = busy.sm * 4 / 10;
    out.push_back(busy);
  }
  return out;
}

// Who gives less room than the driver keeps samples is told how many, before anything is looked
// at.
uint32_t room_for(size_t rows) { return std::max<uint32_t>(72, static_cast<uint32_t>(rows)); }

uint64_t now_us(const Call& c) { return static_cast<uint64_t>(c.now() / 1000); }

using sim::kSamplePeriodUs;
constexpr uint32_t kMostSamples = 120;

enum SampleKind : uint32_t {
  kPowerSamples = 0,
  kGpuSamples = 1,
  kMemorySamples = 2,
  kEncoderSamples = 3,
  kDecoderSamples = 4,
  kGraphicsClockSamples = 5,
  kMemoryClockSamples = 6,
  kJpegSamples = 8,
  kOfaSamples = 9
};

// How many samples the driver keeps.
uint32_t samples_of(uint32_t type) {
  switch (type) {
    case kPowerSamples:
      return kMostSamples;
    case kGraphicsClockSamples:
    case kMemoryClockSamples:
      return 100;
    default:
      return 72;
  }
}

uint32_t sample_of(const Call& c, uint32_t type, uint64_t sample) {
  const sim::SampleValues at = sim::sampled(c.state(), c.object.gpu, sample);
  switch (type) {
    case kPowerSamples:
      return at.power_mw;
    case kGpuSamples:
      return (at.activity_permille + 5) / 10;
    case kMemorySamples:
      return sim::memory_utilisation(at.activity_permille);
    default:
      return 0;  // the media engines: no work uses them
  }
}

}  // namespace

NVML_API int nvmlDeviceGetProcessUtilization(Handle h, ProcessUtilizationSample* out,
                                             uint32_t* count, unsigned long long last_seen) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (count == nullptr) return Ret::kInvalidArgument;
    if (c.gpu().mig_current != 0) return Ret::kNotSupported;
    const std::vector<Busy> rows = busy_processes(c);
    const uint64_t now = now_us(c);
    if (last_seen >= now) return Ret::kNotFound;
    if (out == nullptr || *count < room_for(rows.size())) {
      *count = room_for(rows.size());
      return Ret::kInsufficientSize;
    }
    if (rows.empty()) return Ret::kNotFound;
    *count = static_cast<uint32_t>(rows.size());
    for (size_t i = 0; i < rows.size(); ++i)
      out[i] = {rows[i].pid, now, rows[i].sm, rows[i].mem, 0, 0};
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetProcessesUtilizationInfo(Handle h, ProcessesUtilizationInfo* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (out == nullptr) return Ret::kInvalidArgument;
    if (driver_major(c.state()) < 550) return Ret::kFunctionNotFound;
    if (out->version != version_word(sizeof *out, 1)) return Ret::kArgumentVersionMismatch;
    if (c.gpu().mig_current != 0) return Ret::kNotSupported;
    const std::vector<Busy> rows = busy_processes(c);
    const uint64_t now = now_us(c);
    if (out->last_seen >= now) return Ret::kNotFound;
    if (out->entries == nullptr || out->count < room_for(rows.size())) {
      out->count = room_for(rows.size());
      return Ret::kInsufficientSize;
    }
    if (rows.empty()) return Ret::kNotFound;
    out->count = static_cast<uint32_t>(rows.size());
    for (size_t i = 0; i < rows.size(); ++i)
      out->entries[i] = {now, rows[i].pid, rows[i].sm, rows[i].mem, 0, 0, 0, 0};
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetSamples(Handle h, uint32_t type, unsigned long long last_seen,
                                  uint32_t* value_type, uint32_t* count, Sample* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call& c) {
    if (value_type == nullptr || count == nullptr || type == 7 || type > kOfaSamples)
      return Ret::kInvalidArgument;
    const bool clock = type == kGraphicsClockSamples || type == kMemoryClockSamples;
    if (!clock && type != kPowerSamples && c.gpu().mig_current != 0) return Ret::kNotSupported;
    *value_type = 1;  // unsigned int
    if (out == nullptr) {
      *count = samples_of(type);
      return Ret::kSuccess;
    }
    if (clock) return Ret::kNotFound;  // room is kept for them, and none is taken
    const uint64_t now = now_us(c);
    const uint64_t newest = now - now % kSamplePeriodUs;
    const uint64_t born = static_cast<uint64_t>(c.state().node.booted_ns / 1000);
    uint32_t fresh = 0;
    while (fresh < samples_of(type) && newest >= fresh * kSamplePeriodUs &&
           newest - fresh * kSamplePeriodUs > last_seen && newest - fresh * kSamplePeriodUs >= born)
      ++fresh;
    if (fresh == 0) return Ret::kNotFound;
    fresh = std::min(fresh, *count);
    *count = fresh;
    for (uint32_t i = 0; i < fresh; ++i) {
      out[i].timestamp = newest - (fresh - 1 - i) * kSamplePeriodUs;
      out[i].value.ull = 0;
      out[i].value.ui = sample_of(c, type, out[i].timestamp / kSamplePeriodUs);
    }
    return Ret::kSuccess;
  });
}
NVML_API int nvmlDeviceGetAccountingMode(Handle h, uint32_t* out) {
  return device_call(__func__, h, kGpuOnly, [&](Call&) { return put(out, 0U); });
}

}  // namespace gpuslice::simnvml
