#include "agent/preferred.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <optional>
#include <string_view>

namespace gpuslice::agent {
namespace {

struct Slot {
  std::string_view id;
  uint32_t replica = 0;
};

bool comes_later(const Slot& a, const Slot& b) {
  return a.replica != b.replica ? a.replica > b.replica : a.id > b.id;
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

std::string take_lowest(Group& group) {
  if (!group.heaped) std::make_heap(group.free.begin(), group.free.end(), comes_later);
  group.heaped = true;
  std::pop_heap(group.free.begin(), group.free.end(), comes_later);
  std::string id(group.free.back().id);
  group.free.pop_back();
  return id;
}

// The physical GPU of a device: several MIG devices are on one.
struct Board {
  size_t in_use = 0;
  size_t picked = 0;
};

// What decides between two devices, most important first; the lesser goes before.
using Rank = std::array<size_t, 4>;

Rank rank_of(const Board& board, const Group& group, Policy policy) {
  constexpr size_t kMost = std::numeric_limits<size_t>::max();
  switch (policy) {
    case Policy::kPacked:
      return {kMost - board.in_use, kMost - group.in_use(), board.picked, group.picked};
    case Policy::kSpread:
      return {board.picked, group.picked, board.in_use, group.in_use()};
    case Policy::kDistributed:
      break;
  }
  return {board.in_use, group.in_use(), board.picked, group.picked};
}

// Devices of a table by board.
class Boards {
 public:
  explicit Boards(const ResourceTable& table) {
    std::map<std::string_view, size_t> seen;
    for (const BaseDevice& base : table.bases)
      board_of_.push_back(seen.emplace(base.gpu_uuid, seen.size()).first->second);
    boards_.resize(seen.size());
  }
  void add(size_t base, const Group& group) {
    boards_[board_of_[base]].in_use += group.in_use();
    boards_[board_of_[base]].picked += group.picked;
  }
  void pick(size_t base) {
    ++boards_[board_of_[base]].in_use;
    ++boards_[board_of_[base]].picked;
  }
  [[nodiscard]] const Board& of(size_t base) const { return boards_[board_of_[base]]; }

 private:
  std::vector<size_t> board_of_;  // by base
  std::vector<Board> boards_;
};

// Whole GPUs that are offered once each, so that it counts which ones go together.
bool goes_by_closeness(const ResourceTable& table) {
  return table.closeness.size() == table.bases.size() && table.bases.size() > 1;
}

std::vector<std::string> nearest(const ResourceTable& table, const std::vector<Group>& groups,
                                 const std::vector<std::string>& must, size_t count) {
  std::vector<size_t> available, included;
  for (const std::string& id : must) included.push_back(table.ids.find(id)->base);
  for (size_t base = 0; base < groups.size(); ++base)
    if (groups[base].left() > 0 ||
        std::find(included.begin(), included.end(), base) != included.end())
      available.push_back(base);
  std::vector<std::string> out = must;
  for (const size_t base : nearest_set(table.closeness, available, included, count))
    if (std::find(included.begin(), included.end(), base) == included.end())
      out.emplace_back(groups[base].free.front().id);
  return out;
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
  std::vector<std::string> unknown;  // of those that may be taken
  bool all_known = true;
  size_t free = 0;
  for (const std::string_view id : request.available) {
    if (!chosen.empty() && std::binary_search(chosen.begin(), chosen.end(), id)) continue;
    const std::optional<OfferedIds::Place> place = table.ids.find(id);
    if (!place || table.bases[place->base].withheld) {
      unknown.emplace_back(id);
      continue;
    }
    groups[place->base].free.push_back({id, place->replica});
    ++free;
  }
  for (const std::string& id : chosen) {
    const std::optional<OfferedIds::Place> place = table.ids.find(id);
    all_known = all_known && place.has_value();
    if (place) ++groups[place->base].picked;
  }
  if (goes_by_closeness(table) && all_known && free >= request.size - chosen.size())
    return nearest(table, groups, chosen, request.size);

  Boards boards(table);
  for (size_t base = 0; base < groups.size(); ++base) boards.add(base, groups[base]);
  while (chosen.size() < request.size) {
    std::optional<size_t> best;
    Rank best_rank{};
    for (size_t base = 0; base < groups.size(); ++base) {
      if (groups[base].left() == 0) continue;
      const Rank rank = rank_of(boards.of(base), groups[base], policy);
      if (best && rank >= best_rank) continue;
      best = base;
      best_rank = rank;
    }
    if (!best) break;
    chosen.push_back(take_lowest(groups[*best]));
    ++groups[*best].picked;
    boards.pick(*best);
  }
  for (size_t i = 0; i < unknown.size() && chosen.size() < request.size; ++i)
    chosen.push_back(unknown[i]);
  if (chosen.size() < request.size)
    return fail(Code::kInvalidConfig, "{}: an id stands twice among the available", table.name);
  return chosen;
}

}  // namespace gpuslice::agent
