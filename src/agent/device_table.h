#pragma once

// What is offered: the inventory of GPUs and the configuration, made into resources with their
// devices. Pure.
//
// Ids are NVIDIA's: the UUID of an unshared device, "<uuid>::<n>" of a shared one. Ids that pods
// hold stay until they are released: when a GPU is to have fewer replicas, free ones go first; held
// ones count among its replicas meanwhile.

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/closeness.h"
#include "agent/offered_ids.h"
#include "base/ids.h"
#include "base/result.h"
#include "config/effective.h"
#include "ports/driver.h"
#include "ports/kubelet.h"

namespace gpuslice::agent {

// A GPU or MIG device that can be offered, once or several times.
struct BaseDevice {
  std::string resource;  // its name if not renamed: "nvidia.com/gpu", "nvidia.com/mig-1g.5gb"
  std::string uuid;
  std::string gpu_uuid;  // of the physical GPU
  std::string index;     // "0", "0:1" for the second MIG device of GPU 0
  uint32_t gpu_index = 0;
  uint32_t mig_index = 0;
  bool is_mig = false;
  GiId gi;  // of a MIG device
  CiId ci;
  uint32_t minor = 0;
  int64_t numa_node = -1;
  bool healthy = true;
  std::string why_unhealthy;
  bool withheld = false;  // it is about to go: listed only for those who hold it, given to nobody
};

// One id that the kubelet is offered.
struct OfferedDevice {
  std::string_view id;  // the text is the list's
  size_t base = 0;      // index into ResourceTable::bases
};

struct ResourceTable {
  std::string name;
  bool fail_requests_greater_than_one = false;
  std::vector<BaseDevice> bases;       // in the order of GPU and MIG indices
  std::vector<OfferedDevice> devices;  // sorted by id: of the list, place by place
  std::shared_ptr<const ports::DeviceList> list;
  OfferedIds ids;  // what an id of the kubelet is
  // Of the bases, where all are whole GPUs that are offered once each; else empty.
  Closeness closeness;
};

// Who holds which ids, by resource.
using HeldIds = std::map<std::string, std::set<std::string>>;

struct DeviceTable {
  std::map<std::string, std::shared_ptr<const ResourceTable>> resources;
  std::vector<std::string> warnings;  // what of the configuration matches nothing here
  std::string kind;                   // that strategy single offers: a profile, or "whole"
  bool awaits_releases = false;       // it would be another one if no pod held anything
};

// What there is on the node, and what of it answers.
struct Hardware {
  std::vector<ports::Gpu> gpus;  // by index; those that do not answer as last seen
  ports::Topology topology;      // of those that answer; empty where it is not known
  // Why a device is not healthy, by the UUID of a GPU (all of it) or of a MIG device (it alone).
  std::map<std::string, std::string> unhealthy;
  // What must not be given out now, by the same UUIDs: it is about to go. What pods hold of it
  // stays.
  std::set<std::string> withheld;
  // Under strategy single: what stays on offer as long as a GPU is of that kind
  // (DeviceTable::kind); "": what most GPUs are. While layouts change GPU by GPU the majority turns
  // to and fro.
  std::string kind;
};

// A list that would not fit into a message to the kubelet: kInvalidConfig with the most replicas
// that do, or just so many, and a warning (the hardware has changed since the configuration was
// accepted).
enum class Oversize : uint8_t { kRefuse, kCut };
[[nodiscard]] Result<DeviceTable> make_device_table(const Hardware& hardware,
                                                    const config::Effective& config,
                                                    const HeldIds& held,
                                                    Oversize oversize = Oversize::kRefuse);

// Only whether there is such a table (Oversize::kRefuse): a tenth of the work.
[[nodiscard]] Status check_device_table(const Hardware& hardware, const config::Effective& config,
                                        const HeldIds& held);

}  // namespace gpuslice::agent
