#pragma once

// The ids of one resource, to be looked up by the thousand: a kubelet sends all that are free with
// each question, in no order.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace gpuslice::agent {

// "<uuid>::<n>"
[[nodiscard]] std::string replica_id(std::string_view uuid, uint32_t n);

class OfferedIds {
 public:
  struct Place {
    size_t base = 0;       // whose it is
    uint32_t replica = 0;  // its number; 0 of a device that is not shared
    bool shared = false;
  };

  // All ids of the device `uuid`, which is `base`: the UUID itself, or such as begin with it and
  // "::". Once for each device.
  void add(size_t base, const std::string& uuid, const std::vector<std::string>& ids);

  // Nothing for what is not offered, be it ever so like it. Some 50 ns.
  [[nodiscard]] std::optional<Place> find(std::string_view id) const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  struct Device {
    size_t base = 0;
    bool whole = false;
    std::vector<uint32_t> replicas;            // ascending
    std::set<std::string, std::less<>> other;  // what stands behind "::" where it is no such number
    [[nodiscard]] bool has(uint32_t replica) const;
  };
  std::unordered_map<std::string, Device, Hash, std::equal_to<>> devices_;  // by UUID
};

}  // namespace gpuslice::agent
