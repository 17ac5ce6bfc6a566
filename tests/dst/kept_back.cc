#include "kept_back.h"

#include <fmt/format.h>

namespace gpuslice::dst {

void KeptBack::given(const std::vector<std::string>& ids, const std::vector<ports::Gpu>& gpus) {
  const auto names = [&](const Devices& devices, const std::string& device) {
    if (devices.contains(device)) return true;
    for (const ports::Gpu& gpu : gpus)
      for (const ports::MigDevice& one : gpu.mig_devices)
        if (one.uuid == device) return devices.contains(gpu.uuid);
    return false;
  };
  for (const std::string& id : ids) {
    const std::string device = id.substr(0, id.find("::"));
    for (const auto& [gpu, devices] : waiting_)
      if (names(devices, device) && wrong_.empty())
        wrong_ = fmt::format("{} was given to a pod, and a wish waits until nobody holds it", id);
    for (const auto& [change, devices] : going_)
      if (names(devices, device) && wrong_.empty())
        wrong_ = fmt::format("{} was given to a pod, and is withdrawn for {}", id, change);
  }
}

}  // namespace gpuslice::dst
