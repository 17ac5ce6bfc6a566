#include "nvml/session.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.h"
#include "nvml/api.h"
#include "nvml/calls.h"
#include "nvml/library.h"
#include "nvml/mig_calls.h"
#include "nvml/pci_files.h"
#include "nvml/topology.h"

namespace gpuslice::nvml {
namespace {

using api::Device;
using api::Instance;
using api::Return;

// What NVML's enums are called in its manual.
constexpr int kTemperatureGpu = 0;
constexpr int kThresholdShutdown = 0;
constexpr int kClockGraphics = 0;
constexpr int kClockSm = 1;
constexpr int kClockMemory = 2;
constexpr int kEccUncorrected = 1;
constexpr int kEccVolatile = 0;

// "<cluster UUID>.<clique>" of a GPU whose registration with its fabric is complete.
std::string clique_of(const api::FabricInfo& info) {
  const auto& c = info.cluster;
  if (info.state != api::kFabricCompleted || info.status != api::kSuccess) return "";
  if (std::all_of(std::begin(c), std::end(c), [](unsigned char byte) { return byte == 0; }))
    return "";
  std::string uuid;
  for (size_t i = 0; i < std::size(c); ++i)
    uuid += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", c[i]);
  return fmt::format("{}.{}", uuid, info.clique);
}

}  // namespace

class Session::Impl final : public Calls {
 public:
  Impl(std::string root, std::unique_ptr<Library> library)
      : Calls(std::move(library)), root_(std::move(root)) {}

  ~Impl() {
    if (initialised_) (void)call<>("nvmlShutdown");
  }

  Status init() {
    if (const Return code = call<>("nvmlInit_v2"); code != api::kSuccess) {
      return std::unexpected(error("NVIDIA driver", "nvmlInit_v2", code));
    }
    initialised_ = true;
    return {};
  }

  Result<ports::DriverInfo> driver() {
    ports::DriverInfo info;
    std::array<char, api::kVersionBytes> buffer{};
    TRY(must("NVIDIA driver", "nvmlSystemGetDriverVersion", buffer.data(),
             static_cast<unsigned>(buffer.size())));
    info.version = text_of(buffer);
    buffer = {};
    if (call("nvmlSystemGetNVMLVersion", buffer.data(), static_cast<unsigned>(buffer.size())) ==
        api::kSuccess) {
      info.nvml_version = text_of(buffer);
    }
    int cuda = 0;
    if (call("nvmlSystemGetCudaDriverVersion_v2", &cuda) == api::kSuccess && cuda > 0) {
      info.cuda_version = static_cast<uint32_t>(cuda);
    }
    return info;
  }

  Result<uint32_t> gpu_count() {
    unsigned count = 0;
    TRY(must("NVIDIA driver", "nvmlDeviceGetCount_v2", &count));
    return count;
  }

  Result<ports::Gpu> gpu(GpuIndex index, ports::Detail detail) {
    const std::string object = fmt::format("GPU {}", index.value);
    Device device = nullptr;
    TRY(must(object, "nvmlDeviceGetHandleByIndex_v2", index.value, &device));
    ports::Gpu gpu;
    gpu.index = index;
    std::array<char, api::kUuidBytes> uuid{};
    TRY(must(object, "nvmlDeviceGetUUID", device, uuid.data(), static_cast<unsigned>(uuid.size())));
    gpu.uuid = text_of(uuid);
    std::array<char, api::kNameBytes> name{};
    TRY(must(object, "nvmlDeviceGetName", device, name.data(), static_cast<unsigned>(name.size())));
    gpu.name = text_of(name);
    unsigned minor = index.value;
    TRY(may(object, "nvmlDeviceGetMinorNumber", device, &minor));
    gpu.minor = GpuMinor{minor};
    api::PciInfo pci{};
    TRY(must(object, "nvmlDeviceGetPciInfo_v3", device, &pci));
    gpu.bus_id.assign(pci.bus_id, ::strnlen(pci.bus_id, sizeof pci.bus_id));
    PciFacts facts = pci_facts(root_, gpu.bus_id);
    gpu.numa_node = facts.numa_node;
    gpu.pci_class = facts.device_class;
    gpu.vgpu = std::move(facts.vgpu);
    int major = 0;
    int minor_of_cc = 0;
    TRY(may(object, "nvmlDeviceGetCudaComputeCapability", device, &major, &minor_of_cc));
    gpu.cc_major = static_cast<uint32_t>(major);
    gpu.cc_minor = static_cast<uint32_t>(minor_of_cc);
    api::FabricInfo fabric{};
    if (call("nvmlDeviceGetGpuFabricInfo", device, &fabric) == api::kSuccess)
      gpu.fabric_clique = clique_of(fabric);
    gpu.pci_device_id = pci.pci_device_id;
    gpu.pci_subsystem_id = pci.pci_subsystem_id;
    api::Memory memory{};
    TRY(must(object, "nvmlDeviceGetMemoryInfo", device, &memory));
    gpu.memory_total_bytes = memory.total;
    TRY(read_mig(object, device, gpu));
    read_state(device, gpu);
    if (detail == ports::Detail::kAll) read_details(device, memory, gpu);
    return gpu;
  }

