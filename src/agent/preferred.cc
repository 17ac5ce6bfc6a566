#include "agent/preferred.h"

#include <algorithm>
#include <charconv>

namespace gpuslice::agent {
namespace {

struct Slot {
  const std::string* id = nullptr;
  uint32_t replica = 0;
};

bool comes_later(const Slot& a, const Slot& b) {
  return a.replica != b.replica ? a.replica > b.replica : *a.id > *b.id;
}

// A device and what of it is free.
struct Group {
  std::vector<Slot> free;  // a heap once something was taken: the lowest replica in front
  bool heaped = false;
  size_t offered = 0;
  size_t picked = 0;
  [[nodiscard]] size_t left() const { return free.size(); }
  [[nodiscard]] size_t in_use() const { return offered - left(); }
};

uint32_t replica_of(const std::string& id) {
  const size_t at = id.rfind("::");
  uint32_t n = 0;
  if (at != std::string::npos) std::from_chars(id.data() + at + 2, id.data() + id.size(), n);
  return n;
}

std::string take_lowest(Group& group) {
  if (!group.heaped) std::make_heap(group.free.begin(), group.free.end(), comes_later);
  group.heaped = true;
  std::pop_heap(group.free.begin(), group.free.end(), comes_later);
  std::string id = *group.free.back().id;
  group.free.pop_back();
  return id;
}

bool goes_before(const Group& a, const Group& b, Policy policy) {
  if (a.in_use() != b.in_use())
    return policy == Policy::kDistributed ? a.in_use() < b.in_use() : a.in_use() > b.in_use();
  return a.picked < b.picked;
}

}  // namespace

Result<std::vector<std::string>> preferred(const ResourceTable& table,
                                           const ports::PreferredContainer& request,
                                           Policy policy) {
  if (request.size > request.available.size())
    return fail(Code::kInvalidConfig, "{}: {} devices asked for, {} available", table.name,
                request.size, request.available.size());
  if (request.must_include.size() > request.size)
    return fail(Code::kInvalidConfig, "{}: {} devices must be included in an allocation of {}",
                table.name, request.must_include.size(), request.size);
  std::vector<Group> groups(table.bases.size());
  for (const OfferedDevice& device : table.devices) ++groups[device.base].offered;
  for (Group& group : groups) group.free.reserve(group.offered);

  std::vector<std::string> chosen = request.must_include;
  std::sort(chosen.begin(), chosen.end());
  for (const std::string& id : chosen)
    if (table.find(id) == nullptr)
      return fail(Code::kInvalidConfig, "{}: device {} is not offered", table.name, id);
  size_t next =
      0;  // the kubelet sends ids in the order of our list: most are found where the last one ended
  for (const std::string& id : request.available) {
    int order = 1;  // of the id to that of the list's next device
    while (next < table.devices.size() && (order = id.compare(table.devices[next].id)) > 0) ++next;
    const bool here = next < table.devices.size() && order == 0;
    const OfferedDevice* device = here ? &table.devices[next] : table.find(id);
    if (device == nullptr)
      return fail(Code::kInvalidConfig, "{}: device {} is not offered", table.name, id);
    if (!chosen.empty() && std::binary_search(chosen.begin(), chosen.end(), id)) continue;
    groups[device->base].free.push_back({&id, replica_of(id)});
  }
  for (const std::string& id : chosen) ++groups[table.find(id)->base].picked;

  while (chosen.size() < request.size) {
    Group* best = nullptr;
    for (Group& group : groups)
      if (group.left() > 0 && (best == nullptr || goes_before(group, *best, policy))) best = &group;
    if (best == nullptr)
      return fail(Code::kInvalidConfig, "{}: an id stands twice among the available", table.name);
    chosen.push_back(take_lowest(*best));
    ++best->picked;
  }
  return chosen;
}

}  // namespace gpuslice::agent
