#include "nvml/events.h"

#include <array>
#include <chrono>
#include <map>
#include <set>
#include <utility>

#include "nvml/api.h"
#include "nvml/calls.h"
#include "nvml/library.h"

namespace gpuslice::nvml {
namespace {

using api::Device;
using api::Return;
using EventSet = api::Opaque*;

constexpr Return kTimeout = 10;
constexpr unsigned long long kDoubleBitEcc = 0x2;
constexpr unsigned long long kXidCritical = 0x8;

struct EventData {
  Device device;
  unsigned long long type, data;
  unsigned gpu_instance, compute_instance;  // not written by nvmlEventSetWait, the older one
};
static_assert(sizeof(EventData) == 32);

}  // namespace

class EventReader::Impl final : public Calls {
 public:
  using Calls::Calls;
  ~Impl() {
    free_set();
    if (initialised_) (void)call<>("nvmlShutdown");
  }

  Status init() {
    TRY(must("NVIDIA driver", "nvmlInit_v2"));
    initialised_ = true;
    return {};
  }

  Result<std::vector<Error>> watch_all(const std::set<uint32_t>& without) {
    unsigned count = 0;
    TRY(must("NVIDIA driver", "nvmlDeviceGetCount_v2", &count));
    std::map<unsigned, Error> refused;
    // A registration that fails leaves the set undefined: the others begin anew without that GPU.
    for (bool whole = false; !whole;) {
      free_set();
      gpus_.clear();
      TRY(must("NVIDIA driver", "nvmlEventSetCreate", &set_));
      whole = true;
      for (unsigned i = 0; i < count && whole; ++i) {
        if (refused.contains(i) || without.contains(i)) continue;
        const Status watched = watch(i);
        if (watched) continue;
        refused.emplace(i, watched.error());
        whole = false;
      }
    }
    std::vector<Error> out;
    for (auto& [index, error] : refused) out.push_back(std::move(error));
    return out;
  }

  Result<std::optional<ports::GpuEvent>> wait(Duration limit) {
    const auto ms =
        static_cast<unsigned>(std::chrono::duration_cast<std::chrono::milliseconds>(limit).count());
    EventData data{nullptr, 0, 0, api::kNoInstance, api::kNoInstance};
    const char* name = "nvmlEventSetWait_v2";
    Return code = call(name, set_, &data, ms);
    if (code == api::kFunctionNotFound) {
      name = "nvmlEventSetWait";
      code = call(name, set_, &data, ms);
    }
    if (code == kTimeout) return std::nullopt;
    if (code != api::kSuccess) return std::unexpected(error("NVIDIA driver", name, code));
    const auto gpu = gpus_.find(data.device);
    const bool ours = data.type == kXidCritical || data.type == kDoubleBitEcc;
    if (gpu == gpus_.end() || !ours) return std::nullopt;
    ports::GpuEvent event;
    event.gpu = gpu->second;
    if (data.type == kDoubleBitEcc) event.kind = ports::GpuEvent::Kind::kDoubleBitEcc;
    if (data.type == kXidCritical) event.xid = data.data;
    if (data.gpu_instance != api::kNoInstance) {
      event.gi = GiId{data.gpu_instance};
      if (data.compute_instance != api::kNoInstance) event.ci = CiId{data.compute_instance};
    }
    return event;
  }

 private:
  void free_set() {
    if (set_ != nullptr) (void)call("nvmlEventSetFree", set_);
    set_ = nullptr;
  }

  Status watch(unsigned index) {
    const std::string object = fmt::format("GPU {}", index);
    Device device = nullptr;
    TRY(must(object, "nvmlDeviceGetHandleByIndex_v2", index, &device));
    std::array<char, api::kUuidBytes> uuid{};
    TRY(must(object, "nvmlDeviceGetUUID", device, uuid.data(), static_cast<unsigned>(uuid.size())));
    unsigned long long supported = 0;
    TRY(must(object, "nvmlDeviceGetSupportedEventTypes", device, &supported));
    const unsigned long long wanted = supported & (kXidCritical | kDoubleBitEcc);
    if (wanted == 0) return fail(Code::kImpossible, "{}: it reports neither XIDs nor ECC", object);
    TRY(must(object, "nvmlDeviceRegisterEvents", device, wanted, set_));
    gpus_[device] = text_of(uuid);
    return {};
  }

  bool initialised_ = false;
  EventSet set_ = nullptr;
  std::map<Device, std::string> gpus_;  // what is registered, as its events name it
};

EventReader::EventReader(std::string root) : root_(std::move(root)) {}
EventReader::~EventReader() = default;

Result<std::vector<Error>> EventReader::open(const std::set<uint32_t>& without) {
  close();
  TRY_ASSIGN(auto library, Library::load(root_));
  auto impl = std::make_unique<Impl>(std::move(library));
  TRY(impl->init());
  TRY_ASSIGN(std::vector<Error> refused, impl->watch_all(without));
  impl_ = std::move(impl);
  return refused;
}

void EventReader::close() { impl_.reset(); }

Result<std::optional<ports::GpuEvent>> EventReader::wait(Duration limit) {
  if (!impl_) return fail(Code::kUnavailable, "NVIDIA driver: its events are not watched");
  return impl_->wait(limit);
}

}  // namespace gpuslice::nvml
