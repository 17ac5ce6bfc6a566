#include "config/open_map.h"

#include <fmt/format.h>

#include <map>

namespace gpuslice::config {

std::vector<const Entry*> open_entries(const MapReader& maps, const Node& map,
                                       std::string_view prefix) {
  std::vector<const Entry*> out;
  std::map<std::string_view, size_t> seen;
  for (const Entry& entry : map.entries) {
    const auto [it, fresh] = seen.emplace(entry.key, out.size());
    if (fresh) {
      out.push_back(&entry);
      continue;
    }
    const Entry*& before = out[it->second];
    if (before->merged)
      before = &entry;
    else
      maps.problems().error(Mistake::kDuplicateKey, entry.place,
                            fmt::format("{}{} stands twice; it stood in line {} already", prefix,
                                        shown(entry.key), before->place.line));
  }
  return out;
}

}  // namespace gpuslice::config
