#include "agent/offered_ids.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace gpuslice::agent {
namespace {

constexpr std::string_view kBetween = "::";

// As replica_id() writes it, so that an id has one text: "7", not "07".
std::optional<uint32_t> number_of(std::string_view text) {
  uint32_t number = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = end.ec == std::errc() && end.ptr == text.data() + text.size();
  if (!whole || (text.size() > 1 && text.front() == '0')) return std::nullopt;
  return number;
}

}  // namespace

std::string replica_id(std::string_view uuid, uint32_t n) {
  std::array<char, 10> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), n);
  std::string id;
  id.reserve(uuid.size() + kBetween.size() + digits.size());
  return id.append(uuid).append(kBetween).append(digits.data(), end.ptr);
}

void OfferedIds::add(size_t base, const std::string& uuid, const std::vector<std::string>& ids) {
  Device& device = devices_[uuid];
  device.base = base;
  device.replicas.reserve(ids.size());
  for (const std::string_view id : ids) {
    if (id == uuid) {
      device.whole = true;
      continue;
    }
    const std::string_view text = id.substr(uuid.size() + kBetween.size());
    if (const auto number = number_of(text))
      device.replicas.push_back(*number);
    else
      device.other.emplace(text);
  }
  std::sort(device.replicas.begin(), device.replicas.end());
}

bool OfferedIds::Device::has(uint32_t replica) const {
  // Where nothing is held that goes beyond them these are 0, 1, 2 …
  if (replica < replicas.size() && replicas[replica] == replica) return true;
  return std::binary_search(replicas.begin(), replicas.end(), replica);
}

std::optional<OfferedIds::Place> OfferedIds::find(std::string_view id) const {
  const size_t at = id.find(kBetween);
  const auto it = devices_.find(id.substr(0, at));
  if (it == devices_.end()) return std::nullopt;
  const Device& device = it->second;
  if (at == std::string_view::npos)
    return device.whole ? std::optional(Place{device.base, 0, false}) : std::nullopt;
  const std::string_view text = id.substr(at + kBetween.size());
  if (const auto number = number_of(text)) {
    if (!device.has(*number)) return std::nullopt;
    return Place{device.base, *number, true};
  }
  return device.other.contains(text) ? std::optional(Place{device.base, 0, true}) : std::nullopt;
}

}  // namespace gpuslice::agent
