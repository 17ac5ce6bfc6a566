#include "withdrawals.h"

#include <fmt/format.h>

#include <set>
#include <string_view>

namespace gpuslice::dst {

void Withdrawals::look(const Lists& lists) {
  for (const auto& [resource, before] : last_) {
    const auto after = lists.find(resource);
    if (after != lists.end() && after->second == before) continue;
    std::set<std::string_view> there;
    if (after != lists.end())
      for (const ports::Device& device : after->second->devices) there.insert(device.id);
    for (const ports::Device& device : before->devices) {
      if (there.contains(device.id) || released_.erase({resource, device.id}) > 0) continue;
      // Under migStrategy single the end of a pass may hide whole GPUs, or bring them back.
      const std::string base = device.id.substr(0, device.id.find("::"));
      const bool for_mig = changed_ || going_.contains(base) || kept_.contains(base);
      const int times = ++gone_[{resource, device.id, for_mig}];
      if (times > tries_ && twice_.empty())
        twice_ =
            fmt::format("{} of {} was withdrawn {} times for one wish", device.id, resource, times);
    }
  }
  last_ = lists;
  if (changed_) going_.clear();
  changed_ = false;
}

}  // namespace gpuslice::dst