 private:
  Status read_mig(const std::string& object, Device device, ports::Gpu& gpu);
  Result<ports::MigDevice> mig_device(const std::string& object, Device parent, Device device,
                                      uint32_t index);
  void read_state(Device device, ports::Gpu& gpu);
  void read_details(Device device, const api::Memory& memory, ports::Gpu& gpu);

  std::string root_;
  bool initialised_ = false;
};

Status Session::Impl::read_mig(const std::string& object, Device device, ports::Gpu& gpu) {
  unsigned current = 0;
  unsigned pending = 0;
  const Return code = call("nvmlDeviceGetMigMode", device, &current, &pending);
  if (merely_absent(code)) return {};
  if (code != api::kSuccess) return std::unexpected(error(object, "nvmlDeviceGetMigMode", code));
  gpu.mig = ports::MigMode{current == 1, pending == 1};
  if (!gpu.mig->current) return {};
  unsigned most = 0;
  TRY(may(object, "nvmlDeviceGetMaxMigDeviceCount", device, &most));
  for (unsigned i = 0; i < most; ++i) {
    Device mig = nullptr;
    const Return found = call("nvmlDeviceGetMigDeviceHandleByIndex", device, i, &mig);
    if (merely_absent(found)) continue;
    if (found != api::kSuccess) {
      return std::unexpected(error(fmt::format("{}, MIG device {}", object, i),
                                   "nvmlDeviceGetMigDeviceHandleByIndex", found));
    }
    TRY_ASSIGN(ports::MigDevice one, mig_device(object, device, mig, i));
    gpu.mig_devices.push_back(std::move(one));
  }
  return {};
}

Result<ports::MigDevice> Session::Impl::mig_device(const std::string& gpu_object, Device parent,
                                                   Device device, uint32_t index) {
  const std::string object = fmt::format("{}, MIG device {}", gpu_object, index);
  ports::MigDevice mig;
  mig.index = index;
  std::array<char, api::kUuidBytes> uuid{};
  TRY(must(object, "nvmlDeviceGetUUID", device, uuid.data(), static_cast<unsigned>(uuid.size())));
  mig.uuid = text_of(uuid);
  std::array<char, api::kNameBytes> name{};
  TRY(must(object, "nvmlDeviceGetName", device, name.data(), static_cast<unsigned>(name.size())));
  // "<board name> MIG 1g.5gb"
  const std::string full = text_of(name);
  if (const size_t at = full.rfind(" MIG "); at != std::string::npos) {
    mig.profile = full.substr(at + 5);
  }
  unsigned gi = 0;
  unsigned ci = 0;
  TRY(must(object, "nvmlDeviceGetGpuInstanceId", device, &gi));
  TRY(must(object, "nvmlDeviceGetComputeInstanceId", device, &ci));
  mig.gi = GiId{gi};
  mig.ci = CiId{ci};
  // Needs access to the instance's capability; without it the device is known and its place is not.
  Instance instance = nullptr;
  if (call("nvmlDeviceGetGpuInstanceById", parent, gi, &instance) == api::kSuccess) {
    api::GpuInstanceInfo info{};
    TRY(must(object, "nvmlGpuInstanceGetInfo", instance, &info));
    mig.profile_id = ProfileId{info.profile_id};
    mig.placement.start = static_cast<decltype(mig.placement.start)>(info.placement.start);
    mig.placement.size = static_cast<decltype(mig.placement.size)>(info.placement.size);
  }
  api::Attributes attributes{};
  TRY(may(object, "nvmlDeviceGetAttributes_v2", device, &attributes));
  mig.sm = attributes.sm;
  mig.ce = attributes.ce;
  mig.dec = attributes.dec;
  mig.enc = attributes.enc;
  mig.jpeg = attributes.jpeg;
  mig.ofa = attributes.ofa;
  mig.gi_slices = attributes.gi_slices;
  mig.ci_slices = attributes.ci_slices;
  mig.memory_mib = attributes.memory_mb;
  api::Memory memory{};
  TRY(may(object, "nvmlDeviceGetMemoryInfo", device, &memory));
  mig.memory_total_bytes = memory.total;
  mig.memory_used_bytes = memory.used;
  api::Bar1Memory bar1{};
  TRY(may(object, "nvmlDeviceGetBAR1MemoryInfo", device, &bar1));
  mig.bar1_total_bytes = bar1.total;
  mig.bar1_used_bytes = bar1.used;
  return mig;
}

// What a board or an older driver does not tell stays empty; a GPU that falls off the bus meanwhile
// is told by the next look. Rows by field values: nvmlDeviceGetRemappedRows answers NOT_SUPPORTED
// while there are MIG instances.
void Session::Impl::read_state(Device device, ports::Gpu& gpu) {
  constexpr std::array kFields = {api::kFieldRetiredPending, api::kFieldRemapPending,
                                  api::kFieldRemapFailed,    api::kFieldResetRequired,
                                  api::kFieldRecoveryAction, api::kFieldEnergy};
  std::array<api::FieldValue, kFields.size()> values{};
  for (size_t i = 0; i < kFields.size(); ++i) values[i].field = kFields[i];
  if (call("nvmlDeviceGetFieldValues", device, static_cast<int>(values.size()), values.data()) ==
      api::kSuccess) {
    const auto told = [&](size_t i) {
      return values[i].code == api::kSuccess ? std::optional<unsigned>(values[i].value.word)
                                             : std::nullopt;
    };
    if (told(0) || told(1)) gpu.remap_pending = told(0).value_or(0) + told(1).value_or(0) != 0;
    if (told(2)) gpu.remap_failed = *told(2) != 0;
    if (told(3)) gpu.recovery_action = *told(3) != 0 ? api::kRecoverByReset : 0;
    if (const auto action = told(4)) gpu.recovery_action = action;
    if (told(5)) gpu.energy_mj = values[5].value.wide;
  }
  unsigned long long errors = 0;
  if (call("nvmlDeviceGetTotalEccErrors", device, kEccUncorrected, kEccVolatile, &errors) ==
      api::kSuccess) {
    gpu.ecc_uncorrected = errors;
  }
  gpu.temperature_c = value("nvmlDeviceGetTemperature", device, kTemperatureGpu);
  gpu.shutdown_c = value("nvmlDeviceGetTemperatureThreshold", device, kThresholdShutdown);
  if (const auto mode = value("nvmlDeviceGetPersistenceMode", device))
    gpu.persistence_mode = *mode == 1;
}

void Session::Impl::read_details(Device device, const api::Memory& memory, ports::Gpu& gpu) {
  gpu.memory_used_bytes = memory.used;
  gpu.memory_free_bytes = memory.free;
  api::MemoryV2 v2{};
  v2.version = api::kMemoryV2;
  if (call("nvmlDeviceGetMemoryInfo_v2", device, &v2) == api::kSuccess) {
    gpu.memory_reserved_bytes = v2.reserved;
    gpu.memory_used_bytes = v2.used;
    gpu.memory_free_bytes = v2.free;
  }
  api::Utilization utilization{};
  if (call("nvmlDeviceGetUtilizationRates", device, &utilization) == api::kSuccess) {
    gpu.utilisation_percent = utilization.gpu;
    gpu.memory_utilisation_percent = utilization.memory;
  }
  gpu.fan_percent = value("nvmlDeviceGetFanSpeed", device);
  gpu.performance_state = value("nvmlDeviceGetPerformanceState", device);
  gpu.power_mw = value("nvmlDeviceGetPowerUsage", device);
  gpu.power_limit_mw = value("nvmlDeviceGetEnforcedPowerLimit", device);
  gpu.power_default_limit_mw = value("nvmlDeviceGetPowerManagementDefaultLimit", device);
  gpu.graphics_mhz = value("nvmlDeviceGetClockInfo", device, kClockGraphics);
  gpu.sm_mhz = value("nvmlDeviceGetClockInfo", device, kClockSm);
  gpu.memory_mhz = value("nvmlDeviceGetClockInfo", device, kClockMemory);
  if (const auto active = value("nvmlDeviceGetDisplayActive", device)) {
    gpu.display_active = *active == 1;
  }
  gpu.compute_mode = value("nvmlDeviceGetComputeMode", device);
  gpu.pcie_generation = value("nvmlDeviceGetCurrPcieLinkGeneration", device);
  gpu.pcie_width = value("nvmlDeviceGetCurrPcieLinkWidth", device);
  gpu.serial = string<api::kSerialBytes>("nvmlDeviceGetSerial", device);
  gpu.vbios = string<api::kVbiosBytes>("nvmlDeviceGetVbiosVersion", device);
  gpu.processes = processes(device);
}

// --- Session
// ---------------------------------------------------------------------------------------

Session::Session(std::string root) : root_(std::move(root)) {
  while (root_.ends_with('/')) root_.pop_back();
}

Session::~Session() = default;

Status Session::open() {
  if (impl_) return {};
  TRY_ASSIGN(std::unique_ptr<Library> library, Library::load(root_));
  auto impl = std::make_unique<Impl>(root_, std::move(library));
  impl->set_watch(watch_);
  TRY(impl->init());
  impl_ = std::move(impl);
  return {};
}

void Session::close() { impl_.reset(); }

Result<ports::DriverInfo> Session::driver() {
  TRY(opened());
  return impl_->driver();
}

Result<uint32_t> Session::gpu_count() {
  TRY(opened());
  return impl_->gpu_count();
}

Result<ports::Gpu> Session::gpu(GpuIndex index, ports::Detail detail) {
  TRY(opened());
  return impl_->gpu(index, detail);
}

ports::Topology Session::topology(const std::vector<GpuIndex>& gpus) {
  if (!impl_) return {};  // nothing is known of it
  return read_topology(*impl_, gpus);
}

// --- MIG
// -------------------------------------------------------------------------------------------

// It may have been let go for a reset and not have come back.
Status Session::opened() const {
  if (impl_) return {};
  return fail(Code::kUnavailable, "NVIDIA driver: not open (it was let go and has not come back)");
}

Result<ports::MigMode> Session::mig_mode(const std::string& gpu) {
  TRY(opened());
  return MigCalls(*impl_).mode(gpu);
}
Result<bool> Session::mode_needs_reset(const std::string& gpu) {
  TRY(opened());
  return MigCalls(*impl_).mode_needs_reset(gpu);
}
Result<ports::GiProfiles> Session::gi_profiles(const std::string& gpu) {
  TRY(opened());
  return MigCalls(*impl_).gi_profiles(gpu);
}
Result<uint32_t> Session::gi_free(const std::string& gpu, ProfileId profile) {
  TRY(opened());
  return MigCalls(*impl_).gi_free(gpu, profile);
}
Result<std::vector<ports::CiProfile>> Session::ci_profiles(const std::string& gpu, GiId gi) {
  TRY(opened());
  return MigCalls(*impl_).ci_profiles(gpu, gi);
}
Result<std::vector<ports::GpuInstance>> Session::instances(const std::string& gpu) {
  TRY(opened());
  return MigCalls(*impl_).instances(gpu);
}
Result<std::vector<ports::Process>> Session::processes(const std::string& gpu) {
  TRY(opened());
  return MigCalls(*impl_).processes(gpu);
}
Result<ports::Activation> Session::set_mig_mode(const std::string& gpu, bool on) {
  TRY(opened());
  return MigCalls(*impl_).set_mode(gpu, on);
}
Result<GiId> Session::create_gi(const std::string& gpu, ProfileId profile,
                                std::optional<gpu::Placement> placement) {
  TRY(opened());
  return MigCalls(*impl_).create_gi(gpu, profile, placement);
}
Status Session::destroy_gi(const std::string& gpu, GiId gi) {
  TRY(opened());
  return MigCalls(*impl_).destroy_gi(gpu, gi);
}
Result<CiId> Session::create_ci(const std::string& gpu, GiId gi, ProfileId profile,
                                std::optional<gpu::Placement> placement) {
  TRY(opened());
  return MigCalls(*impl_).create_ci(gpu, gi, profile, placement);
}
Status Session::destroy_ci(const std::string& gpu, GiId gi, CiId ci) {
  TRY(opened());
  return MigCalls(*impl_).destroy_ci(gpu, gi, ci);
}

}  // namespace gpuslice::nvml
