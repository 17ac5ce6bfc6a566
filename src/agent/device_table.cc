#include "agent/device_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "agent/base_devices.h"
#include "config/list_size.h"

namespace gpuslice::agent {
namespace {

using config::DeviceRef;
using config::DeviceSelection;
using config::Effective;
using config::Flag;
using config::SharedResource;

bool names(const DeviceRef& ref, const BaseDevice& base) {
  switch (ref.kind) {
    case DeviceRef::Kind::kIndex:
      return !base.is_mig && ref.gpu == base.gpu_index;
    case DeviceRef::Kind::kMigIndex:
      return base.is_mig && ref.gpu == base.gpu_index && ref.mig == base.mig_index;
    case DeviceRef::Kind::kGpuUuid:
      return ref.text == base.uuid;
    case DeviceRef::Kind::kMigUuid:
      break;
  }
  return ref.text == base.uuid;
}

// Which entry shares a device, if any. `nth`: how many devices of this resource come before it.
const SharedResource* sharing_of(const Effective& config, const BaseDevice& base, size_t nth) {
  if (!config.time_slicing) return nullptr;
  for (const SharedResource& entry : config.time_slicing->resources) {
    if (entry.name != base.resource) continue;
    const DeviceSelection& devices = entry.devices;
    const bool meant = devices.kind == DeviceSelection::Kind::kAll ||
                       (devices.kind == DeviceSelection::Kind::kCount && nth < devices.count) ||
                       std::any_of(devices.list.begin(), devices.list.end(),
                                   [&](const DeviceRef& r) { return names(r, base); });
    if (meant) return &entry;
  }
  return nullptr;
}

// The devices of one resource, in their order.
std::vector<const BaseDevice*> devices_named(const std::string& resource,
                                             const std::vector<BaseDevice>& bases) {
  std::vector<const BaseDevice*> out;
  for (const BaseDevice& base : bases)
    if (base.resource == resource) out.push_back(&base);
  return out;
}

// What is wrong with one device that an entry names; "": nothing.
std::string unmatched(const Effective& config, const SharedResource& entry, const DeviceRef& ref,
                      const std::vector<const BaseDevice*>& there) {
  const auto found =
      std::ranges::find_if(there, [&](const BaseDevice* base) { return names(ref, *base); });
  if (found == there.end())
    return fmt::format("sharing: this node has no device {} of {} (line {})", ref.text, entry.name,
                       ref.place.line);
  const SharedResource* const first =
      sharing_of(config, **found, static_cast<size_t>(found - there.begin()));
  if (first == &entry) return "";
  // By its index in one entry and by its UUID in another, say.
  return fmt::format(
      "sharing: {} of {} (line {}) is a device that the entry of line {} shares already: that one "
      "counts",
      ref.text, entry.name, ref.place.line, first->place.line);
}

void warn_of_unmatched(const Effective& config, const std::vector<BaseDevice>& bases,
                       std::vector<std::string>& warnings) {
  if (!config.time_slicing) return;
  for (const SharedResource& entry : config.time_slicing->resources) {
    const std::vector<const BaseDevice*> there = devices_named(entry.name, bases);
    if (there.empty()) {
      warnings.push_back(
          fmt::format("sharing: this node has no {}: its entry (line {}) shares nothing",
                      entry.name, entry.place.line));
      continue;
    }
    if (entry.devices.kind == DeviceSelection::Kind::kCount && entry.devices.count > there.size())
      warnings.push_back(
          fmt::format("sharing: {} of {} are to be shared (line {}), and this node has {}: all of "
                      "them are",
                      entry.devices.count, entry.name, entry.place.line, there.size()));
    for (const DeviceRef& ref : entry.devices.list)
      if (std::string said = unmatched(config, entry, ref, there); !said.empty())
        warnings.push_back(std::move(said));
  }
}

// What one base device is offered as.
struct Wish {
  size_t base = 0;
  uint32_t replicas = 1;  // 1: unshared
  uint32_t unheld = 1;    // … if no pod held anything
};

struct Building {
  std::vector<BaseDevice> bases;
  std::vector<Wish> wishes;
};

// In the order of their texts: 0, 1, 10, 11, 2. A list may have ten thousand ids, and they are
// cheaper to make in their order than to put into it.
void sort_as_texts(std::vector<uint32_t>& numbers) {
  struct Key {
    uint64_t filled = 0;  // with noughts, to ten digits
    uint32_t number = 0;
    bool operator<(const Key& other) const {
      return filled != other.filled ? filled < other.filled : number < other.number;
    }
  };
  std::vector<Key> keys;
  keys.reserve(numbers.size());
  for (const uint32_t number : numbers) {
    Key key{number, number};
    while (key.filled != 0 && key.filled < 1'000'000'000) key.filled *= 10;
    keys.push_back(key);
  }
  std::sort(keys.begin(), keys.end());
  std::transform(keys.begin(), keys.end(), numbers.begin(),
                 [](const Key& key) { return key.number; });
}

// Is `id` this device, whole or a replica?
bool belongs(const std::string& id, const std::string& uuid) {
  return id == uuid || (id.starts_with(uuid) && id.compare(uuid.size(), 2, "::") == 0);
}

// The devices of which pods hold something, whole or in part.
std::set<std::string> devices_of(const HeldIds& held) {
  std::set<std::string> out;
  for (const auto& [name, ids] : held)
    for (const std::string& id : ids) out.insert(id.substr(0, id.find("::")));
  return out;
}

// What of one device pods hold: under the resource in question, and under others.
struct HeldHere {
  std::vector<std::string> here;
  std::set<std::string> elsewhere;
};

HeldHere held_of(const std::string& uuid, const std::string& resource, const HeldIds& held) {
  HeldHere out;
  for (const auto& [name, ids] : held) {
    for (auto it = ids.lower_bound(uuid); it != ids.end() && it->starts_with(uuid); ++it) {
      if (!belongs(*it, uuid)) continue;
      if (name == resource)
        out.here.push_back(*it);
      else
        out.elsewhere.insert(*it);
    }
  }
  return out;
}

// The ids of one device, sorted: those that are held, and the lowest free ones up to the number of
// replicas. What is held under another resource (it was renamed meanwhile) counts, and its id is
// not offered a second time; a device that is to be whole is not offered while parts of it are
// held.
std::vector<std::string> ids_of(const std::string& uuid, uint32_t replicas, const HeldHere& held) {
  std::vector<std::string> ids = held.here;  // sorted, as they are held
  if (replicas == 0) return ids;
  if (replicas == 1) {
    if (ids.empty() && held.elsewhere.empty()) ids.push_back(uuid);
    return ids;
  }
  std::set<std::string> taken(ids.begin(), ids.end());
  taken.insert(held.elsewhere.begin(), held.elsewhere.end());
  std::vector<uint32_t> free;
  for (uint32_t n = 0; free.size() + ids.size() + held.elsewhere.size() < replicas; ++n)
    if (taken.empty() || !taken.contains(replica_id(uuid, n))) free.push_back(n);
  sort_as_texts(free);
  ids.reserve(ids.size() + free.size());
  for (const uint32_t n : free) ids.push_back(replica_id(uuid, n));
  if (!held.here.empty()) std::sort(ids.begin(), ids.end());
  return ids;
}

Closeness closeness_of(const ResourceTable& table, const ports::Topology& topology) {
  const bool whole =
      std::none_of(table.bases.begin(), table.bases.end(),
                   [](const BaseDevice& base) { return base.is_mig; }) &&
      std::none_of(table.devices.begin(), table.devices.end(), [&](const OfferedDevice& device) {
        return device.id != table.bases[device.base].uuid;
      });
  if (!whole) return {};
  std::vector<ClosenessGpu> gpus;
  for (const BaseDevice& base : table.bases)
    gpus.push_back({GpuIndex{base.gpu_index}, base.numa_node});
  return Closeness(gpus, topology);
}

std::shared_ptr<const ResourceTable> finish(const std::string& name, Building building,
                                            bool fail_greater, const HeldIds& held,
                                            const ports::Topology& topology, DeviceTable& whole) {
  auto table = std::make_shared<ResourceTable>();
  table->name = name;
  table->fail_requests_greater_than_one = fail_greater;
  table->bases = std::move(building.bases);
  struct Group {
    size_t base = 0;
    std::vector<std::string> ids;  // sorted
  };
  std::vector<Group> groups;
  size_t count = 0;
  bool too_many = false, too_few = false;  // by what pods hold; of a change of MIG its state tells
  for (const Wish& wish : building.wishes) {
    const std::string& uuid = table->bases[wish.base].uuid;
    const HeldHere holds = held_of(uuid, name, held);
    Group group{wish.base, ids_of(uuid, wish.replicas, holds)};
    const bool any =
        wish.unheld != wish.replicas || !holds.here.empty() || !holds.elsewhere.empty();
    if (any) {
      const std::vector<std::string> free_of_pods = ids_of(uuid, wish.unheld, {});
      if (group.ids != free_of_pods) whole.awaits_releases = true;
      if (!table->bases[wish.base].withheld)
        too_many = too_many || group.ids.size() > free_of_pods.size();
      too_few = too_few || group.ids.size() < free_of_pods.size();
    }
    table->ids.add(wish.base, uuid, group.ids);
    count += group.ids.size();
    if (!group.ids.empty()) groups.push_back(std::move(group));
  }
  if (too_many)
    whole.warnings.push_back(
        fmt::format("{}: pods hold more of it than is configured now; what is too many leaves the "
                    "list as they end",
                    name));
  if (too_few)
    whole.warnings.push_back(
        fmt::format("{}: {} of it waits until pods end that hold the same devices in another way",
                    name, groups.empty() ? "all" : "a part"));
  std::sort(groups.begin(), groups.end(),
            [](const Group& a, const Group& b) { return a.ids.front() < b.ids.front(); });
  auto list = std::make_shared<ports::DeviceList>();
  list->devices.reserve(count);
  table->devices.reserve(count);
  for (Group& group : groups) {
    const BaseDevice& base = table->bases[group.base];
    const auto numa = base.numa_node >= 0 ? std::optional(base.numa_node) : std::nullopt;
    for (std::string& id : group.ids) {
      list->devices.push_back({std::move(id), base.healthy, numa});
      table->devices.push_back({list->devices.back().id, group.base});
    }
  }
  table->list = std::move(list);
  table->closeness = closeness_of(*table, topology);
  return table;
}

// Too many replicas for a message: what is to be said of it, and how many fit.
struct Excess {
  std::string text;
  uint32_t most = 0;
};

std::optional<Excess> excess(const std::string& name, const Building& building) {
  size_t bytes = 0;
  size_t id_bytes = 0;
  bool numa = false;
  uint32_t most_wished = 0;
  for (const Wish& wish : building.wishes) {
    const BaseDevice& base = building.bases[wish.base];
    id_bytes = std::max(id_bytes, base.uuid.size());
    numa = numa || base.numa_node >= 0;
    most_wished = std::max(most_wished, wish.replicas);
    bytes += config::list_bytes(1, base.uuid.size(), base.numa_node >= 0, wish.replicas);
  }
  if (bytes <= config::kMaxListBytes) return std::nullopt;
  const auto most =
      static_cast<uint32_t>(config::most_replicas(building.wishes.size(), id_bytes, numa));
  return Excess{
      fmt::format("{}: {} replicas of {} devices make a list of {} bytes, and the kubelet "
                  "takes {}; at most {} replicas fit on this node",
                  name, most_wished, building.wishes.size(), bytes, config::kMaxListBytes, most),
      most};
}

// What each resource is to offer, before any id is written. Fills kind and warnings of `table`.
std::map<std::string, Building> wished_of(const Hardware& hardware, const Effective& config,
                                          const HeldIds& held, DeviceTable& table) {
  const BaseDevices all(hardware, config.text(Flag::kMigStrategy), table.warnings);
  const std::vector<BaseDevice>& bases = all.offered();
  table.kind = all.kind();
  warn_of_unmatched(config, bases, table.warnings);

  // Whole GPU and MIG devices are two faces of one: while a pod holds the one, the other is not
  // given out (the strategy was changed meanwhile).
  const std::set<std::string> held_devices = devices_of(held);
  const auto other_face_held = [&](const BaseDevice& base) {
    if (base.is_mig) return held_devices.contains(base.gpu_uuid);
    return std::any_of(all.kept_back().begin(), all.kept_back().end(), [&](const BaseDevice& b) {
      return b.is_mig && b.gpu_uuid == base.uuid && held_devices.contains(b.uuid);
    });
  };

  const auto is_withheld = [&](const BaseDevice& base) {
    return hardware.withheld.contains(base.uuid) || hardware.withheld.contains(base.gpu_uuid);
  };

  std::map<std::string, Building> by_name;
  std::map<std::string, size_t> seen;  // devices of each resource so far
  for (const BaseDevice& base : bases) {
    const SharedResource* entry = sharing_of(config, base, seen[base.resource]++);
    Building& building = by_name[entry ? entry->offered_name() : base.resource];
    building.bases.push_back(base);
    const uint32_t unheld = is_withheld(base) ? 0 : entry ? entry->replicas : 1;
    building.wishes.push_back(
        {building.bases.size() - 1, other_face_held(base) ? 0 : unheld, unheld});
  }
  // Held ids of a resource that is offered no more, or of a device that moved to another one, stay
  // where they are.
  std::vector<BaseDevice> there = bases;
  there.insert(there.end(), all.kept_back().begin(), all.kept_back().end());
  for (const auto& [name, ids] : held) {
    for (const BaseDevice& base : there) {
      const bool any = std::any_of(ids.begin(), ids.end(),
                                   [&](const std::string& id) { return belongs(id, base.uuid); });
      Building& building = by_name[name];
      const bool known = std::any_of(building.bases.begin(), building.bases.end(),
                                     [&](const BaseDevice& b) { return b.uuid == base.uuid; });
      if (!any || known) continue;
      building.bases.push_back(base);
      building.wishes.push_back({building.bases.size() - 1, 0, 0});
    }
  }
  for (auto& [name, building] : by_name)
    for (BaseDevice& base : building.bases) base.withheld = is_withheld(base);
  std::erase_if(by_name, [](const auto& one) { return one.second.wishes.empty(); });
  return by_name;
}

}  // namespace

Result<DeviceTable> make_device_table(const Hardware& hardware, const Effective& config,
                                      const HeldIds& held, Oversize oversize) {
  DeviceTable table;
  if (const std::string& how = config.text(Flag::kDeviceDiscoveryStrategy);
      how == "tegra" || how == "vfio")
    table.warnings.push_back(
        fmt::format("deviceDiscoveryStrategy {}: GPUs are found through NVML all the same, and "
                    "others are not served; write nvml or auto",
                    how));
  auto by_name = wished_of(hardware, config, held, table);
  const bool fail_greater =
      config.time_slicing && config.time_slicing->fail_requests_greater_than_one;
  for (auto& [name, building] : by_name) {
    if (const auto over = excess(name, building)) {
      if (oversize == Oversize::kRefuse) return fail(Code::kInvalidConfig, "{}", over->text);
      table.warnings.push_back(over->text + ": these are offered");
      for (Wish& wish : building.wishes) {
        wish.replicas = std::min(wish.replicas, over->most);
        wish.unheld = std::min(wish.unheld, over->most);
      }
    }
    table.resources[name] =
        finish(name, std::move(building), fail_greater, held, hardware.topology, table);
  }
  return table;
}

Status check_device_table(const Hardware& hardware, const Effective& config, const HeldIds& held) {
  DeviceTable none;
  for (const auto& [name, building] : wished_of(hardware, config, held, none))
    if (const auto over = excess(name, building))
      return fail(Code::kInvalidConfig, "{}", over->text);
  return {};
}

}  // namespace gpuslice::agent
